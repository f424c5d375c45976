"""Rows made by hand, for tests of what stands below the use cases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from swap.domain.lifecycle import Facts, Status
from swap.orders.validation import Destination, InstrumentName, OrderRequest
from swap.store import clients, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.upstream_orders import Told
from swap.tables import Order, UpstreamOrder, UpstreamRef, new_id

NOON = datetime(2025, 10, 9, 12, 0, tzinfo=UTC)


def order_row(client_id: str, **changed: Any) -> Order:
    """A BTC to XRP order that waits for its deposit, unless changed; not yet written."""
    values: dict[str, Any] = {
        "id": new_id("ord"),
        "client_id": client_id,
        "client_order_id": new_id("test"),
        "request": {"amount": "0.0125"},
        "version": 1,
        "sequence": 1,
        "status": Status.AWAITING_DEPOSIT,
        "status_changed_at": NOON,
        "from_currency": "BTC",
        "from_network": "BTC",
        "to_currency": "XRP",
        "to_network": "XRP",
        "rate_mode": "FLOATING",
        "amount": Decimal("0.0125"),
        "rate": {},
        "destination_address": "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw",
        "order_metadata": {},
        "upstream_key": "pk_test",
        "upstream_order_id": None,
        "deposit_kind": "address",
        "deposit_address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "payable": True,
        "facts": Facts().to_json(),
        "token_version": 0,
        "failures": 0,
        "next_check_at": NOON,
        "created_at": NOON,
        "updated_at": NOON,
        **changed,
    }
    return Order(**values)


def order_request(**stored: Any) -> OrderRequest:
    """The request of which an order keeps these fields."""
    refund = Destination(stored.get("refund_address"), stored.get("refund_memo"), stored.get("refund_memo_none", False))
    others = {
        name: value
        for name, value in stored.items()
        if name.partition("_")[0] not in ("from", "to", "destination", "refund")
    }
    return OrderRequest(
        **{**others, "amount": Decimal(stored["amount"])},
        source=InstrumentName(stored["from_currency"], stored["from_network"]),
        target=InstrumentName(stored["to_currency"], stored["to_network"]),
        destination=Destination(
            stored["destination_address"], stored.get("destination_memo"), stored.get("destination_memo_none", False)
        ),
        refund=None if refund == Destination() else refund,
    )


def make_client(database: Database, name: str = "shop") -> str:
    with database.write() as session:
        return clients.client_named(session, name, 6000, NOON).id


def make_order(database: Database, client_id: str | None = None, **changed: Any) -> Order:
    """Write an order, with its order.created event."""
    row = order_row(client_id or make_client(database), **changed)
    with database.write() as session:
        assert order_rows.insert(session, row)
    return read_order(database, row.id)


def make_orders(database: Database, count: int, client_id: str | None = None, **changed: Any) -> list[str]:
    """Write many orders in one transaction, due one after the other. Returns their ids."""
    client_id = client_id or make_client(database)
    made = [
        order_row(client_id, **{"next_check_at": NOON + timedelta(milliseconds=number), **changed})
        for number in range(count)
    ]
    with database.write() as session:
        for row in made:
            assert order_rows.insert(session, row)
    return [row.id for row in made]


def read_order(database: Database, order_id: str) -> Order:
    with database.read() as session:
        order = order_rows.get(session, order_id)
    assert order is not None
    return order


def move(database: Database, order: Order, /, **changes: Any) -> Order | None:
    """Take the order through the door, in a transaction of its own."""
    with database.write() as session:
        return order_rows.move(session, order, changes, at=NOON + timedelta(minutes=1), source="test")


def told(*refs: str, **changed: Any) -> Told:
    """What is known of an upstream order with these ids."""
    known: dict[str, Any] = {"upstream_key": "pk", "destination_address": None, "amount": Decimal("0.5"), **changed}
    return Told(primary=refs[0], refs=refs, **known)


def show(database: Database, order: Order, *refs: str) -> set[str]:
    """Make the upstream order with these ids the one that the customer was shown."""
    with database.write() as session:
        return upstream_orders.show(session, order, told(*refs), NOON)


def forget_upstream_orders(session: Session) -> None:
    """As if we had never heard of an upstream order."""
    session.execute(delete(UpstreamRef))
    session.execute(delete(UpstreamOrder))


def upstream_owners(database: Database) -> dict[str, str | None]:
    """Each id of the upstream, and the order of ours that it belongs to."""
    query = select(UpstreamRef.ref, UpstreamOrder.order_id)
    with database.read() as session:
        rows = session.execute(query.join(UpstreamOrder, UpstreamOrder.id == UpstreamRef.upstream_order))
        return {row[0]: row[1] for row in rows}
