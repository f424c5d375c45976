"""Upstream orders: the one that an order's customer was shown, its spares, and such as are nobody's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from swap.store import orders
from swap.store.database import insert_new
from swap.store.upstream_ids import by_refs, cannot_be_one, hold, keep_shared, named
from swap.tables import Order, UpstreamOrder, UpstreamRef, new_id

SHOWN, SPARE, UNOWNED = "shown", "spare", "unowned"
_TRIES = 5


@dataclass(frozen=True)
class Told:
    """What is known of an upstream order. `primary`: the id to ask with, `refs`: all ids; `amount`: on the deposit side;
    `deposit_address` and `deposit_memo`: of the place to pay at, where told."""

    primary: str
    refs: Sequence[str]
    upstream_key: str
    destination_address: str | None
    amount: Decimal | None
    deposit_address: str | None = None
    deposit_memo: str | None = None


def show(session: Session, order: Order, told: Told, now: datetime, also: Sequence[str] = ()) -> set[str]:
    """Make it the upstream order that the customer of `order` is shown, or give the shown one the ids that are new. Returns
    the ids that belong to another order of ours; then nothing was changed. `also`: ids that it probably has as well, and
    gets where they are nobody's.

    Every id is claimed before anything is shown: of two orders whose answers name one upstream order, one gets it.
    """
    shown = shown_of(session, order.id)
    if shown is None:
        # Another process may be about to show one.
        orders.lock(session, order.id)
        shown = shown_of(session, order.id)
    hold(session, {*told.refs, *also})
    names = named(session, told.primary, told.refs, about=shown, lock=True)
    keep_shared(session, names, now)
    taken = set(names.of_others(order.id))
    if taken:
        return taken
    # The number of another upstream order of ours, or of nobody's, in an answer with a number of its own is no id of it.
    refs = [
        ref for ref in names.refs if ref not in names.known or not cannot_be_one(names.known[ref].ref, told.primary)
    ]
    if not refs:
        # Only values that are known to be no ids: nobody could ever ask about it.
        return set(told.refs)
    if shown is not None and all(names.known.get(ref) is shown for ref in refs):
        return set()
    with session.begin_nested() as savepoint:
        if shown is None:
            shown = next((names.known[ref] for ref in refs if ref in names.known), None) or _new(session, told, now)
            shown.role, shown.order_id, shown.candidates, shown.next_check_at = SHOWN, order.id, [], None
        if told.primary.isdigit() or shown.ref not in refs:
            # The list knows it by its number alone (docs/upstream.md T4).
            shown.ref = told.primary
        session.flush()
        taken = _attach(session, shown, refs)
        if taken:
            savepoint.rollback()
            return taken
        extra = named(session, told.primary, also).refs
        _attach(session, shown, [ref for ref in extra if not cannot_be_one(told.primary, ref)])
    return set()


def record(
    session: Session,
    told: Told,
    now: datetime,
    *,
    order_id: str | None = None,
    candidates: Sequence[str] = (),
) -> UpstreamOrder | None:
    """Record an upstream order that nobody was shown, to be polled at once. `order_id`: the order of ours whose spare it is;
    `candidates`: those that it may be of, where no one can be named.

    None when it has no id, or is recorded already, by any of its ids: then it gets the ids that are new, and an owner if it
    has none. Nothing of that happens to one that a customer was shown.
    """
    hold(session, told.refs)
    for _ in range(_TRIES):
        names = named(session, told.primary, told.refs, lock=True)
        keep_shared(session, names, now)
        # A second number in an answer is not the order's that it is about.
        own = [ref for ref in names.refs if not cannot_be_one(told.primary, ref)]
        if not own:
            # Only values that are known to be no ids: it cannot be told from any other, nor asked about.
            return None
        same = [row for row in names.rows if not cannot_be_one(row.ref, told.primary)]
        # An answer may name another order's besides, by an id that is not the one to ask for that with. It is about what is
        # new in it all the same.
        new_number = told.primary.isdigit() and told.primary not in names.known
        besides = [
            row
            for row in same
            if row.order_id not in (None, order_id)
            and (row.ref not in names.refs or (new_number and not row.ref.isdigit()))
        ]
        if same and (len(besides) < len(same) or order_id is None):
            known = min(same, key=_rank)
            if known.role != SHOWN:
                _add_to(session, known, own, told, order_id)
            return None
        with session.begin_nested() as savepoint:
            row = _new(session, told, now, next_check_at=now)
            row.role, row.order_id, row.candidates = SPARE if order_id else UNOWNED, order_id, list(candidates)
            session.flush()
            if not _attach(session, row, [ref for ref in own if ref not in names.known]):
                return row
            # Another process recorded it at this moment, or made two of them one.
            savepoint.rollback()
    raise RuntimeError(f"the upstream order {told.primary} is recorded by others all the time")


def _add_to(session: Session, known: UpstreamOrder, refs: Sequence[str], told: Told, order_id: str | None) -> None:
    if known.order_id is None and order_id is not None:
        give(session, known, order_id)
    _fill(known, told)
    _attach(session, known, refs)


def _fill(row: UpstreamOrder, known: Told | UpstreamOrder) -> None:
    """What is not known of it yet. Without a destination it cannot even be polled."""
    row.destination_address = row.destination_address or known.destination_address
    row.amount = known.amount if row.amount is None else row.amount
    if row.deposit_address is None:
        row.deposit_address, row.deposit_memo = known.deposit_address, known.deposit_memo


def unite(session: Session, row: UpstreamOrder, refs: Sequence[str]) -> UpstreamOrder:
    """Give an upstream order the ids that it is found to have. What is recorded under one of them as another one is the
    same, and goes into this one; into the other if a customer was shown that. What belongs to another order of ours than
    this one stays as it is. Returns the row that has the ids now."""
    hold(session, refs)
    shown = next((each for each in by_refs(session, refs, lock=True).values() if each.role == SHOWN), None)
    is_free = shown is not None and row.order_id in (None, shown.order_id)
    if shown is not None and shown is not row and is_free and not cannot_be_one(shown.ref, row.ref):
        _merge(session, shown, row)
        row = shown
    _attach(session, row, refs)
    return row


def _attach(session: Session, row: UpstreamOrder, refs: Collection[str]) -> set[str]:
    """Give `row` these ids. Sorted, or two that claim the same could wait for each other. Returns those it could not get."""
    return {ref for ref in sorted(refs) if not _gets(session, row, ref)}


def _gets(session: Session, row: UpstreamOrder, ref: str) -> bool:
    for _ in range(_TRIES):
        if insert_new(session, UpstreamRef, ref=ref, upstream_order=row.id):
            return True
        owner = by_refs(session, [ref], lock=True).get(ref)
        if owner is None:
            # While its row was waited for, another process made it one with another.
            continue
        if owner is row:
            return True
        is_free = owner.role != SHOWN and owner.order_id in (None, row.order_id)
        if is_free and not cannot_be_one(owner.ref, row.ref):
            _merge(session, row, owner)
            return True
        return False
    return False


def _merge(session: Session, row: UpstreamOrder, other: UpstreamOrder) -> None:
    """They are one upstream order: `row` gets all that is known of `other`."""
    session.execute(update(UpstreamRef).where(UpstreamRef.upstream_order == other.id).values(upstream_order=row.id))
    row.deposit_seen_at = row.deposit_seen_at or other.deposit_seen_at
    _fill(row, other)
    session.delete(other)
    session.flush()


def _new(session: Session, told: Told, now: datetime, next_check_at: datetime | None = None) -> UpstreamOrder:
    row = UpstreamOrder(
        id=new_id("ups"),
        role=UNOWNED,
        candidates=[],
        ref=told.primary,
        upstream_key=told.upstream_key,
        destination_address=told.destination_address,
        amount=told.amount,
        deposit_address=told.deposit_address,
        deposit_memo=told.deposit_memo,
        seen_at=now,
        next_check_at=next_check_at,
    )
    session.add(row)
    return row


def _rank(row: UpstreamOrder) -> tuple[int, datetime, str]:
    return (SHOWN, SPARE, UNOWNED).index(row.role), row.seen_at, row.id


def swap_shown(session: Session, shown: UpstreamOrder, spare: UpstreamOrder, next_check_at: datetime) -> None:
    """The order goes on with its spare, and what it was shown becomes the spare, polled at `next_check_at`."""
    shown.role, shown.next_check_at = SPARE, next_check_at
    session.flush()
    spare.role, spare.next_check_at = SHOWN, None
    session.flush()


def give(session: Session, row: UpstreamOrder, order_id: str) -> None:
    """Make it the spare of an order."""
    row.role, row.order_id, row.candidates = SPARE, order_id, []
    session.flush()


def shown_of(session: Session, order_id: str) -> UpstreamOrder | None:
    """The upstream order that the order's customer was shown."""
    query = select(UpstreamOrder).where(UpstreamOrder.order_id == order_id, UpstreamOrder.role == SHOWN)
    return session.scalars(query).one_or_none()


