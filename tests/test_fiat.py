"""Fiat on either side of a swap. How the upstream sells and pays fiat is not known; this is the seam, kept thin."""

from __future__ import annotations

import json

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from stdnum import iban, luhn

from swap.domain import fiat
from swap.errors import Conflict
from swap.ops.by_hand import Act
from swap.sandbox.networks import BankForm
from swap.sandbox.world import World
from swap.tables import Row
from swap.wiring import Service
from tests.conftest import BITCOIN, BTC_ADDRESS, Clock, Shop, look
from tests.faults import Looks
from tests.signed_client import EUR, Calls

EURO = ("EUR", "EUR")
IBAN = "DE89370400440532013000"


def test_a_fiat_deposit_is_paid_by_the_link_the_upstream_gives(shop: Shop) -> None:
    order = shop.place(
        source=EURO,
        target=BITCOIN,
        amount="500",
        destination_address=BTC_ADDRESS,
        destination_memo=None,
        refund_address=None,
    )
    assert order["status"] == "awaiting_deposit"
    assert order["deposit"]["kind"] == "payment_link"
    assert order["deposit"]["address"].startswith("https://")
    assert order["deposit"]["memo"] is None
    assert order["deposit"]["payable"] is True


def test_a_payment_link_that_changes_ends_payments_and_is_for_a_person(
    shop: Shop, service: Service, clock: Clock, looks: Looks
) -> None:
    order = shop.place(
        source=EURO,
        target=BITCOIN,
        amount="500",
        destination_address=BTC_ADDRESS,
        destination_memo=None,
        refund_address=None,
    )
    other = {"paymentLink": "https://pay.invalid/another"}
    looks.edit = lambda told: {**told, "deposits": [], "depositAddress": {**told["depositAddress"], **other}}
    clock.advance(20)
    look(service, order["id"])
    shown = shop.api.order(order["id"])["deposit"]
    assert (shown["payable"], shown["payable_reason"]) == (False, "deposit_address_changed")
    assert shown["address"] == order["deposit"]["address"], "what was shown once stays"
    clock.advance(65)
    look(service, order["id"])
    with pytest.raises(Conflict) as caught:
        service.review.release(order["id"], Act("anna", "the link is another one", do=True))
    assert caught.value.details["upstream"]["payment_link"] == other["paymentLink"]


def test_a_fiat_payout_needs_the_upstreams_yes_to_the_account(shop: Shop) -> None:
    order = shop.place(target=EURO, destination_address=IBAN, destination_memo=None)
    assert order["status"] == "awaiting_deposit"
    assert order["deposit"]["kind"] == "address"
    assert order["destination"]["address"] == IBAN


def test_fiat_instruments_are_marked_as_such(shop: Shop) -> None:
    assert shop.api.instrument(*EURO)["type"] == "fiat"
    assert shop.api.instrument(*BITCOIN)["type"] == "crypto"


# --- accounts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "account", "status", "reason", "sent"),
    [
        ("EUR", IBAN, "valid", None, IBAN),
        ("EUR", "DE89 3704 0044 0532 0130 00", "valid", None, IBAN),
        ("EUR", "de89370400440532013000", "valid", None, IBAN),
        ("RON", "RO49AAAA1B31007593840000", "valid", None, "RO49AAAA1B31007593840000"),
        ("EUR", "BE68539007547034", "valid", None, "BE68539007547034"),
        ("EUR", "GB29NWBK60161331926819", "valid", None, "GB29NWBK60161331926819"),
        ("EUR", IBAN[:-1], "invalid", "iban_checksum", None),
        ("EUR", IBAN[:-1] + "1", "invalid", "iban_checksum", None),
        ("EUR", "DE" + iban.calc_check_digits("DE00" + "1" * 14) + "1" * 14, "invalid", "iban_form", None),
        ("EUR", "ZZ" + iban.calc_check_digits("ZZ00" + "1" * 14) + "1" * 14, "invalid", "iban_country", None),
        ("EUR", "", "invalid", "empty", None),
        ("EUR", " ", "invalid", "empty", None),
        ("EUR", "an account\n", "invalid", "wrong_form", None),
        ("EUR", "anything at all", "unchecked", "account_unknown", "anything at all"),
        ("NOK", "8601 11 17947", "valid", None, "86011117947"),
        ("NOK", "8601 11 17948", "invalid", "account_checksum", None),
        ("CZK", "19-2000145399/0800", "valid", None, "19-2000145399/0800"),
        ("CZK", "19-2000145398/0800", "invalid", "account_checksum", None),
        ("CZK", "19-2000145399/9999", "unchecked", "account_unknown", "19-2000145399/9999"),
        ("NZD", "01-902-0068389-00", "valid", None, "01-902-0068389-00"),
        ("ARS", "2850590940090418135201", "valid", None, "2850590940090418135201"),
        ("EUR", "8601 11 17948", "unchecked", "account_unknown", "8601 11 17948"),
    ],
)
def test_an_account_is_judged_by_its_check_digits(
    currency: str, account: str, status: str, reason: str | None, sent: str | None
) -> None:
    verdict = fiat.validate(currency, account)
    assert (verdict.status, verdict.reason, verdict.send_address) == (status, reason, sent)


