"""What is checked before the upstream is asked for an order, and before a customer is told where to pay.

A field problem is {"code", "message", ...}; every problem that can be found is reported at once, by field name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from swap import addresses, money
from swap.addresses import Verdict
from swap.catalog import Snapshot
from swap.tables import InstrumentRow, Order
from swap.upstream.replies import OrderReply, RateMode

Problem = dict[str, Any]


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
    quote_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    account_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        return {**vars(self), "amount": money.plain(self.amount)}


@dataclass(frozen=True)
class Checked:
    """A request whose offline checks passed. `address_checked` is False where no offline rule exists for the network:
    then the upstream must say yes."""

    source: InstrumentRow
    target: InstrumentRow
    address_checked: bool
    refund_checked: bool


def route_problems(snapshot: Snapshot, request: Mapping[str, Any]) -> dict[str, list[Problem]]:
    """Problems of pair and amount, which a quote has as well as an order; see `request_problems`."""
    found: dict[str, list[Problem]] = {}
    source, target = _instrument(snapshot, request, "from", found), _instrument(snapshot, request, "to", found)
    if source is not None and target is not None and not snapshot.has_pair(source, target):
        message = f"{_name(source)} cannot be swapped to {_name(target)}."
        found.setdefault("to", []).append({"code": "PAIR_UNAVAILABLE", "message": message})
    if source is not None and request.get("amount") is not None:
        _amount(source, request["amount"], found)
    return found


def request_problems(snapshot: Snapshot, request: Mapping[str, Any]) -> dict[str, list[Problem]]:
    """Problems of an order request that can be found without asking anybody.

    `request` holds the fields of OrderRequest that are well-formed so far; missing ones are skipped, so that a request with
    one malformed field still hears about all the others.
    """
    found = route_problems(snapshot, request)
    source, target = _instrument(snapshot, request, "from", {}), _instrument(snapshot, request, "to", {})
    if target is not None:
        _destination(target, request, found)
    if source is not None:
        _refund(source, request, found)
    return found


def checked(snapshot: Snapshot, request: OrderRequest) -> Checked:
    """The instruments of a request without problems, and which of its addresses have an offline rule."""
    source = snapshot.instruments[_key(request.from_currency, request.from_network)]
    target = snapshot.instruments[_key(request.to_currency, request.to_network)]
    verdict = addresses.validate(target.currency, target.network, request.destination_address, request.destination_memo)
    refund_checked = True
    if request.refund_address is not None:
        refund = addresses.validate(source.currency, source.network, request.refund_address, request.refund_memo)
        refund_checked = bool(refund.valid)
    return Checked(source, target, bool(verdict.valid), refund_checked)


def reply_problem(order: Order, reply: OrderReply, source: InstrumentRow | None, tolerance: Decimal) -> str | None:
    """Why the customer must not be told where to pay, or None (DESIGN.md, "Before a customer is told where to pay").

    Every echo must equal what was asked; null, "" and missing are the same. `unverified` means that nothing is wrong with
    the answer, but it does not say enough to tell; a later look may still clear it, and is judged together with the
    deposit details the order already has. Everything else is final for this order and needs people: it comes first, or
    what was wrong with a short answer would be forgotten when a later one fills the gap.

    `source` None: the instrument has left the catalog meanwhile; then the network decides whether a memo is needed.
    """
    return _mismatch(order, reply, tolerance) or _deposit_problem(order, reply, source) or _gap(order, reply)


def _mismatch(order: Order, reply: OrderReply, tolerance: Decimal) -> str | None:
    if reply.facts.failed_to_create:
        return "failed_to_create"
    echoed = (reply.from_currency, reply.from_network, reply.to_currency, reply.to_network)
    wanted = (order.from_currency, order.from_network, order.to_currency, order.to_network)
    if any(a is not None and a.casefold() != b.casefold() for a, b in zip(echoed, wanted, strict=True)):
        return "pair_mismatch"
    if reply.destination_address is not None and not same_address(
        order.to_currency, order.to_network, reply.destination_address, order.destination_address
    ):
        return "destination_mismatch"
    if reply.destination_memo and reply.destination_memo != order.destination_memo:
        return "memo_mismatch"
    if reply.refund_address and not (
        order.refund_address
        and same_address(order.from_currency, order.from_network, reply.refund_address, order.refund_address)
    ):
        return "refund_mismatch"
    if reply.refund_memo and reply.refund_memo != order.refund_memo:
        return "refund_mismatch"
    if reply.amount is not None and reply.amount != order.amount:
        return "amount_mismatch"
    if reply.rate_mode is not None and reply.rate_mode != order.rate_mode:
        return "rate_mode_mismatch"
    if (
        reply.amount_to_get is not None
        and order.amount_to_get is not None
        and not money.within(reply.amount_to_get, order.amount_to_get, tolerance)
    ):
        return "rate_mismatch"
    return None


def _deposit_problem(order: Order, reply: OrderReply, source: InstrumentRow | None) -> str | None:
    address, memo = reply.deposit_address, reply.deposit_memo or None
    if order.deposit_kind is not None:
        # What would be shown is what the order has; a look often repeats none of it (UPSTREAM.md E8).
        if address is not None and (address, memo or order.deposit_memo) != (order.deposit_address, order.deposit_memo):
            return "deposit_address_changed"
        address, memo = order.deposit_address, order.deposit_memo
    code = addresses.network_code(order.from_currency, order.from_network)
    if address is None:
        # A link to pay by is for fiat; nobody can pay a coin to one.
        is_fiat = code is None if source is None else source.type == "fiat"
        return None if is_fiat else "deposit_address_missing"
    if addresses.validate(order.from_currency, order.from_network, address, memo).valid is False:
        return "deposit_address_invalid"
    rule = addresses.memo_rule(order.from_currency, order.from_network)
    needs_memo = rule.kind == "required-by-instrument" if source is None else source.requires_memo
    return "deposit_memo_missing" if needs_memo and memo is None else None


def _gap(order: Order, reply: OrderReply) -> str | None:
    owed: list[object] = [
        *(reply.from_currency, reply.from_network, reply.to_currency, reply.to_network),
        *(reply.destination_address, reply.amount),
    ]
    if order.destination_memo is not None:
        owed.append(reply.destination_memo)
    if order.rate_mode == "FIXED":
        # Not saying so means FLOATING upstream; a fixed promise on such an answer would be ours to pay.
        owed += [reply.rate_mode, reply.amount_to_get]
    return "unverified" if None in owed else None


def same_address(currency: str, network: str, one: str, other: str) -> bool:
    """Whether two spellings name one address; an upstream may write 0x... and bc1... in another case than it was given."""
    if one == other:
        return True
    a, b = addresses.validate(currency, network, one), addresses.validate(currency, network, other)
    same = (a.normalised, a.embedded_memo) == (b.normalised, b.embedded_memo)
    return a.valid is True and b.valid is True and a.normalised is not None and same


def address_problem(verdict: Verdict) -> Problem | None:
    """A refusal of the offline validator as a field problem; None when it found nothing wrong."""
    if verdict.valid is not False:
        return None
    problem: Problem = {"code": f"{(verdict.field or 'address').upper()}_INVALID", "message": verdict.message}
    if verdict.reason:
        problem["reason"] = verdict.reason
    if verdict.hint:
        problem["hint"] = verdict.hint
    return problem


def _instrument(
    snapshot: Snapshot, request: Mapping[str, Any], side: str, found: dict[str, list[Problem]]
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


def _amount(source: InstrumentRow, amount: Decimal, found: dict[str, list[Problem]]) -> None:
    problems: list[Problem] = []
    if amount <= 0:
        problems.append({"code": "AMOUNT_NOT_POSITIVE", "message": "The amount must be more than zero."})
    if money.decimals(amount) > source.precision:
        message = f"{source.currency} takes at most {source.precision} digits after the point."
        problems.append({"code": "TOO_MANY_DECIMALS", "message": message, "max_decimals": source.precision})
    if problems:
        found.setdefault("amount", []).extend(problems)


def _address(side: str, verdict: Verdict, found: dict[str, list[Problem]]) -> None:
    problem = address_problem(verdict)
    if problem is None and "converted" in verdict.warnings:
        # An X- or M-address. Whether the upstream understands that form is not known, so the two parts are asked for
        # separately (ADDRESSES.md section 4.3), also where the tag inside says that there is none.
        message = "This address form carries a tag inside. Give the plain address, and the tag as the memo."
        problem = {"code": "ADDRESS_FORM_UNSUPPORTED", "message": message}
    if problem is not None:
        found.setdefault(f"{side}_{verdict.field or 'address'}", []).append(problem)


def _memo(side: str, memo: str | None, found: dict[str, list[Problem]]) -> None:
    """Where no rule is known for the network, nothing else would notice that an empty memo is none."""
    if memo == "" and f"{side}_memo" not in found:
        problem = {"code": "MEMO_INVALID", "message": "An empty memo is none; leave it out.", "reason": "memo_empty"}
        found[f"{side}_memo"] = [problem]


def _destination(target: InstrumentRow, request: Mapping[str, Any], found: dict[str, list[Problem]]) -> None:
    address, memo = request.get("destination_address"), request.get("destination_memo")
    waived = request.get("destination_memo_none", False)
    if address is not None:
        _address("destination", addresses.validate(target.currency, target.network, address, memo), found)
    _memo("destination", memo, found)
    if memo is not None and waived:
        message = "destination_memo_none says that there is no memo, yet one is given."
        found.setdefault("destination_memo_none", []).append({"code": "MEMO_CONTRADICTION", "message": message})
    elif target.requires_memo and memo is None and not waived:
        name = addresses.memo_rule(target.currency, target.network).name or "memo"
        message = (
            f"{_name(target)} needs a {name}; without it the money is lost at most exchanges. "
            "If the receiving wallet needs none, say so with destination_memo_none."
        )
        found.setdefault("destination_memo", []).append({"code": "MEMO_REQUIRED", "message": message})


def _refund(source: InstrumentRow, request: Mapping[str, Any], found: dict[str, list[Problem]]) -> None:
    address, memo = request.get("refund_address"), request.get("refund_memo")
    if address is None:
        if memo is not None:
            message = "A refund memo without a refund address has nowhere to go."
            found.setdefault("refund_address", []).append({"code": "REQUIRED", "message": message})
        return
    _address("refund", addresses.validate(source.currency, source.network, address, memo), found)
    _memo("refund", memo, found)
    if source.requires_memo and memo is None:
        name = addresses.memo_rule(source.currency, source.network).name or "memo"
        message = f"A refund on {_name(source)} needs a {name}."
        found.setdefault("refund_memo", []).append({"code": "MEMO_REQUIRED", "message": message})


def _key(currency: str, network: str) -> tuple[str, str]:
    return currency.casefold(), network.casefold()


def _name(instrument: InstrumentRow) -> str:
    return f"{instrument.currency} on {instrument.network}"
