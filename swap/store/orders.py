"""Orders, and the one door through which an order changes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, inspect, or_, select, tuple_, update
from sqlalchemy.orm import Session

from swap.domain import lifecycle, search_terms
from swap.domain.lifecycle import Facts, Status
from swap.domain.order_limits import Counted
from swap.store.database import insert_all_new, insert_new
from swap.store.events import add_event
from swap.store.serializers import order_view, same_view
from swap.tables import Order, SearchTerm, SpentQuote, TransferRow

_COLUMNS = tuple(attribute.key for attribute in inspect(Order).column_attrs)
_RIVAL_FOR = timedelta(hours=1)
_CLOCKS_APART = timedelta(minutes=1)
_WRITE_ONCE = ("deposit_kind", "deposit_address", "deposit_memo", "deposit_link")


# --- making and finding ----------------------------------------------------------------------------------------------


def insert(session: Session, order: Order, detail: dict[str, Any] | None = None) -> bool:
    """Write a new order with its `order.created` event; `detail`, in the event, is for support. False when the client
    already has this `client_order_id`."""
    if not insert_new(session, Order, **{name: getattr(order, name) for name in _COLUMNS}):
        return False
    terms = {search_terms.key(term) for term in order.request.get("search_terms") or ()}
    if terms:
        of_order = {"client_id": order.client_id, "order_id": order.id}
        insert_all_new(session, SearchTerm, [{"term": term, **of_order} for term in sorted(terms)])
    add_event(
        session,
        order,
        "order.created",
        at=order.created_at,
        view=order_view(order),
        detail={"source": "api", **(detail or {})},
    )
    return True


def get(session: Session, order_id: str, client_id: str | None = None) -> Order | None:
    """The order; with `client_id`, only when it belongs to that client."""
    query = select(Order).where(Order.id == order_id)
    if client_id is not None:
        query = query.where(Order.client_id == client_id)
    return session.scalars(query).one_or_none()


def by_client_order_id(session: Session, client_id: str, client_order_id: str) -> Order | None:
    query = select(Order).where(Order.client_id == client_id, Order.client_order_id == client_order_id)
    return session.scalars(query).one_or_none()


def page(
    session: Session, client_id: str, filters: dict[str, Any], after: tuple[datetime, str] | None, limit: int
) -> Sequence[Order]:
    """Orders of a client, newest first, strictly after the (created_at, id) given. `filters`: column -> value, `status`
    -> internal statuses (of an order under review: the one before), `tx_id` -> the transaction of a deposit or payout,
    `search_term` -> one of its terms, `ids` -> ids, `created_since`, `created_until` (before that), `updated_since` and
    `updated_until` -> times."""
    query = select(Order).where(Order.client_id == client_id)
    for name, value in filters.items():
        column, _, end = name.rpartition("_")
        if name == "tx_id":
            query = query.where(Order.id.in_(select(TransferRow.order_id).where(TransferRow.tx_id == value)))
        elif name == "search_term":
            own = (SearchTerm.term == search_terms.key(value), SearchTerm.client_id == client_id)
            query = query.where(Order.id.in_(select(SearchTerm.order_id).where(*own)))
        elif name == "ids":
            query = query.where(Order.id.in_(value))
        elif end == "since":
            query = query.where(getattr(Order, f"{column}_at") >= value)
        elif end == "until":
            query = query.where(getattr(Order, f"{column}_at") < value)
            if column == "updated":
                # What was changed last before then was made before then, but for clocks: the list begins there.
                query = query.where(Order.created_at < value + _CLOCKS_APART)
        elif name == "status":
            before = func.coalesce(Order.status_before_review, Status.ON_HOLD)
            reviewed = and_(Order.status == Status.NEEDS_REVIEW, before.in_(value))
            query = query.where(or_(Order.status.in_(value), reviewed))
        else:
            query = query.where(getattr(Order, name) == value)
    if after is not None:
        # As one comparison: of one with OR, the index would still be read from its newest end.
        query = query.where(tuple_(Order.created_at, Order.id) < after)
    return session.scalars(query.order_by(Order.created_at.desc(), Order.id.desc()).limit(limit)).all()


def under_review(session: Session) -> Sequence[Order]:
    """Orders that a person has to look at, those that wait longest first."""
    query = select(Order).where(Order.status == Status.NEEDS_REVIEW)
    return session.scalars(query.order_by(Order.status_changed_at, Order.id)).all()


def counted_amounts(
    session: Session, client_id: str, currency: str, *, after: datetime, besides: str | None
) -> Sequence[Counted]:
    """What counts into a daily sum of the client: its orders that were made after that and send this currency, oldest first,
    without the one whose `client_order_id` is `besides`.

    Every order counts over its own amount, whatever was paid to it, for it may be paid as long as it is watched; but one
    that failed before there was anything to pay to does not.
    """
    query = select(Order.created_at, Order.amount).where(
        Order.client_id == client_id,
        Order.created_at > after,
        Order.from_currency == currency,
        or_(Order.status != Status.FAILED, Order.deposit_kind.is_not(None)),
    )
    if besides is not None:
        query = query.where(Order.client_order_id != besides)
    return [Counted(*row) for row in session.execute(query.order_by(Order.created_at))]


def count_in_doubt(session: Session, limit: int) -> int:
    """How many orders are in doubt; counted up to `limit`."""
    doubts = select(Order.id).where(Order.status == Status.IN_DOUBT, Order.next_check_at.is_not(None)).limit(limit)
    return session.scalar(select(func.count()).select_from(doubts.subquery())) or 0


def owned_by(session: Session, client_id: str, order_ids: Collection[str]) -> set[str]:
    """Which of these orders are the client's."""
    return set(session.scalars(select(Order.id).where(Order.id.in_(order_ids), Order.client_id == client_id)))


