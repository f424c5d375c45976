"""Which upstream orders an answer names, and what looks like an id in it and is none.

Ids are how an answer about another order is told from one about this order. So a value that the upstream gives all of them
(a constant `id` or `reference`, say) would make every order but the first one look like the first one's. It is found out by
contradiction: the answer has a number of its own, the order that owns the value has another one, and one order has one
number; the same with UUIDs. Then the value is no id, of any order, for good.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session

from swap.store.database import insert_new
from swap.tables import SharedRef, UpstreamOrder, UpstreamRef

log = structlog.get_logger()

_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
# Any number of one's own, for locks on ids.
_IDS = 7_306_413
# Databases take so many parameters in one statement.
_AT_ONCE = 1000


@dataclass(frozen=True)
class Named:
    """What an answer names: `refs`, the ids in it, and of those that are recorded, the upstream order each belongs to
    (`known`). `shared`: values in it that were just found to be none (`keep_shared`)."""

    refs: tuple[str, ...]
    known: Mapping[str, UpstreamOrder]
    shared: tuple[str, ...] = ()

    @property
    def rows(self) -> list[UpstreamOrder]:
        """The upstream orders, each once."""
        return list({row.id: row for row in self.known.values()}.values())

    def all_of(self, row: UpstreamOrder | None) -> bool:
        """Whether all the ids are recorded, and this one's."""
        return all(self.known.get(ref) is row for ref in self.refs)

    def another_than(self, asked: UpstreamOrder) -> bool:
        """Whether the answer names itself by an id of another upstream order than the one that was asked about, recorded or
        not, and by none of that one's. Then nothing in it may be believed."""
        if asked.id in {row.id for row in self.rows}:
            return False
        return bool(self.known) or any(cannot_be_one(asked.ref, ref) for ref in self.refs)

    def another_than_shown(self, order_id: str, shown: UpstreamOrder | None) -> bool:
        """As `another_than`, of an order's question about the one that its customer was shown: nor may an answer be believed
        that names another order of ours besides."""
        return bool(self.of_others(order_id)) or (shown is not None and self.another_than(shown))

    def of_others(self, order_id: str) -> dict[str, str]:
        """The ids that belong to another order of ours, shown or spare, and to which."""
        return {
            ref: row.order_id
            for ref, row in self.known.items()
            if row.order_id is not None and row.order_id != order_id
        }


def named(
    session: Session,
    primary: str | None,
    refs: Iterable[str],
    about: UpstreamOrder | None = None,
    *,
    lock: bool = False,
) -> Named:
    """`primary`: the id in the answer to ask with; `about`: the upstream order that was asked about, whose own ids no
    answer to that takes from it; `lock`: as in `by_refs`."""
    refs = tuple(dict.fromkeys(refs))
    none_at_all = set(session.scalars(select(SharedRef.ref).where(SharedRef.ref.in_(refs))))
    known = by_refs(session, [ref for ref in refs if ref not in none_at_all], lock=lock)
    others = {
        ref: row
        for ref, row in known.items()
        if (about is None or row.id != about.id) and known.get(primary or "") is not row
    }
    ids = _ids_of(session, others.values())
    shared = tuple(
        ref
        for ref, row in others.items()
        if _differ(ref, row.ref, primary) or _is_told_apart(ref, row.ref, ids[row.id], primary)
    )
    return Named(
        tuple(ref for ref in refs if ref not in none_at_all and ref not in shared),
        {ref: row for ref, row in known.items() if ref not in shared},
        shared,
    )


def keep_shared(session: Session, names: Named, now: datetime) -> None:
    """Keep for good that these values are no ids, and raise the alarm once for each."""
    if names.shared:
        hold(session, {*names.refs, *names.shared})
    for ref in names.shared:
        session.execute(delete(UpstreamRef).where(UpstreamRef.ref == ref))
        if insert_new(session, SharedRef, ref=ref, seen_at=now):
            log.error("orders.shared_upstream_id", ref=ref)


