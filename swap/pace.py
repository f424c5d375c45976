"""The pace of looks: when more orders are open than the budget can look at as often as planned, all are looked at less
often, and every order's `next_check_at` says so. Money on the move comes first; nobody is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from swap import cadence
from swap.budget import UpstreamBudget
from swap.cadence import Pace
from swap.store import chores, watching
from swap.store.database import Database
from swap.tables import Watching

log = structlog.get_logger()

EVERY = timedelta(seconds=10)
# The rest is for creates, rates and doubts.
LOOKS_SHARE = 0.8
_KNOWN_FOR_SECONDS = 5.0
_SHORTEST = timedelta(seconds=1)
# A list that was not read for so long announces nothing.
_LISTENED_FOR = timedelta(seconds=60)


class Pacer:
    def __init__(
        self,
        database: Database,
        budget: UpstreamBudget,
        clock: Callable[[], datetime],
        *,
        scale: Decimal,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._budget, self._clock, self._monotonic = database, budget, clock, monotonic
        self._scale = scale
        self._every = max(EVERY / float(scale), _SHORTEST)
        self._listened_for = max(_LISTENED_FOR / float(scale), 4 * _SHORTEST)
        self._known: tuple[float, Pace] | None = None

    def pace(self) -> Pace:
        """The pace set last, by whichever process."""
        known = self._known
        if known is None or self._monotonic() - known[0] > _KNOWN_FOR_SECONDS / float(self._scale):
            with self._database.read() as session:
                row = watching.state(session)
            known = self._monotonic(), Pace(float(row.moving), float(row.fresh), float(row.aged), self._listened(row))
            self._known = known
        return known[1]

    def _listened(self, row: Watching) -> bool:
        read_lately = row.list_began_at is not None and self._clock() - row.list_began_at < self._listened_for
        return row.list_state == "trusted" and read_lately

    def rate(self) -> float:
        """Requests a second that the upstream may be asked now; see `UpstreamBudget.rate`."""
        return self._budget.rate()

    def set_due(self) -> None:
        """Measure how many looks are planned against the budget, and set the pace; one process does it for all."""
        now = self._clock()
        with self._database.read() as session:
            if not chores.is_due(session, "pace", now):
                return
        with self._database.write() as session:
            if not chores.claim(session, "pace", now, now + self._every):
                return
        with self._database.read() as session:
            old = watching.state(session)
            listened = self._listened(old)
            planned = watching.planned_looks(session, now, listened=False)
            wanted = watching.planned_looks(session, now, listened=True) if listened else planned
        scale = float(self._scale)
        capacity = LOOKS_SHARE * self._budget.rate() / scale
        found = cadence.pace(wanted, capacity, listened=listened)
        values: dict[str, Decimal] = {name: _figure(getattr(found, name)) for name in wanted}
        values["planned"] = _figure(sum(planned.values()) * scale)
        if any(getattr(old, name) != value for name, value in values.items()):
            with self._database.write() as session:
                watching.change(session, **values)
        if any(getattr(found, name) > 1 for name in wanted) != any(getattr(old, name) > 1 for name in wanted):
            log.warning("pace.changed", **{name: str(value) for name, value in values.items()})


def _figure(value: float) -> Decimal:
    return Decimal(f"{value:.3f}")
