"""What support sees of one order."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from swap.access.keys import Keys
from swap.domain.times import Timing
from swap.errors import NotFound
from swap.infra.vault import Vault
from swap.ops.support import Support
from swap.push.delivering import Deliverer
from swap.push.endpoints import Endpoints
from swap.push.feed import Feed
from swap.store import attempts as attempt_rows
from swap.store import events
from swap.store.database import Database
from tests.conftest import Clock
from tests.factories import NOON, make_order, move, read_order, show
from tests.product import NoQueue
from tests.receivers import receiving


def test_the_record_holds_attempts_events_with_the_journal_and_deliveries(database: Database, clock: Clock) -> None:
    vault = Vault(["a key for tests, of at least 32 characters"])
    keys = Keys(database, vault, clock)
    made = keys.create("shop")
    caller = keys.caller(made.key)
    assert caller is not None
    queue: Any = NoQueue()
    endpoints = Endpoints(database, vault, queue, clock, allow_private=True)
    order = make_order(
        database,
        caller.client_id,
        status="creating",
        deposit_kind=None,
        deposit_address=None,
        payable=False,
        markup=Decimal("0.50"),
        created_at=NOON,
    )
    with database.write() as session:
        number = attempt_rows.start_attempt(session, order, NOON)
        attempt_rows.finish_attempt(
            session, order.id, number, outcome="done", refs=["90210"], finished_at=NOON, http_status=201, answer="{}"
        )
    show(database, order, "90210", "guid")
    move(database, order, status="in_doubt")
    accepted = {"status": "awaiting_deposit", "deposit_kind": "address", "deposit_address": "bc1qx", "payable": True}
    move(database, read_order(database, order.id), **accepted)
    with database.write() as session:
        at = NOON + timedelta(minutes=2)
        events.add_event(session, order, "journal.refused", at=at, detail={"source": "look", "refused": "expired"})

    with receiving() as receiver:
        endpoints.add(made.key, f"{receiver.url}/hook", trusted=True)
        receiver.answers["/hook"] = 500
        Feed(database, queue, clock).publish()
        Deliverer(database, vault, Timing(now=clock), allow_private=True, timeout=5).deliver_due()

    record = Support(database).record(order.id)
    assert list(record) == ["order", "upstream_orders", "attempts", "events", "deliveries"]
    assert record["order"]["status"] == "awaiting_deposit"
    internal = record["order"]["internal"]
    assert internal["upstream_refs"] == ["90210", "guid"]
    assert (internal["version"], internal["markup"], internal["deposit_address"]) == (3, "0.5", "bc1qx")
    (attempt,) = record["attempts"]
    assert (attempt["number"], attempt["outcome"], attempt["refs"], attempt["http_status"]) == (
        1,
        "done",
        ["90210"],
        201,
    )
    assert attempt["sent_at"] == "2025-10-09T12:00:00.000Z"
    assert [(e["type"], e["sequence"]) for e in record["events"]] == [
        ("order.created", 1),
        ("journal.in_doubt", None),
        ("order.awaiting_deposit", 2),
        ("journal.refused", None),
    ]
    assert record["events"][-1]["detail"] == {"source": "look", "refused": "expired"}
    assert [(d["sequence"], d["status"], d["attempts"], d["response_status"]) for d in record["deliveries"]] == [
        (1, "pending", 1, 500),
        (2, "pending", 0, None),
    ]
    text = json.dumps(record)
    assert "whsec_" not in text
    assert made.secret not in text


def test_an_order_that_does_not_exist_is_not_found(database: Database) -> None:
    with pytest.raises(NotFound) as caught:
        Support(database).record("ord_" + "x" * 500)
    assert caught.value.code == "ORDER_NOT_FOUND"
    assert len(caught.value.message) < 120
