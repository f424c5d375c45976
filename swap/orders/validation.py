"""What is wrong with a request for an order, as far as that can be found without asking the upstream.

Every problem is reported at once, by field name, even where some fields of the request are malformed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from swap import addresses
from swap.addresses import Verdict
from swap.domain import fiat, invoices, money
from swap.domain.decimal_places import sendable_places
from swap.errors import FieldProblem, Problems
from swap.market.catalog import Snapshot
from swap.tables import InstrumentRow
from swap.upstream.replies import RateMode


class InstrumentName(NamedTuple):
    """An instrument as the caller wrote it."""

    currency: str
    network: str


@dataclass(frozen=True, slots=True)
class Destination:
    """Where money is to be paid, as the caller wrote it; None: not given, or malformed.

    `memo_none`: the caller says that the receiving wallet needs no memo. `validation_id`: from `DestinationCheck.preview`.
    """

    address: str | None = None
    memo: str | None = None
    memo_none: bool = False
    validation_id: str | None = None


@dataclass(frozen=True)
class OrderRequest:
    """`POST /v1/orders`, validated in form. `stored()` settles whether a `client_order_id` means the same order."""

    client_order_id: str
    source: InstrumentName
    target: InstrumentName
    amount: Decimal
    rate_mode: RateMode
    destination: Destination
    refund: Destination | None = None
    quote_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    account_id: str | None = None
    search_terms: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """The request as its order keeps it, in the form of JSON. Orders of every earlier version have these keys, so they
        stay as they are.

        Without the validation ids: they spare a question to the upstream and are no part of what is ordered, so a
        repetition may bring a fresh one.
        """
        refund = self.refund or Destination()
        return {
            "client_order_id": self.client_order_id,
            "from_currency": self.source.currency,
            "from_network": self.source.network,
            "to_currency": self.target.currency,
            "to_network": self.target.network,
            "amount": money.plain(self.amount),
            "rate_mode": self.rate_mode,
            "destination_address": self.destination.address,
            "destination_memo": self.destination.memo,
            "destination_memo_none": self.destination.memo_none,
            "refund_address": refund.address,
            "refund_memo": refund.memo,
            "refund_memo_none": refund.memo_none,
            "quote_id": self.quote_id,
            "user_id": self.user_id,
            "session_id": self.session_id,
            "account_id": self.account_id,
            "search_terms": self.search_terms,
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class PartialRequest:
    """The well-formed part of a request for an order, or for a quote, which has no destination. None: not given, or
    malformed."""

    source: InstrumentName | None = None
    target: InstrumentName | None = None
    amount: Decimal | None = None
    destination: Destination | None = None
    refund: Destination | None = None


@dataclass(frozen=True)
class Examined:
    """What `examine` found. The instruments are None where they are unknown, the verdicts where no address was given."""

    problems: Problems
    source: InstrumentRow | None
    target: InstrumentRow | None
    destination: Verdict | None
    refund: Verdict | None


def examine(snapshot: Snapshot, request: OrderRequest | PartialRequest, now: datetime) -> Examined:
    """Look up both instruments, judge both addresses offline, and collect all that is wrong with the request."""
    problems = Problems()
    source = _instrument(snapshot, request.source, "from", problems)
    target = _instrument(snapshot, request.target, "to", problems)
    if source is not None and target is not None and not snapshot.has_pair(source, target):
        message = f"{_name(source)} cannot be swapped to {_name(target)}."
        problems.add("to", FieldProblem("PAIR_UNAVAILABLE", message))
    if source is not None and request.amount is not None:
        _examine_amount(source, request.amount, problems)
    destination = refund = None
    if target is not None and request.destination is not None:
        destination = _examine_destination("destination_", target, request.destination, now, problems)
    if source is not None and request.refund is not None:
        if request.refund.address is not None:
            refund = _examine_destination("refund_", source, request.refund, now, problems)
        elif request.refund.memo is not None or request.refund.memo_none:
            message = "A refund memo without a refund address has nowhere to go."
            problems.add("refund_address", FieldProblem("REQUIRED", message))
    return Examined(problems, source, target, destination, refund)


def _instrument(snapshot: Snapshot, name: InstrumentName | None, side: str, problems: Problems) -> InstrumentRow | None:
    if name is None:
        return None
    instrument = snapshot.instrument(*name)
    if instrument is None:
        currency_key = name.currency.casefold()
        networks = sorted(i.network for i in snapshot.instruments.values() if i.currency_key == currency_key)
        hint = f" {name.currency} is offered on: {', '.join(networks)}." if networks else ""
        message = f"There is no active instrument {name.currency} on {name.network}.{hint}"
        problems.add(side, FieldProblem("INSTRUMENT_UNKNOWN", message))
    return instrument


def _examine_amount(source: InstrumentRow, amount: Decimal, problems: Problems) -> None:
    if amount <= 0:
        problems.add("amount", FieldProblem("AMOUNT_NOT_POSITIVE", "The amount must be more than zero."))
    places = amount_places(source)
    if money.decimals(amount) > places:
        step = money.plain(Decimal(1).scaleb(-places))
        message = (
            f"{_name(source)} can be sent in steps of {step}: at most {places} digits after the point."
            if places
            else f"{_name(source)} can be sent in whole units only."
        )
        problems.add("amount", FieldProblem("TOO_MANY_DECIMALS", message, {"max_decimals": places, "step": step}))


def amount_places(instrument: InstrumentRow) -> int:
    """How many digits after the point an amount of this instrument may have: what the catalog takes and a wallet, or a
    bank, can send."""
    is_fiat = instrument.type == "fiat"
    return sendable_places(instrument.currency, instrument.network, instrument.precision, is_fiat=is_fiat)


def _examine_destination(
    prefix: str, instrument: InstrumentRow, destination: Destination, now: datetime, problems: Problems
) -> Verdict | None:
    address, memo = destination.address, destination.memo
    verdict = None if address is None else offline_verdict(instrument, address, memo, now)
    problems.update(destination_problems(instrument, destination, verdict, prefix))
    return verdict


# --- addresses and memos ---------------------------------------------------------------------------------------------


def offline_verdict(instrument: InstrumentRow, address: str, memo: str | None, now: datetime) -> Verdict:
    """Our own verdict on a destination of this instrument, by the rules of its network, or those of bank accounts.

    A card number is called one wherever it is no address. An invoice is read for its expiry too; its amount is compared
    once the payout is known (`invoice_problems`).
    """
    if instrument.type == "fiat":
        return fiat.validate(instrument.currency, address, memo)
    verdict = addresses.validate(instrument.currency, instrument.network, address, memo)
    if verdict.status != "valid" and verdict.field != "memo" and fiat.is_card_number(address):
        return Verdict("invalid", fiat.CARD_NUMBER, fiat.MESSAGES[fiat.CARD_NUMBER], "address", verdict.network)
    if verdict.invoice is not None and not invoices.is_in_time(verdict.invoice, now):
        minutes = invoices.PAYOUT_NEEDS // timedelta(minutes=1)
        hint = f"Make a new one; it must be good for {minutes} minutes when the order is placed."
        return Verdict(
            "invalid",
            "invoice_expired",
            addresses.MESSAGES["invoice_expired"],
            "address",
            verdict.network,
            memo_rule=verdict.memo_rule,
            hint=hint,
        )
    return verdict


def invoice_problems(
    destination: Verdict | None, amount_to_get: Decimal | None, refund: Verdict | None, amount: Decimal | None
) -> Problems:
    """What is wrong with the amounts of invoices, by field: one that is paid out to must be for what comes out, one that is
    refunded to for what went in. Nothing, where the verdict is on no invoice or the amount is not known."""
    problems = Problems()
    for side, verdict, paid in (("destination", destination, amount_to_get), ("refund", refund, amount)):
        if verdict is None or verdict.invoice is None or paid is None or invoices.takes(verdict.invoice, paid):
            continue
        hint = f"Make one over {money.plain(paid)} BTC, or one without an amount."
        details = {"reason": "invoice_amount", "hint": hint}
        problem = FieldProblem("ADDRESS_INVALID", addresses.MESSAGES["invoice_amount"], details)
        problems.add(f"{side}_address", problem)
    return problems


def offline_is_enough(instrument: InstrumentRow, verdict: Verdict) -> bool:
    """Whether an order may be made on our verdict alone while the upstream cannot be asked. Never for fiat: what accounts
    the upstream pays to is not known (docs/upstream.md section 8)."""
    return verdict.status == "valid" and instrument.type != "fiat"


def memo_may_be_waived(instrument: InstrumentRow) -> bool:
    """Whether "my wallet needs none" can be the answer to a required memo: on networks that we know, where an address is
    whole without one. Elsewhere the memo may be the account."""
    return instrument.type != "fiat" and addresses.network_code(instrument.currency, instrument.network) is not None


def destination_problems(
    instrument: InstrumentRow, destination: Destination, verdict: Verdict | None, prefix: str = ""
) -> Problems:
    """What is wrong with a destination, under `prefix` + address, memo or memo_none. `verdict`: ours on its address, None
    where it has none."""
    problems = Problems()
    memo_field, waiver = f"{prefix}memo", f"{prefix}memo_none"
    problem = None if verdict is None else _address_problem(verdict)
    if verdict is not None and problem is not None:
        problems.add(f"{prefix}{verdict.field or 'address'}", problem)
    if destination.memo == "" and memo_field not in problems:
        # Where no rule is known for the network, nothing else would notice that an empty memo is none.
        message = "An empty memo is none; leave it out."
        problems.add(memo_field, FieldProblem("MEMO_INVALID", message, {"reason": "memo_empty"}))
    is_inside = verdict is not None and verdict.embedded_memo is not None
    # The payment id in a Monero address is no memo of its own: there is nothing to contradict.
    is_packed = is_inside and verdict is not None and "converted" in verdict.warnings
    if destination.memo_none and (destination.memo is not None or is_packed):
        where = "the address carries one inside" if destination.memo is None else "one is given"
        message = f"{waiver} says that there is no memo, yet {where}."
        problems.add(waiver, FieldProblem("MEMO_CONTRADICTION", message))
    elif instrument.requires_memo and destination.memo is None and not is_inside:
        message = (
            f"{_name(instrument)} needs a {memo_name(instrument)}; without it the money is lost at most exchanges."
        )
        if memo_may_be_waived(instrument):
            if not destination.memo_none:
                message = f"{message} If the receiving wallet needs none, say so with {waiver}."
                problems.add(memo_field, FieldProblem("MEMO_REQUIRED", message))
        elif destination.memo_none:
            problems.add(waiver, FieldProblem("MEMO_NONE_NOT_ALLOWED", message))
        else:
            problems.add(memo_field, FieldProblem("MEMO_REQUIRED", message))
    return problems


def _address_problem(verdict: Verdict) -> FieldProblem | None:
    if verdict.status != "invalid":
        return None
    code = f"{(verdict.field or 'address').upper()}_INVALID"
    if verdict.reason == fiat.CARD_NUMBER:
        code = "CARD_NUMBER_REFUSED"
    details = {"reason": verdict.reason, "hint": verdict.hint}
    return FieldProblem(code, verdict.message, {name: text for name, text in details.items() if text})


def memo_name(instrument: InstrumentRow) -> str:
    """What people call the memo there: destination tag, comment, note."""
    return addresses.memo_rule(instrument.currency, instrument.network).name or "memo"


def sent_form(address: str) -> dict[str, str | None]:
    """What an order has instead of a text that is another form of its destination, by field: of an X- or M-address address
    and memo, of an IBAN with spaces the address. Empty for every other text."""
    for network in ("XRP", "XLM"):
        verdict = addresses.validate(network, network, address)
        if "converted" in verdict.warnings:
            return {"destination_address": verdict.send_address, "destination_memo": verdict.send_memo}
    account = fiat.validate("", address)
    return {"destination_address": account.send_address} if account.status == "valid" else {}


def _name(instrument: InstrumentRow) -> str:
    return f"{instrument.currency} on {instrument.network}"
