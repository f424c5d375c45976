"""How much a client may order: the largest order, and the largest sum of what it orders in any 24 hours. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from swap.domain.money import plain, total

DAY = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class OrderLimit:
    """Of one currency that a client sends, on whatever network. `largest_order`: what one order may be over; `daily_sum`:
    what the orders of any 24 hours may come to. None: as much as it likes."""

    currency: str
    largest_order: Decimal | None = None
    daily_sum: Decimal | None = None

    @property
    def is_none(self) -> bool:
        return self.largest_order is None and self.daily_sum is None

    def is_of(self, currency: str) -> bool:
        return self.currency.casefold() == currency.casefold()

    def to_json(self) -> dict[str, str | None]:
        return {
            "currency": self.currency,
            "largest_order": _plain(self.largest_order),
            "daily_sum": _plain(self.daily_sum),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> OrderLimit:
        return cls(content["currency"], _decimal(content["largest_order"]), _decimal(content["daily_sum"]))


def limit_of(limits: Iterable[OrderLimit], currency: str) -> OrderLimit | None:
    """The one on this currency."""
    return next((limit for limit in limits if limit.is_of(currency)), None)


class Counted(NamedTuple):
    """An order that counts into a daily sum."""

    made_at: datetime
    amount: Decimal


class SumReached(NamedTuple):
    """`used`: what the orders of 24 hours come to without the one that does not fit; `again_at`: when it does, if nothing
    else is ordered meanwhile. None: never, for it is larger than the sum alone."""

    used: Decimal
    again_at: datetime | None


def sum_reached(daily_sum: Decimal, counted: Sequence[Counted], amount: Decimal) -> SumReached | None:
    """Whether an order over `amount` is too much beside the `counted` ones, which are those of 24 hours, oldest first. None:
    it fits."""
    used = total(order.amount for order in counted)
    room = total((daily_sum, amount.copy_negate()))
    if used <= room:
        return None
    left = used
    for order in counted:
        left = total((left, order.amount.copy_negate()))
        if left <= room:
            return SumReached(used, order.made_at + DAY)
    return SumReached(used, None)


def left_of(daily_sum: Decimal, used: Decimal) -> Decimal:
    """Zero where more was ordered than may be now: the limit came later, or was lowered."""
    return max(Decimal(), total((daily_sum, used.copy_negate())))


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
