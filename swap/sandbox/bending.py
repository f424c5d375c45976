"""Answers about an order, bent the way its record and the turn say. Pure: JSON in, JSON out, nothing is decided here."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from swap.sandbox import faults, scenarios
from swap.sandbox.chaos import OrderRecord
from swap.sandbox.timeline import Order, Snapshot
from swap.sandbox.wire import iso, json_number

# Invented, and none of them holds a word that is known to mean something (docs/upstream.md section 5): whoever guesses by
# parts of words should not be able to guess these.
UNKNOWN_KINDS = ("LIQUIDITY_ROUTE_SELECTED", "ORACLE_SNAPSHOT_TAKEN", "LEDGER_ENTRY_POSTED", "QUORUM_NODE_SWITCHED")
_STALE_DEPTH = 3

Answer = dict[str, Any]


def created(answer: Answer, order: Order, record: OrderRecord, fault: str | None) -> Answer:
    """E6."""
    result = _numeric_memos(answer) if faults.NUMERIC_MEMO in record.traits else dict(answer)
    if record.id_form == "string":
        result["orderId"] = str(order.number)
    elif record.id_form == "uuid":
        # Whether such an answer still has `legacyOrderId` is not known. It stays: it is the same UUID, no second id.
        result["orderId"] = order.guid
    if fault == faults.OTHER_DESTINATION:
        result["destinationAddress"] = record.echoed_destination
    if fault == faults.NO_DEPOSIT:
        result["depositAddress"] = None
    return result


def other_destination(order: Order) -> str:
    """A valid address of the target's network that is not the order's."""
    seed = hashlib.sha256(f"other destination {order.seed} {order.number}".encode()).digest()
    return order.pair.target.network.form.encode(seed)


def info(
    answer: Answer, record: OrderRecord, *, asked_with: str | None, bends: Collection[str], chance: float
) -> Answer:
    """E8. `asked_with`: the id in the query; `bends`: the `events.` faults of this answer; `chance` decides the order of
    shuffled ones."""
    result = _numeric_memos(answer) if faults.NUMERIC_MEMO in record.traits else dict(answer)
    if faults.BARE_INFO in record.traits:
        # What is left is the documented sample, which has none of these.
        for name in ("depositAddress", "destinationAddressMemo", "refundAddress", "refundAddressMemo"):
            del result[name]
    if faults.ONE_ID in record.traits and asked_with is not None:
        del result["legacyOrderId"]
        if asked_with == answer["legacyOrderId"]:
            result["orderId"] = asked_with
    if faults.DOUBLED in record.traits:
        result["deposits"] = [deposit for deposit in answer["deposits"] for _ in range(2)]
    result["orderEvents"] = _events(answer["orderEvents"], bends, chance)
    return result


def _events(newest_first: list[Answer], bends: Collection[str], chance: float) -> list[Answer]:
    events = list(newest_first)
    if faults.UNKNOWN_KIND in bends:
        events.insert(0, _unknown_after(events[0]))
    if faults.DUPLICATED in bends:
        events = [event for event in events for _ in range(2)]
    if faults.OLDEST_FIRST in bends:
        events.reverse()
    if faults.SHUFFLED in bends:
        before = list(events)
        random.Random(chance).shuffle(events)  # noqa: S311 - repeats with the seed
        if events == before:
            events.append(events.pop(0))
    return events


def _unknown_after(event: Answer) -> Answer:
    """A millisecond later, and the same kind whenever it is shown after this event: a client that merges what it has
    seen must not collect a new one with every look."""
    at = datetime.fromisoformat(event["createdAt"]) + timedelta(milliseconds=1)
    place = hashlib.sha256(f"{event['kind']} {event['createdAt']}".encode()).digest()[0]
    return {"kind": UNKNOWN_KINDS[place % len(UNKNOWN_KINDS)], "createdAt": iso(at.timestamp())}


def stale_moment(seen: Snapshot, chance: float) -> float | None:
    """Just before one of the last three things that happened to an order, in Unix seconds; None when nothing did.

    Bound to changes and not to an age: an answer that is some seconds old is the same answer nearly always, at speed 1.
    """
    changes = [at for kind, at in seen.events if kind != scenarios.CREATED]
    if not changes and seen.is_expired:
        changes = [seen.updated_at]
    recent = changes[:_STALE_DEPTH]
    return recent[int(chance * len(recent))] - 0.001 if recent else None


def _numeric_memos(answer: Answer) -> Answer:
    result = dict(answer)
    for name in ("destinationAddressMemo", "refundAddressMemo"):
        result[name] = _numeric(result[name])
    result["depositAddress"] = {
        name: _numeric(value) if name == "depositAddressMemo" else value
        for name, value in result["depositAddress"].items()
    }
    return result


def _numeric(memo: str | None) -> str | int | None:
    number = json_number(memo)
    return memo if number is None else number
