"""Instruments and pairs as rows; replaced by difference, so that a refresh that changed nothing writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import insert, select, tuple_, update
from sqlalchemy.orm import Session

from swap.tables import CatalogState, InstrumentRow, PairRow

PairKey = tuple[str, str, str, str]
Settle = Callable[[InstrumentRow | None, dict[str, Any]], dict[str, Any]]
_PAIR_KEYS = ("from_currency_key", "from_network_key", "to_currency_key", "to_network_key")


def state(session: Session) -> CatalogState:
    return session.scalars(select(CatalogState)).one()


def instruments(session: Session) -> Sequence[InstrumentRow]:
    return session.scalars(select(InstrumentRow).where(InstrumentRow.active)).all()


def currency_title(session: Session, text: str) -> str | None:
    """A currency as the upstream writes it, however it is written here; also where none of its instruments is active."""
    query = select(InstrumentRow.currency).where(InstrumentRow.currency_key == text.casefold())
    return session.scalars(query.order_by(InstrumentRow.active.desc()).limit(1)).first()


def pair_keys(session: Session) -> list[PairKey]:
    """The active pairs as keys alone: 20,000 of them are held in memory by every process."""
    columns = [getattr(PairRow, name) for name in _PAIR_KEYS]
    return [(row[0], row[1], row[2], row[3]) for row in session.execute(select(*columns).where(PairRow.active))]


def pairs_page(session: Session, filters: dict[str, str], after: PairKey | None, limit: int) -> Sequence[PairRow]:
    """Active pairs in key order, strictly after the key given. `filters`: key column -> case-folded title."""
    columns = [getattr(PairRow, name) for name in _PAIR_KEYS]
    query = select(PairRow).where(PairRow.active)
    for name, value in filters.items():
        query = query.where(getattr(PairRow, name) == value)
    if after is not None:
        query = query.where(tuple_(*columns) > tuple_(*after))
    return session.scalars(query.order_by(*columns).limit(limit)).all()


def replace(
    session: Session,
    new_instruments: Iterable[dict[str, Any]],
    new_pairs: Iterable[PairKey],
    *,
    settle: Settle,
    now: datetime,
) -> bool:
    """Make the rows equal to what was fetched. An instrument or pair that is gone upstream stays as inactive: orders still
    refer to it. `settle`: what a row becomes, by the row as it is (None: it is new) and what was fetched.

    Returns whether anything changed.
    """
    wanted = {(i["currency_key"], i["network_key"]): i for i in new_instruments}
    changed = _replace_instruments(session, wanted, settle)
    changed = _replace_pairs(session, set(new_pairs)) or changed
    values: dict[str, Any] = {"fetched_at": now, "failures": 0, "last_error": None}
    if changed:
        values["version"] = CatalogState.version + 1
    session.execute(update(CatalogState).values(**values))
    return changed


def refresh_failed(session: Session, error: str) -> None:
    session.execute(update(CatalogState).values(failures=CatalogState.failures + 1, last_error=error))


def learn_limits(
    session: Session,
    key: PairKey,
    *,
    min_amount: Decimal | None,
    max_amount: Decimal | None,
    fixed_rate: bool | None,
    now: datetime,
) -> None:
    """Store what a rate said about the pair: limits in the deposit currency, and whether a fixed rate is offered."""
    session.execute(
        update(PairRow)
        .where(*(getattr(PairRow, name) == part for name, part in zip(_PAIR_KEYS, key, strict=True)))
        .values(min_amount=min_amount, max_amount=max_amount, fixed_rate=fixed_rate, limits_as_of=now)
    )


def _replace_instruments(session: Session, wanted: dict[tuple[str, str], dict[str, Any]], settle: Settle) -> bool:
    changed = False
    for row in session.scalars(select(InstrumentRow)).all():
        new = wanted.pop((row.currency_key, row.network_key), None)
        for name, value in ({"active": False} if new is None else {**settle(row, new), "active": True}).items():
            if getattr(row, name) != value:
                setattr(row, name, value)
                changed = True
    session.add_all(InstrumentRow(**settle(None, values), active=True) for values in wanted.values())
    return changed or bool(wanted)


def _replace_pairs(session: Session, wanted: set[PairKey]) -> bool:
    columns = [getattr(PairRow, name) for name in _PAIR_KEYS]
    had = {tuple(row[:4]): row[4] for row in session.execute(select(*columns, PairRow.active))}
    new = wanted - set(had)
    back = {key for key, active in had.items() if key in wanted and not active}
    gone = {key for key, active in had.items() if key not in wanted and active}
    if new:
        session.execute(insert(PairRow), [dict(zip(_PAIR_KEYS, key, strict=True), active=True) for key in new])
    for keys, active in ((back, True), (gone, False)):
        if keys:
            session.execute(update(PairRow), [dict(zip(_PAIR_KEYS, key, strict=True), active=active) for key in keys])
    return bool(new or back or gone)
