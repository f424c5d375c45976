"""How finely an amount can be sent: the catalog or the chain, whichever is coarser."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.addresses.networks import NETWORKS
from swap.domain import decimal_places
from swap.domain.decimal_places import chain_places, sendable_places
from swap.domain.money import decimals

_NAMES = sorted(decimal_places._PLACES)


def test_every_network_with_rules_has_a_coin_whose_unit_is_known() -> None:
    known = {name.partition("@")[2] for names in decimal_places._COINS.values() for name in names}
    assert set(NETWORKS) - known - set(decimal_places._EVERY_ASSET) == set()


def test_no_coin_or_token_is_listed_twice_or_on_a_network_that_is_unknown() -> None:
    tables = (decimal_places._COINS, decimal_places._TOKENS, decimal_places._CURRENCIES)
    listed = [name for table in tables for names in table.values() for name in names]
    assert len(listed) == len(set(listed))
    assert {name.partition("@")[2] for name in _NAMES} <= set(NETWORKS)


@pytest.mark.parametrize(
    ("currency", "network", "places"),
    [
        ("BTC", "Bitcoin", 8),
        ("btc", "btc", 8),
        ("BTC", "Lightning", 11),
        ("ETH", "BASE", 18),
        ("USDT", "TRC20", 6),
        ("USDT", "BEP20", 18),
        ("USDT", "Solana", 6),
        ("XRP", "Ripple", 6),
        ("ADA", "Cardano", 6),
        ("SOL", "SPL", 9),
        ("USDC", "Stellar", 7),
        ("DOT", "Asset Hub(Polkadot)", 10),
        ("SOMETOKEN", "ERC20", None),
        ("BNB", "BNB", None),
        ("HYDRA", "Hydragon", None),
    ],
)
def test_the_unit_of_a_coin_or_token_depends_on_its_network(currency: str, network: str, places: int | None) -> None:
    assert chain_places(currency, network) == places


@pytest.mark.parametrize(
    ("currency", "precision", "places"), [("EUR", 2, 2), ("EUR", 8, 2), ("JPY", 2, 0), ("KWD", 8, 3), ("KWD", 2, 2)]
)
def test_a_bank_carries_no_more_digits_than_its_currency_has(currency: str, precision: int, places: int) -> None:
    assert sendable_places(currency, currency, precision, is_fiat=True) == places


@given(st.sampled_from(_NAMES), st.integers(0, 36), st.decimals(0, 10**9, places=30, allow_nan=False))
def test_what_may_be_sent_is_whole_in_the_catalog_and_on_the_chain(name: str, precision: int, amount: Decimal) -> None:
    currency, network = name.split("@")
    places = sendable_places(currency, network, precision, is_fiat=False)
    assert places <= precision
    known = chain_places(currency, network)
    # BNB on BEP2 is ambiguous under its own symbol, and is then left to the catalog.
    assert known is None or places == min(precision, known)
    with localcontext(prec=60):  # the usual 28 digits cannot round an amount of 34
        sent = round(amount, places)
    assert decimals(sent) <= places
