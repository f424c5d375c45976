"""The upstream's list of orders compared with ours, row by row: what differs, and what cannot be decided.

Pure: `swap.watching.reconcile` reads list and rows, and acts on the findings. The list lags and knows nulls
(docs/upstream.md E7): what it leaves out is no difference, and what is too fresh is not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from swap.domain.lifecycle import BEFORE_ADDRESS, TERMINAL, Status
from swap.domain.money import plain
from swap.orders.matching import address_could_match, could_match, same_pair
from swap.store.reconciliations import OurOrder
from swap.tables import Order
from swap.upstream.replies import ListedOrder

KINDS = ("unowned", "missing", "amount", "destination", "refund", "pair", "completed", "payout", "owned_twice")
KEPT = 50
"""How many findings of each kind are kept; the counts go on. Per kind, so that none can crowd out the others."""

# If at least this many of our orders are older than the whole list, we assume that the list is truncated. Fewer are
# reported as missing.
CUT_OFF = 10
_OLDER = timedelta(hours=1)
# Above this many orders whose number we never learned, unowned rows are not reported: any of them could be ours.
MOST_OPEN = 1000
_LONGEST_TEXT = 200
# How far apart the clocks may be once the offset is allowed for, and how long after our call the upstream may date a create.
_CLOCK_SLACK = timedelta(seconds=2)
_LATEST_ACCEPT = timedelta(minutes=2)
_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass
class Comparison:
    """One list against the orders of one key pair. `compare` takes them one by one; `finish` when there are no more.

    `settled_before`: an order that was created, attempted or moved later than that is too fresh to be compared. `offset`:
    how far the upstream's clock is ahead of ours. `counts`: the findings of each kind in `KINDS`, and what was left out:
    our orders that are fresh, moving (compared except for their progress), resolving, not_comparable, beyond_list; and
    listed ones that are orphans (recorded as unowned already) or undecided. `to_poll`: orders of ours to be polled soon.
    """

    listed: Sequence[ListedOrder]
    settled_before: datetime
    offset: timedelta
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    compared: int = 0
    to_poll: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._position = {ref: position for position, row in enumerate(self.listed) for ref in row.refs}
        self._owner: dict[int, str] = {}
        self._open: list[OurOrder] = []
        self._excusing: set[str] = set()
        self._oldest = min((row.created_at for row in self.listed if row.created_at is not None), default=None)
        self._beyond: list[OurOrder] = []

    def add(self, kind: str, order_id: str | None, refs: Sequence[str], ours: str | None, theirs: str | None) -> None:
        """Count a finding, and keep it unless there are too many of its kind."""
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            ours, theirs = (text and text[:_LONGEST_TEXT] for text in (ours, theirs))
            self.findings.append(
                {"kind": kind, "order_id": order_id, "refs": list(refs), "ours": ours, "theirs": theirs}
            )

    def compare(self, ours: OurOrder) -> None:
        order = ours.order
        positions = sorted({self._position[ref] for ref in ours.refs if ref in self._position})
        for position in positions:
            other = self._owner.setdefault(position, order.id)
            if other != order.id:
                self.add("owned_twice", order.id, self.listed[position].refs, other, None)
        fresh = max(order.created_at, ours.attempted_at or order.created_at) >= self.settled_before
        unresolved = order.status in BEFORE_ADDRESS
        numbered = any(ref.isascii() and ref.isdigit() for ref in ours.refs)
        if not numbered and not positions and (fresh or unresolved or ours.refs) and len(self._open) <= MOST_OPEN:
            self._open.append(ours)

        if fresh:
            self.counts["fresh"] += 1
        elif unresolved:
            self.counts["resolving"] += 1
        elif positions:
            self._compare_with(ours, positions)
        elif numbered:
            self._absent(ours)
        elif ours.refs:
            # The list has numbers only (docs/upstream.md T4), and we never learned this order's.
            self.counts["not_comparable"] += 1

    def _compare_with(self, ours: OurOrder, positions: Sequence[int]) -> None:
        order, rows = ours.order, [self.listed[position] for position in positions]
        row = next((row for row in rows if order.upstream_order_id in row.refs), rows[0])
        if len(rows) > 1:
            listed = ", ".join(row.refs[0] for row in rows)
            self.add("owned_twice", order.id, ours.refs, ", ".join(ours.refs), listed)
        self.compared += 1

        if row.amount is not None and row.amount != order.amount:
            self.add("amount", order.id, row.refs, plain(order.amount), plain(row.amount))
        destination, listed_destination = order.destination_address, row.destination_address
        if not address_could_match(order.to_currency, order.to_network, listed_destination, destination):
            self.add("destination", order.id, row.refs, destination, listed_destination)
        refund, listed_refund = order.refund_address, row.refund_address
        if not address_could_match(order.from_currency, order.from_network, listed_refund, refund):
            self.add("refund", order.id, row.refs, refund, listed_refund)
        if not same_pair(row, order):
            self.add("pair", order.id, row.refs, _route(order), _route(row))

        changed_at = order.status_changed_at
        if row.updated_at is not None:
            changed_at = max(changed_at, row.updated_at - self.offset)
        if changed_at >= self.settled_before:
            self.counts["moving"] += 1
        elif row.completed is not None:
            self._compare_ends(ours, row)

    def _compare_ends(self, ours: OurOrder, row: ListedOrder) -> None:
        order = ours.order
        ours_completed = order.status == Status.COMPLETED
        behind, ahead = row.completed and order.status not in TERMINAL, ours_completed and not row.completed
        if behind or ahead:
            theirs = "completed" if row.completed else f"not completed, state {row.state}"
            self.add("completed", order.id, row.refs, order.status, theirs)
            self.to_poll.append(order)
        elif ours_completed and None not in (ours.paid_out, row.paid_out) and ours.paid_out != row.paid_out:
            assert ours.paid_out is not None and row.paid_out is not None
            self.add("payout", order.id, row.refs, plain(ours.paid_out), plain(row.paid_out))

    def _absent(self, ours: OurOrder) -> None:
        if self._oldest is not None and ours.order.created_at < self._oldest - self.offset - _OLDER:
            self.counts["beyond_list"] += 1
            if len(self._beyond) < CUT_OFF:
                self._beyond.append(ours)
        else:
            self._missing(ours)

    def _missing(self, ours: OurOrder) -> None:
        self.add("missing", ours.order.id, ours.refs, ours.order.status, None)

    def finish(self) -> None:
        """All orders were compared, so it is known now whether the list is truncated or the oldest are missing from it."""
        if len(self._beyond) < CUT_OFF:
            del self.counts["beyond_list"]
            for ours in self._beyond:
                self._missing(ours)

    def unclaimed(self) -> list[ListedOrder]:
        """Listed orders that none of the compared orders owns; each once, however often it is listed; the oldest first."""
        rows = (row for position, row in enumerate(self.listed) if position not in self._owner)
        once = {row.refs[0]: row for row in rows}.values()
        return sorted(once, key=lambda row: (row.created_at is None, row.created_at))

    def excused(self, row: ListedOrder) -> bool:
        """Whether an order of ours may turn out to own the row: one that is fresh, not resolved, or known by a UUID alone.

        Each such order excuses one row; a second row that only the same order could own is unowned. To be asked of the
        oldest rows first: the order whose time ends first excuses the row, so that a later row is left what it needs.
        """
        if len(self._open) > MOST_OPEN:
            return True
        fitting = [
            (self._time(ours)[1], ours.order.id)
            for ours in self._open
            if ours.order.id not in self._excusing and self._in_time(row, ours) and could_match(row, ours.order)
        ]
        if fitting:
            self._excusing.add(min(fitting)[1])
        return bool(fitting)

    def _in_time(self, row: ListedOrder, ours: OurOrder) -> bool:
        if row.created_at is None:
            return True
        earliest, latest = self._time(ours)
        return earliest <= row.created_at - self.offset <= latest

    def _time(self, ours: OurOrder) -> tuple[datetime, datetime]:
        """When, by our clock, the upstream can have made the order that this one may own."""
        order = ours.order
        attempted_at = ours.attempted_at or order.created_at
        # What an order is shown by a UUID was named by its last create; what an earlier one made is a spare.
        earliest = attempted_at if ours.refs else order.created_at
        latest = _EVER if order.status in BEFORE_ADDRESS else attempted_at + _LATEST_ACCEPT
        return earliest - _CLOCK_SLACK, latest


def _route(side: Order | ListedOrder) -> str:
    return f"{side.from_currency}/{side.from_network} to {side.to_currency}/{side.to_network}"
