"""The pace of looks: when more orders are open than the budget can look at as often as planned, all are looked at less
often, and every order's `next_check_at` says so. Money on the move comes first; nobody is forgotten."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import structlog

from swap.domain import schedules
from swap.domain.schedules import Slowdown
from swap.domain.times import Timing
from swap.store import periodic, watching
from swap.store.database import Database
from swap.tables import Watching
from swap.upstream.access import UpstreamAccess

log = structlog.get_logger()

EVERY = timedelta(seconds=10)
# The rest is for creates, rates and doubts.
LOOKS_SHARE = 0.8
_KNOWN_FOR_SECONDS = 5.0
_SHORTEST = timedelta(seconds=1)
# A list that was not read for so long announces nothing.
_LISTENED_FOR = timedelta(seconds=60)


class PollThrottle:
    def __init__(
        self,
        database: Database,
        access: UpstreamAccess,
        timing: Timing,
    ) -> None:
        self._database, self._access, self._timing = database, access, timing
        self._scale = float(timing.scale)
        self._every = timing.shorten(EVERY, at_least=_SHORTEST)
        self._listened_for = timing.shorten(_LISTENED_FOR, at_least=4 * _SHORTEST)
        self._known: tuple[float, Slowdown] | None = None

    def pace(self) -> Slowdown:
        """The pace set last, by whichever process."""
        known = self._known
        if known is None or self._timing.monotonic() - known[0] > _KNOWN_FOR_SECONDS / self._scale:
            with self._database.read() as session:
                row = watching.state(session)
            known = (
                self._timing.monotonic(),
                Slowdown(float(row.moving), float(row.fresh), float(row.aged), self._listened(row)),
            )
            self._known = known
        return known[1]

    def _listened(self, row: Watching) -> bool:
        read_lately = row.list_began_at is not None and self._timing.now() - row.list_began_at < self._listened_for
        return row.list_state == "trusted" and read_lately

    def rate(self) -> float:
        """Requests a second that the upstream may be asked now; see `RateBudget.rate`."""
        return self._access.rate()

    def set_due(self) -> None:
        """Measure how many looks are planned against the budget, and set the pace; one process does it for all."""
        now = self._timing.now()
        with self._database.read() as session:
            if not periodic.is_due(session, "pace", now):
                return
        with self._database.write() as session:
            if not periodic.claim(session, "pace", now, now + self._every):
                return
        with self._database.read() as session:
            old = watching.state(session)
            listened = self._listened(old)
            planned = watching.planned_looks(session, now, listened=False)
            wanted = watching.planned_looks(session, now, listened=True) if listened else planned
        capacity = LOOKS_SHARE * self._access.rate() / self._scale
        found = schedules.pace(wanted, capacity, listened=listened)
        values: dict[str, Decimal] = {name: _figure(getattr(found, name)) for name in wanted}
        values["planned"] = _figure(sum(planned.values()) * self._scale)
        if any(getattr(old, name) != value for name, value in values.items()):
            with self._database.write() as session:
                watching.change(session, **values)
        if any(getattr(found, name) > 1 for name in wanted) != any(getattr(old, name) > 1 for name in wanted):
            log.warning("pace.changed", **{name: str(value) for name, value in values.items()})


def _figure(value: float) -> Decimal:
    return Decimal(f"{value:.3f}")
