"""Orphans: orders at the upstream that belong to none of ours, or that nobody could prove to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Text, cast, or_, select, update
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import Order, Orphan, UpstreamRef

_RIVAL_FOR = timedelta(hours=1)


def add_orphan(
    session: Session,
    *,
    ref: str,
    refs: Sequence[str],
    upstream_key: str,
    destination_address: str | None,
    amount: Decimal | None,
    order_id: str | None,
    now: datetime,
) -> bool:
    """Note an upstream order as an orphan, due to be looked at. False when it is known as one, or owned by an order.

    Known is what shares any id with an orphan: then that one learns the other ids, and no second one is made.
    """
    all_refs = {ref, *refs}
    if session.scalar(select(UpstreamRef.ref).where(UpstreamRef.ref.in_(all_refs)).limit(1)) is not None:
        return False
    known = _sharing(session, all_refs)
    for orphan in known:
        orphan.refs = sorted(all_refs.union(orphan.refs))
    if known:
        return False
    return insert_new(
        session,
        Orphan,
        ref=ref,
        refs=list(refs),
        upstream_key=upstream_key,
        destination_address=destination_address,
        amount=amount,
        order_id=order_id,
        seen_at=now,
        deposit_seen_at=None,
        next_check_at=now,
    )


def adopt(session: Session, refs: Sequence[str]) -> None:
    """These ids have found their order: they are orphans no more."""
    for orphan in _sharing(session, set(refs)):
        session.delete(orphan)


def _sharing(session: Session, refs: set[str]) -> list[Orphan]:
    """Orphans that are known by any of these ids. Found by the text of the JSON, which both databases can search; SQLite
    has it in ASCII, PostgreSQL does not."""
    spellings = {json.dumps(ref, ensure_ascii=ascii) for ref in refs for ascii in (True, False)}
    spelled = (cast(Orphan.refs, Text).contains(spelling, autoescape=True) for spelling in sorted(spellings))
    found = session.scalars(select(Orphan).where(or_(Orphan.ref.in_(refs), *spelled)))
    return [orphan for orphan in found if refs.intersection([orphan.ref, *orphan.refs])]


def known_refs(session: Session) -> set[str]:
    """Every id of every orphan."""
    return {each for ref, refs in session.execute(select(Orphan.ref, Orphan.refs)) for each in (ref, *refs)}


def orphans(session: Session) -> Sequence[Orphan]:
    return session.scalars(select(Orphan).order_by(Orphan.seen_at, Orphan.ref)).all()


def claim_due(session: Session, now: datetime, lease: timedelta) -> Orphan | None:
    """Lease the orphan that is due longest, if any is."""
    due = select(Orphan).where(Orphan.next_check_at <= now).order_by(Orphan.next_check_at).limit(1)
    orphan = session.scalars(due.with_for_update(skip_locked=True)).one_or_none()
    if orphan is not None:
        orphan.next_check_at = now + lease
    return orphan


def record_poll(
    session: Session, ref: str, *, refs: Sequence[str], deposit_seen_at: datetime | None, next_check_at: datetime | None
) -> None:
    session.execute(
        update(Orphan)
        .where(Orphan.ref == ref)
        .values(refs=list(refs), deposit_seen_at=deposit_seen_at, next_check_at=next_check_at)
    )


def rivals(session: Session, order: Order) -> Sequence[Order]:
    """Other orders of ours, of any client, that may have made the same upstream order: alike in route, amount and
    destination, made within an hour of it, and without an upstream id of their own so far."""
    query = select(Order).where(
        Order.id != order.id,
        Order.destination_address == order.destination_address,
        Order.from_currency == order.from_currency,
        Order.from_network == order.from_network,
        Order.to_currency == order.to_currency,
        Order.to_network == order.to_network,
        Order.upstream_order_id.is_(None),
        Order.created_at >= order.created_at - _RIVAL_FOR,
        Order.created_at <= order.created_at + _RIVAL_FOR,
    )
    open_ends = (None, "create_in_doubt", "create_unconfirmed")
    return [
        rival for rival in session.scalars(query) if rival.amount == order.amount and rival.status_reason in open_ends
    ]