def shown_refs(session: Session, order_id: str) -> list[str]:
    """Every id of the upstream order that the order's customer was shown."""
    query = select(UpstreamRef.ref).join(UpstreamOrder, UpstreamOrder.id == UpstreamRef.upstream_order)
    query = query.where(UpstreamOrder.order_id == order_id, UpstreamOrder.role == SHOWN)
    return sorted(session.scalars(query))


def refs_of(session: Session, row: UpstreamOrder) -> list[str]:
    """Every id of the upstream order."""
    return sorted(session.scalars(select(UpstreamRef.ref).where(UpstreamRef.upstream_order == row.id)))


def spares_of(session: Session, order_id: str) -> list[tuple[UpstreamOrder, list[str]]]:
    """The spares of an order, oldest first, each with its ids, the one to ask with first."""
    return _with_refs(session, UpstreamOrder.order_id == order_id)


def not_shown(session: Session) -> list[tuple[UpstreamOrder, list[str]]]:
    """All that nobody was shown, as `spares_of`."""
    return _with_refs(session)


def _with_refs(session: Session, *which: Any) -> list[tuple[UpstreamOrder, list[str]]]:
    query = select(UpstreamOrder, UpstreamRef.ref).join(
        UpstreamRef, UpstreamRef.upstream_order == UpstreamOrder.id, isouter=True
    )
    query = query.where(UpstreamOrder.role != SHOWN, *which)
    found: dict[str, tuple[UpstreamOrder, list[str]]] = {}
    for row, ref in session.execute(query.order_by(UpstreamOrder.seen_at, UpstreamOrder.id, UpstreamRef.ref)):
        found.setdefault(row.id, (row, [row.ref]))[1].extend([ref] if ref not in (None, row.ref) else [])
    return list(found.values())


def claim_due(session: Session, now: datetime, lease: timedelta) -> UpstreamOrder | None:
    """Lease the one that is longest overdue, if any is due. `next_check_at` is the lease: no client sees it."""
    due = select(UpstreamOrder).where(UpstreamOrder.next_check_at <= now).order_by(UpstreamOrder.next_check_at).limit(1)
    row = session.scalars(due.with_for_update(skip_locked=True)).one_or_none()
    if row is not None:
        row.next_check_at = now + lease
    return row


def still_leased(session: Session, row: UpstreamOrder) -> UpstreamOrder | None:
    """The row as it is now, locked, if it is still leased as it was claimed: after a lease another process takes it up."""
    query = select(UpstreamOrder).where(
        UpstreamOrder.id == row.id, UpstreamOrder.role != SHOWN, UpstreamOrder.next_check_at == row.next_check_at
    )
    return session.scalars(query.with_for_update()).one_or_none()