def raise_token_version(session: Session, order_id: str, client_id: str) -> bool:
    """Make the order's tracking tokens void. False when the client has no such order. Not a move: nothing about the order
    itself changes, so `version` stays, and no other process' write is in the way."""
    counted = session.execute(
        update(Order)
        .where(Order.id == order_id, Order.client_id == client_id)
        .values(token_version=Order.token_version + 1),
        execution_options={"synchronize_session": False},
    )
    return bool(counted.rowcount)  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult


def token_versions(session: Session, order_ids: Collection[str]) -> dict[str, int]:
    query = select(Order.id, Order.token_version).where(Order.id.in_(order_ids))
    return {row[0]: row[1] for row in session.execute(query)}


def spend_quote(session: Session, quote: str, order_id: str, expires_at: datetime) -> bool:
    """Bind the quote to this order, for ever: whoever asks later finds out, however late. False when another order has
    already spent it."""
    if insert_new(session, SpentQuote, quote=quote, order_id=order_id, expires_at=expires_at):
        return True
    return session.scalar(select(SpentQuote.order_id).where(SpentQuote.quote == quote)) == order_id


def rivals(session: Session, order: Order) -> list[Order]:
    """Other orders of ours, of any client, that are alike in route, amount and destination and were made within an hour of
    it: an upstream order may be meant for either."""
    query = select(Order).where(
        Order.id != order.id,
        Order.destination_address == order.destination_address,
        Order.from_currency == order.from_currency,
        Order.from_network == order.from_network,
        Order.to_currency == order.to_currency,
        Order.to_network == order.to_network,
        Order.created_at >= order.created_at - _RIVAL_FOR,
        Order.created_at <= order.created_at + _RIVAL_FOR,
    )
    return [rival for rival in session.scalars(query) if rival.amount == order.amount]


def lock(session: Session, order_id: str) -> None:
    """Until the transaction ends, nobody else changes the order or shows it an upstream order."""
    session.execute(select(Order.id).where(Order.id == order_id).with_for_update())


# --- due ---------------------------------------------------------------------------------------------------------------


