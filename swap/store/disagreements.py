"""Disagreements about destinations, counted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import Disagreement


def count(
    session: Session, *, network: str, kind: str, field: str, reason: str, address_hash: str, now: datetime
) -> None:
    """Count one more of this kind. The table stays small: networks come from the catalog, the rest from our own words."""
    key = {"network": network, "kind": kind, "field": field, "reason": reason}
    if insert_new(session, Disagreement, **key, count=1, first_at=now, last_at=now, address_hash=address_hash):
        return
    session.execute(
        update(Disagreement)
        .filter_by(**key)
        .values(count=Disagreement.count + 1, last_at=now, address_hash=address_hash)
    )
