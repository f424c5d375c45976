"""Whether an order at the upstream can be one of ours, by what the upstream says about it.

The list says less than public-info, and leaves fields out; a field that is left out is no difference. Pure: which order
owns which ids, and when an order was made, is judged elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from decimal import Decimal

from swap import addresses
from swap.addresses import Verdict
from swap.domain import fiat
from swap.tables import Order
from swap.upstream.replies import ListedOrder, OrderReply


def could_match(row: ListedOrder, order: Order) -> bool:
    """Whether a listed order differs from ours in nothing that the list says."""
    return (
        (row.amount is None or row.amount == order.amount)
        and same_pair(row, order)
        and address_could_match(order.to_currency, order.to_network, row.destination_address, order.destination_address)
        and address_could_match(order.from_currency, order.from_network, row.refund_address, order.refund_address)
    )


def same_pair(row: ListedOrder | OrderReply, order: Order) -> bool:
    """Whether the titles are the order's, in any case; a title that is left out is no difference."""
    listed = (row.from_currency, row.from_network, row.to_currency, row.to_network)
    ours = (order.from_currency, order.from_network, order.to_currency, order.to_network)
    return all(a is None or a.casefold() == b.casefold() for a, b in zip(listed, ours, strict=True))


def address_could_match(currency: str, network: str, listed: str | None, ours: str | None) -> bool:
    """Whether the listed address may be ours; an address that is left out may be any.

    The list names no memos, so a memo packed into an address is not compared here.
    """
    return not listed or (ours is not None and same_account(currency, network, listed, ours))


def contradicts(order: Order, reply: OrderReply, promises: Collection[Decimal | None] = ()) -> bool:
    """Whether public-info tells of another order than this one: another route, amount, destination, rate mode, memo or
    refund, or what a FIXED order was promised in none of its attempts (`promises`). What is not told is no difference."""
    reply = unpacked(order, reply)
    return (
        not same_pair(reply, order)
        or reply.amount not in (None, order.amount)
        or not address_could_match(
            order.to_currency, order.to_network, reply.destination_address, order.destination_address
        )
        or (reply.destination_memo or None) not in (None, order.destination_memo)
        or reply.rate_mode not in (None, order.rate_mode)
        or (reply.refund_memo or None) not in (None, order.refund_memo)
        or not _refund_could_match(order, reply.refund_address)
        or any(ours and _says_none(reply, name) for name, ours in _echoes(order))
        or (_is_promised(order) and reply.amount_to_get is not None and reply.amount_to_get not in promises)
    )


def confirms(order: Order, reply: OrderReply, promises: Collection[Decimal | None] = ()) -> bool:
    """Whether all that tells the order apart can be read in public-info and is the order's: route, amount, destination and
    rate mode, and where the order has them the memo, the refund, its memo, and a FIXED promise (`promises`: of each of its
    attempts). What is not told is not equal."""
    told = unpacked(order, reply)
    required: list[object] = [
        *(told.from_currency, told.from_network, told.to_currency, told.to_network),
        *(told.amount, told.destination_address, told.rate_mode),
    ]
    if order.destination_memo:
        required.append(told.destination_memo)
    if order.refund_address:
        required.append(told.refund_address)
    if order.refund_memo:
        required.append(told.refund_memo)
    if _is_promised(order):
        required.append(told.amount_to_get)
    return None not in required and not contradicts(order, reply, promises)


def identical(order: Order, other: Order) -> bool:
    """Whether two orders that are alike in route, amount and destination have even the same memos, refund, rate mode and
    FIXED promise: nothing that the upstream repeats can tell them apart."""
    names = ["destination_memo", "refund_address", "refund_memo", "rate_mode"]
    if _is_promised(order):
        names.append("amount_to_get")
    return all((getattr(order, name) or None) == (getattr(other, name) or None) for name in names)


def _is_promised(order: Order) -> bool:
    return order.rate_mode == "FIXED"


def _refund_could_match(order: Order, refund: str | None) -> bool:
    ours = order.refund_address
    return not refund or (ours is not None and same_address(order.from_currency, order.from_network, refund, ours))


