"""Whether the customer may be told where to pay: the upstream's answer compared with what was asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from swap import addresses
from swap.domain import money
from swap.domain.lifecycle import Facts, Status
from swap.market.catalog import Catalog
from swap.orders.matching import deposit_change, same_address, unpacked
from swap.tables import InstrumentRow, Order
from swap.upstream.replies import OrderReply

# The differences in which money that comes in may be credited to somebody else, or go to somebody else.
WHERE_IT_GOES = frozenset(
    {"deposit_address_changed", "deposit_memo_changed", "deposit_instrument_mismatch"}
    | {"pair_mismatch", "destination_mismatch", "memo_mismatch"}
)


class ReplyCheck:
    """`tolerance`: RATE_TOLERANCE, relative."""

    def __init__(self, catalog: Catalog, tolerance: Decimal) -> None:
        self._catalog, self._tolerance = catalog, tolerance

    def source_of(self, order: Order) -> InstrumentRow | None:
        """The instrument to be paid in; None when it has left the catalog. To be looked up before a transaction: inside, it
        would need a second connection."""
        return self._catalog.snapshot().instrument(order.from_currency, order.from_network)

    def problem(self, order: Order, reply: OrderReply, source: InstrumentRow | None) -> str | None:
        """`reply_problem` within the tolerance."""
        return reply_problem(order, reply, source, self._tolerance)

    def problem_once_shown(self, order: Order, reply: OrderReply, status: Status) -> str | None:
        """In what a later answer about an order whose customer was shown where to pay differs from what was sent or shown;
        None when it contradicts nothing, or says too little to tell. `status`: the order's, or the one before its review.

        A floating rate moves by itself after the order is made, so only a FIXED promise is compared. Once the deposit is
        no longer awaited, only where the money comes in and where it goes is, and until one is seen, the amount: with what
        was paid an upstream may reckon anew, and it may take another refund address from the customer.
        """
        reply = unpacked(order, reply)
        found = _mismatches(order, reply, self._tolerance if order.rate_mode == "FIXED" else None)
        if status is not Status.AWAITING_DEPOSIT:
            paid = Facts.from_json(order.facts).deposit_seen
            compared = WHERE_IT_GOES if paid else WHERE_IT_GOES | {"amount_mismatch"}
            found = (reason for reason in found if reason in compared)
        return deposit_change(order, reply) or next(found, None)

    def problem_as_shown(self, order: Order, reply: OrderReply) -> str | None:
        """`problem`, of a later answer, which need not repeat the deposit details that the customer was shown: those have to
        pass the check anyway."""
        shown = replace(reply, deposit_address=order.deposit_address, deposit_memo=order.deposit_memo)
        return self.problem(order, shown, self.source_of(order))


def told_terms(order: Order, reply: OrderReply) -> dict[str, str]:
    """What an answer tells of the terms that are compared with the order's, by name; what it leaves out is left out."""
    reply = unpacked(order, reply)
    names = [
        *("from_currency", "from_network", "to_currency", "to_network", "destination_address", "destination_memo"),
        *("refund_address", "refund_memo", "amount", "rate_mode", "deposit_address", "deposit_memo"),
        *("deposit_currency", "deposit_network", "payment_link"),
    ]
    if order.rate_mode == "FIXED":
        names.append("amount_to_get")
    told = {name: getattr(reply, name) for name in names}
    terms = {name: money.plain(value) if isinstance(value, Decimal) else value for name, value in told.items() if value}
    if reply.unreadable:
        terms["unreadable"] = ", ".join(reply.unreadable)
    return terms | ({"failed_to_create": "true"} if reply.facts.failed_to_create else {})


