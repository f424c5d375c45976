"""Tolerant reading of the v2 upstream's answers: parsed JSON in, `replies` out.

Tolerant means: unknown fields are ignored, both shapes of everything section 7 of docs/upstream.md lists are accepted, a bad
optional field becomes None. It does not mean guessing: an answer that lacks what the protocol promises raises
Malformed (T11), because an empty catalog or an order without an id would do harm further in.

Every `read_*` function takes the parsed body and raises Malformed for anything it cannot use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Literal

from swap.domain.lifecycle import Facts, Transfer, UpstreamEvent
from swap.errors import Malformed
from swap.upstream.fields import amount, count, fee, flag, link, mode, moment, number, string, text, told
from swap.upstream.replies import AddressVerdict, Instrument, ListedOrder, OrderReply, Pair, Rate

# For a row without one: Bitcoin's. It only rounds what we send (T8), so a wrong guess costs digits, not money.
_DEFAULT_PRECISION = 8

_NUMERIC_ID = re.compile(r"[0-9]{1,40}")

# An event without a readable time still counts; sorted as the oldest, it can never pose as the newest state.
_UNTOLD = datetime(1970, 1, 1, tzinfo=UTC)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(body: object, what: str) -> list[Any]:
    if not isinstance(body, list):
        raise Malformed(f"{what}: not a JSON array")
    return body


def _one(body: object, what: str) -> dict[str, Any]:
    """An object, or an array of one (E8c)."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    if not isinstance(body, dict):
        raise Malformed(f"{what}: not a JSON object")
    return body


def titles(row: dict[str, Any], side: Literal["From", "To"]) -> tuple[str | None, str | None]:
    """Currency and network title of one side: nested under instrumentFrom/To, under `pair`, or flat (E4, E6, E7)."""
    nested = _object(row.get(f"instrument{side}")) or _object(_object(row.get("pair")).get(f"instrument{side}"))
    currency = text(nested.get("currencyTitle")) or text(row.get(f"instrument{side}CurrencyTitle"))
    network = text(nested.get("networkTitle")) or text(row.get(f"instrument{side}NetworkTitle"))
    return currency, network


# --- catalog ---------------------------------------------------------------------------------------------------------


def _instrument(row: dict[str, Any]) -> Instrument | None:
    currency, network = text(row.get("currencyTitle")), text(row.get("networkTitle"))
    if currency is None or network is None:
        return None
    precision = count(row.get("precisionDecimals"))
    kind = text(row.get("instrumentType"))
    friendly = text(row.get("currencyFriendlyTitle")) or text(row.get("okexCurrencyFriendlyTitle"))
    return Instrument(
        currency=currency,
        network=network,
        type="crypto" if kind is None or kind.lower() == "crypto" else "fiat",
        slug=text(row.get("slug")),
        name=friendly or text(row.get("fullName")) or currency,
        precision=precision if precision is not None and precision <= 36 else _DEFAULT_PRECISION,
        requires_memo=flag(row.get("requiresMemo")),
        contract_address=text(row.get("contractAddress")),
        logo_url=link(row.get("currencyLogoLink")),
    )


def read_instruments(body: object) -> list[Instrument]:
    """E1. Rows without titles are skipped, the first of a title repeated in another case counts (T7).
    An empty catalog is malformed (T11)."""
    instruments: dict[tuple[str, str], Instrument] = {}
    for row in _rows(body, "instruments"):
        instrument = _instrument(_object(row))
        if instrument is not None:
            instruments.setdefault((instrument.currency.casefold(), instrument.network.casefold()), instrument)
    if not instruments:
        raise Malformed("instruments: an empty catalog")
    return list(instruments.values())


def read_pairs(body: object) -> tuple[list[Pair], int]:
    """One page of E4a, flat or nested, inactive pairs included; and how many rows it had, readable or not: that is how
    the last page is known."""
    pairs = []
    rows = _rows(body, "pairs")
    for row in map(_object, rows):
        (from_currency, from_network), (to_currency, to_network) = titles(row, "From"), titles(row, "To")
        if from_currency and from_network and to_currency and to_network:
            active = flag(row.get("isActive")) is not False
            pairs.append(Pair(from_currency, from_network, to_currency, to_network, active))
    return pairs, len(rows)


def read_verdict(body: object) -> AddressVerdict:
    """E3, a 2xx in any of its three forms. A 2xx alone is no verdict: it can carry `false`."""
    if isinstance(body, bool):
        return AddressVerdict(body)
    row = _one(body, "address verdict")
    for name in ("valid", "result"):
        if isinstance(row.get(name), bool):
            return AddressVerdict(row[name], None if row[name] else text(row.get("message")))
    raise Malformed("address verdict: neither valid nor invalid")


# --- rate ------------------------------------------------------------------------------------------------------------


