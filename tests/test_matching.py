"""Whether an order at the upstream can be one of ours: spellings, packed memos, and what an answer leaves out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from swap.addresses import base58, ripple
from swap.orders.matching import (
    address_could_match,
    confirms,
    contradicts,
    could_match,
    deposit_change,
    identical,
    same_account,
    same_address,
    same_pair,
    unpacked,
)
from swap.tables import Order
from swap.upstream.replies import ListedOrder, OrderReply
from tests.conftest import BTC_ADDRESS, XRP_ADDRESS
from tests.factories import order_row
from tests.signed_client import ETH_ADDRESS

OTHER_BTC_ADDRESS = "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"
OTHER_XRP_ADDRESS = "rEb8TK3gBgk5auZkwc6sHnwrGVJH8DuaLh"
X_ADDRESS = "X7gJ5YK8abHf2eTPWPFHAAot8Knck11QGqmQ7a6a3Z8PJvk"
X_ACCOUNT = "rhvh5SrgBL5V8oeV9EpDuVszeJSSCEkbPc"
X_ADDRESS_WITH_ANOTHER_TAG = ripple.pack(base58.decode_check(X_ACCOUNT, base58.RIPPLE)[1:], 1)
X_ADDRESS_WITHOUT_TAG = "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"
IBAN, OTHER_IBAN = "DE89370400440532013000", "BE68539007547034"
XRP, BTC, ETH, EUR = ("XRP", "XRP"), ("BTC", "BTC"), ("ETH", "ERC20"), ("EUR", "EUR")


def order(**changed: Any) -> Order:
    """A BTC to XRP order with memo and refund, unless changed."""
    return order_row("shop", **{"destination_memo": "7", "refund_address": BTC_ADDRESS, **changed})


ROW = ListedOrder(
    order_id="90210",
    refs=("90210", "uuid-1"),
    destination_address=XRP_ADDRESS,
    refund_address=BTC_ADDRESS,
    amount=Decimal("0.0125"),
    amount_to_get=Decimal(325),
    paid_out=None,
    from_currency="BTC",
    from_network="BTC",
    to_currency="XRP",
    to_network="XRP",
    created_at=datetime(2025, 10, 9, 12, tzinfo=UTC),
    updated_at=None,
    completed=None,
    state=None,
)


def info(**changed: Any) -> OrderReply:
    """Public-info of that order; `changed` as JSON, under the upstream's own names."""
    raw = {"destinationAddressMemo": "7", "refundAddress": BTC_ADDRESS, "refundAddressMemo": None, **changed}
    raw = {name: value for name, value in raw.items() if value is not ...}
    return OrderReply(
        order_id="90210",
        refs=("90210",),
        from_currency=raw.get("fromCurrency", "BTC"),
        from_network=raw.get("fromNetwork", "BTC"),
        to_currency=raw.get("toCurrency", "XRP"),
        to_network=raw.get("toNetwork", "XRP"),
        amount=raw.get("amount", Decimal("0.0125")),
        amount_to_get=raw.get("amountToGet"),
        rate_mode=raw.get("rateMode", "FLOATING"),
        destination_address=raw.get("destinationAddress", XRP_ADDRESS),
        destination_memo=raw.get("destinationAddressMemo"),
        refund_address=raw.get("refundAddress"),
        refund_memo=raw.get("refundAddressMemo"),
        raw=raw,
    )


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instrument", "one", "other", "same"),
    [
        (BTC, BTC_ADDRESS, BTC_ADDRESS, True),
        (BTC, BTC_ADDRESS, BTC_ADDRESS.upper(), True),
        (BTC, BTC_ADDRESS, OTHER_BTC_ADDRESS, False),
        (BTC, BTC_ADDRESS, BTC_ADDRESS[:-1] + "5", False),
        (BTC, "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "1bvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", False),
        (ETH, ETH_ADDRESS, ETH_ADDRESS.lower(), True),
        (ETH, ETH_ADDRESS, ETH_ADDRESS[:-1] + "8", False),
        (XRP, XRP_ADDRESS, XRP_ADDRESS.lower(), False),
        (EUR, "DE89 3704 0044 0532 0130 00", IBAN, True),
        (EUR, IBAN.lower(), IBAN, True),
        (EUR, IBAN, OTHER_IBAN, False),
        (("ODD", "Oddnet"), "odd1", "odd1", True),
        (("ODD", "Oddnet"), "odd1", "ODD1", False),
        (("ODD", "Oddnet"), "DE89 3704 0044 0532 0130 00", IBAN, True),
    ],
)
def test_an_address_is_the_same_in_any_spelling_that_its_network_allows(
    instrument: tuple[str, str], one: str, other: str, same: bool
) -> None:
    for compare in (same_address, same_account):
        assert compare(*instrument, one, other) is compare(*instrument, other, one) is same