@pytest.mark.parametrize("account", ["GB00HLFX11016111455365", "GB01BARC20714583608387"])
def test_check_digits_that_no_bank_makes_are_refused_though_their_sum_is_right(account: str) -> None:
    """ISO 7064: 98 minus a remainder of 97 is never 00, 01 or 99."""
    assert iban.is_valid(account, check_country=False)
    assert fiat.validate("GBP", account).reason == "iban_checksum"
    assert not BankForm().accepts(account)


@given(st.integers(0, 10**18 - 1), st.integers(0, 99))
def test_an_account_has_exactly_one_pair_of_check_digits(number: int, digits: int) -> None:
    bban = f"{number:018}"
    account = f"DE{digits:02}{bban}"
    right = account == f"DE{iban.calc_check_digits('DE00' + bban)}{bban}"
    assert (fiat.validate("EUR", account).status == "valid") == right == BankForm().accepts(account)


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ("DE89-3704-0044-0532-0130-00", "wrong_form"),
        ("IBAN DE89 3704 0044 0532 0130 00", "wrong_form"),
        ("IBAN: DE89370400440532013000", "wrong_form"),
        ("DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "wrong_form"),
        ("DE89\u20103704\u20100044\u20100532\u20100130\u201000", "wrong_form"),
        ("DE88-3704-0044-0532-0130-00", "iban_checksum"),
        ("IBAN DE89 3704 0044 0532 0130", "iban_checksum"),
    ],
)
def test_an_iban_that_is_decorated_is_refused_with_the_form_that_is_taken(account: str, reason: str) -> None:
    verdict = fiat.validate("EUR", account)
    assert (verdict.status, verdict.reason) == ("invalid", reason)
    assert verdict.hint is not None and "without dashes" in verdict.hint


@given(st.text(max_size=60), st.none() | st.text(max_size=60))
def test_no_text_breaks_the_rules_of_accounts(account: str, memo: str | None) -> None:
    verdict = fiat.validate("EUR", account, memo)
    assert verdict.status in ("valid", "invalid", "unchecked")
    assert (verdict.status == "invalid") == (verdict.send_address is None)


def test_an_iban_with_spaces_is_sent_without_and_both_are_shown(shop: Shop, world: World) -> None:
    printed = "DE89 3704 0044 0532 0130 00"
    order = shop.place(target=EURO, destination_address=printed, destination_memo=None)
    assert order["destination"] == {"address": IBAN, "memo": None, "given": printed}
    assert world.orders()[0].destination == IBAN


def test_a_mistyped_iban_is_refused(shop: Shop, api_url: str, clock: Clock) -> None:
    answer = Calls(shop, api_url, clock).order(to=EUR, destination_address=IBAN[:-1] + "1", destination_memo=...)
    assert (answer.status, answer.codes) == (422, {"destination_address": ["ADDRESS_INVALID"]})
    assert answer.details["fields"]["destination_address"][0]["reason"] == "iban_checksum"


# --- cards -----------------------------------------------------------------------------------------------------------

CARD = "4929 1234 5678 9015"
DIGITS = CARD.replace(" ", "")
WRITTEN = [
    CARD,
    DIGITS,
    CARD.replace(" ", "-"),
    f" {CARD} ",
    CARD.replace(" ", "\u00a0"),
    CARD.replace(" ", "\u2013"),
    f"{CARD} 12/29",
    "card:" + CARD.replace(" ", "\u00a0") + " 12/29",
    f"Visa {DIGITS} exp 12/29 cvv 123",
]
OTHER_CARDS = ["378282246310005", "3782 822463 10005", "30569309025904", "6304000000000000", "6212345678901232001"]


