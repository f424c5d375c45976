"""The sandbox's own routes under /sandbox: what is true, what goes wrong, what arrived, and how to move time. Not part
of the upstream's protocol, and never faulty.

No key is asked for: the server belongs on loopback, and everything here is invented.
"""

from __future__ import annotations

import json
from typing import Any

from flask import Flask, Response, request

from swap.sandbox import answers
from swap.sandbox.refusals import refused
from swap.sandbox.scenarios import SCENARIOS, scenario_addresses
from swap.sandbox.timeline import Order
from swap.sandbox.wire import dump, iso
from swap.sandbox.world import World


def truth(world: World, destination: str | None = None) -> list[dict[str, Any]]:
    """Every order as it is, oldest first, and the answer to its create; with `destination`, those that pay out there."""
    return [
        {**answers.truth_json(order, world.look(order)), **_creation(world, order)}
        for order in world.orders()
        if destination in (None, order.destination)
    ]


def _creation(world: World, order: Order) -> dict[str, Any]:
    record = world.chaos.record(order.number)
    answered_ids = {"number": order.number, "string": str(order.number), "uuid": order.guid}
    return {
        "ids": [str(order.number), order.guid],
        "idForm": record.id_form,
        "answeredId": answered_ids[record.id_form],
        "createFault": record.create_fault,
        "wasAnswered": record.was_answered,
        "requestedDestination": order.destination,
        "echoedDestination": record.echoed_destination or order.destination,
        "listedAt": iso(record.listed_at),
        "looksAtOnce": record.most_at_once,
        "traits": sorted(record.traits),
        "faults": dict(record.fired),
    }


def add_control_routes(app: Flask, world: World) -> None:
    _add_fault_routes(app, world)

    @app.get("/sandbox/health")
    def _sandbox_health() -> Response:
        return _json(
            {
                "status": "ok",
                "now": iso(world.now()),
                "speed": world.speed,
                "seed": world.seed,
                "instruments": len(world.catalog.instruments),
                "pairs": len(world.catalog.pairs),
                "orders": len(world.orders()),
            }
        )

    @app.get("/sandbox/scenarios")
    def _sandbox_scenarios() -> Response:
        addresses = scenario_addresses()
        return _json(
            [
                {
                    "name": scenario.name,
                    "meaning": scenario.meaning,
                    "addresses": addresses[scenario.name],
                    "events": [{"kind": kind, "seconds": at} for kind, at in scenario.events],
                }
                for scenario in SCENARIOS.values()
            ]
        )

    @app.get("/sandbox/orders")
    def _sandbox_orders() -> Response:
        """Oldest first; `destination` as a filter."""
        return _json(truth(world, request.args.get("destination")))

    @app.post("/sandbox/advance")
    def _sandbox_advance() -> Response:
        try:
            seconds = json.loads(request.get_data())["seconds"]
            if isinstance(seconds, bool) or not isinstance(seconds, int | float):
                raise ValueError("seconds must be a number")
            world.advance(seconds)
        except (ValueError, TypeError, KeyError) as error:
            raise refused(400, f"advance: {error}") from None
        return _json({"now": iso(world.now())})


def _add_fault_routes(app: Flask, world: World) -> None:
    @app.get("/sandbox/faults")
    def _sandbox_faults() -> Response:
        return _json(world.chaos.report())

    @app.put("/sandbox/faults")
    def _sandbox_change_faults() -> Response:
        """{"profile": "chaos", "create.drop": 0.5, "delay_seconds": 0.2}: all of it or none."""
        try:
            world.chaos.change(_object())
        except ValueError as error:
            raise refused(400, f"faults: {error}") from None
        return _json(world.chaos.report())

    @app.post("/sandbox/faults/next")
    def _sandbox_next_fault() -> Response:
        """{"fault": "create.drop", "count": 2}."""
        try:
            body = _object()
            if not isinstance(body.get("fault"), str) or body.keys() - {"fault", "count"}:
                raise ValueError("wanted: fault, and count or nothing")
            world.chaos.force(body["fault"], body.get("count", 1))
        except ValueError as error:
            raise refused(400, f"next fault: {error}") from None
        return _json(world.chaos.report())

    @app.get("/sandbox/load")
    def _sandbox_load() -> Response:
        return _json(world.load.report())


def _object() -> dict[str, Any]:
    """Raises ValueError for a body that is no JSON object."""
    body = json.loads(request.get_data())
    if not isinstance(body, dict):
        raise ValueError("a JSON object is wanted")
    return body


def _json(value: Any) -> Response:
    return Response(dump(value), mimetype="application/json")