def _says_none(reply: OrderReply, name: str) -> bool:
    return name in reply.raw and not reply.raw[name]


def _echoes(order: Order) -> tuple[tuple[str, str | None], ...]:
    """What public-info repeats of the order: its name there, and our value."""
    return (
        ("destinationAddressMemo", order.destination_memo),
        ("refundAddress", order.refund_address),
        ("refundAddressMemo", order.refund_memo),
    )


def unpacked(order: Order, reply: OrderReply) -> OrderReply:
    """The answer, with an X- or M-address in it taken apart into address and memo, as ours was when it was sent."""
    destination = _unpacked(order.to_currency, order.to_network, reply.destination_address, reply.destination_memo)
    refund = _unpacked(order.from_currency, order.from_network, reply.refund_address, reply.refund_memo)
    return replace(
        reply,
        destination_address=destination[0],
        destination_memo=destination[1],
        refund_address=refund[0],
        refund_memo=refund[1],
    )


def _unpacked(currency: str, network: str, address: str | None, memo: str | None) -> tuple[str | None, str | None]:
    if address is None:
        return address, memo
    verdict = addresses.validate(currency, network, address, memo or None)
    return (verdict.send_address, verdict.send_memo) if "converted" in verdict.warnings else (address, memo)


def same_address(currency: str, network: str, one: str, other: str) -> bool:
    """Whether two spellings name one address, and the same memo where one is packed into it. An upstream may write 0x... and
    bc1... in another case than it was given, and an IBAN with spaces."""
    return _same(currency, network, one, other, with_memo=True)


def deposit_change(order: Order, reply: OrderReply) -> str | None:
    """Why the answer must end payments to the order's deposit address or payment link; None when the answer repeats it, an
    address in any spelling, or leaves it out."""
    if reply.deposit_address is not None and (
        order.deposit_address is None
        or not same_address(order.from_currency, order.from_network, reply.deposit_address, order.deposit_address)
    ):
        return "deposit_address_changed"
    if order.deposit_link is not None and reply.payment_link not in (None, order.deposit_link):
        return "deposit_address_changed"
    if reply.deposit_memo is not None and (reply.deposit_memo or None) != order.deposit_memo:
        return "deposit_memo_changed"
    return None


def deposit_place(order: Order, reply: OrderReply) -> str | None:
    """Where the customer would pay, as one text: source currency, network, normalised address or payment link, and memo. Two
    spellings of one address are one place. None when the answer names neither address nor link."""
    return _place(order, reply.deposit_address, reply.payment_link, reply.deposit_memo)


def shown_place(order: Order) -> str | None:
    """Where the order's customer was told to pay, as `deposit_place`."""
    return _place(order, order.deposit_address, order.deposit_link, order.deposit_memo)


def _place(order: Order, address: str | None, link: str | None, memo: str | None) -> str | None:
    if address is not None:
        address = _verdict(order.from_currency, order.from_network, address).normalised or address
    where = address or link
    if where is None:
        return None
    # JSON, since an address on a network without rules may contain any separator.
    return json.dumps([order.from_currency, order.from_network, where, memo or ""])


def same_account(currency: str, network: str, one: str, other: str) -> bool:
    """As `same_address`, but for the tag that an X- or M-address carries inside: tags are compared where memos are."""
    return _same(currency, network, one, other, with_memo=False)


def _same(currency: str, network: str, one: str, other: str, *, with_memo: bool) -> bool:
    if one == other:
        return True
    a, b = _verdict(currency, network, one), _verdict(currency, network, other)
    if not (a.valid and b.valid and a.normalised is not None and a.normalised == b.normalised):
        return False
    return not with_memo or a.embedded_memo == b.embedded_memo


def _verdict(currency: str, network: str, address: str) -> Verdict:
    verdict = addresses.validate(currency, network, address)
    # No rule for the network: it is fiat, or one that we do not know. An IBAN is an IBAN on either.
    return fiat.validate(currency, address) if verdict.status == "unchecked" else verdict
