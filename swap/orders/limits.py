"""How much a client may order of a currency that it sends. An order over it is refused before anything is made upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from swap.domain.money import plain, total
from swap.domain.order_limits import DAY, Counted, OrderLimit, left_of, limit_of, sum_reached
from swap.domain.times import iso
from swap.errors import FieldProblem, InvalidRequest
from swap.orders.validation import Examined, OrderRequest, PartialRequest
from swap.store import clients
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order


class OrderLimits:
    """`limits`, of its methods: those of the client as they came with its key, up to a second ago. Where the currency has
    none, the database is not asked. Which orders count: `swap.store.orders.counted_amounts`."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def note(
        self, examined: Examined, client_id: str, request: OrderRequest | PartialRequest, limits: Iterable[OrderLimit]
    ) -> None:
        """Add what is over a limit to the problems of an order's request. Orders of this moment are for `hold` to see."""
        amount = request.amount
        limit = None if examined.source is None else limit_of(limits, examined.source.currency)
        if amount is None or limit is None:
            return
        if limit.largest_order is not None and amount > limit.largest_order:
            most = plain(limit.largest_order)
            message = f"An order of yours may be over {most} {limit.currency} at most."
            examined.problems.add("amount", FieldProblem("ORDER_TOO_LARGE", message, {"max": most}))
        if limit.daily_sum is not None:
            itself = request.client_order_id if isinstance(request, OrderRequest) else None
            with self._database.read() as session:
                counted = _counted(session, client_id, limit.currency, self._clock(), itself)
            problem = _sum_problem(limit.currency, limit.daily_sum, counted, amount)
            if problem is not None:
                examined.problems.add("amount", problem)

    def hold(self, session: Session, order: Order, limits: Iterable[OrderLimit]) -> None:
        """Keep `order`, which this transaction has just inserted, within the daily sum of its client, whatever else is
        ordered at this moment. Raises InvalidRequest (DAILY_SUM_REACHED)."""
        currency = order.from_currency
        if _daily_sum(limits, currency) is None:
            return
        # Locked after the insert: a repetition, which inserts nothing, does not wait. Of two orders, the one that gets the
        # lock second reads what the first one has committed.
        daily_sum = _daily_sum(clients.order_limits(session, order.client_id, lock=True), currency)
        if daily_sum is None:
            return
        counted = _counted(session, order.client_id, currency, order.created_at, order.client_order_id)
        problem = _sum_problem(currency, daily_sum, counted, order.amount)
        if problem is not None:
            raise InvalidRequest({"amount": [problem]})

    def shown(self, client_id: str) -> list[dict[str, str | None]]:
        """Every limit of the client, with what is used and left of its daily sum now; null where it has none."""
        with self._database.read() as session:
            return [
                limit.to_json() | self._use(session, client_id, limit)
                for limit in clients.order_limits(session, client_id)
            ]

    def _use(self, session: Session, client_id: str, limit: OrderLimit) -> dict[str, str | None]:
        if limit.daily_sum is None:
            return {"used": None, "left": None}
        used = total(order.amount for order in _counted(session, client_id, limit.currency, self._clock()))
        return {"used": plain(used), "left": plain(left_of(limit.daily_sum, used))}


def _daily_sum(limits: Iterable[OrderLimit], currency: str) -> Decimal | None:
    limit = limit_of(limits, currency)
    return None if limit is None else limit.daily_sum


def _counted(
    session: Session, client_id: str, currency: str, now: datetime, besides: str | None = None
) -> Sequence[Counted]:
    return order_rows.counted_amounts(session, client_id, currency, after=now - DAY, besides=besides)


def _sum_problem(currency: str, daily_sum: Decimal, counted: Sequence[Counted], amount: Decimal) -> FieldProblem | None:
    reached = sum_reached(daily_sum, counted, amount)
    if reached is None:
        return None
    again_at = None if reached.again_at is None else iso(reached.again_at)
    when = (
        "This one alone is over more." if again_at is None else f"One over this amount may be made from {again_at} on."
    )
    details: dict[str, Any] = {"limit": plain(daily_sum), "used": plain(reached.used), "try_again_at": again_at}
    message = (
        f"Your orders of 24 hours may come to {details['limit']} {currency}, and come to {details['used']} now. {when}"
    )
    return FieldProblem("DAILY_SUM_REACHED", message, details)
