"""Quotes: what a swap would pay out, and the ticket that binds it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from swap.sandbox.wire import iso
from swap.sandbox.world import World
from swap.tables import Order, SpentQuote
from swap.wiring import Service
from tests.conftest import BTC_ADDRESS, Clock, Shop, new_shop
from tests.faults import HTML_403, Fault, Faults, Holding, answering, cutting, dropping, spoiling
from tests.signed_client import BTC, ETH, ETH_ADDRESS, XRP, Answer, Calls

XMR = {"currency": "XMR", "network": "XMR"}


def quote(calls: Calls, **changed: Any) -> Answer:
    """A quote for BTC to XRP, unless changed; a field set to ... is left out."""
    content = {"from": BTC, "to": XRP, "amount": "0.0125", **changed}
    return calls.post("/v1/quotes", {name: value for name, value in content.items() if value is not ...})


def ticket(calls: Calls, **changed: Any) -> str:
    return str(quote(calls, **changed).data["quote_id"])


def orders_in(service: Service) -> int:
    with service.database.read() as session:
        return session.scalar(select(func.count()).select_from(Order)) or 0


# --- what a quote says -----------------------------------------------------------------------------------------------


def test_a_quote_tells_payout_limits_fees_and_how_long_it_holds(calls: Calls, clock: Clock) -> None:
    answer = quote(calls)
    assert answer.status == 200
    found = answer.data
    assert (found["from"], found["to"], found["amount"], found["rate_mode"]) == (BTC, XRP, "0.0125", "FLOATING")
    assert Decimal("300") < Decimal(found["amount_to_get"]) < Decimal("330")
    assert found["limits"] == {"min": "0.00024", "max": "3"}
    assert Decimal(found["fees"]["network"]) > 0
    assert found["fixed_rate_available"] is True
    assert found["confirmations_required"] > 0
    left = datetime.fromisoformat(found["expires_at"]) - clock()
    assert timedelta(seconds=55) < left <= timedelta(seconds=60)


@pytest.mark.parametrize("amount", [..., None])
def test_a_quote_without_an_amount_tells_limits_and_is_no_ticket(calls: Calls, amount: Any) -> None:
    found = quote(calls, amount=amount).data
    assert (found["quote_id"], found["expires_at"], found["amount"]) == (None, None, None)
    assert found["limits"]["min"] == "0.00024"


def test_titles_are_taken_in_any_case(calls: Calls) -> None:
    assert quote(calls, **{"from": {"currency": "btc", "network": "btc"}}).data["from"] == BTC


def test_mistakes_are_told_all_at_once(calls: Calls) -> None:
    answer = quote(calls, amount=0.5, to={"currency": "XRP", "network": "Ripple"}, colour="red", rate_mode="BEST")
    assert answer.status == 422
    assert answer.codes == {
        "amount": ["AMOUNT_MALFORMED"],
        "to": ["INSTRUMENT_UNKNOWN"],
        "colour": ["UNKNOWN_FIELD"],
        "rate_mode": ["INVALID"],
    }


def test_an_amount_outside_the_limits_is_told_the_bound(calls: Calls) -> None:
    small, big = quote(calls, amount="0.0001"), quote(calls, amount="5")
    assert (small.codes, big.codes) == ({"amount": ["AMOUNT_BELOW_MINIMUM"]}, {"amount": ["AMOUNT_ABOVE_MAXIMUM"]})
    assert small.details["fields"]["amount"][0]["min"] == "0.00024"
    assert big.details["fields"]["amount"][0]["max"] == "3"


def test_limits_in_a_good_answer_are_kept_to_as_well(calls: Calls, faults: Faults) -> None:
    faults["rate"] = spoiling(
        lambda rate: rate.update(generalMinAmount="0.5", generalMaxAmount=None, depositRules=None)
    )
    answer = quote(calls)
    assert (answer.status, answer.codes) == (422, {"amount": ["AMOUNT_BELOW_MINIMUM"]})
    assert answer.details["fields"]["amount"][0] == {
        "code": "AMOUNT_BELOW_MINIMUM",
        "message": "The amount is below the minimum of 0.5 BTC.",
        "min": "0.5",
        "max": None,
    }


def test_a_rate_in_another_mode_is_no_quote(service: Service, calls: Calls) -> None:
    """The upstream answers FLOATING where it has no fixed rate (docs/upstream.md T12)."""
    answer = quote(calls, to=XMR, rate_mode="FIXED")
    assert (answer.status, answer.codes) == (422, {"rate_mode": ["RATE_MODE_UNAVAILABLE"]})
    order = calls.order(
        to=XMR,
        rate_mode="FIXED",
        destination_address="44AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A",
        destination_memo=...,
    )
    assert (order.status, order.codes) == (422, {"rate_mode": ["RATE_MODE_UNAVAILABLE"]})
    assert orders_in(service) == 0


RATES_AWAY: list[tuple[str, Fault]] = [
    ("500", answering(500, b"")),
    ("403 html", answering(403, HTML_403)),
    ("401", answering(401, {"message": "signature rejected"})),
    ("hello", answering(200, {"hello": 1})),
    ("no payout", spoiling(lambda rate: rate.update(amountToGet=None))),
    ("a payout of nothing", spoiling(lambda rate: rate.update(amountToGet="0"))),
    ("another pair", spoiling(lambda rate: rate["instrumentTo"].update(currencyTitle="XLM"))),
    ("cut", cutting()),
    ("dropped", dropping),
    ("old", spoiling(lambda rate: rate.update(updatedAt="2025-10-09T08:53:20.000Z"))),
]


def test_no_quote_is_made_of_an_unusable_rate(calls: Calls, faults: Faults, subtests: pytest.Subtests) -> None:
    for name, fault in RATES_AWAY:
        with subtests.test(name):
            faults["rate"] = fault
            answer = quote(calls)
            assert (answer.status, answer.error["code"]) == (503, "RATE_UNAVAILABLE")
            assert answer.details["retry"] == "same_request"
            assert int(answer.headers["Retry-After"]) > 0


def test_an_error_told_in_a_good_answer_is_a_refusal(calls: Calls, faults: Faults) -> None:
    faults["rate"] = spoiling(lambda rate: rate.update(status="FAILED"))
    answer = quote(calls)
    assert (answer.status, answer.codes) == (422, {"amount": ["UPSTREAM_REFUSED"]})


def test_the_age_of_a_rate_is_measured_by_the_upstreams_clock(
    world: World, faults: Faults, shop: Shop, clock: Clock, other_service: Callable[..., Service], api_of: Any
) -> None:
    strict = other_service(rate_max_age=20.0)
    calls = Calls(shop, api_of(strict), clock)
    world.advance(40)
    for _ in range(3):
        strict.upstream.orders()  # as many answers as it takes to believe in another clock
    # Thirty seconds old at the upstream, whose clock is 40 s ahead: by ours it lies in the future.
    faults["rate"] = spoiling(lambda rate: rate.update(updatedAt=iso(world.now() - 30)))
    assert quote(calls).error["code"] == "RATE_UNAVAILABLE"
    faults["rate"] = spoiling(lambda rate: rate.update(updatedAt=iso(world.now() - 10)))
    assert quote(calls).status == 200


def test_a_markup_is_asked_for_with_its_referrer(
    faults: Faults,
    shop: Shop,
    clock: Clock,
    other_service: Callable[..., Service],
    api_of: Any,
    calls: Calls,
    world: World,
) -> None:
    dear = other_service(upstream_markup=Decimal(50), upstream_referrer_id="aff_1")
    theirs = Calls(shop, api_of(dear), clock)
    share = Decimal(quote(theirs).data["amount_to_get"]) / Decimal(quote(calls).data["amount_to_get"])
    assert Decimal("0.49") < share < Decimal("0.51")
    order = theirs.order()
    assert order.status == 201
    assert order.data["deposit"]["payable"] is True
    assert (faults.sent[0]["markup"], faults.sent[0]["referrerId"]) == ("50", "aff_1")
    assert (world.orders()[0].markup, world.orders()[0].referrer) == (Decimal(50), "aff_1")


# --- what a ticket binds ---------------------------------------------------------------------------------------------


def test_an_order_with_a_quote_is_made_at_its_terms(calls: Calls, faults: Faults, clock: Clock) -> None:
    found = quote(calls).data
    clock.advance(30)
    asked = faults.seen["rate"]
    order = calls.order(quote_id=found["quote_id"])
    assert order.status == 201
    assert faults.seen["rate"] == asked
    claimed = faults.sent[0]["claimedPublicRate"]
    assert claimed["claimedAmountToReceive"] == found["amount_to_get"]
    assert claimed["price"] == found["price"]


def test_a_quote_is_bound_to_client_route_amount_and_mode(
    service: Service, api_url: str, calls: Calls, clock: Clock, subtests: pytest.Subtests
) -> None:
    quote_id = ticket(calls)
    other = Calls(new_shop(service, api_url, clock, "other"), api_url, clock)
    to_eth = {"to": ETH, "destination_address": ETH_ADDRESS, "destination_memo": ...}
    back = {"from": XRP, "to": BTC, "amount": "100", "destination_address": BTC_ADDRESS}
    for caller, changed in (
        (other, {}),
        (calls, {"amount": "0.0126"}),
        (calls, {"rate_mode": "FIXED"}),
        (calls, to_eth),
        (calls, {**back, "destination_memo": ..., "refund_address": ...}),
    ):
        with subtests.test(changed=changed):
            answer = caller.order(quote_id=quote_id, **changed)
            assert (answer.status, answer.codes) == (422, {"quote_id": ["QUOTE_MISMATCH"]})
    assert orders_in(service) == 0
    assert calls.order(quote_id=quote_id, amount="0.01250").status == 201


def test_a_quote_expires(service: Service, calls: Calls, clock: Clock) -> None:
    quote_id = ticket(calls)
    clock.advance(60)
    answer = calls.order(quote_id=quote_id)
    assert (answer.status, answer.codes) == (422, {"quote_id": ["QUOTE_EXPIRED"]})
    assert orders_in(service) == 0


def test_a_quote_that_was_touched_is_none_of_ours(calls: Calls, subtests: pytest.Subtests) -> None:
    quote_id = ticket(calls)
    middle = len(quote_id) // 2
    flipped = "A" if quote_id[middle] != "A" else "B"
    for spoilt in (
        quote_id[:-1],
        quote_id + "x",
        quote_id[:middle] + flipped + quote_id[middle + 1 :],
        quote_id.rpartition(".")[0],
        "." + quote_id.rpartition(".")[2],
        "ä",
        ".",
    ):
        with subtests.test(spoilt=spoilt):
            answer = calls.order(quote_id=spoilt)
            assert (answer.status, answer.codes) == (422, {"quote_id": ["QUOTE_INVALID"]})


def test_a_quote_makes_one_order_however_its_id_is_spelled(
    service: Service, calls: Calls, subtests: pytest.Subtests
) -> None:
    """Base64 has many spellings of the same bytes: the last character has bits that mean nothing, and padding may follow."""
    quote_id = ticket(calls)
    assert calls.order(quote_id=quote_id).status == 201
    body, _, mac = quote_id.rpartition(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(mac[-1])
    siblings = [alphabet[last ^ bits] for bits in (1, 2, 3)]
    spellings = [quote_id + "=", f"{body}.é{mac}", f"{body}.=={mac}", *(quote_id[:-1] + other for other in siblings)]
    for number, spelling in enumerate(spellings):
        with subtests.test(spelling=spelling[-8:]):
            answer = calls.order(client_order_id=f"again-{number}", quote_id=spelling)
            assert (answer.status, answer.codes) == (422, {"quote_id": ["QUOTE_INVALID"]})
    assert orders_in(service) == 1


def test_quotes_outlive_a_rotation_of_keys_but_not_the_loss_of_theirs(
    shop: Shop, calls: Calls, clock: Clock, other_service: Callable[..., Service], service: Service, api_of: Any
) -> None:
    old, new = service.settings.secret_keys[0], "another key for tests, of at least 32 characters"
    rotated = Calls(shop, api_of(other_service(secret_keys=(new, old))), clock)
    assert rotated.order(quote_id=ticket(calls)).status == 201
    assert calls.order(client_order_id="2", quote_id=ticket(rotated)).codes == {"quote_id": ["QUOTE_INVALID"]}


def test_a_quote_makes_one_order(service: Service, calls: Calls, world: World) -> None:
    quote_id = ticket(calls)
    assert calls.order(quote_id=quote_id).status == 201
    second = calls.order(client_order_id="order-2", quote_id=quote_id)
    assert (second.status, second.codes) == (422, {"quote_id": ["QUOTE_SPENT"]})
    assert calls.order(quote_id=quote_id).status == 200
    assert (orders_in(service), len(world.orders())) == (1, 1)
    assert calls.order(client_order_id="order-2").status == 201


def test_a_refused_order_has_spent_its_quote_and_one_refused_by_us_has_not(calls: Calls, faults: Faults) -> None:
    quote_id = ticket(calls)
    assert calls.order(quote_id=quote_id, destination_address="nowhere").status == 422
    faults["create"] = answering(422, {"message": "pair not supported"})
    assert "order_id" in calls.order(quote_id=quote_id).details
    del faults["create"]
    assert calls.order(client_order_id="2", quote_id=quote_id).codes == {"quote_id": ["QUOTE_SPENT"]}


def test_one_quote_for_many_orders_at_once_makes_one(service: Service, calls: Calls, world: World) -> None:
    quote_id = ticket(calls)
    answers: list[Answer] = []

    def place(number: int) -> None:
        answers.append(calls.order(client_order_id=f"order-{number}", quote_id=quote_id))

    threads = [threading.Thread(target=place, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.status for a in answers) == [201] + [422] * 7
    assert all(a.codes == {"quote_id": ["QUOTE_SPENT"]} for a in answers if a.status == 422)
    assert (orders_in(service), len(world.orders())) == (1, 1)
    with service.database.read() as session:
        assert session.scalar(select(func.count()).select_from(SpentQuote)) == 1


def test_a_quote_that_expires_while_its_order_is_checked_makes_none(
    service: Service, calls: Calls, clock: Clock, faults: Faults
) -> None:
    quote_id = ticket(calls)
    clock.advance(59)
    held = Holding()
    faults["validate"] = held
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(calls.order(quote_id=quote_id)))
    asking.start()
    assert held.arrived.wait(10)
    clock.advance(2)
    held.let_go()
    asking.join()
    assert (answers[0].status, answers[0].codes) == (422, {"quote_id": ["QUOTE_EXPIRED"]})
    assert orders_in(service) == 0


def test_a_spent_quote_stays_spent_however_late_it_is_brought_again(
    service: Service, calls: Calls, clock: Clock
) -> None:
    quote_id = ticket(calls)
    assert calls.order(quote_id=quote_id).status == 201
    clock.advance(timedelta(days=30))
    service.housekeeping.clean_due()
    with service.database.read() as session:
        assert session.scalar(select(func.count()).select_from(SpentQuote)) == 1


def test_a_rate_that_grew_old_behind_its_quote_is_refused(
    shop: Shop, clock: Clock, other_service: Callable[..., Service], api_of: Any
) -> None:
    calls = Calls(shop, api_of(other_service(rate_max_age=20.0)), clock)
    quote_id = ticket(calls)
    clock.advance(30)
    answer = calls.order(quote_id=quote_id)
    assert (answer.status, answer.codes) == (422, {"quote_id": ["RATE_TOO_OLD"]})


def test_two_customers_who_ask_the_same_at_the_same_moment_get_two_quotes(calls: Calls) -> None:
    assert len({ticket(calls) for _ in range(3)}) == 3