def read_rate(body: object, *, with_amount: bool) -> Rate:
    """E5. `with_amount`: an amount was asked for, so amountToGet is owed. Without one, limits or a price will do."""
    row = _one(body, "rate")
    (from_currency, from_network), (to_currency, to_network) = titles(row, "From"), titles(row, "To")
    rules = _object(row.get("depositRules"))
    rate = Rate(
        from_currency=from_currency,
        from_network=from_network,
        to_currency=to_currency,
        to_network=to_network,
        amount_to_give=amount(row.get("amountToGive")),
        amount_to_get=amount(row.get("amountToGet")),
        price=amount(row.get("price")),
        rate_mode=mode(row.get("rateMode")),
        fixed_rate_enabled=flag(row.get("enableFixedRate")),
        min_amount=amount(row.get("generalMinAmount")) or amount(rules.get("minAmount")),
        max_amount=amount(row.get("generalMaxAmount")) or amount(rules.get("maxAmount")),
        network_fee=fee(row.get("finalNetworkFeeAmount")),
        platform_fee=fee(row.get("platformFee_Absolute")),
        updated_at=moment(row.get("updatedAt")),
        confirmations_required=count(row.get("minConfirmationsToTrade")),
        quotes=_quotes(row.get("quotes")),
    )
    if with_amount and rate.amount_to_get is None:
        raise Malformed("rate: no amountToGet")
    if rate.amount_to_get is None and rate.price is None and rate.min_amount is None and rate.max_amount is None:
        raise Malformed("rate: neither a price nor limits")
    return rate


def _quotes(value: object) -> dict[str, dict[str, str]] | None:
    """sellQuote and buyQuote as texts, so that they can be sent back in a create; None when one of the values is not
    there."""
    quotes: dict[str, dict[str, str]] = {}
    for side in ("sellQuote", "buyQuote"):
        quote = _object(_object(value).get(side))
        base, counter = number(quote.get("baseValue")), number(quote.get("quoteValue"))
        if base is None or counter is None:
            return None
        quotes[side] = {"baseValue": format(base, "f"), "quoteValue": format(counter, "f")}
    return quotes


# --- orders ----------------------------------------------------------------------------------------------------------


