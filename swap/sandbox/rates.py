"""What a direction costs now: prices, limits, fees, and the answer of E5 (docs/upstream.md section 3).

    gross       = deposit × price                       price = source USD / target USD, less the spread
    calculated  = gross − network fee                   network fee in the target currency
    amountToGet = calculated × (1 − markup / 100)       the documented formula, rounded down to the target's precision

Prices move by at most 0.05 % and only when the rates refresh; `updatedAt` is the time of that refresh, so a quote is
always a few seconds stale, as real ones are. All amounts are Decimal.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any, Literal

from swap.sandbox.catalog import Instrument, Pair
from swap.sandbox.refusals import amount_refused
from swap.sandbox.wire import MONEY, cut, iso, plain

RateMode = Literal["FLOATING", "FIXED"]

REFRESH_SECONDS = 5
PRICE_DIGITS = 18
PROVIDER = "lp1"
FIXED_MINUTES = 15

_SPREAD = {"FLOATING": Decimal("0.005"), "FIXED": Decimal("0.01")}
_PLATFORM_SHARE = Decimal("0.0005")
_MIN_USD, _MAX_USD = Decimal(15), Decimal(200_000)


def markup_applied(calculated: Decimal, markup: Decimal) -> Decimal:
    """`markup` in percent. Documented check: 49549.728053855135 with 0.3 gives 49401.07886969357 (docs/upstream.md E5)."""
    with localcontext(MONEY):
        return calculated * (1 - markup / 100)


@dataclass(frozen=True)
class Limits:
    """Inclusive bounds of a deposit, in the source currency, two significant digits each."""

    minimum: Decimal
    maximum: Decimal


def limits(pair: Pair) -> Limits:
    """From the reference prices, so they do not move. The minimum also covers five network fees of the target."""
    lowest = max(_MIN_USD, 5 * pair.target.network.fee_usd)
    return Limits(_rounded(lowest / pair.source.usd, ROUND_CEILING), _rounded(_MAX_USD / pair.source.usd, ROUND_FLOOR))


def _rounded(amount: Decimal, rounding: str) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(amount.adjusted() - 1), rounding=rounding)


@dataclass(frozen=True)
class Quote:
    """A rate for one direction. `deposit` is None when only limits were asked for; `given` is the amount as asked and
    `given_currency` the currency it was asked in. `updated_at` in Unix seconds."""

    pair: Pair
    mode: RateMode
    deposit: Decimal | None
    given: Decimal
    given_currency: str
    amount_to_get: Decimal
    price: Decimal
    network_fee: Decimal
    platform_fee: Decimal
    markup: Decimal | None
    updated_at: float


class Market:
    """Prices over time, a pure function of seed and clock."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def quote(
        self,
        pair: Pair,
        *,
        now: float,
        mode: RateMode = "FLOATING",
        amount: Decimal | None = None,
        amount_currency: str | None = None,
        markup: Decimal | None = None,
    ) -> Quote:
        """Raises a shape A refusal when the deposit is out of range. An amount named in the target's currency is what
        the customer wants to receive; the deposit is then solved for it."""
        mode = mode if pair.has_fixed_rate else "FLOATING"
        tick = int(now // REFRESH_SECONDS)
        with localcontext(MONEY):
            price = cut(self._mid(pair, tick) * (1 - _SPREAD[mode]), PRICE_DIGITS)
            fee = cut(pair.target.network.fee_usd / pair.target.usd, pair.target.precision)
            on_target = amount is not None and self._names_target(pair, amount_currency)
            deposit = self._solved(pair, amount, price, fee, markup) if amount and on_target else amount
            if deposit is not None:
                bounds = limits(pair)
                if deposit < bounds.minimum:
                    raise amount_refused(deposit, bounds.minimum, too_small=True)
                if deposit > bounds.maximum:
                    raise amount_refused(deposit, bounds.maximum, too_small=False)
            gross = (deposit or Decimal(0)) * price
            to_get = max(markup_applied(gross - fee, markup or Decimal(0)), Decimal(0))
            return Quote(
                pair=pair,
                mode=mode,
                deposit=deposit,
                given=amount or Decimal(0),
                given_currency=pair.target.currency if on_target else pair.source.currency,
                amount_to_get=cut(amount if on_target and amount else to_get, pair.target.precision),
                price=price,
                network_fee=fee,
                platform_fee=cut(gross * _PLATFORM_SHARE, pair.target.precision),
                markup=markup,
                updated_at=float(tick * REFRESH_SECONDS),
            )

    @staticmethod
    def _names_target(pair: Pair, currency: str | None) -> bool:
        # Between two networks of one currency the name says nothing; it then means the deposit, as wallets use it.
        return currency == pair.target.currency != pair.source.currency

    @staticmethod
    def _solved(pair: Pair, wanted: Decimal, price: Decimal, fee: Decimal, markup: Decimal | None) -> Decimal:
        needed = (wanted / (1 - (markup or Decimal(0)) / 100) + fee) / price
        return needed.quantize(Decimal(1).scaleb(-pair.source.precision), rounding=ROUND_CEILING, context=MONEY)

    def _mid(self, pair: Pair, tick: int) -> Decimal:
        return self._usd(pair.source, tick) / self._usd(pair.target, tick)

    def _usd(self, instrument: Instrument, tick: int) -> Decimal:
        digest = hashlib.sha256(f"{self._seed} {instrument.currency} {tick}".encode()).digest()
        moved = Decimal(int.from_bytes(digest[:2], "big") - 32768) / 32768
        return instrument.usd * (1 + moved * Decimal("0.00025"))


def instrument_side(instrument: Instrument, *, slug: bool = True) -> dict[str, Any]:
    side: dict[str, Any] = {
        "currencyTitle": instrument.currency,
        "networkTitle": instrument.network.title,
        "precisionDecimals": instrument.precision,
    }
    return {**side, "slug": instrument.slug} if slug else side


def quotes_json(base: Decimal, price: Decimal) -> dict[str, dict[str, str]]:
    """{sellQuote, buyQuote}: what `base` of the source sells for, and what it would cost to buy."""
    with localcontext(MONEY):
        sell, buy = cut(base * price, PRICE_DIGITS), cut(base * price * Decimal("1.001"), PRICE_DIGITS)
    return {
        "sellQuote": {"baseValue": plain(base), "quoteValue": plain(sell)},
        "buyQuote": {"baseValue": plain(base), "quoteValue": plain(buy)},
    }


def rate_json(quote: Quote, *, v1: bool = False) -> dict[str, Any]:
    """The answer of E5a and E5b. `claimedDepositAmount` is invented here: the deposit in the source currency, which an
    amount given on the target side would otherwise leave untold."""
    pair, bounds = quote.pair, limits(quote.pair)
    with localcontext(MONEY):
        fee, to_get = plain(quote.network_fee), quote.amount_to_get
        to_get_usd = plain(cut(to_get * pair.target.usd, 6))
        least = plain(cut(bounds.minimum * quote.price, pair.target.precision))
        reverse = plain(cut(1 / quote.price, PRICE_DIGITS))
        right = plain(cut(quote.price * Decimal("1.001"), PRICE_DIGITS))
    quotes = quotes_json(Decimal(1), quote.price)
    answer: dict[str, Any] = {
        "instrumentFrom": instrument_side(pair.source),
        "instrumentTo": instrument_side(pair.target),
        "rateMode": quote.mode,
        "enableFixedRate": pair.has_fixed_rate,
        "claimedDepositAmount": None if quote.deposit is None else plain(quote.deposit),
        "amountToGive": plain(quote.given),
        "amountToGiveCurrencyTitle": quote.given_currency,
        "amountToGet": plain(to_get),
        "amountToGetUSDT": to_get_usd,
        "price": plain(quote.price),
        "finalNetworkFeeAmount": fee,
        "platformFee_Absolute": plain(quote.platform_fee),
        "generalMinAmount": plain(bounds.minimum),
        "generalMaxAmount": plain(bounds.maximum),
        "depositRules": {"minAmount": plain(bounds.minimum), "maxAmount": "0"},
        "withdrawalRules": {
            "minAmount": least,
            "maxAmount": "0",
            "withdrawalFeeRules": {"minAmount": fee, "maxAmount": fee},
        },
        "marketMinAmount": plain(bounds.minimum),
        "marketLeftPrice": plain(quote.price),
        "marketRightPrice": right,
        "marketAmountToGet": plain(to_get),
        "marketAmountToGetUSDT": to_get_usd,
        "quotes": quotes,
        "quotesWithoutNetworkFee": quotes,
        "liquidityProviderQuotes": quotes,
        "minConfirmationsToTrade": pair.source.network.confirmations,
        "minConfirmationsToWithdraw": pair.source.network.confirmations,
        "liquidityProviderPublicCode": PROVIDER,
        "updatedAt": iso(quote.updated_at),
        "markup": None if quote.markup is None else plain(quote.markup),
    }
    return {**answer, "reversePrice": reverse} if v1 else answer
