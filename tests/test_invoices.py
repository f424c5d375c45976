"""A Lightning invoice is read for its terms: when it expires, and how much it is for."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap import addresses
from swap.addresses.lightning import decode
from swap.domain import invoices
from swap.errors import OrderRefused
from swap.orders.validation import offline_verdict
from swap.sandbox.world import World
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import InstrumentRow
from swap.wiring import Service
from tests.conftest import Clock
from tests.factories import NOON, make_order
from tests.faults import App, Environ, Faults, answering, spoiling
from tests.invoices import HOUR, invoice
from tests.signed_client import XRP, Answer, Calls

LIGHTNING = {"currency": "BTC", "network": "Lightning"}
TARGET = InstrumentRow(
    currency="BTC",
    network="Lightning",
    currency_key="btc",
    network_key="lightning",
    type="crypto",
    precision=11,
    requires_memo=False,
    active=True,
)
MOMENTS = st.integers(1_577_836_800, 2_051_222_400).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


@given(MOMENTS, st.none() | st.integers(1, 10**9), st.none() | st.integers(1, 10**14), st.integers(0, 10))
def test_the_invoices_of_these_tests_are_read_as_they_were_written(
    created: datetime, expiry: int | None, msat: int | None, hints: int
) -> None:
    amount = None if msat is None else Decimal(msat) / 10**11
    text = invoice(created, amount=None if amount is None else format(amount, "f"), expiry=expiry, hints=hints)
    read = decode(text)
    assert (read.created_at, read.expires_at - read.created_at) == (int(created.timestamp()), expiry or HOUR)
    assert invoices.amount_of(read) == amount
    verdict = addresses.validate("BTC", "Lightning", text)
    assert (verdict.status, verdict.invoice) == ("valid", read)


@given(MOMENTS, st.integers(0, 3 * HOUR), st.integers(0, 3 * HOUR))
def test_an_invoice_that_can_be_paid_after_the_swap_could_be_paid_before_it(
    created: datetime, expiry: int, later: int
) -> None:
    terms = decode(invoice(created, expiry=expiry))
    now = created + timedelta(seconds=later)
    assert invoices.is_in_time(terms, now) == (
        int(created.timestamp()) + expiry - now.timestamp() >= invoices.PAYOUT_NEEDS.total_seconds()
    )


@pytest.mark.parametrize(
    ("asked", "paid", "fits"),
    [
        (None, "0.0038", True),
        ("0.0038", "0.0038", True),
        ("0.0038", "0.0038000099", True),
        ("0.0038", "0.00380001", False),
        ("0.0038", "0.00379999999", False),
        ("0.0038", "0.0000038", False),
    ],
)
def test_only_a_payout_of_its_own_amount_pays_an_invoice(asked: str | None, paid: str, fits: bool) -> None:
    assert invoices.takes(decode(invoice(NOON, amount=asked)), Decimal(paid)) == fits


def test_an_invoice_that_expired_years_ago_is_no_destination() -> None:
    old = invoice(datetime(2017, 6, 1, tzinfo=UTC), amount="0.0038", expiry=60)
    assert addresses.validate("BTC", "Lightning", old).status == "valid"  # its form is: nothing there knows the time
    verdict = offline_verdict(TARGET, old, None, NOON)
    assert (verdict.status, verdict.reason, verdict.field) == ("invalid", "invoice_expired", "address")
    assert verdict.hint is not None and "30 minutes" in verdict.hint
    assert verdict.send_address is None


# --- an upstream that pays to Lightning ------------------------------------------------------------------------------


@pytest.fixture
def lightning(service: Service, faults: Faults) -> Faults:
    """The sandbox knows no Lightning: what it answers about bitcoin on its own chain is said of Lightning."""
    faults["instruments"] = spoiling(_with_lightning)
    faults["pairs"] = spoiling(lambda pairs: [*pairs, *(_on_lightning(p) for p in pairs if _is_to_bitcoin(p))])
    faults["validate"] = answering(200, b"true")
    faults["rate"] = _rate
    faults["create"] = _created
    assert service.catalog.refresh()
    return faults


def _with_lightning(instruments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bitcoin = next(row for row in instruments if (row["currencyTitle"], row["networkTitle"]) == ("BTC", "BTC"))
    return [*instruments, {**bitcoin, "networkTitle": "Lightning"}]


def _is_to_bitcoin(pair: dict[str, Any]) -> bool:
    return '"BTC"' in json.dumps(_to(pair))


def _to(pair: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in pair.items() if "To" in name}


def _on_lightning(pair: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(_to(pair)).replace('etworkTitle": "BTC"', 'etworkTitle": "Lightning"')
    return {**pair, **json.loads(text)}


def _rate(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
    environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("=Lightning", "=BTC")
    return spoiling(_on_lightning)(environ, app)


def _created(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
    asked = json.loads(environ["wsgi.input"].getvalue())
    rate = asked["claimedPublicRate"]
    deposit = {"depositAddress": "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh", "depositAddressMemo": "77"}
    answer = {**asked, "orderId": 700001, "depositAddress": deposit, "amountToGet": rate["claimedAmountToReceive"]}
    return "201 Created", [("Content-Type", "application/json")], json.dumps(answer).encode()


def placed(calls: Calls, text: str, **changed: Any) -> Answer:
    order = {"from": XRP, "to": LIGHTNING, "amount": "500", "destination_address": text, "destination_memo": ...}
    return calls.order(**{**order, "refund_address": ..., **changed})


def reasons(answer: Answer) -> list[str]:
    assert (answer.status, answer.codes) == (422, {"destination_address": ["ADDRESS_INVALID"]}), answer
    return [problem["reason"] for problem in answer.details["fields"]["destination_address"]]


@pytest.mark.usefixtures("lightning")
def test_an_order_to_an_invoice_that_names_no_amount_is_made(calls: Calls, clock: Clock) -> None:
    answer = placed(calls, invoice(clock()))
    assert (answer.status, answer.data["status"]) == (201, "awaiting_deposit"), answer


@pytest.mark.usefixtures("lightning")
def test_an_invoice_that_runs_out_before_the_payout_makes_no_order(calls: Calls, clock: Clock, world: World) -> None:
    text = invoice(clock())
    found = calls.post("/v1/addresses/validate", {**LIGHTNING, "address": text}).data
    assert (found["status"], found["orderable"]) == ("valid", True)
    clock.advance(HOUR - invoices.PAYOUT_NEEDS.total_seconds() + 1)
    found = calls.post("/v1/addresses/validate", {**LIGHTNING, "address": text}).data
    assert (found["status"], found["reason"], found["orderable"]) == ("invalid", "invoice_expired", False)
    assert found["upstream"]["status"] == "not_asked"
    assert reasons(placed(calls, text)) == ["invoice_expired"]


@pytest.mark.usefixtures("lightning")
def test_an_invoice_for_another_amount_than_the_payout_makes_no_order(calls: Calls, clock: Clock) -> None:
    quote = calls.post("/v1/quotes", {"from": XRP, "to": LIGHTNING, "amount": "500", "rate_mode": "FLOATING"}).data
    due = Decimal(quote["amount_to_get"]).quantize(Decimal("0.00000001"), rounding="ROUND_DOWN")
    too_much = format(due + Decimal("0.00000001"), "f")
    answer = placed(calls, invoice(clock(), amount=too_much), quote_id=quote["quote_id"])
    assert reasons(answer) == ["invoice_amount"]
    assert f"over {quote['amount_to_get']} BTC" in answer.details["fields"]["destination_address"][0]["hint"]
    answer = placed(calls, invoice(clock(), amount=format(due, "f")), quote_id=quote["quote_id"])
    assert answer.status == 201, answer


@pytest.mark.usefixtures("lightning")
@pytest.mark.parametrize("hints", [4, 10])
def test_what_is_called_orderable_can_be_ordered_however_many_route_hints_it_has(
    calls: Calls, clock: Clock, hints: int
) -> None:
    text = invoice(clock(), hints=hints)
    assert len(text) > 512
    assert calls.post("/v1/addresses/validate", {**LIGHTNING, "address": text}).data["orderable"] is True
    answer = placed(calls, text)
    assert (answer.status, answer.data["status"]) == (201, "awaiting_deposit"), answer
    assert answer.data["destination"]["address"] == text
    found = calls.get(f"/v1/orders?destination_address={text}").data["orders"]
    assert [order["id"] for order in found] == [answer.data["id"]]


def test_the_longest_text_that_is_taken_is_kept_and_found(database: Database) -> None:
    """PostgreSQL indexes addresses of up to 2,704 bytes: the limit stays below."""
    address = "".join(chr(33 + number * 7919 % 90) for number in range(addresses.LONGEST))
    order = make_order(database, destination_address=address, deposit_address=address)
    with database.read() as session:
        found = order_rows.page(session, order.client_id, {"destination_address": address}, None, 2)
    assert [one.id for one in found] == [order.id]


# --- right before the create -----------------------------------------------------------------------------------------


def test_an_invoice_that_ran_out_while_the_upstream_was_away_is_not_tried_again(
    lightning: Faults, calls: Calls, clock: Clock
) -> None:
    lightning["create"] = answering(401, {"message": "Invalid API key"})
    text = invoice(clock(), expiry=HOUR // 2 + 5)
    assert (placed(calls, text).status, lightning.seen["create"]) == (503, 1)
    lightning["create"] = _created
    clock.advance(10)
    answer = placed(calls, text)
    assert (answer.status, answer.code) == (422, "ADDRESS_INVALID"), answer
    assert calls.get(f"/v1/orders/{answer.details['order_id']}").data["status"] == "failed"
    assert lightning.seen["create"] == 1


def test_nothing_is_sent_for_a_payout_that_can_no_longer_arrive(
    service: Service, lightning: Faults, calls: Calls, clock: Clock
) -> None:
    """However an order came to be created so late: the last look at the clock is the create's own."""
    lightning["create"] = answering(401, {"message": "Invalid API key"})
    assert placed(calls, invoice(clock(), expiry=HOUR // 2 + 5)).status == 503
    with service.database.read() as session:
        order = order_rows.by_client_order_id(session, calls.shop.client_id, "order-1")
    assert order is not None
    clock.advance(10)
    with pytest.raises(OrderRefused) as refused:
        service.placer._creator.send(order, 1, service.clock(), 5.0)
    assert (refused.value.code, lightning.seen["create"]) == ("INVOICE_EXPIRED", 1)
    view = calls.get(f"/v1/orders/{order.id}").data
    assert (view["status"], view["status_reason"]) == ("failed", "invoice_expired")
