"""Until when the fixed rate of an order holds, by what the upstream told when it made the order."""

from __future__ import annotations

from datetime import datetime, timedelta

from swap.domain.expiry import fixed_rate_end
from swap.tables import Order
from swap.upstream.replies import OrderReply


def rate_ends_at(order: Order, reply: OrderReply, offset_seconds: float, now: datetime) -> datetime | None:
    """The end of the fixed rate by our clock; None for a floating rate, or where no window was told. What was told once
    stays: the customer was shown it. `offset_seconds`: how far the upstream's clock is ahead.

    The window begins when the upstream made the order, as far as it says so, else when we did: never later than that.
    """
    if order.payable_until is not None or order.rate_mode != "FIXED":
        return order.payable_until
    made_at = order.created_at
    if reply.created_at is not None:
        # Not before we asked for it, whatever zone its clock is in.
        made_at = max(order.created_at, min(reply.created_at - timedelta(seconds=offset_seconds), now))
    return fixed_rate_end(reply.fixed_rate_minutes, made_at)
