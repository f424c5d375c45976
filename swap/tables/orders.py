"""Orders, the attempts to create them upstream, and what the upstream calls them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, TextClause, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from swap.domain import schedules
from swap.tables.columns import Row


def _watched_of_rank() -> list[TextClause]:
    """Of each rank in which orders are claimed: those that are watched."""
    return [
        text(f"status IN ({', '.join(repr(status.value) for status in rank)}) AND next_check_at IS NOT NULL")
        for rank in schedules.CLAIM_RANKS
    ]


def _found_by() -> list[Index]:
    """What a client finds its orders by. Without the time by which they are listed: equal entries of an index share a place,
    and what many orders have is found by walking the list."""
    always = [("status",), ("updated_at",), ("from_currency", "from_network"), ("to_currency", "to_network")]
    where_given = ("user_id", "session_id", "account_id", "destination_memo", "deposit_memo")
    return [
        *(Index(f"ix_orders_client_id_{names[0]}", "client_id", *names) for names in always),
        *(
            Index(
                f"ix_orders_client_id_{name}",
                "client_id",
                name,
                postgresql_where=text(f"{name} IS NOT NULL"),
                sqlite_where=text(f"{name} IS NOT NULL"),
            )
            for name in where_given
        ),
    ]


class Order(Row):
    """One swap. `version` rises with every write; `sequence` with every public event. Deposit details are write-once.

    `request` is the caller's request as validated (a repeated `client_order_id` is compared with it); `rate` is what
    was quoted (the claimed public rate sent upstream); `facts` is `lifecycle.Facts` as JSON: what the upstream
    says about this order, but for its expiry: that is `told_expiry`, a `swap.domain.expiry.ToldExpiry` as JSON,
    or null. `payable`: the deposit details passed every check, so they are shown; `payable_reason`: why nothing may be
    paid to them all the same, or why they are not shown. `payable_until`: the end of a fixed rate, where the upstream
    named one. `as_of`: when it was last polled with success; `signalled_at`: when the upstream's list last made it due.
    `token_version`: raised to revoke the order's tracking tokens. `conflict`: in what a later answer last differed from
    what the customer was shown, `conflict_since`: when that was first seen, and `accepted_answer`: the answer that a
    person accepted although it differs (`swap.orders.conflicts`).
    `next_check_at`: when a poll is due; null: no longer watched. `leased_until`: until then no other process takes the
    order up; `lease_token`: of the process that works on it (`swap.store.leases`).
    """

    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id"))
    client_order_id: Mapped[str]
    request: Mapped[dict[str, Any]]
    version: Mapped[int]
    sequence: Mapped[int]

    status: Mapped[str]
    status_reason: Mapped[str | None]
    status_before_review: Mapped[str | None]
    status_changed_at: Mapped[datetime]

    from_currency: Mapped[str]
    from_network: Mapped[str]
    to_currency: Mapped[str]
    to_network: Mapped[str]
    rate_mode: Mapped[str]
    amount: Mapped[Decimal]
    amount_to_get: Mapped[Decimal | None]
    rate: Mapped[dict[str, Any]]
    network_fee: Mapped[Decimal | None]
    referrer_id: Mapped[str | None]
    markup: Mapped[Decimal | None]

    destination_address: Mapped[str]
    destination_memo: Mapped[str | None]
    refund_address: Mapped[str | None]
    refund_memo: Mapped[str | None]

    user_id: Mapped[str | None]
    session_id: Mapped[str | None]
    account_id: Mapped[str | None]
    order_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")

    upstream_key: Mapped[str]
    upstream_order_id: Mapped[str | None] = mapped_column(index=True)
    upstream_state: Mapped[str | None]
    deposit_kind: Mapped[str | None]
    deposit_address: Mapped[str | None] = mapped_column(index=True)
    deposit_memo: Mapped[str | None]
    deposit_link: Mapped[str | None]
    payable: Mapped[bool]
    payable_reason: Mapped[str | None]
    payable_until: Mapped[datetime | None]
    conflict: Mapped[str | None]
    conflict_since: Mapped[datetime | None]
    accepted_answer: Mapped[dict[str, Any] | None]
    confirmations_required: Mapped[int | None]

    facts: Mapped[dict[str, Any]]
    told_expiry: Mapped[dict[str, Any] | None]
    action_url: Mapped[str | None]
    action_since: Mapped[datetime | None]

    token_version: Mapped[int] = mapped_column(default=0, server_default="0")
    failures: Mapped[int]
    as_of: Mapped[datetime | None]
    signalled_at: Mapped[datetime | None]
    next_check_at: Mapped[datetime | None]
    leased_until: Mapped[datetime | None]
    lease_token: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def pair(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Currency and network of both sides."""
        return (self.from_currency, self.from_network), (self.to_currency, self.to_network)

    __table_args__ = (
        UniqueConstraint("client_id", "client_order_id"),
        Index("ix_orders_client_id_created_at_id", "client_id", "created_at", "id"),
        Index("ix_orders_next_check_at", "next_check_at", postgresql_where=text("next_check_at IS NOT NULL")),
        Index("ix_orders_destination_address", "destination_address"),
        *(
            Index(f"ix_orders_claim_{rank}", "next_check_at", postgresql_where=which, sqlite_where=which)
            for rank, which in enumerate(_watched_of_rank())
        ),
        *_found_by(),
    )


