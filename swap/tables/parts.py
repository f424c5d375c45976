"""The processes of the service, as each shows that it lives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class Heartbeat(Row):
    """One process. `instance`: an id of its own, new with every start; `part`: api, worker, scheduler or stream; `queues`:
    those that a worker serves; `at`: when it last showed that it lives. `stopped_at`: when it ended as it was told to; a
    process that was killed has none."""

    __tablename__ = "heartbeats"
    instance: Mapped[str] = mapped_column(primary_key=True)
    part: Mapped[str]
    queues: Mapped[list[Any]]
    host: Mapped[str]
    pid: Mapped[int]
    started_at: Mapped[datetime]
    at: Mapped[datetime]
    stopped_at: Mapped[datetime | None]
