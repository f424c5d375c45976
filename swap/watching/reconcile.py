"""Daily reconciliation: the upstream's list of orders held against our rows, amounts included, once per upstream key.

The list moves nothing. A difference is a finding in a stored report and an alert; beyond that an order of ours may be
looked at sooner, and an upstream order that is nobody's becomes an orphan, which is watched. The list lags, and it knows
nulls (docs/upstream.md E7): what it does not tell is no difference, and what is younger than an hour is the next day's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.orm import Session

from swap.domain.times import Timing, iso
from swap.errors import UpstreamError
from swap.orders.matching import could_match
from swap.store import orders as order_rows
from swap.store import orphans, periodic, reconciliations
from swap.store.database import Database
from swap.tables import Reconciliation, new_id
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder
from swap.watching.comparison import KINDS, Comparison

log = structlog.get_logger()

EVERY = timedelta(days=1)
RETRY = timedelta(hours=1)
# Longer than the list lags and than an order waits for its next look; whatever is compared too late is compared tomorrow.
FRESH = timedelta(hours=1)
# At any SWAP_TIME_SCALE: the longest create, and the lag of a list.
_FRESH_AT_LEAST = timedelta(seconds=60)

ORPHANS = 200
"""How many orphans one run makes at most, the newest orders first: each is looked at every few minutes."""

# About 130,000 orders; the list has no pages that could be asked for (docs/upstream.md E7).
_LIST_BYTES = 64_000_000
_PAGE, _BATCH = 1000, 500
_COMPARING = timedelta(minutes=5)
# After our order was written down, the clocks not being quite the same.
_SOONER, _MADE_WITHIN = timedelta(minutes=1), timedelta(hours=1)


class Reconcile:
    """`upstreams`: a client for each key pair that may have made orders, the current one and the old ones."""

    def __init__(
        self,
        database: Database,
        upstreams: Mapping[str, UpstreamClient],
        timing: Timing,
    ) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing
        # The client makes three attempts.
        self._read_seconds = 3 * timing.read_timeout
        self._every, self._retry = timing.shorten(EVERY), timing.shorten(RETRY)
        self._fresh = timing.shorten(FRESH, at_least=_FRESH_AT_LEAST)
        self._lease = max(self._retry, timedelta(seconds=self._read_seconds) + _COMPARING)

    def run(self) -> list[dict[str, Any]]:
        """Reconcile every key now, whenever it is due. Returns the reports, which are stored."""
        return [report_view(self._reconcile(upstream)) for upstream in self._upstreams.values()]

    def run_due(self) -> None:
        """Reconcile each key whose day is over; one process does it for all. A list that could not be read is tried
        again after an hour, and so is one over which we died."""
        for upstream in self._upstreams.values():
            task, now = f"reconcile {upstream.public_key}", self._timing.now()
            if not periodic.take(self._database, task, now, now + self._lease):
                continue
            report = self._reconcile(upstream)
            wait = self._retry if report.outcome == "not_read" else self._every
            with self._database.write() as session:
                periodic.reschedule(session, task, now + wait)

    def last(self, limit: int = 10) -> list[dict[str, Any]]:
        """The newest stored reports of all keys, newest first."""
        with self._database.read() as session:
            return [report_view(report) for report in reconciliations.latest(session, limit)]

    # --- one key ----------------------------------------------------------------------------------------------------

    def _reconcile(self, upstream: UpstreamClient) -> Reconciliation:
        began = self._timing.now()
        settled_before = began - self._fresh
        try:
            listed = upstream.orders(deadline=self._read_seconds, max_bytes=_LIST_BYTES)
        except UpstreamError as error:
            return self._not_read(upstream.public_key, began, error.code)
        if not listed:
            with self._database.read() as session:
                if reconciliations.owns_any(session, upstream.public_key, settled_before):
                    return self._not_read(upstream.public_key, began, "EMPTY_LIST")

        comparison = Comparison(listed, settled_before, timedelta(seconds=upstream.offset_seconds))
        after = ""
        while True:
            with self._database.read() as session:
                page = reconciliations.page(session, upstream.public_key, after, _PAGE)
            if not page:
                break
            for held in page:
                comparison.compare(held)
            self._look_soon(comparison)
            after = page[-1].order.id
        comparison.finish()
        unowned = self._unowned(comparison)
        makers = self._makers(unowned[:ORPHANS])
        with self._database.write() as session:
            # Together: an orphan that is known is reported no more.
            self._orphan(session, upstream.public_key, unowned, makers, comparison)
            report = self._store(session, upstream.public_key, began, comparison)
        _alert(report)
        return report

    def _look_soon(self, comparison: Comparison) -> None:
        if not comparison.to_look_at:
            return
        now = self._timing.now()
        with self._database.write() as session:
            for order in comparison.to_look_at:
                order_rows.reschedule(session, order.id, now, failures=order.failures)
        comparison.to_look_at.clear()

    def _unowned(self, comparison: Comparison) -> list[ListedOrder]:
        """Listed orders that nobody here owns and nobody may still come to own, newest first."""
        with self._database.read() as session:
            known = orphans.known_refs(session)
            unclaimed = comparison.unclaimed()
            found: list[ListedOrder] = []
            for start in range(0, len(unclaimed), _BATCH):
                batch = unclaimed[start : start + _BATCH]
                # Also by orders of another key, and by those that were answered while we compared.
                taken = order_rows.owned_refs(session, [ref for row in batch for ref in row.refs])
                for row in batch:
                    if not taken.isdisjoint(row.refs):
                        continue
                    if not known.isdisjoint(row.refs):
                        comparison.counts["orphans"] += 1
                    elif comparison.excused(row):
                        comparison.counts["undecided"] += 1
                    else:
                        found.append(row)
        never = datetime.min.replace(tzinfo=self._timing.now().tzinfo)
        return sorted(found, key=lambda row: row.created_at or never, reverse=True)

    def _makers(self, unowned: Sequence[ListedOrder]) -> list[str | None]:
        """For each, the order of ours that may have made it, if there is just one: alike, and without an upstream id."""
        makers: list[str | None] = []
        with self._database.read() as session:
            for row in unowned:
                made: list[str] = []
                if row.destination_address is not None and row.created_at is not None:
                    since, until = row.created_at - _MADE_WITHIN, row.created_at + _SOONER
                    candidates = reconciliations.without_id(session, row.destination_address, since, until)
                    made = [order.id for order in candidates if could_match(row, order)]
                makers.append(made[0] if len(made) == 1 else None)
        return makers

    def _orphan(
        self,
        session: Session,
        upstream_key: str,
        unowned: Sequence[ListedOrder],
        makers: Sequence[str | None],
        comparison: Comparison,
    ) -> None:
        for row, maker in zip(unowned, makers, strict=False):
            if orphans.add_orphan(
                session,
                ref=row.order_id or row.refs[0],
                refs=row.refs,
                upstream_key=upstream_key,
                destination_address=row.destination_address,
                amount=row.amount,
                order_id=maker,
                now=self._timing.now(),
            ):
                # Else it has found its owner, or become an orphan, this moment.
                comparison.find("unowned", maker, row.refs, None, row.state)
        for row in unowned[len(makers) :]:
            comparison.find("unowned", None, row.refs, None, row.state)

    def _not_read(self, upstream_key: str, began: datetime, code: str) -> Reconciliation:
        log.error("reconcile.not_read", upstream_key=upstream_key, code=code)
        comparison = Comparison([], began, timedelta())
        comparison.find("not_read", None, (), None, code)
        with self._database.write() as session:
            return self._store(session, upstream_key, began, comparison)

    def _store(self, session: Session, upstream_key: str, began: datetime, comparison: Comparison) -> Reconciliation:
        counts = comparison.counts
        differences = any(counts[kind] for kind in KINDS)
        report = Reconciliation(
            id=new_id("rec"),
            upstream_key=upstream_key,
            started_at=began,
            finished_at=self._timing.now(),
            outcome="not_read" if counts["not_read"] else "differences" if differences else "clean",
            listed=len(comparison.listed),
            compared=comparison.compared,
            counts={kind: count for kind, count in counts.items() if count},
            findings=comparison.findings,
        )
        session.add(report)
        return report


def report_view(report: Reconciliation) -> dict[str, Any]:
    """A report as operators see it. Times are ISO-8601 UTC."""
    return {
        "id": report.id,
        "upstream_key": report.upstream_key,
        "started_at": iso(report.started_at),
        "finished_at": iso(report.finished_at),
        "outcome": report.outcome,
        "listed": report.listed,
        "compared": report.compared,
        "counts": report.counts,
        "findings": report.findings,
    }


def _alert(report: Reconciliation) -> None:
    told = {"report": report.id, "upstream_key": report.upstream_key}
    if report.counts.get("beyond_list"):
        log.warning("reconcile.list_cut_off", **told, count=report.counts["beyond_list"])
    if report.outcome == "clean":
        log.info("reconcile.clean", **told, listed=report.listed, compared=report.compared, counts=report.counts)
        return
    log.error("reconcile.differences", **told, counts=report.counts)
    for kind in KINDS:
        if kind in report.counts:
            event = f"reconcile.{kind}"
            log.error(event, **told, count=report.counts[kind])