@pytest.mark.parametrize(
    ("one", "other", "address", "account"),
    [
        (X_ADDRESS, X_ADDRESS, True, True),
        (X_ADDRESS, X_ACCOUNT, False, True),
        (X_ADDRESS, X_ADDRESS_WITH_ANOTHER_TAG, False, True),
        (X_ADDRESS_WITHOUT_TAG, X_ADDRESS_WITHOUT_TAG, True, True),
        (X_ADDRESS, XRP_ADDRESS, False, False),
    ],
)
def test_a_packed_tag_is_part_of_the_address_and_not_of_the_account(
    one: str, other: str, address: bool, account: bool
) -> None:
    assert same_address(*XRP, one, other) is same_address(*XRP, other, one) is address
    assert same_account(*XRP, one, other) is same_account(*XRP, other, one) is account


def test_an_address_that_is_left_out_may_be_any_and_one_that_we_never_gave_may_be_none() -> None:
    assert address_could_match(*BTC, None, BTC_ADDRESS)
    assert address_could_match(*BTC, "", BTC_ADDRESS)
    assert address_could_match(*BTC, None, None)
    assert address_could_match(*XRP, X_ADDRESS_WITH_ANOTHER_TAG, X_ACCOUNT), "the list names no memos"
    assert not address_could_match(*BTC, BTC_ADDRESS, None)
    assert not address_could_match(*BTC, OTHER_BTC_ADDRESS, BTC_ADDRESS)


def test_a_packed_address_in_an_answer_is_taken_apart_as_ours_was() -> None:
    packed = info(destinationAddress=X_ADDRESS, destinationAddressMemo=None)
    reply = unpacked(order(), packed)
    assert (reply.destination_address, reply.destination_memo) == (X_ACCOUNT, "1337")
    assert (reply.refund_address, reply.refund_memo) == (BTC_ADDRESS, None)
    assert unpacked(order(), info()) == info()
    # A memo that contradicts the packed one is left to the checks.
    odd = unpacked(order(), info(destinationAddress=X_ADDRESS, destinationAddressMemo="1"))
    assert (odd.destination_address, odd.destination_memo) == (X_ADDRESS, "1")


# --- listed orders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"amount": None},
        {"amount": Decimal("0.012500")},
        {"destination_address": None},
        {"refund_address": None},
        {"refund_address": BTC_ADDRESS.upper()},
        {"from_currency": None, "to_network": None},
        {"from_currency": "btc", "to_network": "xrp"},
        {"amount_to_get": Decimal(1), "paid_out": Decimal(1), "created_at": None, "state": "completed"},
        dict.fromkeys(field for field in ListedOrder.__dataclass_fields__ if field != "refs"),
    ],
)
def test_a_listed_order_that_says_nothing_else_can_be_ours(changed: dict[str, Any]) -> None:
    assert could_match(replace(ROW, **changed), order())


@pytest.mark.parametrize(
    ("changed", "pair"),
    [
        ({"amount": Decimal("0.0126")}, True),
        ({"destination_address": OTHER_XRP_ADDRESS}, True),
        ({"refund_address": OTHER_BTC_ADDRESS}, True),
        ({"from_currency": "LTC"}, False),
        ({"from_network": "Lightning"}, False),
        ({"to_currency": "XLM"}, False),
        ({"to_network": "Ripple"}, False),
    ],
)
def test_a_listed_order_that_says_anything_else_is_not_ours(changed: dict[str, Any], pair: bool) -> None:
    row = replace(ROW, **changed)
    assert not could_match(row, order())
    assert same_pair(row, order()) is pair


def test_a_listed_refund_is_not_ours_when_we_gave_none() -> None:
    assert not could_match(ROW, order(refund_address=None))
    assert could_match(replace(ROW, refund_address=None), order(refund_address=None))


def test_a_packed_destination_in_the_list_can_be_ours_whatever_its_tag() -> None:
    ours = order(destination_address=X_ACCOUNT, destination_memo="1337")
    for listed in (X_ADDRESS, X_ADDRESS_WITH_ANOTHER_TAG, X_ACCOUNT):
        assert could_match(replace(ROW, destination_address=listed), ours)
    assert not could_match(replace(ROW, destination_address=X_ADDRESS), order())


# --- public-info -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "contradicted", "confirmed"),
    [
        ({}, False, True),
        ({"destinationAddressMemo": ...}, False, False),
        ({"refundAddress": ...}, False, False),
        ({"refundAddressMemo": ...}, False, True),
        ({"refundAddress": BTC_ADDRESS.upper()}, False, True),
        ({"refundAddressMemo": ""}, False, True),
        ({"rateMode": None}, False, False),
        ({"amount": None}, False, False),
        ({"fromCurrency": None}, False, False),
        ({"destinationAddress": None}, False, False),
        ({"toNetwork": "xrp"}, False, True),
        ({"toNetwork": "BSC"}, True, False),
        ({"amount": Decimal("0.0126")}, True, False),
        ({"destinationAddress": OTHER_XRP_ADDRESS}, True, False),
        ({"destinationAddressMemo": "8"}, True, False),
        ({"destinationAddressMemo": None}, True, False),
        ({"destinationAddressMemo": ""}, True, False),
        ({"refundAddress": OTHER_BTC_ADDRESS}, True, False),
        ({"refundAddress": None}, True, False),
        ({"refundAddressMemo": "9"}, True, False),
        ({"rateMode": "FIXED"}, True, False),
    ],
)
def test_public_info_contradicts_by_what_it_says_and_confirms_only_when_it_says_everything(
    changed: dict[str, Any], contradicted: bool, confirmed: bool
) -> None:
    assert contradicts(order(), info(**changed)) is contradicted
    assert confirms(order(), info(**changed)) is confirmed


