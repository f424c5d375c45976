"""Instruments, pairs and orders as the upstream writes them in JSON (docs/upstream.md section 3).

The strict models of the vendor's SDK (1.0.11) accept these answers; where SDK and documentation name a field
differently, both names are given.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from swap.sandbox import scenarios
from swap.sandbox.catalog import Instrument, Pair
from swap.sandbox.rates import FIXED_MINUTES, PROVIDER, instrument_side, limits, quotes_json
from swap.sandbox.timeline import Order, Snapshot
from swap.sandbox.wire import iso, plain


def titles(instrument: Instrument) -> dict[str, str]:
    return {"currencyTitle": instrument.currency, "networkTitle": instrument.network.title}


def instrument_json(instrument: Instrument) -> dict[str, Any]:
    """E1 and E2."""
    return {
        **instrument_side(instrument),
        "instrumentType": "fiat" if instrument.is_fiat else "crypto",
        "fullName": instrument.name,
        "currencyFriendlyTitle": instrument.name.split(" ")[0],
        "okexCurrencyFriendlyTitle": instrument.name.split(" ")[0],
        "requiresMemo": instrument.requires_memo,
        "bestChangeName": instrument.slug.upper(),
        "contractAddress": instrument.contract,
        "currencyLogoLink": f"https://sandbox.invalid/assets/coins/{instrument.currency.lower()}.svg",
    }


def listed_pair_json(pair: Pair, *, nested: bool) -> dict[str, Any]:
    """E4a: the upstream's elements may be flat or nested, so the sandbox mixes both."""
    if nested or not pair.is_active:
        return {"instrumentFrom": titles(pair.source), "instrumentTo": titles(pair.target), "isActive": pair.is_active}
    return {
        "instrumentFromCurrencyTitle": pair.source.currency,
        "instrumentFromNetworkTitle": pair.source.network.title,
        "instrumentToCurrencyTitle": pair.target.currency,
        "instrumentToNetworkTitle": pair.target.network.title,
    }


def v1_pair_json(pair: Pair) -> dict[str, Any]:
    """E4b: nested, with the details of each side."""

    def side(instrument: Instrument) -> dict[str, Any]:
        row = instrument_json(instrument)
        kept = ("currencyTitle", "networkTitle", "currencyFriendlyTitle", "slug", "precisionDecimals", "instrumentType")
        return {
            **{name: row[name] for name in kept},
            "reservesAmount": plain(limits(Pair(instrument, instrument)).maximum),
            "bestChangeCurrencyName": row["bestChangeName"],
            "currencyLogoLink": row["currencyLogoLink"],
        }

    return {"instrumentFrom": side(pair.source), "instrumentTo": side(pair.target), "isActive": pair.is_active}


def one_pair_json(pair: Pair, now: float) -> dict[str, Any]:
    """E4c. The documented answer mixes JSON numbers and strings; the numbers are floats here for that reason alone, and
    the same limits stand next to them as strings."""
    bounds = limits(pair)
    return {
        "minAmountUSDT": float(bounds.minimum * pair.source.usd),
        "maxAmountUSDT": float(bounds.maximum * pair.source.usd),
        "minAmountXML": float(bounds.minimum),
        "maxAmountXML": float(bounds.maximum),
        "massEdit": False,
        "createdAt": "2025-08-01T00:00:00.000Z",
        "updatedAt": iso(now),
        "rateMultiplier": 1.0,
        "desiredBestChangePosition": 0,
        "maxCorrectionOfInternalRate_Percentage": "0.0005",
        "minAmount": plain(bounds.minimum),
        "maxAmount": plain(bounds.maximum),
        "isActive": pair.is_active,
        "enableFixedRate": pair.has_fixed_rate,
        "platformFeeSteps": ["0.5", "1.0"],
    }


def created_json(order: Order, seen: Snapshot) -> dict[str, Any]:
    """E6: the full object as the SDK models it."""
    info = info_json(order, seen)
    del info["completed"]
    return {
        **info,
        "isPlatformEmail": False,
        "refundAddress": order.refund,
        "refundAddressMemo": order.refund_memo,
        "claimedNetworkFee": plain(order.network_fee),
        "depositAddress": _deposit_address(order),
        "liquidityProviderPublicCode": PROVIDER,
        "claimedPublicRate": _claimed_rate(order),
        "state": "created",
    }