def _refs(values: Iterable[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(ref.strip() for ref in map(text, values) if ref))


def _numeric(*candidates: object) -> str | None:
    for candidate in map(text, candidates):
        if candidate and _NUMERIC_ID.fullmatch(candidate.strip()):
            return candidate.strip()
    return None


def _number_of(row: dict[str, Any], *besides: object) -> str | None:
    """The order's number. An `id` beside an `orderId` of another form is an id like any other: nobody says that it counts
    orders, and a number that all answers have in common would make each of them the same order."""
    number = _numeric(row.get("orderId"), *besides)
    return number if number is not None or told(row.get("orderId")) else _numeric(row.get("id"))


# Where a fiat order is paid is not known (docs/upstream.md section 8); these are the likely names.
_LINKS = ("paymentLink", "paymentUrl")


def read_order(body: object) -> OrderReply:
    """E6 and E8: as much of an order as can be read. Whether that is enough (`OrderReply.complete`) is for the caller to
    say. Raises Malformed when there is neither an id nor a single fact about an order."""
    row = _one(body, "order")
    deposit = row.get("depositAddress")
    nested = _object(deposit)  # C14: a plain string, or an object
    refs = _refs(
        [*(row.get(name) for name in ("orderId", "uuid", "legacyOrderId", "id", "reference")), nested.get("orderId")]
    )
    (from_currency, from_network), (to_currency, to_network) = titles(row, "From"), titles(row, "To")
    paid_in = _object(nested.get("instrument"))
    facts = read_facts(row)
    if not refs and facts == Facts():
        raise Malformed("order: neither an id nor a fact")
    return OrderReply(
        order_id=_number_of(row, nested.get("orderId")),
        refs=refs,
        deposit_address=string(nested.get("depositAddress")) if nested else string(deposit),
        deposit_memo=text(nested.get("depositAddressMemo")) or text(row.get("depositAddressMemo")),
        deposit_currency=text(paid_in.get("currencyTitle")),
        deposit_network=text(paid_in.get("networkTitle")),
        payment_link=next(filter(None, (link(place.get(name)) for place in (nested, row) for name in _LINKS)), None),
        from_currency=from_currency,
        from_network=from_network,
        to_currency=to_currency,
        to_network=to_network,
        rate_mode=mode(row.get("rateMode")),
        amount=amount(row.get("claimedDepositAmount")),
        amount_to_get=amount(row.get("amountToGet")),
        destination_address=string(row.get("destinationAddress")),
        destination_memo=text(row.get("destinationAddressMemo")),
        refund_address=string(row.get("refundAddress")),
        refund_memo=text(row.get("refundAddressMemo")),
        created_at=moment(row.get("createdAt")),
        confirmations=count(row.get("minConfirmationsToTrade")),
        fixed_rate_minutes=_minutes(row),
        state=string(row.get("state")),
        status=string(row.get("status")),
        facts=facts,
        raw=row,
        unreadable=_unreadable(row, nested),
    )


_FIXED_MINUTES = "fixedRate_maxTimeMinutes"


def _minutes(row: dict[str, Any]) -> int | None:
    """How long a fixed rate holds (E6); 0 says as little as nothing does."""
    in_rate = _object(row.get("claimedPublicRate")).get(_FIXED_MINUTES)
    return count(in_rate) or count(row.get(_FIXED_MINUTES)) or None


def _unreadable(row: dict[str, Any], nested: dict[str, Any]) -> tuple[str, ...]:
    """The fields that say something about who pays what where, but in a form that is not known, or twice and differently.
    Such a field is not the same as a missing one: a memo in an unknown form is a memo."""
    inner, outer = nested.get("depositAddressMemo"), row.get("depositAddressMemo")
    places: list[tuple[str, object, Callable[[object], object]]] = [
        ("depositAddress", nested.get("depositAddress") if nested else row.get("depositAddress"), string),
        ("depositAddressMemo", inner, text),
        ("depositAddressMemo", outer, text),
        ("depositAddress.instrument", nested.get("instrument"), _any_title),
        *((name, row.get(name), string) for name in ("destinationAddress", "refundAddress")),
        *((name, row.get(name), text) for name in ("destinationAddressMemo", "refundAddressMemo")),
        *((name, row.get(name), number) for name in ("claimedDepositAmount", "amountToGet")),
        ("rateMode", row.get("rateMode"), mode),
    ]
    if mode(row.get("rateMode")) == "FIXED":
        holders = (_object(row.get("claimedPublicRate")), row)
        places += [(_FIXED_MINUTES, holder.get(_FIXED_MINUTES), count) for holder in holders]
    names = [name for name, value, read in places if told(value) and read(value) is None]
    if told(inner) and told(outer) and text(inner) != text(outer):
        names.append("depositAddressMemo")
    ours, paid = _numeric(row.get("orderId")), _numeric(nested.get("orderId"))
    if None not in (ours, paid) and ours != paid:
        # The place to pay at is of another upstream order than the rest.
        names.append("depositAddress.orderId")
    return tuple(dict.fromkeys(names))


def _any_title(value: object) -> str | None:
    return text(_object(value).get("currencyTitle")) or text(_object(value).get("networkTitle"))


def read_facts(row: dict[str, Any]) -> Facts:
    """Events and transfers of an order, by content (section 5). The sequence in the arrays is not trusted, so it is not
    kept: events are a set, and a caller that wants the newest sorts by time."""
    created = moment(row.get("createdAt"))
    events = frozenset(
        UpstreamEvent(kind, moment(event.get("createdAt")) or created or _UNTOLD)
        for event in map(_object, _array(row.get("orderEvents")))
        if (kind := string(event.get("kind"))) is not None
    )
    deposits = tuple(_transfer("deposit", entry) for entry in map(_object, _array(row.get("deposits"))) if entry)
    withdrawals = tuple(
        _transfer("withdrawal", entry) for entry in map(_object, _array(row.get("withdrawals"))) if entry
    )
    return Facts(
        events=events,
        transfers=deposits + withdrawals,
        completed=flag(row.get("completed")) or False,
        failed_to_create=flag(row.get("failedToCreate")) or False,
        pending_to_create=flag(row.get("isPendingToCreate")) or False,
        kyc_link=link(row.get("KYCFormLink")),
        state=string(row.get("state")),
        updated_at=moment(row.get("updatedAt")),
    )


def _array(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _transfer(direction: Literal["deposit", "withdrawal"], entry: dict[str, Any]) -> Transfer:
    """A deposit of which nobody says whether it is pending is so while it has no confirmation. No entry says of a payout
    that it is complete; the events do (`Facts`)."""
    confirmations, pending = count(entry.get("confirmations")), flag(entry.get("isPending"))
    return Transfer(
        direction=direction,
        amount=amount(entry.get("amount")),
        tx_id=string(entry.get("txId")),
        at=moment(entry.get("createdAt")),
        confirmations=confirmations,
        pending=direction == "withdrawal" or (confirmations == 0 if pending is None else pending),
    )


def read_orders(body: object) -> list[ListedOrder]:
    """E7, complete or not at all: a row without any id makes the list malformed, since an order proved absent by a
    list we could not read in full would be created twice. An empty array is a list without orders."""
    orders = []
    for row in map(_object, _rows(body, "orders")):
        names = ("orderId", "uuid", "legacyOrderId", "id", "reference", "providerReference")
        refs = _refs(row.get(name) for name in names)
        if not refs:
            raise Malformed("orders: a row without an id")
        (from_currency, from_network), (to_currency, to_network) = titles(row, "From"), titles(row, "To")
        orders.append(
            ListedOrder(
                order_id=_number_of(row),
                refs=refs,
                destination_address=string(row.get("destinationAddress")),
                refund_address=string(row.get("refundAddress")),
                amount=amount(row.get("claimedDepositAmount")),
                amount_to_get=amount(row.get("amountToGet")),
                paid_out=amount(row.get("amountToWithdrawFact")),
                from_currency=from_currency,
                from_network=from_network,
                to_currency=to_currency,
                to_network=to_network,
                created_at=moment(row.get("createdAt")),
                updated_at=moment(row.get("updatedAt")),
                completed=flag(row.get("completed")),
                state=string(row.get("state")),
            )
        )
    return orders
