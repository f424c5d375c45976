"""Values that the upstream gives several of our orders as if they were ids of one: a constant `id` or `reference`, say.

Ids are how an answer about another order is told from one about this order. So a value that is none would make every order
but the first one look like the first one's. It is found out by contradiction: the answer about this order names an id of its
own, the owner of the value is known by another id of the same kind, and one order has one number. Then the value is no id,
for any order, for good.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

import structlog
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import Order, SharedRef, UpstreamRef

log = structlog.get_logger()

_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def real_refs(
    session: Session, order_id: str, primary: str | None, refs: Iterable[str], now: datetime
) -> tuple[str, ...]:
    """The ids among `refs`, which an answer about this order names; `primary`: the one to ask with. Finds out which are
    none, keeps that, and raises the alarm once for each."""
    refs = tuple(refs)
    shared = set(session.scalars(select(SharedRef.ref).where(SharedRef.ref.in_(refs))))
    query = (
        select(UpstreamRef.ref, Order.upstream_order_id)
        .join(Order, Order.id == UpstreamRef.order_id)
        .where(UpstreamRef.ref.in_(refs), UpstreamRef.order_id != order_id)
    )
    owned = {row[0]: row[1] for row in session.execute(query)}
    if primary is not None and primary not in shared and primary not in owned:
        for ref, known_by in owned.items():
            if known_by in (None, primary, ref) or _kind(known_by) is None or _kind(known_by) != _kind(primary):
                continue
            shared.add(ref)
            session.execute(delete(UpstreamRef).where(UpstreamRef.ref == ref))
            if insert_new(session, SharedRef, ref=ref, seen_at=now):
                log.error("orders.shared_upstream_id", order_id=order_id, ref=ref)
    return tuple(ref for ref in refs if ref not in shared)


def _kind(ref: str) -> str | None:
    return "number" if _NUMBER.fullmatch(ref) else "uuid" if _UUID.fullmatch(ref) else None
