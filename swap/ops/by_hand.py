"""What a person changes on an order: through the same one door as everything else, with a name and a reason beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from swap.domain.times import Timing, iso
from swap.errors import InvalidRequest, TryAgainLater
from swap.infra.queue import JobQueue
from swap.orders.read import load
from swap.store import events
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.serializers import order_view
from swap.tables import Order

Changes = dict[str, Any]

# How often an order is read again that another process changes at the same moment.
_TRIES = 5
# Columns that a person who decides need not see change.
_UNTOLD = frozenset({"facts", "as_of", "failures", "accepted_answer"})


@dataclass(frozen=True)
class Act:
    """Who wants it and why, both kept with the order for good; `do`: False asks only what would be done.

    Raises InvalidRequest where name or reason is blank.
    """

    by: str
    reason: str
    do: bool = False

    def __post_init__(self) -> None:
        for name in ("by", "reason"):
            if not getattr(self, name).strip():
                raise InvalidRequest.on(name, "REQUIRED", "It is kept with the order, and must not be blank.")

    def detail(self, action: str) -> dict[str, Any]:
        """For the event."""
        return {"action": action, "by": self.by.strip(), "reason": self.reason.strip()}


class ByHand:
    def __init__(self, database: Database, queue: JobQueue, timing: Timing) -> None:
        self._database, self._queue, self._timing = database, queue, timing

    def load(self, order_id: str) -> Order:
        """Raises NotFound (ORDER_NOT_FOUND)."""
        return load(self._database, order_id)

    def carry_out(
        self,
        order_id: str,
        action: str,
        act: Act,
        plan: Callable[[Order], Changes],
        told: dict[str, Any] | None = None,
        beside: Callable[[Session, Order], None] | None = None,
        **detail: Any,
    ) -> dict[str, Any]:
        """Change the order as `plan` says, which is asked again when another process was first. Returns what was done, or
        would be: the order, the changes, and what the upstream says (`told`). `beside`: what else belongs into the
        transaction; `detail`: for the event.

        Every write raises the order's version: a poll that read the order before changes nothing any more. Raises what
        `plan` raises, NotFound, and TryAgainLater when the order changes all the time.
        """
        for _ in range(_TRIES):
            order = self.load(order_id)
            changes = plan(order)
            if not act.do:
                return outcome(action, act, order, changes, told)
            if self._write(order, f"journal.{action}", changes, {**act.detail(action), **detail}, beside):
                return outcome(action, act, self.load(order_id), changes, told, before=order)
        raise TryAgainLater("The order is being changed by others at this moment. Try again.", order_id=order_id)

    def _write(
        self,
        order: Order,
        entry: str,
        changes: Changes,
        detail: dict[str, Any],
        beside: Callable[[Session, Order], None] | None,
    ) -> bool:
        now = self._timing.now()
        with self._database.write() as session:
            moved = order_rows.move(session, order, changes, at=now, source="person", detail=detail)
            if moved is None:
                return False
            if moved.sequence == order.sequence and moved.status == order.status:
                # The door writes no event where neither status nor public view changes.
                events.add_event(session, moved, entry, at=now, detail={"source": "person", **detail})
            if beside is not None:
                beside(session, moved)
        if moved.sequence != order.sequence:
            self._queue.enqueue("publish")
        return True


def outcome(
    action: str,
    act: Act,
    order: Order,
    changes: Changes,
    told: dict[str, Any] | None = None,
    before: Order | None = None,
) -> dict[str, Any]:
    """What a command shows. `before`: the order as it was, where `order` has changed already."""
    old = before or order
    return {
        **act.detail(action),
        "done": act.do,
        "order": {**order_view(order), "internal": {"status": order.status, "conflict": order.conflict}},
        "changes": {
            name: {"from": _shown(getattr(old, name)), "to": _shown(value)}
            for name, value in changes.items()
            if name not in _UNTOLD and getattr(old, name) != value
        },
        "upstream": told,
    }


def _shown(value: Any) -> Any:
    return iso(value) if hasattr(value, "tzinfo") else value
