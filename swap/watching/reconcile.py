"""Daily reconciliation: the upstream's list of orders compared with our rows, amounts included, once per upstream key.

The list moves no order. A difference is a finding in a stored report, and an alert. Beyond that, an order of ours may be
polled sooner, and an upstream order that none of ours owns is recorded as unowned and watched. The list lags and knows
nulls (docs/upstream.md E7): what it leaves out is no difference, and what is younger than an hour waits for the next day.
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
from swap.store import leases, periodic, reconciliations, upstream_ids, upstream_orders
from swap.store.database import Database
from swap.store.upstream_orders import Told
from swap.tables import Reconciliation, new_id
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import ListedOrder
from swap.watching.comparison import KINDS, Comparison

log = structlog.get_logger()

EVERY = timedelta(days=1)
RETRY = timedelta(hours=1)
# Longer than the list lags, and longer than an order waits for its next poll. What is left out is compared tomorrow.
FRESH = timedelta(hours=1)
# At any SWAP_TIME_SCALE: the longest create, and the lag of a list.
_FRESH_AT_LEAST = timedelta(seconds=60)

RECORDED = 200
"""How many unowned orders one run records at most, the newest first: each of them is polled every few minutes."""

# About 130,000 orders. The list cannot be read page by page (docs/upstream.md E7).
_LIST_BYTES = 64_000_000
_PAGE, _BATCH = 1000, 500
_COMPARING = timedelta(minutes=5)
# An upstream order was made within an hour after our order, or up to a minute before it where the clocks differ.
_SOONER, _MADE_WITHIN = timedelta(minutes=1), timedelta(hours=1)


class Reconciler:
    """`upstreams`: a client for each key pair that may have made orders, the current one and the old ones."""

    def __init__(self, database: Database, upstreams: Mapping[str, UpstreamClient], timing: Timing) -> None:
        self._database, self._upstreams, self._timing = database, upstreams, timing
        # The client makes three attempts.
        self._read_seconds = 3 * timing.read_timeout
        self._every, self._retry = timing.shorten(EVERY), timing.shorten(RETRY)
        self._fresh = timing.shorten(FRESH, at_least=_FRESH_AT_LEAST)
        self._lease = max(self._retry, timedelta(seconds=self._read_seconds) + _COMPARING)

    def run(self) -> list[dict[str, Any]]:
        """Reconcile every key now, due or not. Returns the reports, which are stored."""
        return [report_view(self._reconcile(upstream)) for upstream in self._upstreams.values()]

    def run_due(self) -> None:
        """Reconcile each key whose day is over; one process does it for all. A key is tried again after an hour when its
        list could not be read, or when the process died over it."""
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
            for ours in page:
                comparison.compare(ours)
            self._poll_soon(comparison)
            after = page[-1].order.id
        comparison.finish()
        rows = self._unowned(comparison)
        makers = self._makers(rows[:RECORDED])
        with self._database.write() as session:
            # Both or neither: an order that is recorded as unowned is not reported again.
            self._record_unowned(session, upstream.public_key, rows, makers, comparison)
            report = self._store(session, upstream.public_key, began, comparison)
        _alert(report)
        return report

    def _poll_soon(self, comparison: Comparison) -> None:
        if not comparison.to_poll:
            return
        now = self._timing.now()
        with self._database.write() as session:
            leases.bring_forward(session, [order.id for order in comparison.to_poll], now)
        comparison.to_poll.clear()

    def _unowned(self, comparison: Comparison) -> list[ListedOrder]:
        """Listed orders that no order of ours owns or may still come to own, newest first."""
        with self._database.read() as session:
            unclaimed = comparison.unclaimed()
            roles = upstream_ids.roles(session, [(row.order_id, row.refs) for row in unclaimed])
        rows: list[ListedOrder] = []
        for row, role in zip(unclaimed, roles, strict=True):
            if role is None and not comparison.excused(row):
                rows.append(row)
            elif role != upstream_orders.SHOWN:
                # An order of another key may be shown it, or one whose create was answered while we compared.
                comparison.counts["undecided" if role is None else "orphans"] += 1
        never = datetime.min.replace(tzinfo=self._timing.now().tzinfo)
        return sorted(rows, key=lambda row: row.created_at or never, reverse=True)

    def _makers(self, rows: Sequence[ListedOrder]) -> list[str | None]:
        """For each row, the order of ours that may have made it, if there is just one: alike, and without upstream id."""
        makers: list[str | None] = []
        with self._database.read() as session:
            for row in rows:
                matching: list[str] = []
                if row.destination_address is not None and row.created_at is not None:
                    since, until = row.created_at - _MADE_WITHIN, row.created_at + _SOONER
                    candidates = reconciliations.without_id(session, row.destination_address, since, until)
                    matching = [order.id for order in candidates if could_match(row, order)]
                makers.append(matching[0] if len(matching) == 1 else None)
        return makers

    def _record_unowned(
        self,
        session: Session,
        upstream_key: str,
        rows: Sequence[ListedOrder],
        makers: Sequence[str | None],
        comparison: Comparison,
    ) -> None:
        for row, maker in zip(rows, makers, strict=False):
            listed = Told(row.order_id or row.refs[0], row.refs, upstream_key, row.destination_address, row.amount)
            candidates = [] if maker is None else [maker]
            if upstream_orders.record(session, listed, self._timing.now(), candidates=candidates) is not None:
                # Otherwise it got an owner, or was recorded by another process, a moment ago.
                comparison.add("unowned", maker, row.refs, None, row.state)
        for row in rows[len(makers) :]:
            comparison.add("unowned", None, row.refs, None, row.state)

    def _not_read(self, upstream_key: str, began: datetime, code: str) -> Reconciliation:
        log.error("reconcile.not_read", upstream_key=upstream_key, code=code)
        comparison = Comparison([], began, timedelta())
        comparison.add("not_read", None, (), None, code)
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
    named = {"report": report.id, "upstream_key": report.upstream_key}
    if report.counts.get("beyond_list"):
        log.warning("reconcile.list_cut_off", **named, count=report.counts["beyond_list"])
    if report.outcome == "clean":
        log.info("reconcile.clean", **named, listed=report.listed, compared=report.compared, counts=report.counts)
        return
    log.error("reconcile.differences", **named, counts=report.counts)
    for kind in KINDS:
        if kind in report.counts:
            event = f"reconcile.{kind}"
            log.error(event, **named, count=report.counts[kind])
