"""What was told: events, feed and webhooks, against each other and against what the receiver verified."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from drill.evidence import Check, Evidence
from drill.receiver import Arrival, Endpoint
from drill.sandbox_truth import moment, seconds


def hearing_checks(e: Evidence) -> list[Check]:
    return [sequences(e), feeds(e), delivered(e), in_order(e), verified(e)]


def sequences(e: Evidence) -> Check:
    check = Check("sequences", "every order's public events are numbered 1..n, n being the order's sequence")
    for order_id, record in e.shown.items():
        check.looked_at += 1
        last = record["order"]["sequence"]
        found = [event["sequence"] for event in e.public_events(order_id)]
        if found != list(range(1, last + 1)):
            check.fail(f"{order_id} at sequence {last} has events {found}")
    return check


def feeds(e: Evidence) -> Check:
    check = Check("feed", "the feed has every public event once, in order, with ascending cursors")
    for client, orders in e.orders.items():
        told: dict[str, list[int]] = defaultdict(list)
        last = ""
        for event in e.feeds.get(client, ()):
            check.looked_at += 1
            told[event["order_id"]].append(event["sequence"])
            if event["cursor"] <= last:
                check.fail(f"{event['id']} of {event['order_id']}: cursor {event['cursor']} after {last}")
            last = event["cursor"]
        for order in orders:
            found = told[order["id"]]
            # Read after the orders were: it may know more of one that still moved.
            if found != list(range(1, max(order["sequence"], len(found)) + 1)):
                check.fail(f"{order['id']} at sequence {order['sequence']} is in the feed as {told[order['id']]}")
    return check


def delivered(e: Evidence) -> Check:
    check = Check("delivered", "every public event reached every endpoint of its client, or is marked failed")
    taken = {(a.endpoint, a.order_id, a.sequence) for a in e.arrivals if a.taken}
    given_up = 0
    for endpoint in e.endpoints:
        for order in e.orders.get(endpoint.client, ()):
            marks = _marks(e, endpoint, order["id"])
            for sequence in range(1, order["sequence"] + 1):
                check.looked_at += 1
                if (endpoint.name, order["id"], sequence) in taken:
                    continue
                if marks.get(sequence) == "failed":
                    given_up += 1
                    continue
                check.fail(f"{order['id']} #{sequence} never came to {endpoint.name}; delivery {marks.get(sequence)}")
    first = _first_arrivals(e.arrivals)
    repeats = len([a for a in e.arrivals if a.taken]) - len(taken)
    refused = sum(1 for a in e.arrivals if not a.taken)
    waits = sorted(a.at - _written(a) for a in first.values())
    p95 = waits[int(len(waits) * 0.95)] if waits else 0
    median = waits[len(waits) // 2] if waits else 0
    check.figure = f"{refused} answered badly, {repeats} repeats, {given_up} given up; delay {median:.2f} / {p95:.2f} s"
    return check


def _marks(e: Evidence, endpoint: Endpoint, order_id: str) -> dict[int, str]:
    """The status of the deliveries to this endpoint, by sequence."""
    rows: list[dict[str, Any]] = e.shown.get(order_id, {}).get("deliveries", [])
    return {row["sequence"]: row["status"] for row in rows if row["endpoint_id"] == endpoint.id}


def _written(arrival: Arrival) -> float:
    return seconds(arrival.body["timestamp"])


def _first_arrivals(arrivals: list[Arrival]) -> dict[tuple[str, str, int], Arrival]:
    first: dict[tuple[str, str, int], Arrival] = {}
    for arrival in arrivals:
        first.setdefault((arrival.endpoint, arrival.order_id, arrival.sequence), arrival)
    return first


def in_order(e: Evidence) -> Check:
    """An event may come when all before it were taken, or given up. That one comes again later is allowed: at least once."""
    check = Check("order", "per order and endpoint nothing came before its elder was taken")
    first = _first_arrivals(e.arrivals)
    taken_at: dict[tuple[str, str, int], float] = {}
    for arrival in e.arrivals:
        if arrival.taken:
            taken_at.setdefault((arrival.endpoint, arrival.order_id, arrival.sequence), arrival.until)
    marks = {
        (endpoint.name, order_id): _marks(e, endpoint, order_id) for endpoint in e.endpoints for order_id in e.shown
    }
    for (endpoint, order_id, sequence), arrival in first.items():
        check.looked_at += 1
        if sequence == 1 or marks.get((endpoint, order_id), {}).get(sequence - 1) == "failed":
            continue
        elder = taken_at.get((endpoint, order_id, sequence - 1))
        if elder is None or elder > arrival.at:
            when = "never" if elder is None else moment(elder)
            check.fail(
                f"{order_id} #{sequence} came to {endpoint} at {moment(arrival.at)}, #{sequence - 1} was taken {when}"
            )
    return check


def verified(e: Evidence) -> Check:
    check = Check("verified", "every webhook verified, and said what the event says", len(e.arrivals))
    check.violations = list(e.unverified)
    events = {event["id"]: event for order_id in e.shown for event in e.public_events(order_id)}
    told: Counter[str] = Counter()
    clients = {endpoint.name: endpoint.client for endpoint in e.endpoints}
    for arrival in e.arrivals:
        event, data = events.get(arrival.event_id), arrival.body["data"]
        told[arrival.body["type"]] += 1
        if event is None:
            check.fail(f"{arrival.event_id} of {arrival.order_id} is no event of the order's")
        elif (arrival.body["type"], data["order"], data["sequence"]) != (
            event["type"],
            event["order"],
            event["sequence"],
        ):
            check.fail(f"{arrival.event_id} of {arrival.order_id} says something else than the event")
        elif e.all_orders.get(arrival.order_id, (None,))[0] != clients[arrival.endpoint]:
            check.fail(f"{arrival.event_id} of {arrival.order_id} went to another client's endpoint {arrival.endpoint}")
    return check
