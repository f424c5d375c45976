"""One drill from beginning to end: place and strike, wait until it agrees with the truth, audit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from drill.address_checks import address_checks
from drill.api import Api
from drill.audit import order_checks
from drill.delivery_checks import hearing_checks
from drill.environment import SCHEDULERS, Stage
from drill.evidence import Check, Evidence
from drill.fault_injection import FaultInjector
from drill.invariants import budget, complaints, lived, one_look, resolver, secrets_kept, went_on
from drill.load import Crowd
from drill.plan import ENDPOINT_CLIENTS, Plan
from drill.sandbox_truth import Upstream
from drill.service_cli import ToolFailed
from drill.workload import wants

Say = Callable[[str], None]
_POLL_SECONDS = 1.5
_LAST_SECONDS = 6.0


@dataclass(frozen=True)
class Outcome:
    """`figures`: what is told besides the checks, ready for JSON."""

    plan: Plan
    database: str
    checks: list[Check]
    figures: dict[str, Any]
    seconds: float

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def violated(self) -> set[str]:
        return {check.name for check in self.checks if not check.passed}


def run(plan: Plan, folder: Path, say: Say) -> Outcome:
    """Raises PartFailed and ToolFailed when the service cannot even be started; everything later is a violation."""
    began = time.monotonic()
    say("starting the service")
    with Stage(plan, folder) as stage:
        say(f"ready after {time.monotonic() - began:.0f} s on {stage.store.kind}; placing {plan.orders} orders")
        drill = _Drill(plan, stage, began, say)
        drill.place()
        pending = drill.wait()
        say("gathering")
        drill.quieten()
        evidence = drill.gather(pending)
        evidence.keep(folder)
        stopped = stage.stop()
        database = stage.store.kind
    checks = [*order_checks(evidence), *address_checks(evidence), *hearing_checks(evidence), budget(evidence)]
    checks += [one_look(evidence), went_on(evidence)]
    checks += [secrets_kept(stage.parts.logs, stage.secrets), lived(stage.parts, stopped)]
    return Outcome(plan, database, checks, _figures(evidence, stage.parts.logs), time.monotonic() - began)


class _Drill:
    def __init__(self, plan: Plan, stage: Stage, began: float, say: Say) -> None:
        self._plan, self._stage, self._began, self._say = plan, stage, began, say
        self._conductor = FaultInjector(plan, stage.parts, stage.store, stage.redis_url)
        self._crowd = Crowd(plan, stage.api_url, stage.keys, wants(plan, stage.sandbox.addresses()))
        self._apis = [Api(stage.api_url, stage.keys[client, 0], timeout=10) for client in range(ENDPOINT_CLIENTS)]
        self._asked_for_orphans = 0.0
        self._orphans: set[str] = set()

    def place(self) -> None:
        """Until every client is done and every blow was dealt."""
        until = self._began + self._plan.settled_by
        self._crowd.start(give_up_at=until)
        while (self._crowd.busy or self._conductor.busy) and time.monotonic() < until:
            known = len(self._conductor.dealt)
            self._conductor.step(time.monotonic() - self._crowd.began)
            for _, _, name in self._conductor.dealt[known:]:
                self._say(f"{time.monotonic() - self._began:5.0f} s  {name}")
            self._stage.parts.restart_dead(self._conductor.down)
            time.sleep(0.05)
        self._conductor.end()

    def wait(self) -> list[str]:
        """Until service and truth agree. Returns what they do not agree on when time is up."""
        said = 0.0
        while True:
            self._stage.parts.restart_dead()
            try:
                pending = self._pending()
            except (requests.RequestException, ValueError, ToolFailed) as error:
                pending = [f"cannot be asked: {type(error).__name__} {error}"]
            if not pending or time.monotonic() > self._began + self._plan.settled_by:
                return pending
            if time.monotonic() - said > 10:
                said = time.monotonic()
                self._say(f"{said - self._began:5.0f} s  {len(pending)} open, such as {pending[0]}")
            time.sleep(_POLL_SECONDS)

    def _pending(self) -> list[str]:
        truth = self._stage.sandbox.orders()
        by_id = {ref: upstream for upstream in truth for ref in upstream.ids}
        pending: list[str] = []
        owned: set[str] = set()
        for client, api in enumerate(self._apis):
            endpoints = [e for e in self._stage.receiver.endpoints.values() if e.client == client]
            for order in api.orders():
                upstream = by_id.get(order["upstream_order_id"])
                if upstream is not None:
                    owned.add(upstream.ids[0])
                reason = _open(order, upstream)
                for endpoint in endpoints:
                    heard = self._stage.receiver.taken(endpoint.name, order["id"])
                    if reason is None and heard < order["sequence"]:
                        reason = f"{endpoint.name} has taken {heard} of {order['sequence']} events"
                if reason is not None:
                    pending.append(f"{order['id']}: {reason}")
        loose = [upstream for upstream in truth if upstream.ids[0] not in owned]
        if loose and time.monotonic() - self._asked_for_orphans > 5:
            self._asked_for_orphans = time.monotonic()
            # Before there is such a command, or while the database is away: not reported is the answer.
            with suppress(ToolFailed):
                told = self._ask_orphans()
                self._orphans = {str(ref) for one in told for ref in (one["upstream_order_id"], *one["refs"])}
        return pending + [f"{up.name} belongs to nobody" for up in loose if not self._orphans & set(up.ids)]

    def _ask_orphans(self) -> list[dict[str, Any]]:
        return list(self._stage.tools.run("orders", "orphans", "--json")["orphans"])

    def quieten(self) -> None:
        """Nothing more becomes due, so that what is gathered is all of one moment; what has begun comes to its end."""
        self._stage.parts.stop_first(SCHEDULERS)
        until = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < until:
            with suppress(requests.RequestException, ValueError, ToolFailed):
                if not self._pending():
                    break
            time.sleep(_POLL_SECONDS)

    # --- evidence ----------------------------------------------------------------------------------------------------

    def gather(self, pending: list[str]) -> Evidence:
        stage = self._stage
        # First, so that whatever is still moving can only be further in the service than it is here.
        truth = stage.sandbox.orders()
        orders: dict[int, list[dict[str, Any]]] = {}
        feeds: dict[int, list[dict[str, Any]]] = {}
        unreadable: dict[str, str] = {}
        for client, api in enumerate(self._apis):
            try:
                orders[client] = list(api.orders())
                feeds[client] = list(api.feed())
            except (requests.RequestException, ValueError) as error:
                unreadable[f"client {client}"] = f"its orders cannot be listed: {type(error).__name__} {error}"
                orders.setdefault(client, [])
            for order in orders[client]:
                reason = _read_alone(api, order)
                if reason is not None:
                    unreadable[order["id"]] = reason
        shown: dict[str, dict[str, Any]] = {}
        for order_id in [order["id"] for listed in orders.values() for order in listed]:
            try:
                shown[order_id] = stage.tools.run("orders", "show", order_id, "--json")
            except ToolFailed as error:
                unreadable[order_id] = str(error)
        try:
            orphans = self._ask_orphans()
        except ToolFailed as error:
            orphans = []
            unreadable["orphans"] = str(error)
        return Evidence(
            plan=self._plan,
            records=self._crowd.snapshot(),
            orders=orders,
            feeds=feeds,
            shown=shown,
            unreadable=unreadable,
            truth=truth,
            orphans=orphans,
            arrivals=stage.receiver.arrivals(),
            endpoints=list(stage.receiver.endpoints.values()),
            unverified=list(stage.receiver.unverified),
            load=stage.sandbox.get("/sandbox/load"),
            faults=stage.sandbox.get("/sandbox/faults"),
            blows=list(self._conductor.dealt),
            pending=pending,
        )


def _open(order: dict[str, Any], upstream: Upstream | None) -> str | None:
    """Why the order is not where it must end, or None."""
    true_status = None if upstream is None else upstream.status
    if order["status"] == "failed" and true_status is None:
        return None
    if order["status"] == "creating":
        return f"still creating ({order['status_reason']})"
    if upstream is None or true_status is None or not upstream.at_rest:
        return f"is {order['status']}, and the truth still moves"
    if order["status"] != true_status:
        return f"is {order['status']}, the truth is {true_status}"
    if len(order["deposits"]) != len(upstream.deposits):
        return f"has {len(order['deposits'])} deposits, the truth {len(upstream.deposits)}"
    return None


def _read_alone(api: Api, order: dict[str, Any]) -> str | None:
    try:
        answer = api.get(f"/v1/orders/{order['id']}")
    except (requests.RequestException, ValueError) as error:
        return f"cannot be read: {type(error).__name__} {error}"
    if answer.status != 200 or answer.data.get("client_order_id") != order["client_order_id"]:
        return f"is read as {answer.status} {answer.code}"
    return None


def _figures(e: Evidence, logs: Path) -> dict[str, Any]:
    right = [record for record in e.records if record.want.right]
    to_accept = sorted(r.accepted_at - r.first_at for r in right if r.accepted_at is not None)
    return {
        "requests_placed": len(e.records),
        "orders": len(e.all_orders),
        "upstream_orders": len(e.truth),
        "orphans": e.orphans,
        "accepted_after_p50": round(to_accept[len(to_accept) // 2], 2) if to_accept else None,
        "accepted_after_p95": round(to_accept[int(len(to_accept) * 0.95)], 2) if to_accept else None,
        "statuses": Counter(order["status"] for _, order in e.all_orders.values()),
        "resolver": resolver(e),
        "webhooks": {"arrived": len(e.arrivals), "taken": sum(a.taken for a in e.arrivals)},
        "upstream": {"requests": e.faults["requests"], "peak": e.load["peak"], "total": e.load["total"]},
        "faults": {name: count for name, count in e.faults["fired"].items() if count},
        "blows": [{"from": at, "to": to, "kind": name} for at, to, name in e.blows],
        "logged_errors": complaints(logs),
    }
