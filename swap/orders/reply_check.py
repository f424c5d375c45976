"""Whether the customer may be told where to pay: the upstream's answer compared with what was asked."""

from __future__ import annotations

from decimal import Decimal

from swap import addresses
from swap.domain import money
from swap.market.catalog import Catalog
from swap.orders.matching import deposit_change, same_address, unpacked
from swap.tables import InstrumentRow, Order
from swap.upstream.replies import OrderReply


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

    def problem_once_shown(self, order: Order, reply: OrderReply) -> str | None:
        """Why payments to a place that a customer was shown must end, by a later answer; None when it contradicts nothing
        that was sent, or says too little to tell.

        A floating rate moves by itself after the order is made, so only a FIXED promise is compared.
        """
        reply = unpacked(order, reply)
        tolerance = self._tolerance if order.rate_mode == "FIXED" else None
        return deposit_change(order, reply) or _mismatch(order, reply, tolerance)


def reply_problem(order: Order, reply: OrderReply, source: InstrumentRow | None, tolerance: Decimal) -> str | None:
    """Why the customer must not be told where to pay, or None (docs/architecture.md, "A create").

    Every echo must equal what was sent; null, "" and missing are the same. `unverified` means that nothing is wrong with
    the answer, but too little is in it to be sure; a later poll may still clear it, and is judged together with the deposit
    details that the order already has. Every other reason is final for this order and needs an operator. Such a reason
    comes first, or what was wrong with a short answer would be forgotten when a later one fills the gap.

    `source` None: the instrument has left the catalog; then the network decides whether a memo is needed.
    """
    reply = unpacked(order, reply)
    return _mismatch(order, reply, tolerance) or _deposit_problem(order, reply, source) or _gap(order, reply)


def _mismatch(order: Order, reply: OrderReply, tolerance: Decimal | None) -> str | None:
    """`tolerance` None: the rate is not compared."""
    if reply.facts.failed_to_create:
        return "failed_to_create"
    echoed = (reply.from_currency, reply.from_network, reply.to_currency, reply.to_network)
    ours = (order.from_currency, order.from_network, order.to_currency, order.to_network)
    if any(a is not None and a.casefold() != b.casefold() for a, b in zip(echoed, ours, strict=True)):
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
        tolerance is not None
        and reply.amount_to_get is not None
        and order.amount_to_get is not None
        and not money.within(reply.amount_to_get, order.amount_to_get, tolerance)
    ):
        return "rate_mismatch"
    return None


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
    rule = addresses.memo_rule(order.from_currency, order.from_network)
    needs_memo = rule.kind == "required-by-instrument" if source is None else source.requires_memo
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