def test_a_memo_or_refund_that_was_never_given_must_not_come_back() -> None:
    bare = order(destination_memo=None, refund_address=None)
    assert contradicts(bare, info(refundAddress=None))
    assert contradicts(bare, info(destinationAddressMemo=None))
    assert not contradicts(bare, info(destinationAddressMemo=None, refundAddress=""))
    assert confirms(bare, info(destinationAddressMemo=None, refundAddress=None))


def test_a_fixed_order_is_known_by_what_it_was_promised_in_any_of_its_attempts() -> None:
    fixed, told = order(rate_mode="FIXED", amount_to_get=Decimal(325)), {"rateMode": "FIXED"}
    promises = [Decimal(325), Decimal(330)]
    assert confirms(fixed, info(**told, amountToGet=Decimal(330)), promises)
    assert contradicts(fixed, info(**told, amountToGet=Decimal(331)), promises)
    assert not contradicts(fixed, info(**told), promises)
    assert not confirms(fixed, info(**told), promises), "what is not told is not equal"


def test_a_memo_packed_into_the_destination_counts_as_the_memo() -> None:
    ours = order(destination_address=X_ACCOUNT, destination_memo="1337")
    assert not contradicts(ours, info(destinationAddress=X_ADDRESS, destinationAddressMemo=...))
    assert contradicts(ours, info(destinationAddress=X_ADDRESS_WITH_ANOTHER_TAG, destinationAddressMemo=...))


def test_a_refund_packed_with_its_tag_is_the_refund_and_its_memo() -> None:
    pair = {"from_currency": "XRP", "from_network": "XRP", "to_currency": "BTC", "to_network": "BTC"}
    ours = order(
        **pair, destination_address=BTC_ADDRESS, destination_memo=None, refund_address=X_ACCOUNT, refund_memo="1337"
    )
    answer = {"destinationAddress": BTC_ADDRESS, "destinationAddressMemo": None, "refundAddressMemo": ...}
    answer |= {"fromCurrency": "XRP", "fromNetwork": "XRP", "toCurrency": "BTC", "toNetwork": "BTC"}
    assert not contradicts(ours, info(**answer, refundAddress=X_ADDRESS))
    assert contradicts(ours, info(**answer, refundAddress=X_ADDRESS_WITH_ANOTHER_TAG))


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"refund_memo": ""}, True),
        ({"amount_to_get": Decimal(1), "user_id": "another"}, True),
        ({"destination_memo": "8"}, False),
        ({"destination_memo": None}, False),
        ({"refund_address": None}, False),
        ({"refund_memo": "1"}, False),
        ({"rate_mode": "FIXED"}, False),
    ],
)
def test_two_orders_are_identical_when_even_memos_refund_and_rate_mode_are(changed: dict[str, Any], same: bool) -> None:
    assert identical(order(), order(**changed)) is identical(order(**changed), order()) is same


# --- deposit details -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "memo", "change"),
    [
        (BTC_ADDRESS, None, None),
        (BTC_ADDRESS.upper(), "", None),
        (None, None, None),
        (OTHER_BTC_ADDRESS, None, "deposit_address_changed"),
        ("nonsense", None, "deposit_address_changed"),
        (BTC_ADDRESS, "77", "deposit_memo_changed"),
        (None, "77", "deposit_memo_changed"),
        (OTHER_BTC_ADDRESS, "77", "deposit_address_changed"),
    ],
)
def test_a_deposit_address_that_changes_ends_payments_and_another_spelling_does_not(
    address: str | None, memo: str | None, change: str | None
) -> None:
    reply = replace(info(), deposit_address=address, deposit_memo=memo)
    assert deposit_change(order(), reply) == change


def test_a_deposit_memo_that_is_taken_back_is_a_change_and_one_that_is_left_out_is_none() -> None:
    pair = {"from_currency": "XRP", "from_network": "XRP"}
    ours = order(**pair, deposit_address=XRP_ADDRESS, deposit_memo="77")
    for memo, change in (("77", None), (None, None), ("", "deposit_memo_changed"), ("78", "deposit_memo_changed")):
        assert deposit_change(ours, replace(info(), deposit_address=XRP_ADDRESS, deposit_memo=memo)) == change


def test_a_deposit_address_for_an_order_that_is_paid_by_link_is_a_change() -> None:
    by_link = order(deposit_kind="payment_link", deposit_address=None, deposit_link="https://pay.invalid/1")
    assert deposit_change(by_link, replace(info(), deposit_address=BTC_ADDRESS)) == "deposit_address_changed"
    assert deposit_change(by_link, info()) is None
