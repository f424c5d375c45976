"""Fiat on either side of a swap. How the upstream sells and pays fiat is not known; this is the seam, kept thin."""

from __future__ import annotations

from tests.conftest import BITCOIN, BTC_ADDRESS, Shop

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


def test_a_fiat_payout_needs_the_upstreams_yes_to_the_account(shop: Shop) -> None:
    order = shop.place(target=EURO, destination_address=IBAN, destination_memo=None)
    assert order["status"] == "awaiting_deposit"
    assert order["deposit"]["kind"] == "address"
    assert order["destination"]["address"] == IBAN


def test_fiat_instruments_are_marked_as_such(shop: Shop) -> None:
    assert shop.api.instrument(*EURO)["type"] == "fiat"
    assert shop.api.instrument(*BITCOIN)["type"] == "crypto"
