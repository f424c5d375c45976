"""The upstream's list of orders held against ours, row by row: what differs, and what cannot be told.

Pure: `swap.watching.reconcile` reads list and rows, and acts on what is found. The list lags and knows nulls
(docs/upstream.md E7): what it does not tell is no difference, and what is too fresh is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
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

# So many of our orders older than all that is listed, and the list is cut off; fewer may be missing from it.
CUT_OFF = 10
_OLDER = timedelta(hours=1)
# More orders without a number than this, and nobody can tell whose the listed numbers are.
MOST_OPEN = 1000
_LONGEST_TEXT = 200
# Between the clocks, once the offset is allowed for; and how long after our call the upstream may note a create.
_CLOCK_SLACK = timedelta(seconds=2)
_LATEST_ACCEPT = timedelta(minutes=2)


@dataclass
class Comparison:
    """One list against the orders of one key. Fed with `compare`, order by order; `finish` when there are no more.

    `settled_before`: what was created, attempted or moved later than that is too fresh to be compared. `offset`: how far
    the upstream's clock is ahead. `counts`: of each kind in `KINDS`, and of what was left out: our orders that are fresh,
    moving (compared but for how far they are), resolving, not_comparable, beyond_list; listed ones that are orphans, or
    undecided.
    """

    listed: Sequence[ListedOrder]
    settled_before: datetime
    offset: timedelta
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    compared: int = 0
    to_look_at: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._position = {ref: position for position, row in enumerate(self.listed) for ref in row.refs}
        self._owner: dict[int, str] = {}
        self._open: list[OurOrder] = []
        self._excusing: set[str] = set()
        self._oldest = min((row.created_at for row in self.listed if row.created_at is not None), default=None)
        self._beyond: list[OurOrder] = []

    def find(self, kind: str, order_id: str | None, refs: Sequence[str], ours: str | None, theirs: str | None) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= KEPT:
            ours, theirs = (text and text[:_LONGEST_TEXT] for text in (ours, theirs))
            self.findings.append(
                {"kind": kind, "order_id": order_id, "refs": list(refs), "ours": ours, "theirs": theirs}
            )

    def compare(self, held: OurOrder) -> None:
        order = held.order
        positions = sorted({self._position[ref] for ref in held.refs if ref in self._position})
        for position in positions:
            other = self._owner.setdefault(position, order.id)
            if other != order.id:
                self.find("owned_twice", order.id, self.listed[position].refs, other, None)
        fresh = max(order.created_at, held.attempted_at or order.created_at) >= self.settled_before
        unresolved = order.status in BEFORE_ADDRESS
        numbered = any(ref.isascii() and ref.isdigit() for ref in held.refs)
        if not numbered and not positions and (fresh or unresolved or held.refs) and len(self._open) <= MOST_OPEN:
            self._open.append(held)

        if fresh:
            self.counts["fresh"] += 1
        elif unresolved:
            self.counts["resolving"] += 1
        elif positions:
            self._compare_with(held, positions)
        elif numbered:
            self._absent(held)
        elif held.refs:
            # The list has numbers only (docs/upstream.md T4), and we never heard this order's.
            self.counts["not_comparable"] += 1

    def _compare_with(self, held: OurOrder, positions: Sequence[int]) -> None:
        order, found = held.order, [self.listed[position] for position in positions]
        row = next((row for row in found if order.upstream_order_id in row.refs), found[0])
        if len(found) > 1:
            listed = ", ".join(row.refs[0] for row in found)
            self.find("owned_twice", order.id, held.refs, ", ".join(held.refs), listed)
        self.compared += 1

        if row.amount is not None and row.amount != order.amount:
            self.find("amount", order.id, row.refs, plain(order.amount), plain(row.amount))
        told, wanted = row.destination_address, order.destination_address
        if not address_could_match(order.to_currency, order.to_network, told, wanted):
            self.find("destination", order.id, row.refs, wanted, told)
        told, refund = row.refund_address, order.refund_address
        if not address_could_match(order.from_currency, order.from_network, told, refund):
            self.find("refund", order.id, row.refs, refund, told)
        if not same_pair(row, order):
            self.find("pair", order.id, row.refs, _route(order), _route(row))

        changed_at = order.status_changed_at
        if row.updated_at is not None:
            changed_at = max(changed_at, row.updated_at - self.offset)
        if changed_at >= self.settled_before:
            self.counts["moving"] += 1
        elif row.completed is not None:
            self._compare_ends(held, row)

    def _compare_ends(self, held: OurOrder, row: ListedOrder) -> None:
        order = held.order
        ours_completed = order.status == Status.COMPLETED
        behind, ahead = row.completed and order.status not in TERMINAL, ours_completed and not row.completed
        if behind or ahead:
            theirs = "completed" if row.completed else f"not completed, state {row.state}"
            self.find("completed", order.id, row.refs, order.status, theirs)
            self.to_look_at.append(order)
        elif ours_completed and None not in (held.paid_out, row.paid_out) and held.paid_out != row.paid_out:
            assert held.paid_out is not None and row.paid_out is not None
            self.find("payout", order.id, row.refs, plain(held.paid_out), plain(row.paid_out))

    def _absent(self, held: OurOrder) -> None:
        if self._oldest is not None and held.order.created_at < self._oldest - self.offset - _OLDER:
            self.counts["beyond_list"] += 1
            if len(self._beyond) < CUT_OFF:
                self._beyond.append(held)
        else:
            self._missing(held)

    def _missing(self, held: OurOrder) -> None:
        self.find("missing", held.order.id, held.refs, held.order.status, None)

    def finish(self) -> None:
        """All orders were compared: now it shows whether the list is cut off, or the oldest are missing from it."""
        if len(self._beyond) < CUT_OFF:
            del self.counts["beyond_list"]
            for held in self._beyond:
                self._missing(held)

    def unclaimed(self) -> list[ListedOrder]:
        """Listed orders that none of the compared owns; each once, however often it is listed."""
        found = (row for position, row in enumerate(self.listed) if position not in self._owner)
        return list({row.refs[0]: row for row in found}.values())

    def excused(self, row: ListedOrder) -> bool:
        """Whether an order of ours that is fresh, not resolved, or known by a UUID alone may turn out to own it. Each can
        own one: a second row like it is nobody's."""
        if len(self._open) > MOST_OPEN:
            return True
        for held in self._open:
            if held.order.id not in self._excusing and self._in_time(row, held) and could_match(row, held.order):
                self._excusing.add(held.order.id)
                return True
        return False

    def _in_time(self, row: ListedOrder, held: OurOrder) -> bool:
        if row.created_at is None:
            return True
        order, at = held.order, row.created_at - self.offset
        latest = (held.attempted_at or order.created_at) + _LATEST_ACCEPT
        return order.created_at - _CLOCK_SLACK <= at and (at <= latest or order.status in BEFORE_ADDRESS)


def _route(side: Order | ListedOrder) -> str:
    return f"{side.from_currency}/{side.from_network} to {side.to_currency}/{side.to_network}"
