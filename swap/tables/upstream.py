"""What the upstream was asked and said, and what the fleet knows about asking it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class UpstreamCall(Row):
    """Every create, every non-2xx and every look that changed something. Bodies redacted, at most 4 kB."""

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
    """One row: how the fleet watches. `moving`, `fresh`, `aged`: the pace (`swap.domain.schedules.Slowdown`);
    `planned`: looks a second as planned. The rest is the list as a doorbell (`swap.watching.list_signal`): `list_state`
    learning, trusted or off (then `list_reason`, and `list_until` for how long); `list_began_at`: when the last good
    read of the list began; of `counted` changes it could have announced, it `announced` so many before a look found
    them."""

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
    `listed`, `compared`: rows of the list, and orders of ours that were held against theirs.
    `findings`: [{"kind", "order_id", "refs", "ours", "theirs"}], capped; `counts`: how many of each kind in all, and of what
    was left out (`swap.watching.reconcile`)."""

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
    """How often our verdict on a destination and the upstream's differed. `kind`: upstream_refused (we had said valid),
    create_refused (the same, by the create itself), upstream_accepted (we had said invalid). `field`: address or memo;
    `reason`: ours, "" where we found nothing. `address_hash`: of the last one, as in the log."""

    __tablename__ = "disagreements"
    network: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    field: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    address_hash: Mapped[str]