def test_the_card_of_these_tests_is_one() -> None:
    assert luhn.is_valid(DIGITS)


@pytest.mark.parametrize("text", [*WRITTEN, *OTHER_CARDS])
def test_a_card_number_is_known_however_it_is_written(text: str) -> None:
    verdict = fiat.validate("EUR", text)
    assert (verdict.status, verdict.reason, verdict.field) == ("invalid", "card_number", "address")
    assert fiat.validate("EUR", IBAN, text).reason == "card_number"


@pytest.mark.parametrize(
    "text", ["4929 1234 5678 9014", "49291234567", "1" * 40, "19-2000145399/0800", IBAN, "", "x" * 500]
)
def test_other_numbers_are_no_cards(text: str) -> None:
    assert not fiat.is_card_number(text)


@given(st.integers(10**10, 10**18 - 1), st.sampled_from(["", " ", "-", " - "]))
def test_every_number_with_a_luhn_digit_is_known(number: int, separator: str) -> None:
    digits = f"{number}{luhn.calc_check_digit(str(number))}"
    text = separator.join(digits[start : start + 4] for start in range(0, len(digits), 4))
    assert fiat.is_card_number(text)


def everything(service: Service) -> str:
    """All that the database holds, as text."""
    with service.database.read() as session:
        tables = Row.metadata.sorted_tables
        return "\n".join(str(tuple(row)) for table in tables for row in session.execute(select(table)))


@pytest.mark.parametrize("written", WRITTEN)
def test_a_card_number_is_refused_and_leaves_no_trace(
    service: Service,
    shop: Shop,
    api_url: str,
    clock: Clock,
    world: World,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    written: str,
) -> None:
    calls = Calls(shop, api_url, clock)
    euro = {"currency": "EUR", "network": "EUR"}
    caplog.set_level("DEBUG")
    with structlog.testing.capture_logs() as logs:
        to_card = calls.order(to=EUR, destination_address=written, destination_memo=...)
        in_memo = calls.order(to=EUR, destination_address=IBAN, destination_memo=written)
        refund = calls.order(**{"from": EUR}, amount="500", refund_address=written)
        malformed = calls.order(to=EUR, destination_address=written, destination_memo=..., amount=1)
        asked = calls.post("/v1/addresses/validate", {**euro, "address": written})
        asked_memo = calls.post("/v1/addresses/validate", {**euro, "address": IBAN, "memo": written})
    assert to_card.codes == {"destination_address": ["CARD_NUMBER_REFUSED"]}
    assert in_memo.codes == {"destination_memo": ["CARD_NUMBER_REFUSED"]}
    assert refund.codes["refund_address"] == ["CARD_NUMBER_REFUSED"]
    assert malformed.codes["destination_address"] == ["CARD_NUMBER_REFUSED"]
    assert (asked.data["reason"], asked.data["upstream"]["status"]) == ("card_number", "not_asked")
    assert asked_memo.data["field"] == "memo"
    printed = capfd.readouterr()
    kept = {
        "database": everything(service),
        "logs": f"{logs} {caplog.text} {printed.out} {printed.err}",
        "answers": json.dumps([a.json for a in (to_card, in_memo, refund, malformed, asked, asked_memo)]),
        "upstream": str([vars(o) for o in world.orders()]),
        "destination check": str(service.destinations._kept),
    }
    for place, text in kept.items():
        assert DIGITS not in "".join(c for c in text if c.isalnum()), place


def test_the_search_of_the_database_finds_what_is_there(service: Service, shop: Shop) -> None:
    """Otherwise the test above could not fail."""
    shop.place(target=EURO, destination_address=IBAN, destination_memo=None)
    assert IBAN in everything(service)


def test_a_card_number_on_a_coins_network_is_called_one(shop: Shop, api_url: str, clock: Clock) -> None:
    answer = Calls(shop, api_url, clock).order(destination_address=DIGITS)
    assert answer.codes == {"destination_address": ["CARD_NUMBER_REFUSED"]}
