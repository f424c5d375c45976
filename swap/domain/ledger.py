"""Which deposits of an order are paid out, which are returned, and which still lie with the upstream.

Deposits and payouts are counted, never converted. A payout covers the deposits that were registered before it began, a
refund the oldest one that nothing covers; a refund of money that is covered takes the payout itself back. The account is
taken anew from the current answer each time, so it cannot depend on when the order was polled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from swap.domain.facts import Facts, Kind, UpstreamEvent
from swap.domain.transfers import EPOCH, Transfer

Left = Literal["with_upstream", "seen_on_chain"]


@dataclass(slots=True)
class _Payout:
    deposits: list[int]
    delivered: bool = False
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    """`open`: deposits that are neither paid out nor returned, `registered`: how many of those the upstream has
    registered. `sending`: a payout has begun and is not complete; `delivered`: one is complete and was not taken back;
    `reversed`: one that was begun or complete was taken back. `unfounded`: something was refunded or paid out that nobody
    had paid in. `left`: where the open deposits are; `moved_at`: when anything moved last, in upstream time."""

    open: int = 0
    registered: int = 0
    refunds: int = 0
    sending: bool = False
    delivered: bool = False
    was_delivered: bool = False
    reversed: bool = False
    unfounded: bool = False
    left: Left | None = None
    moved_at: datetime | None = None

    @property
    def remaining(self) -> Left | None:
        """Where another deposit is, beside one that was paid out or returned."""
        return self.left if self.delivered or self.refunds else None

    @property
    def uncovered_since(self) -> datetime | None:
        """The last movement of an order of which a deposit is neither paid out nor returned. None: no deposit is."""
        return self.moved_at if self.left is not None else None


def account(facts: Facts) -> Ledger:
    """The account of an order by its current answer."""
    return _Account(facts).take()


@dataclass(slots=True)
class _Account:
    facts: Facts
    deposits: list[Transfer | None] = field(init=False)
    open: list[int] = field(init=False)
    registered: int = 0
    refunds: int = 0
    payouts: list[_Payout] = field(default_factory=list)
    was_delivered: bool = False
    unfounded: bool = False

    def __post_init__(self) -> None:
        """Deposits are those listed; where none is, as many as were registered; where any event speaks of money, one."""
        kinds = [Kind.of(event.kind) for event in self.facts.events]
        unlisted = kinds.count(Kind.DEPOSIT_REGISTERED) or int(any(kind > Kind.CREATION_END for kind in kinds))
        self.deposits = [*self.facts.deposits] or [None] * unlisted
        self.open = list(range(len(self.deposits)))

    def take(self) -> Ledger:
        # A payout may be told before its transaction is: without an id it is under way.
        proved = self.facts.completed or any(not payout.pending for payout in self.facts.withdrawals)
        unregistered = not any(Kind.of(event.kind) is Kind.DEPOSIT_REGISTERED for event in self.facts.events)
        for event in reversed(self.facts.timeline):
            match Kind.of(event.kind):
                case Kind.DEPOSIT_REGISTERED:
                    self.registered += 1
                case Kind.FUNDS_WITHDRAWAL_START:
                    self._begin(event, everything=unregistered)
                case Kind.WITHDRAWAL_COMPLETED:
                    self._begin(event, everything=unregistered, again=False)
                    self._deliver(proved)
                case Kind.REFUND_COMPLETED:
                    self._refund(event)
        if proved and not self.was_delivered:
            self._complete()
        registered = sum(deposit < self.registered for deposit in self.open)
        listed = [self.deposits[deposit] for deposit in self.open]
        certain = any(deposit is not None and not deposit.pending for deposit in listed)
        left: Left = "with_upstream" if registered or certain else "seen_on_chain"
        return Ledger(
            open=len(self.open),
            registered=registered,
            refunds=self.refunds,
            sending=self._under_way() is not None,
            delivered=any(payout.delivered and not payout.reversed for payout in self.payouts),
            was_delivered=self.was_delivered,
            reversed=any(payout.reversed for payout in self.payouts),
            unfounded=self.unfounded,
            left=left if self.open else None,
            moved_at=self._moved_at(),
        )

    def _present(self, event: UpstreamEvent) -> list[int]:
        """The open deposits that were there at this event."""
        return [n for n in self.open if n < self.registered or self._seen_at(n) <= event.at]

    def _seen_at(self, number: int) -> datetime:
        deposit = self.deposits[number]
        return EPOCH if deposit is None or deposit.at is None else deposit.at

    def _under_way(self) -> _Payout | None:
        return next((payout for payout in self.payouts if not payout.delivered and not payout.reversed), None)

    def _begin(self, event: UpstreamEvent, *, everything: bool, again: bool = True) -> None:
        """A payout begins, and takes the deposits that are registered. Where the upstream registers none at all, it takes
        those that are there; where this one was registered late, the oldest. A start without any is a payout that is tried
        again. `again` False: the payout is complete, and only its start may have been left out."""
        if not again and self._under_way() is not None:
            return
        ready = [n for n in self.open if n < self.registered]
        present = self._present(event)
        taken = ready or (present if everything else present[:1])
        if taken or self._under_way() is None:
            self.payouts.append(_Payout(taken))
            self.open = [n for n in self.open if n not in taken]

    def _deliver(self, proved: bool) -> None:
        payout = self._under_way()
        if proved and payout is not None:
            payout.delivered = self.was_delivered = True
            self.unfounded |= not payout.deposits and bool(self.deposits)

    def _refund(self, event: UpstreamEvent) -> None:
        owed = [n for n in self.open if n < self.registered] or self._present(event)
        if owed:
            self.open.remove(owed[0])
            self.refunds += 1
            return
        standing = [payout for payout in self.payouts if not payout.reversed]
        begun = [payout for payout in standing if not payout.delivered]
        self.unfounded |= not begun
        if standing:
            (begun or standing)[-1].reversed = True
            self.refunds += 1

    def _complete(self) -> None:
        """The upstream calls the order completed, or an older answer did, and tells no completed payout."""
        payout = self._under_way()
        if payout is None and (self.open or not self.refunds):
            payout = _Payout(self.open)
            self.payouts.append(payout)
            self.open = []
        if payout is None:
            self.unfounded = True
        else:
            payout.delivered = self.was_delivered = True

    def _moved_at(self) -> datetime | None:
        events = [e.at for e in self.facts.events if Kind.of(e.kind) > Kind.CREATION_END]
        undated = [] if self.facts.unheld_at is None else [self.facts.unheld_at]
        return max([*events, *undated, *(t.at for t in self.facts.transfers if t.at is not None)], default=None)
