"""Load shedding for polls. When more orders are open than the budget can poll as often as planned, all are polled less
often, and every order's `next_check_at` says so. Orders whose money is on the move suffer last; no order is dropped."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import structlog

from swap.domain.schedules import Slowdown, slowdown_for
from swap.domain.times import Timing
from swap.store import periodic, watching
from swap.store.database import Database
from swap.tables import Watching
from swap.upstream.access import UpstreamAccess

log = structlog.get_logger()

EVERY = timedelta(seconds=10)
# The rest is for creates, rates and orders in doubt.
POLLS_SHARE = 0.8
_CACHED_FOR = timedelta(seconds=5)
_SHORTEST = timedelta(seconds=1)
# A list that was not read for this long announces nothing.
_LIST_TRUSTED_FOR = timedelta(seconds=60)


class PollThrottle:
    def __init__(self, database: Database, access: UpstreamAccess, timing: Timing) -> None:
        self._database, self._access, self._timing = database, access, timing
        self._every = timing.shorten(EVERY, at_least=_SHORTEST)
        self._cached_for = timing.shorten(_CACHED_FOR).total_seconds()
        self._list_trusted_for = timing.shorten(_LIST_TRUSTED_FOR, at_least=4 * _SHORTEST)
        self._cached: tuple[float, Slowdown] | None = None

    def slowdown(self) -> Slowdown:
        """The slowdown that was set last, by any process; a few seconds old at most."""
        cached = self._cached
        if cached is None or self._timing.monotonic() - cached[0] > self._cached_for:
            with self._database.read() as session:
                row = watching.state(session)
            slowdown = Slowdown(float(row.moving), float(row.fresh), float(row.aged), self._list_trusted(row))
            self._cached = cached = (self._timing.monotonic(), slowdown)
        return cached[1]

    def _list_trusted(self, row: Watching) -> bool:
        read_lately = row.list_began_at is not None and self._timing.now() - row.list_began_at < self._list_trusted_for
        return row.list_state == "trusted" and read_lately

    def rate(self) -> float:
        """Requests a second that the upstream may be asked now; see `RateBudget.rate`."""
        return self._access.rate()

    def set_due(self) -> None:
        """Measure how many polls are planned against the budget, and set the slowdown; one process does it for all."""
        now = self._timing.now()
        if not periodic.take(self._database, "pace", now, now + self._every):
            return
        with self._database.read() as session:
            old = watching.state(session)
            list_trusted = self._list_trusted(old)
            planned = watching.planned_polls(session, now, list_trusted=False)
            needed = watching.planned_polls(session, now, list_trusted=True) if list_trusted else planned
        slowdown = slowdown_for(
            {tier: self._timing.scale_rate(rate) for tier, rate in needed.items()},
            POLLS_SHARE * self._access.rate(),
            list_trusted=list_trusted,
        )
        values: dict[str, Decimal] = {tier: _column(getattr(slowdown, tier)) for tier in needed}
        values["planned"] = _column(self._timing.scale_rate(sum(planned.values())))
        if any(getattr(old, name) != value for name, value in values.items()):
            with self._database.write() as session:
                watching.change(session, **values)
        if any(getattr(slowdown, tier) > 1 for tier in needed) != any(getattr(old, tier) > 1 for tier in needed):
            log.warning("pace.changed", **{name: str(value) for name, value in values.items()})


def _column(value: float) -> Decimal:
    return Decimal(f"{value:.3f}")