def hold(session: Session, refs: Collection[str]) -> None:
    """Until the transaction ends, no other one that asks for this changes what these ids belong to. SQLite has one writer
    anyway."""
    if refs and session.get_bind().dialect.name == "postgresql":
        # Sorted, or two that hold the same ids could wait for each other.
        keys = select(func.unnest(array([func.hashtext(ref) for ref in refs])).label("key")).order_by("key").subquery()
        session.execute(select(func.pg_advisory_xact_lock(_IDS, keys.c.key)))


def by_refs(session: Session, refs: Collection[str], *, lock: bool = False) -> dict[str, UpstreamOrder]:
    """Of these ids that are recorded: the upstream order each belongs to. `lock`: whoever changes one asks so, for until the
    transaction ends nobody else then gives it to another order."""
    query = select(UpstreamRef.ref, UpstreamOrder).join(UpstreamOrder, UpstreamOrder.id == UpstreamRef.upstream_order)
    if lock:
        query = query.order_by(UpstreamOrder.id).with_for_update(of=UpstreamOrder)
        query = query.execution_options(populate_existing=True)
    return {
        row[0]: row[1] for part in in_parts(refs) for row in session.execute(query.where(UpstreamRef.ref.in_(part)))
    }


def roles(session: Session, listed: Sequence[tuple[str | None, Sequence[str]]]) -> list[str | None]:
    """For each listed order, given by its number and all its ids: as what it is recorded (`UpstreamOrder.role`), None when
    it is not."""
    query = select(UpstreamRef.ref, UpstreamOrder.ref, UpstreamOrder.role)
    query = query.join(UpstreamOrder, UpstreamOrder.id == UpstreamRef.upstream_order)
    known: dict[str, tuple[str, str]] = {}
    for part in in_parts([ref for _, refs in listed for ref in refs]):
        known |= {row[0]: (row[1], row[2]) for row in session.execute(query.where(UpstreamRef.ref.in_(part)))}
    return [
        next((known[ref][1] for ref in refs if ref in known and not _differ(ref, known[ref][0], number)), None)
        for number, refs in listed
    ]


def in_parts(refs: Collection[str]) -> Iterator[Sequence[str]]:
    """In parts that a statement can take."""
    refs = tuple(refs)
    return (refs[start : start + _AT_ONCE] for start in range(0, len(refs), _AT_ONCE))


def cannot_be_one(one: str, other: str) -> bool:
    """Whether upstream orders that are known by these ids are two: an order has one number, and one UUID to ask with."""
    return one != other and _kind(one) is not None and _kind(one) == _kind(other)


def _differ(ref: str, known_by: str, primary: str | None) -> bool:
    """Whether `ref`, in an answer about the order `primary`, is an id of another one, which is known by `known_by`."""
    return primary is not None and ref not in (primary, known_by) and cannot_be_one(known_by, primary)


def _is_told_apart(ref: str, known_by: str, ids: Collection[str], primary: str | None) -> bool:
    """As `_differ`, where the two are known by different forms of id: among all `ids` of the other order is one of the
    answer's form, and another one. An id of that very form proves nothing, for an order may have two."""
    return (
        primary is not None
        and ref not in (primary, known_by)
        and _kind(ref) != _kind(primary)
        and any(cannot_be_one(own, primary) for own in ids)
    )


def _ids_of(session: Session, rows: Iterable[UpstreamOrder]) -> dict[str, list[str]]:
    """All ids of each of these upstream orders."""
    found: dict[str, list[str]] = {row.id: [] for row in rows}
    if found:
        query = select(UpstreamRef.upstream_order, UpstreamRef.ref).where(UpstreamRef.upstream_order.in_(found))
        for id_, ref in session.execute(query):
            found[id_].append(ref)
    return found


def _kind(ref: str) -> str | None:
    return "number" if _NUMBER.fullmatch(ref) else "uuid" if _UUID.fullmatch(ref) else None
