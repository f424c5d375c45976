"""What is checked before the upstream is asked for an order, and before a customer is told where to pay.

A field problem is {"code", "message", ...}; every problem that can be found is reported at once, by field name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from swap import addresses
from swap.addresses import Verdict
from swap.domain import fiat, money
from swap.market.catalog import Snapshot
from swap.tables import InstrumentRow
from swap.upstream.replies import RateMode

FieldProblem = dict[str, Any]


@dataclass(frozen=True)
class OrderRequest:
    """`POST /v1/orders`, validated in form. `stored()` settles whether a `client_order_id` means the same order."""

    client_order_id: str
    from_currency: str
    from_network: str
    to_currency: str
    to_network: str
    amount: Decimal
    rate_mode: RateMode
    destination_address: str
    destination_memo: str | None = None
    destination_memo_none: bool = False
    refund_address: str | None = None
    refund_memo: str | None = None
    refund_memo_none: bool = False
    quote_id: str | None = None
    destination_validation_id: str | None = None
    refund_validation_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    account_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """Without the validation ids: they spare a question to the upstream and are no part of what is ordered, so a
        repetition may bring a fresh one."""
        kept = {name: value for name, value in vars(self).items() if not name.endswith("_validation_id")}
        return {**kept, "amount": money.plain(self.amount)}


@dataclass(frozen=True)
class Checked:
    """A request whose offline checks passed: its instruments, and the verdicts, which say what goes to the upstream."""

    source: InstrumentRow
    target: InstrumentRow
    destination: Verdict
    refund: Verdict | None


def route_problems(snapshot: Snapshot, request: Mapping[str, Any]) -> dict[str, list[FieldProblem]]:
    """Problems of pair and amount, which a quote has as well as an order; see `request_problems`."""
    found: dict[str, list[FieldProblem]] = {}
    source, target = _instrument(snapshot, request, "from", found), _instrument(snapshot, request, "to", found)
    if source is not None and target is not None and not snapshot.has_pair(source, target):
        message = f"{_name(source)} cannot be swapped to {_name(target)}."
        found.setdefault("to", []).append({"code": "PAIR_UNAVAILABLE", "message": message})
    if source is not None and request.get("amount") is not None:
        _amount(source, request["amount"], found)
    return found


def request_problems(snapshot: Snapshot, request: Mapping[str, Any]) -> dict[str, list[FieldProblem]]:
    """Problems of an order request that can be found without asking anybody.

    `request` holds the fields of OrderRequest that are well-formed so far; missing ones are skipped, so that a request with
    one malformed field still hears about all the others.
    """
    found = route_problems(snapshot, request)
    source, target = _instrument(snapshot, request, "from", {}), _instrument(snapshot, request, "to", {})
    if target is not None:
        found |= _end_problems("destination_", target, request)
    if source is not None:
        if request.get("refund_address") is not None:
            found |= _end_problems("refund_", source, request)
        elif request.get("refund_memo") is not None or request.get("refund_memo_none"):
            message = "A refund memo without a refund address has nowhere to go."
            found["refund_address"] = [{"code": "REQUIRED", "message": message}]
    return found


def checked(snapshot: Snapshot, request: OrderRequest) -> Checked:
    """The instruments and verdicts of a request without problems."""
    source = snapshot.instruments[_key(request.from_currency, request.from_network)]
    target = snapshot.instruments[_key(request.to_currency, request.to_network)]
    destination = offline(target, request.destination_address, request.destination_memo)
    refund = None
    if request.refund_address is not None:
        refund = offline(source, request.refund_address, request.refund_memo)
    return Checked(source, target, destination, refund)


# --- addresses and memos ---------------------------------------------------------------------------------------------


def offline(instrument: InstrumentRow, address: str, memo: str | None) -> Verdict:
    """Our own verdict on a destination of this instrument, by the rules of its network, or those of bank accounts.

    A card number is called one wherever it is no address.
    """
    if instrument.type == "fiat":
        return fiat.validate(instrument.currency, address, memo)
    verdict = addresses.validate(instrument.currency, instrument.network, address, memo)
    if verdict.status != "valid" and verdict.field != "memo" and fiat.is_card_number(address):
        return Verdict("invalid", fiat.CARD_NUMBER, fiat.MESSAGES[fiat.CARD_NUMBER], "address", verdict.network)
    return verdict


def offline_is_enough(instrument: InstrumentRow, verdict: Verdict) -> bool:
    """Whether an order may be made on our verdict alone while the upstream cannot be asked. Never for fiat: what accounts
    the upstream pays to is not known (docs/upstream.md section 8)."""
    return verdict.status == "valid" and instrument.type != "fiat"


def memo_may_be_waived(instrument: InstrumentRow) -> bool:
    """Whether "my wallet needs none" can be the answer to a required memo: on networks that we know, where an address is
    whole without one. Elsewhere the memo may be the account."""
    return instrument.type != "fiat" and addresses.network_code(instrument.currency, instrument.network) is not None


def place_problems(
    instrument: InstrumentRow, address: str | None, memo: str | None, memo_none: bool, prefix: str = ""
) -> dict[str, list[FieldProblem]]:
    """What is wrong with a destination, under `prefix` + address, memo or memo_none. None: not given, or malformed."""
    found: dict[str, list[FieldProblem]] = {}
    verdict = None if address is None else offline(instrument, address, memo)
    problem = None if verdict is None else address_problem(verdict)
    if verdict is not None and problem is not None:
        found[f"{prefix}{verdict.field or 'address'}"] = [problem]
    memo_field, waiver = f"{prefix}memo", f"{prefix}memo_none"
    if memo == "" and memo_field not in found:
        # Where no rule is known for the network, nothing else would notice that an empty memo is none.
        problem = {"code": "MEMO_INVALID", "message": "An empty memo is none; leave it out.", "reason": "memo_empty"}
        found[memo_field] = [problem]
    is_inside = verdict is not None and verdict.embedded_memo is not None
    # The payment id in a Monero address is no memo of its own: there is nothing to contradict.
    is_packed = is_inside and verdict is not None and "converted" in verdict.warnings
    if memo_none and (memo is not None or is_packed):
        where = "the address carries one inside" if memo is None else "one is given"
        message = f"{waiver} says that there is no memo, yet {where}."
        found[waiver] = [{"code": "MEMO_CONTRADICTION", "message": message}]
    elif instrument.requires_memo and memo is None and not is_inside:
        message = (
            f"{_name(instrument)} needs a {memo_name(instrument)}; without it the money is lost at most exchanges."
        )
        if not memo_may_be_waived(instrument):
            code, name = ("MEMO_NONE_NOT_ALLOWED", waiver) if memo_none else ("MEMO_REQUIRED", memo_field)
            found[name] = [{"code": code, "message": message}]
        elif not memo_none:
            message = f"{message} If the receiving wallet needs none, say so with {waiver}."
            found[memo_field] = [{"code": "MEMO_REQUIRED", "message": message}]
    return found


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


def _end_problems(prefix: str, instrument: InstrumentRow, request: Mapping[str, Any]) -> dict[str, list[FieldProblem]]:
    address, memo = request.get(f"{prefix}address"), request.get(f"{prefix}memo")
    return place_problems(instrument, address, memo, bool(request.get(f"{prefix}memo_none")), prefix)


# --- the upstream's answer -------------------------------------------------------------------------------------------


def address_problem(verdict: Verdict) -> FieldProblem | None:
    """A refusal of the offline validator as a field problem; None when it found nothing wrong."""
    if verdict.valid is not False:
        return None
    code = f"{(verdict.field or 'address').upper()}_INVALID"
    if verdict.reason == fiat.CARD_NUMBER:
        code = "CARD_NUMBER_REFUSED"
    problem: FieldProblem = {"code": code, "message": verdict.message}
    if verdict.reason:
        problem["reason"] = verdict.reason
    if verdict.hint:
        problem["hint"] = verdict.hint
    return problem


def _instrument(
    snapshot: Snapshot, request: Mapping[str, Any], side: str, found: dict[str, list[FieldProblem]]
) -> InstrumentRow | None:
    currency, network = request.get(f"{side}_currency"), request.get(f"{side}_network")
    if currency is None or network is None:
        return None
    instrument = snapshot.instrument(currency, network)
    if instrument is None:
        networks = sorted(i.network for i in snapshot.instruments.values() if i.currency_key == currency.casefold())
        hint = f" {currency} is offered on: {', '.join(networks)}." if networks else ""
        message = f"There is no active instrument {currency} on {network}.{hint}"
        found.setdefault(side, []).append({"code": "INSTRUMENT_UNKNOWN", "message": message})
    return instrument


def _amount(source: InstrumentRow, amount: Decimal, found: dict[str, list[FieldProblem]]) -> None:
    problems: list[FieldProblem] = []
    if amount <= 0:
        problems.append({"code": "AMOUNT_NOT_POSITIVE", "message": "The amount must be more than zero."})
    if money.decimals(amount) > source.precision:
        message = f"{source.currency} takes at most {source.precision} digits after the point."
        problems.append({"code": "TOO_MANY_DECIMALS", "message": message, "max_decimals": source.precision})
    if problems:
        found.setdefault("amount", []).extend(problems)


def _key(currency: str, network: str) -> tuple[str, str]:
    return currency.casefold(), network.casefold()


def _name(instrument: InstrumentRow) -> str:
    return f"{instrument.currency} on {instrument.network}"
