"""Orders at the upstream that nobody was shown (`swap orders orphans`): spares of our orders, and such as are nobody's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Text, cast, or_, select, update
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import UnownedOrder, UpstreamRef


def add(
    session: Session,
    *,
    ref: str,
    refs: Sequence[str],
    upstream_key: str,
    destination_address: str | None,
    amount: Decimal | None,
    order_id: str | None,
    now: datetime,
    deposit: tuple[str | None, str | None] = (None, None),
    next_check_at: datetime | None = None,
) -> bool:
    """Record an upstream order that nobody was shown, to be polled at `next_check_at`, or at once. False when it is recorded
    already, or shown.

    `ref`: the id to ask with; `refs`: all known ids; `order_id`: the order of ours whose spare it is; `deposit`:
    address and memo of the place to pay at, where told. An upstream order
    that shares any id with a recorded one is the same order: the recorded one gets the new ids, and an owner if it has none.
    """
    all_refs = {ref, *refs}
    if session.scalar(select(UpstreamRef.ref).where(UpstreamRef.ref.in_(all_refs)).limit(1)) is not None:
        return False
    known = _sharing(session, all_refs)
    for unowned in known:
        unowned.refs = sorted(all_refs.union(unowned.refs))
        unowned.order_id = unowned.order_id or order_id
    if known:
        return False
    return insert_new(
        session,
        UnownedOrder,
        ref=ref,
        refs=list(refs),
        upstream_key=upstream_key,
        destination_address=destination_address,
        amount=amount,
        order_id=order_id,
        deposit_address=deposit[0],
        deposit_memo=deposit[1],
        seen_at=now,
        deposit_seen_at=None,
        next_check_at=next_check_at or now,
    )


def adopt(session: Session, refs: Sequence[str]) -> None:
    """An order of ours owns these ids now: what is recorded under any of them is unowned no more."""
    for unowned in _sharing(session, set(refs)):
        session.delete(unowned)


def _sharing(session: Session, refs: set[str]) -> list[UnownedOrder]:
    """The unowned orders that are known by any of these ids. Found by the text of the JSON, which both databases can
    search; SQLite has it in ASCII, PostgreSQL does not."""
    spellings = {json.dumps(ref, ensure_ascii=ascii) for ref in refs for ascii in (True, False)}
    spelled = (cast(UnownedOrder.refs, Text).contains(spelling, autoescape=True) for spelling in sorted(spellings))
    rows = session.scalars(select(UnownedOrder).where(or_(UnownedOrder.ref.in_(refs), *spelled)))
    return [unowned for unowned in rows if refs.intersection([unowned.ref, *unowned.refs])]


def find(session: Session, ref: str) -> UnownedOrder | None:
    """The one that is known by this id, in any of its forms."""
    return next(iter(_sharing(session, {ref})), None)


def give(session: Session, ref: str, order_id: str) -> None:
    """Make it the spare of an order."""
    session.execute(update(UnownedOrder).where(UnownedOrder.ref == ref).values(order_id=order_id))


def spares_of_others(session: Session, refs: set[str], order_id: str) -> set[str]:
    """Which of these ids belong to spares of orders other than this one."""
    rows = _sharing(session, refs) if refs else []
    return refs.intersection(
        ref for row in rows if row.order_id not in (None, order_id) for ref in (row.ref, *row.refs)
    )


def spares_of(session: Session, order_id: str) -> Sequence[UnownedOrder]:
    """The spares of an order, oldest first."""
    query = select(UnownedOrder).where(UnownedOrder.order_id == order_id)
    return session.scalars(query.order_by(UnownedOrder.seen_at, UnownedOrder.ref)).all()


def known_refs(session: Session) -> set[str]:
    """Every id of every unowned order."""
    rows = session.execute(select(UnownedOrder.ref, UnownedOrder.refs))
    return {each for ref, refs in rows for each in (ref, *refs)}


def all_unowned(session: Session) -> Sequence[UnownedOrder]:
    """Every unowned order, oldest first."""
    return session.scalars(select(UnownedOrder).order_by(UnownedOrder.seen_at, UnownedOrder.ref)).all()


def claim_due(session: Session, now: datetime, lease: timedelta) -> UnownedOrder | None:
    """Lease the unowned order that is longest overdue, if any is due. `next_check_at` is the lease: no client sees it."""
    due = select(UnownedOrder).where(UnownedOrder.next_check_at <= now).order_by(UnownedOrder.next_check_at).limit(1)
    unowned = session.scalars(due.with_for_update(skip_locked=True)).one_or_none()
    if unowned is not None:
        unowned.next_check_at = now + lease
    return unowned


def record_poll(session: Session, unowned: UnownedOrder, **values: Any) -> None:
    """Write down what a poll brought. `values`: column -> value. Nothing is written once another process has taken up the
    order after its lease."""
    session.execute(
        update(UnownedOrder)
        .where(UnownedOrder.ref == unowned.ref, UnownedOrder.next_check_at == unowned.next_check_at)
        .values(**values)
    )