def info_json(order: Order, seen: Snapshot) -> dict[str, Any]:
    """E8. `depositAddress` and the memos are given as in E6: whether the upstream repeats them here is not attested, and
    without them an order could never be found again by its deposit details."""
    deposit, source, target = _deposit_address(order), order.pair.source, order.pair.target
    return {
        "orderId": order.number,
        "legacyOrderId": order.guid,
        "createdAt": iso(order.created_at),
        "pair": {
            "instrumentFrom": instrument_side(source, slug=False),
            "instrumentTo": instrument_side(target, slug=False),
        },
        "rateMode": order.rate_mode,
        "claimedDepositAmount": plain(order.amount),
        "amountToGet": plain(order.amount_to_get),
        "completed": seen.is_completed,
        "status": _status(seen),
        "userEmail": None,
        "destinationAddress": order.destination,
        "destinationAddressMemo": order.destination_memo,
        "refundAddress": order.refund,
        "refundAddressMemo": order.refund_memo,
        "depositAddress": deposit,
        "KYCFormLink": f"https://kyc.sandbox.invalid/{order.guid}" if seen.is_on_hold else None,
        "deposits": [
            {
                "createdAt": iso(one.at),
                "instrument": titles(source),
                "amount": plain(one.amount),
                "amountUSDT": plain(one.amount * source.usd),
                "confirmations": one.confirmations,
                "txId": one.tx_id,
                "depositAddress": order.place.address,
                "isPending": one.is_pending,
            }
            for one in seen.deposits
        ],
        "withdrawals": [
            {
                "createdAt": iso(one.at),
                "instrument": titles(target),
                "amount": plain(one.amount),
                "networkFee": plain(one.fee),
                "txId": one.tx_id,
            }
            for one in seen.payouts
        ],
        "orderEvents": [{"kind": kind, "createdAt": iso(at)} for kind, at in seen.events],
    }


def listed_json(order: Order, seen: Snapshot) -> dict[str, Any]:
    """E7. Never the GUID; `-1` while a floating payout is not decided, `0` before money left (observed live)."""
    undecided = order.rate_mode == "FLOATING" and scenarios.REGISTERED not in seen.kinds
    return {
        "orderId": order.number,
        "destinationAddress": order.destination,
        "refundAddress": order.refund,
        "claimedDepositAmount": plain(order.amount),
        "amountToGet": "-1" if undecided else plain(order.amount_to_get),
        "amountToWithdrawFact": plain(seen.payouts[0].amount) if seen.payouts else "0",
        "instrumentFromCurrencyTitle": order.pair.source.currency,
        "instrumentFromNetworkTitle": order.pair.source.network.title,
        "instrumentToCurrencyTitle": order.pair.target.currency,
        "instrumentToNetworkTitle": order.pair.target.network.title,
        "createdAt": iso(order.created_at),
        "updatedAt": iso(seen.updated_at),
        "completed": seen.is_completed,
        "state": _state(seen),
    }


def truth_json(order: Order, seen: Snapshot) -> dict[str, Any]:
    """The sandbox's own view, for tests: everything, even what the public answers leave out."""
    return {
        **info_json(order, seen),
        "scenario": order.scenario.name,
        "expired": seen.is_expired,
        "onHold": seen.is_on_hold,
        "networkFee": plain(order.network_fee),
        "price": plain(order.price),
        "referrerId": order.referrer,
        "markup": None if order.markup is None else plain(order.markup),
        "claimedPublicRate": order.claimed_rate,
        "updatedAt": iso(seen.updated_at),
    }


def _deposit_address(order: Order) -> dict[str, Any]:
    """For a fiat source there is no address; the field `paymentLink` is invented, that flow is UNKNOWN upstream."""
    place = order.place
    answer: dict[str, Any] = {
        "instrument": titles(order.pair.source),
        "depositAddress": place.address,
        "depositAddressMemo": place.memo,
    }
    return answer if place.payment_link is None else {**answer, "paymentLink": place.payment_link}


def _claimed_rate(order: Order) -> dict[str, object]:
    """What the client claimed, over what the sandbox would have claimed."""
    rate: dict[str, object] = {
        "claimedAmountToReceive": plain(order.amount_to_get),
        "price": plain(order.price),
        "finalNetworkFeeAmount": plain(order.network_fee),
        "quotes": quotes_json(Decimal(1), order.price),
        "updatedAt": iso(order.created_at),
    }
    if order.rate_mode == "FIXED":
        rate["fixedRate_maxTimeMinutes"] = FIXED_MINUTES
    return {**rate, **{name: value for name, value in (order.claimed_rate or {}).items() if value is not None}}


def _state(seen: Snapshot) -> str:
    """Only `created` is attested (docs/upstream.md section 5); the final words are guesses in the same style."""
    if seen.is_completed:
        return "completed"
    if scenarios.REFUNDED in seen.kinds:
        return "refunded"
    return "expired" if seen.is_expired else "created"


def _status(seen: Snapshot) -> str:
    """One of the four documented words."""
    if seen.is_completed:
        return "completed"
    if scenarios.REFUNDED in seen.kinds:
        return "refunded"
    return "confirmed" if scenarios.REGISTERED in seen.kinds else "waiting"
