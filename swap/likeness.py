"""Whether an order at the upstream can be one of ours, by what the upstream tells of it.

The list tells less than public-info, and leaves fields out; what is not told is no difference. Pure: who owns what, and when
it was made, is judged elsewhere.
"""

from __future__ import annotations

from swap.checks import same_account, same_address, unpacked
from swap.tables import Order
from swap.upstream.replies import ListedOrder, OrderReply


def alike(row: ListedOrder, order: Order) -> bool:
    """Whether a listed order differs in nothing that the list tells from what was asked for the order."""
    return (
        (row.amount is None or row.amount == order.amount)
        and same_pair(row, order)
        and may_be(order.to_currency, order.to_network, row.destination_address, order.destination_address)
        and may_be(order.from_currency, order.from_network, row.refund_address, order.refund_address)
    )


def same_pair(row: ListedOrder, order: Order) -> bool:
    listed = (row.from_currency, row.from_network, row.to_currency, row.to_network)
    ours = (order.from_currency, order.from_network, order.to_currency, order.to_network)
    return all(a is None or a.casefold() == b.casefold() for a, b in zip(listed, ours, strict=True))


def may_be(currency: str, network: str, told: str | None, wanted: str | None) -> bool:
    """Whether the listed address may be the wanted one; nothing told may be anything. The list names no memos, so one
    inside an address does not speak either: what is passed over here would count as absent."""
    return not told or (wanted is not None and same_account(currency, network, told, wanted))


def _same_place(currency: str, network: str, told: str | None, wanted: str | None) -> bool:
    """Whether the told address may be the wanted one; nothing told may be anything."""
    return not told or (wanted is not None and same_address(currency, network, told, wanted))


def told_otherwise(order: Order, reply: OrderReply) -> bool:
    """Whether public-info names another rate mode, memo or refund than the order's."""
    reply = unpacked(order, reply)
    return (
        (reply.destination_memo or None) not in (None, order.destination_memo)
        or reply.rate_mode not in (None, order.rate_mode)
        or (reply.refund_memo or None) not in (None, order.refund_memo)
        or not _same_place(order.from_currency, order.from_network, reply.refund_address, order.refund_address)
        or any(_tells_none(reply, name) and wanted for name, wanted in _echoes(order))
    )


def readable_and_equal(order: Order, reply: OrderReply) -> bool:
    """Whether memo, refund and refund memo can all be read in public-info, and are the order's."""
    return all(name in reply.raw for name, _ in _echoes(order)) and not told_otherwise(order, reply)


def twins(order: Order, other: Order) -> bool:
    """Of two rivals: whether even the memos, the refund and the rate mode are the same."""
    names = ("destination_memo", "refund_address", "refund_memo", "rate_mode")
    return all((getattr(order, name) or None) == (getattr(other, name) or None) for name in names)


def _tells_none(reply: OrderReply, name: str) -> bool:
    return name in reply.raw and not reply.raw[name]


def _echoes(order: Order) -> tuple[tuple[str, str | None], ...]:
    return (
        ("destinationAddressMemo", order.destination_memo),
        ("refundAddress", order.refund_address),
        ("refundAddressMemo", order.refund_memo),
    )
