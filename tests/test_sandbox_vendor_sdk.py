"""The vendor's own client, unmodified, against the sandbox: its strict models judge the answers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from swap.sandbox.scenarios import scenario_addresses
from swap.sandbox.server import running
from swap.sandbox.world import World

pytestmark = pytest.mark.server

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import quickex_sdk as sdk

ADDRESSES = scenario_addresses()["completes"]


@pytest.fixture
def client() -> Iterator[Any]:
    world = World("pk_sdk", "sk_sdk")
    with running(world) as url:
        client = sdk.QuickexSDK(sdk.Config(api_url=url, api_public="pk_sdk", api_secret="sk_sdk"))
        yield client
        client.client.session.close()


def rate_request(**changed: str) -> Any:
    fields = {
        "instrumentFromCurrencyTitle": "BTC",
        "instrumentFromNetworkTitle": "BTC",
        "instrumentToCurrencyTitle": "USDT",
        "instrumentToNetworkTitle": "TRC20",
        "claimedDepositAmount": "0.0125",
        "rateMode": "FLOATING",
        "claimedDepositAmountCurrency": "BTC",
        "markup": "0",
    }
    return sdk.RateReq(**{**fields, **changed})


def order_request(rate: Any, **changed: Any) -> Any:
    fields: dict[str, Any] = {
        "instrumentFrom": rate.instrumentFrom,
        "instrumentTo": rate.instrumentTo,
        "rateMode": rate.rateMode,
        "destinationAddress": ADDRESSES["TRC20"],
        "claimedPublicRate": sdk.ClaimedPublicRate(
            claimedAmountToReceive=rate.amountToGet, price=rate.price, quotes=rate.quotes, updatedAt=rate.updatedAt
        ),
        "claimedNetworkFee": rate.finalNetworkFeeAmount,
        "claimedDepositAmount": "0.0125",
    }
    return sdk.CreateOrderReq(**{**fields, **changed})


def test_every_instrument_passes_the_strict_model(client: Any) -> None:
    for instrument in World("p", "s").catalog.instruments:
        wanted = sdk.InstrumentReq(currencyTitle=instrument.currency, networkTitle=instrument.network.title)
        answer = client.get_instrument(wanted)
        assert (answer.currencyTitle, answer.requiresMemo) == (instrument.currency, instrument.requires_memo)


def test_an_unknown_instrument_raises_with_the_message(client: Any) -> None:
    with pytest.raises(Exception, match="Instrument not found404"):
        client.get_instrument(sdk.InstrumentReq(currencyTitle="NOPE", networkTitle="BTC"))


@pytest.mark.parametrize("mode", ["FLOATING", "FIXED"])
def test_a_rate_becomes_an_order(client: Any, mode: str) -> None:
    rate = client.get_rate(rate_request(rateMode=mode))
    assert rate.rateMode == mode
    order = client.create_order(order_request(rate))
    assert order.rateMode == mode
    assert order.depositAddress.depositAddress.startswith("bc1q")
    assert order.claimedPublicRate.claimedAmountToReceive == rate.amountToGet


def test_an_amount_on_the_target_side_is_echoed(client: Any) -> None:
    rate = client.get_rate(rate_request(claimedDepositAmount="10000", claimedDepositAmountCurrency="USDT"))
    assert (rate.amountToGive, rate.amountToGiveCurrencyTitle) == ("10000", "USDT")


def test_an_integer_memo_arrives(client: Any) -> None:
    rate = client.get_rate(rate_request(instrumentToCurrencyTitle="XRP", instrumentToNetworkTitle="XRP"))
    wanted = order_request(rate, destinationAddress=ADDRESSES["XRP"], destinationAddressMemo=1234567)
    assert client.create_order(wanted).destinationAddressMemo == "1234567"


def test_non_ascii_text_verifies_although_other_bytes_are_sent(client: Any) -> None:
    rate = client.get_rate(rate_request())
    order = client.create_order(order_request(rate, referrerId="aff_ä"))
    assert order.orderId > 0


def test_a_wrong_secret_is_refused(client: Any) -> None:
    client.client.api_secret = "another"
    with pytest.raises(Exception, match="signature rejected401"):
        client.get_rate(rate_request())


def test_too_small_an_amount_raises_with_the_message(client: Any) -> None:
    with pytest.raises(Exception, match="Amount Too Small422"):
        client.get_rate(rate_request(claimedDepositAmount="0.00001"))