def reply_problem(order: Order, reply: OrderReply, source: InstrumentRow | None, tolerance: Decimal) -> str | None:
    """Why the customer must not be told where to pay, or None (docs/architecture.md, "A create").

    Every echo must equal what was sent; null, "" and missing are the same. `unverified` means that nothing is wrong with
    the answer, but too little is in it to be sure; a later poll may still clear it, and is judged together with the deposit
    details that the order already has. Every other reason is final for this order and needs an operator. Such a reason
    comes first, or what was wrong with a short answer would be forgotten when a later one fills the gap.

    `source` None: the instrument has left the catalog; then the network decides whether a memo is needed.
    """
    reply = unpacked(order, reply)
    return (
        next(_mismatches(order, reply, tolerance), None) or _deposit_problem(order, reply, source) or _gap(order, reply)
    )


def _mismatches(order: Order, reply: OrderReply, tolerance: Decimal | None) -> Iterator[str]:
    """`tolerance` None: the rate is not compared."""
    if reply.facts.failed_to_create:
        yield "failed_to_create"
    if reply.unreadable:
        yield "answer_unreadable"
    deposited = ((reply.deposit_currency, order.from_currency), (reply.deposit_network, order.from_network))
    if any(told is not None and told.casefold() != asked.casefold() for told, asked in deposited):
        yield "deposit_instrument_mismatch"
    echoed = (reply.from_currency, reply.from_network, reply.to_currency, reply.to_network)
    ours = (order.from_currency, order.from_network, order.to_currency, order.to_network)
    if any(a is not None and a.casefold() != b.casefold() for a, b in zip(echoed, ours, strict=True)):
        yield "pair_mismatch"
    if reply.destination_address is not None and not same_address(
        order.to_currency, order.to_network, reply.destination_address, order.destination_address
    ):
        yield "destination_mismatch"
    if reply.destination_memo and reply.destination_memo != order.destination_memo:
        yield "memo_mismatch"
    if reply.refund_address and not (
        order.refund_address
        and same_address(order.from_currency, order.from_network, reply.refund_address, order.refund_address)
    ):
        yield "refund_mismatch"
    if reply.refund_memo and reply.refund_memo != order.refund_memo:
        yield "refund_mismatch"
    if reply.amount is not None and reply.amount != order.amount:
        yield "amount_mismatch"
    if reply.rate_mode is not None and reply.rate_mode != order.rate_mode:
        yield "rate_mode_mismatch"
    if tolerance is not None and not money.keeps_promise(
        reply.amount_to_get, order.amount_to_get, tolerance, fixed=order.rate_mode == "FIXED"
    ):
        yield "rate_mismatch"


def _deposit_problem(order: Order, reply: OrderReply, source: InstrumentRow | None) -> str | None:
    address, memo = reply.deposit_address, reply.deposit_memo or None
    if order.deposit_kind is not None:
        # The customer sees the deposit details that the order has; a poll often repeats none of them (docs/upstream.md E8).
        changed = deposit_change(order, reply)
        if changed is not None:
            return changed
        address, memo = order.deposit_address, order.deposit_memo
    code = addresses.network_code(order.from_currency, order.from_network)
    if address is None:
        # A payment link is for fiat; a coin cannot be paid to a link.
        is_fiat = code is None if source is None else source.type == "fiat"
        return None if is_fiat else "deposit_address_missing"
    if addresses.validate(order.from_currency, order.from_network, address, memo).valid is False:
        return "deposit_address_invalid"
    # The catalog's flag or our own rule, whichever is stricter: money on a shared address without its memo is lost.
    usual = addresses.memo_rule(order.from_currency, order.from_network).kind == "required-by-instrument"
    needs_memo = (usual and (source is None or code is not None)) or (source is not None and source.requires_memo)
    return "deposit_memo_missing" if needs_memo and memo is None else None


def _gap(order: Order, reply: OrderReply) -> str | None:
    required: list[object] = [
        *(reply.from_currency, reply.from_network, reply.to_currency, reply.to_network),
        *(reply.destination_address, reply.amount),
    ]
    if order.destination_memo is not None:
        required.append(reply.destination_memo)
    if order.rate_mode == "FIXED":
        # An answer without a rate mode means FLOATING. A fixed promise made on it would be ours to pay.
        required += [reply.rate_mode, reply.amount_to_get]
    return "unverified" if None in required else None