class OrderAttempt(Row):
    """One try at the upstream's create, written before the call. `outcome`: null while the call runs or when the process
    died in it, then done, refused, not_sent or unknown. `amount_to_get`: what it was promised; `refs`: every id form in the
    answer; `answer`: the answer, redacted."""

    __tablename__ = "order_attempts"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    upstream_key: Mapped[str]
    amount_to_get: Mapped[Decimal | None]
    sent_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    code: Mapped[str | None]
    cause: Mapped[str | None]
    http_status: Mapped[int | None]
    refs: Mapped[list[Any]]
    answer: Mapped[str | None]

    # The time first: some ask for the creates of an hour with any key.
    __table_args__ = (Index("ix_order_attempts_sent_at_upstream_key", "sent_at", "upstream_key"),)


class UpstreamOrder(Row):
    """An order at the upstream that was made with a key of ours. `role`: *shown*: its deposit address was shown to the
    customer of `order_id`; *spare*: `order_id` made it and goes on without it; *unowned*: no one order of ours can be named,
    or only `candidates`. `ref`: the id to ask with, one of its rows in `upstream_refs`; `seen_at`: when it was recorded;
    `deposit_seen_at`: when money was seen on it while nobody was shown it, which an operator must deal with.
    `next_check_at`: when it is polled next; null: no longer watched, or shown: then it is polled as its order is."""

    __tablename__ = "upstream_orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    order_id: Mapped[str | None] = mapped_column(ForeignKey("orders.id"), index=True)
    candidates: Mapped[list[Any]]
    ref: Mapped[str]
    upstream_key: Mapped[str]
    destination_address: Mapped[str | None]
    amount: Mapped[Decimal | None]
    deposit_address: Mapped[str | None]
    deposit_memo: Mapped[str | None]
    seen_at: Mapped[datetime]
    deposit_seen_at: Mapped[datetime | None]
    next_check_at: Mapped[datetime | None] = mapped_column(index=True)

    __table_args__ = (
        CheckConstraint("role IN ('shown', 'spare', 'unowned')", name="ck_upstream_orders_role"),
        CheckConstraint("(role = 'unowned') = (order_id IS NULL)", name="ck_upstream_orders_owner"),
        Index(
            "ix_upstream_orders_shown",
            "order_id",
            unique=True,
            postgresql_where=text("role = 'shown'"),
            sqlite_where=text("role = 'shown'"),
        ),
    )


class UpstreamRef(Row):
    """Every id form that the upstream ever used for an upstream order. The primary key is the proof that an id belongs to
    one of them, and so to one order of ours."""

    __tablename__ = "upstream_refs"
    ref: Mapped[str] = mapped_column(primary_key=True)
    upstream_order: Mapped[str] = mapped_column(ForeignKey("upstream_orders.id"), index=True)


class SharedRef(Row):
    """A value that the upstream gives several orders as if it were an id of one (`swap.store.upstream_ids`)."""

    __tablename__ = "shared_refs"
    ref: Mapped[str] = mapped_column(primary_key=True)
    seen_at: Mapped[datetime]


class DepositPlace(Row):
    """Where one order is paid: no two orders that are watched share a place. The primary key is the proof. `place`: source
    currency, network, normalised address or payment link, and memo (`swap.orders.matching.deposit_place`). Claimed in the
    transaction that shows it, or learns that a spare has it; freed after the watch of the order and its spares."""

    __tablename__ = "deposit_places"
    place: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), index=True)


class TransferRow(Row):
    """Deposits and payouts by transaction id, for looking orders up. Derived from `Order.facts` in the same write."""

    __tablename__ = "transfers"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    direction: Mapped[str]
    amount: Mapped[Decimal | None]
    tx_id: Mapped[str | None] = mapped_column(index=True)
    confirmations: Mapped[int | None]
    at: Mapped[datetime | None]


class SearchTerm(Row):
    """What an order is found by (`swap.domain.search_terms.key`); as they were given, its terms stand in `Order.request`.
    Personal data: never in a log. In a table of its own, since every poll rewrites the row of an order, and each of its
    indexes with it."""

    __tablename__ = "search_terms"
    term: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)


class SpentQuote(Row):
    """A quote makes one order. Never deleted: an order that was admitted in time may still be on its way."""

    __tablename__ = "spent_quotes"
    quote: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    expires_at: Mapped[datetime] = mapped_column(index=True)
