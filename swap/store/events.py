"""Order events: timeline, journal, outbox and feed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from swap.domain.times import iso
from swap.tables import FeedHead, Order, OrderEvent, WebhookDelivery, new_id


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of the feed are wanted; an empty filter means all. By the time of the change, `since` is inclusive and
    `until` exclusive."""

    types: tuple[str, ...] = ()
    order_ids: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


# Journal entries: kinds of upstream events that were unknown when they came, and such events read anew since.
UNKNOWN_KINDS = "journal.unknown_kinds"
REPLAYED = "journal.replayed"
# An answer told of money where none was to come.
UNEXPECTED_DEPOSIT = "journal.unexpected_deposit"


def add_event(
    session: Session,
    order: Order,
    type: str,
    *,
    at: datetime,
    view: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Write an event. With a `view` it is public and takes the order's current sequence; without, it is for support."""
    session.add(
        OrderEvent(
            id=new_id("evt"),
            order_id=order.id,
            client_id=order.client_id,
            sequence=order.sequence if view is not None else None,
            type=type,
            order=view,
            detail=detail or {},
            created_at=at,
        )
    )


def events_of(session: Session, order_id: str, *, public_only: bool) -> Sequence[OrderEvent]:
    """The order's events: the public ones by sequence, or all of them by time."""
    query = select(OrderEvent).where(OrderEvent.order_id == order_id)
    if public_only:
        return session.scalars(query.where(OrderEvent.sequence.is_not(None)).order_by(OrderEvent.sequence)).all()
    return session.scalars(query.order_by(OrderEvent.created_at, OrderEvent.id)).all()


def unknown_kinds(session: Session) -> dict[str, set[str]]:
    """Order id -> the kinds of upstream events that were unknown when they came, without those replayed since."""
    query = select(OrderEvent).where(OrderEvent.type.in_((UNKNOWN_KINDS, REPLAYED)))
    by_order: dict[str, set[str]] = {}
    for event in session.scalars(query.order_by(OrderEvent.created_at, OrderEvent.id)):
        kinds = by_order.setdefault(event.order_id, set())
        if event.type == UNKNOWN_KINDS:
            kinds.update(event.detail.get("kinds", ()))
        else:
            kinds.difference_update(event.detail.get("kinds", ()))
    return by_order


def has_unpublished(session: Session) -> bool:
    query = select(OrderEvent.id).where(OrderEvent.position.is_(None), OrderEvent.sequence.is_not(None))
    # In an order, so that the index of those is read: PostgreSQL takes them for a good part of the table, as the journal has
    # no positions either, and would look for the first one among all events.
    return session.scalar(query.order_by(OrderEvent.id).limit(1)) is not None


def unpublished(session: Session, limit: int) -> Sequence[OrderEvent]:
    """Public events without a place in the feed, oldest first; an order's own events always by sequence.

    Neither ids nor times can be trusted within one order: two processes wrote them by two clocks. So the oldest `limit`
    events only choose the orders, and each order comes with all its unpublished events. There may be more than `limit`.
    """
    waiting = (OrderEvent.position.is_(None), OrderEvent.sequence.is_not(None))
    oldest = select(OrderEvent.order_id).where(*waiting).order_by(OrderEvent.id).limit(limit).subquery()
    query = (
        select(OrderEvent)
        .where(*waiting, OrderEvent.order_id.in_(select(oldest.c.order_id)))
        .order_by(OrderEvent.order_id, OrderEvent.sequence)
    )
    latest: dict[str, datetime] = {}
    times: dict[str, datetime] = {}
    events = session.scalars(query).all()
    for event in events:
        # Never before the order's previous event, even if its own clock was behind.
        latest[event.order_id] = times[event.id] = max(latest.get(event.order_id, event.created_at), event.created_at)
    return sorted(events, key=lambda e: (times[e.id], e.order_id, e.sequence or 0))


def happened_at(session: Session, order_id: str, type: str, since: datetime | None = None) -> datetime | None:
    """When the order first had an event of this type, those of the journal included; `since`: not before that."""
    query = select(OrderEvent.created_at).where(OrderEvent.order_id == order_id, OrderEvent.type == type)
    if since is not None:
        query = query.where(OrderEvent.created_at >= since)
    return session.scalar(query.order_by(OrderEvent.created_at).limit(1))


def lock_head(session: Session) -> FeedHead:
    """The feed's head, locked until commit. Never skip-locked: two publishers must not interleave."""
    return session.scalars(select(FeedHead).where(FeedHead.id == 1).with_for_update()).one()


def head(session: Session) -> FeedHead:
    return session.scalars(select(FeedHead).where(FeedHead.id == 1)).one()


def assign_positions(session: Session, positions: Mapping[str, int]) -> None:
    """Give these events their places in the feed, in one batch."""
    session.execute(update(OrderEvent), [{"id": id, "position": position} for id, position in positions.items()])


def feed_page(
    session: Session, client_id: str, after: int, limit: int, only: EventFilter, until: int | None = None
) -> Sequence[OrderEvent]:
    """The client's events after that position, up to position `until`."""
    query = select(OrderEvent).where(OrderEvent.client_id == client_id, OrderEvent.position > after)
    if until is not None:
        query = query.where(OrderEvent.position <= until)
    if only.types:
        query = query.where(OrderEvent.type.in_(only.types))
    if only.order_ids:
        query = query.where(OrderEvent.order_id.in_(only.order_ids))
    if only.since is not None:
        query = query.where(OrderEvent.created_at >= only.since)
    if only.until is not None:
        query = query.where(OrderEvent.created_at < only.until)
    return session.scalars(query.order_by(OrderEvent.position).limit(limit)).all()


def position_after(session: Session, client_id: str, after: int, count: int) -> int | None:
    """Where the `count`-th of the client's events after that position stands; None when there are fewer."""
    query = (
        select(OrderEvent.position)
        .where(OrderEvent.client_id == client_id, OrderEvent.position > after)
        .order_by(OrderEvent.position)
        .offset(count - 1)
        .limit(1)
    )
    return session.scalar(query)


def all_clients(session: Session, after: int, limit: int) -> Sequence[OrderEvent]:
    """Events of all clients after that position."""
    query = select(OrderEvent).where(OrderEvent.position > after)
    return session.scalars(query.order_by(OrderEvent.position).limit(limit)).all()


def floor_for(session: Session, head: FeedHead, cutoff: datetime) -> int:
    """The highest position up to which every event is older than `cutoff`; never below the present floor."""
    query = select(OrderEvent.position).where(OrderEvent.position > head.floor, OrderEvent.created_at >= cutoff)
    first = session.scalar(query.order_by(OrderEvent.position).limit(1))
    return head.position if first is None else first - 1


def begun_below(session: Session, after: int, floor: int, limit: int) -> list[tuple[int, Order]]:
    """Orders whose first event stands after position `after` and at or below the floor; with the event's position, and
    sorted by it."""
    query = (
        select(OrderEvent.position, Order)
        .join(Order, Order.id == OrderEvent.order_id)
        .where(OrderEvent.position > after, OrderEvent.position <= floor, OrderEvent.sequence == 1)
        .order_by(OrderEvent.position)
        .limit(limit)
    )
    return [(row[0] or 0, row[1]) for row in session.execute(query)]


def forget(session: Session, order_ids: Collection[str], floor: int) -> int:
    """Delete the events of these orders, the journal included. An order keeps all its events while one of them stands above
    the floor, or is not yet in the feed, or while one of its webhook deliveries is on record. Returns how many events
    were deleted."""
    waiting = and_(OrderEvent.position.is_(None), OrderEvent.sequence.is_not(None))
    kept = {
        *session.scalars(
            select(OrderEvent.order_id).where(
                OrderEvent.order_id.in_(order_ids), or_(OrderEvent.position > floor, waiting)
            )
        ),
        *session.scalars(select(WebhookDelivery.order_id).where(WebhookDelivery.order_id.in_(order_ids))),
    }
    gone = session.execute(
        delete(OrderEvent).where(OrderEvent.order_id.in_(set(order_ids) - kept)),
        execution_options={"synchronize_session": False},
    )
    return int(gone.rowcount)  # type: ignore[attr-defined] # a DELETE answers with a CursorResult


def cursor_text(position: int, epoch: str) -> str:
    """Twelve digits and the epoch: cursors sort as text, and differ between two lives of the database."""
    return f"{position:012d}{epoch}"


def event_view(event: OrderEvent, epoch: str) -> dict[str, Any]:
    """The event as callers see it. `cursor` is null until the event is in the feed."""
    return {
        "id": event.id,
        "type": event.type,
        "order_id": event.order_id,
        "sequence": event.sequence,
        "cursor": None if event.position is None else cursor_text(event.position, epoch),
        "created_at": iso(event.created_at),
        "order": event.order,
    }
