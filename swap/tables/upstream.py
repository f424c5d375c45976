"""Calls to the upstream, how the fleet polls it, and where its answers differ from what we have."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class UpstreamCall(Row):
    """Every create, every non-2xx and every poll that changed something. Bodies redacted, at most 4 kB."""

    __tablename__ = "upstream_calls"
    id: Mapped[str] = mapped_column(primary_key=True)
    order_ref: Mapped[str | None] = mapped_column(index=True)
    at: Mapped[datetime] = mapped_column(index=True)
    endpoint: Mapped[str]
    method: Mapped[str]
    attempt: Mapped[int]
    status: Mapped[int | None]
    ms: Mapped[int]
    outcome: Mapped[str]
    request_id: Mapped[str | None]
    request_body: Mapped[str | None]
    response_body: Mapped[str | None]


class PeriodicTask(Row):
    """A task that one process does for all. `next_at` is due time and lease; a task without a row is due."""

    __tablename__ = "chores"
    name: Mapped[str] = mapped_column(primary_key=True)
    next_at: Mapped[datetime]


class Watching(Row):
    """One row: how the fleet polls. `moving`, `fresh`, `aged`: the factors of `swap.domain.schedules.Slowdown`; `planned`:
    how many polls a second are planned. The rest is about the upstream's list as a signal (`swap.watching.list_signal`):
    `list_state` is learning, trusted or off (then `list_reason`, and `list_until` for how long); `list_began_at`: when the
    last good read of the list began; `counted`: changes that the list could have announced before a poll found them, and
    `announced`: those that it did."""

    __tablename__ = "watching"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    moving: Mapped[Decimal]
    fresh: Mapped[Decimal]
    aged: Mapped[Decimal]
    planned: Mapped[Decimal]
    list_state: Mapped[str]
    list_reason: Mapped[str | None]
    list_until: Mapped[datetime | None]
    list_began_at: Mapped[datetime | None]
    counted: Mapped[int]
    announced: Mapped[int]


class Reconciliation(Row):
    """One comparison of the upstream's list with our rows, per upstream key. `outcome`: clean, differences, not_read.
    `listed`, `compared`: rows of the list, and orders of ours that were compared with one.
    `findings`: [{"kind", "order_id", "refs", "ours", "theirs"}], capped; `counts`: how many of each kind in all, and how
    much was left out (`swap.watching.comparison`)."""

    __tablename__ = "reconciliations"
    id: Mapped[str] = mapped_column(primary_key=True)
    upstream_key: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(index=True)
    finished_at: Mapped[datetime]
    outcome: Mapped[str]
    listed: Mapped[int]
    compared: Mapped[int]
    counts: Mapped[dict[str, Any]]
    findings: Mapped[list[Any]]


class Disagreement(Row):
    """How often our verdict on a destination and the upstream's differed. `kind`: upstream_refused (ours was valid),
    create_refused (the same, by the create itself), upstream_accepted (ours was invalid). `field`: address or memo;
    `reason`: ours, "" where we had none. `address_hash`: of the last address, as in the log."""

    __tablename__ = "disagreements"
    network: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    address_hash: Mapped[str]