def back_off(
    session: Session,
    order: Order,
    next_check_at: datetime,
    *,
    failures: int,
    lease: str | None = None,
    held_until: datetime | None = None,
) -> None:
    """Set the next poll after one that brought nothing, unless the order was moved since it was read: then it has a due
    time of its own, and a plan made for its old status could end the watch over a customer's money.

    `lease`: the token that the order was claimed with; without it in the row nothing is written, and with it the lease
    ends. `held_until`: until then the order is not taken up, even if it is asked for sooner.
    """
    ended = {} if lease is None else {"lease_token": None, "leased_until": held_until}
    session.execute(
        update(Order)
        .where(Order.id == order.id, Order.version == order.version, *_holding(lease))
        .values(next_check_at=next_check_at, failures=failures, **ended),
        execution_options={"synchronize_session": False},
    )


def _holding(lease: str | None) -> list[ColumnElement[bool]]:
    return [] if lease is None else [Order.lease_token == lease]


# --- the one door ------------------------------------------------------------------------------------------------------


def move(
    session: Session,
    order: Order,
    changes: dict[str, Any],
    *,
    at: datetime,
    source: str,
    detail: dict[str, Any] | None = None,
    type: str | None = None,
    lease: str | None = None,
) -> Order | None:
    """Change an order if no other process has changed it since `order` was read, and write the event for it.

    Returns the order as it is now, or None when another process was first. Then nothing was written, and what the caller
    learned must already be stored somewhere else. A public event is written only when the public view changed; its type
    is `order.<status>` on a change of public status, else `type`, else `order.updated`. `lease`: the token that the order
    was claimed with; without it in the row another process was first, and with it the lease ends.

    Raises ValueError for a step that is not in `lifecycle.TRANSITIONS` or that would change deposit details once set.
    """
    old_status, new_status = Status(order.status), Status(changes.get("status", order.status))
    if old_status is not new_status and not lifecycle.can_move(old_status, new_status):
        raise ValueError(f"no way from {old_status} to {new_status}")
    for name in _WRITE_ONCE:
        if order.deposit_kind is not None and name in changes and changes[name] != getattr(order, name):
            raise ValueError(f"{name} is written once")

    after = Order(**{name: getattr(order, name) for name in _COLUMNS})
    ended = {} if lease is None else {"lease_token": None, "leased_until": None}
    values: dict[str, Any] = {**ended, **changes, "version": order.version + 1, "updated_at": at}
    if old_status is not new_status:
        values["status_changed_at"] = at
    for name, value in values.items():
        setattr(after, name, value)
    before_view, view = order_view(order), order_view(after)
    public = not same_view(before_view, view)
    if public:
        values["sequence"] = after.sequence = view["sequence"] = order.sequence + 1

    counted = session.execute(
        update(Order).where(Order.id == order.id, Order.version == order.version, *_holding(lease)).values(**values),
        execution_options={"synchronize_session": False},
    )
    if counted.rowcount != 1:  # type: ignore[attr-defined] # an UPDATE answers with a CursorResult
        return None
    if "facts" in changes and changes["facts"].get("transfers") != order.facts.get("transfers"):
        _write_transfers(session, order.id, Facts.from_json(changes["facts"]))
    detail = {"source": source, **(detail or {})}
    if public:
        changed = before_view["status"] != view["status"]
        name = f"order.{view['status']}" if changed else type or "order.updated"
        add_event(session, after, name, at=at, view=view, detail=detail)
    elif old_status is not new_status:
        add_event(session, after, f"journal.{new_status}", at=at, detail=detail)
    return after


def _write_transfers(session: Session, order_id: str, facts: Facts) -> None:
    session.execute(delete(TransferRow).where(TransferRow.order_id == order_id))
    session.add_all(
        TransferRow(
            order_id=order_id,
            position=position,
            direction=transfer.direction,
            amount=transfer.amount,
            tx_id=transfer.tx_id,
            confirmations=transfer.confirmations,
            at=transfer.at,
        )
        for position, transfer in enumerate(facts.transfers)
    )
