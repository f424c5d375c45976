"""Upstream orders made up step by step, for properties: what an upstream could tell at each moment, and who asked when."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from swap.domain.facts import Facts, Kind, UpstreamEvent
from swap.domain.lifecycle import Status, next_status
from swap.domain.transfers import Transfer

START = datetime(2025, 10, 9, 8, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


@dataclass
class Story:
    """One order at the upstream. Each step is one thing that happens there; `told` is what it answers after each."""

    versioned: bool
    minute: int = 0
    serial: int = 0
    events: list[UpstreamEvent] = field(default_factory=list)
    deposits: list[Transfer] = field(default_factory=list)
    payouts: list[Transfer] = field(default_factory=list)
    completed: bool = False
    told: list[Facts] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.say(Kind.CREATION_END)
        self.tell()

    def say(self, kind: Kind | str) -> None:
        self.events.append(UpstreamEvent(kind if isinstance(kind, str) else kind.name, at(self.minute)))

    def tell(self) -> None:
        told = Facts(
            events=frozenset(self.events),
            transfers=tuple(self.deposits + self.payouts),
            completed=self.completed,
            updated_at=at(self.minute) if self.versioned else None,
        )
        self.told.append(told)
        self.minute += 1

    def id(self) -> str:
        self.serial += 1
        return f"tx{self.serial}"

    @property
    def pending(self) -> list[int]:
        return [n for n, deposit in enumerate(self.deposits) if deposit.pending]

    @property
    def provisional(self) -> list[int]:
        """Payouts that no completion speaks of yet."""
        done = sum(event.kind == Kind.WITHDRAWAL_COMPLETED.name for event in self.events)
        return list(range(done, len(self.payouts)))

    def step(self, name: str, which: int, named: bool) -> None:
        getattr(self, name)(which, self.id() if named else None)
        self.tell()

    # --- what can happen ---------------------------------------------------------------------------------------------

    def paid_in(self, which: int, tx_id: str | None) -> None:
        self.say(Kind.INCOMING_FUNDS_DETECTED)
        self.deposits.append(Transfer("deposit", Decimal(1), tx_id, at(self.minute), 0, pending=True))

    def replaced(self, which: int, tx_id: str | None) -> None:
        """A fee bump: another transaction, at another time, with another amount; no event."""
        for n in self.pending[which : which + 1]:
            self.deposits[n] = Transfer("deposit", Decimal(2), tx_id, at(self.minute), 0, pending=True)

    def dated_anew(self, which: int, tx_id: str | None) -> None:
        for n in self.pending[which : which + 1]:
            self.deposits[n] = replace(self.deposits[n], at=at(self.minute))

    def split(self, which: int, tx_id: str | None) -> None:
        for n in self.pending[which : which + 1]:
            parts = [Transfer("deposit", Decimal(p), self.id(), at(self.minute), 0, pending=True) for p in (3, 4)]
            self.deposits[n : n + 1] = parts

    def registered(self, which: int, tx_id: str | None) -> None:
        self.settled(which, tx_id)
        if self.deposits:
            self.say(Kind.DEPOSIT_REGISTERED)

    def settled(self, which: int, tx_id: str | None) -> None:
        """Confirmed; on its own, without the event that should tell so."""
        for n in self.pending[which : which + 1]:
            known = self.deposits[n].tx_id
            self.deposits[n] = replace(self.deposits[n], pending=False, confirmations=2, tx_id=known or tx_id)

    def payout_began(self, which: int, tx_id: str | None) -> None:
        self.say(Kind.FUNDS_WITHDRAWAL_START)
        self.payouts.append(Transfer("withdrawal", Decimal(260), tx_id, at(self.minute), pending=True))

    def payout_sent_again(self, which: int, tx_id: str | None) -> None:
        for n in self.provisional[-1:]:
            self.payouts[n] = Transfer("withdrawal", Decimal(261), tx_id, at(self.minute), pending=True)

    def payout_completed(self, which: int, tx_id: str | None) -> None:
        for n in self.provisional[:1]:
            self.payouts[n] = replace(self.payouts[n], tx_id=self.payouts[n].tx_id or tx_id)
            self.say(Kind.WITHDRAWAL_COMPLETED)

    def called_completed(self, which: int, tx_id: str | None) -> None:
        if self.payouts and not self.provisional:
            self.completed = True

    def held(self, which: int, tx_id: str | None) -> None:
        self.say("AML_FROZEN")

    def refund_asked(self, which: int, tx_id: str | None) -> None:
        self.say(Kind.REFUND_REQUESTED)

    def returned(self, which: int, tx_id: str | None) -> None:
        """A refund of a deposit, or of a payout that came back."""
        if any(not deposit.pending for deposit in self.deposits):
            self.say(Kind.REFUND_COMPLETED)


STEPS = (
    *("paid_in", "paid_in", "replaced", "dated_anew", "split", "registered", "registered", "settled", "payout_began"),
    *("payout_began", "payout_sent_again", "payout_completed", "payout_completed", "called_completed"),
    *("held", "refund_asked", "returned"),
)


@st.composite
def stories(draw: st.DrawFn) -> Story:
    story = Story(versioned=draw(st.booleans()))
    steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1), st.booleans()), min_size=1, max_size=12)
    for name, which, named in draw(steps):
        story.step(name, which, named)
    return story


@st.composite
def looks(draw: st.DrawFn) -> tuple[list[Facts], Facts]:
    """Answers in the order of their arrival, and the last one that is not stale among them. A copy that lags may answer at
    any time, as long as its answer can be told for old: by its events, or by its updatedAt."""
    story = draw(stories())
    last = len(story.told) - 1
    asked = 100.0 + last
    chosen = []
    for n in draw(st.lists(st.integers(0, last), max_size=8)):
        told = story.told[n]
        lags = draw(st.booleans()) and (story.versioned or told.events < story.told[last].events)
        # Of answers that nothing tells apart but when they were asked for, the upstream's own order counts.
        chosen.append(replace(told, asked_at=at(asked + n + 1 if lags else 100 + n - 0.5)))
    final = replace(story.told[last], asked_at=at(asked))
    return draw(st.permutations([*chosen, final])), final


NOTHING = Facts()


def read(
    answers: list[Facts], status: Status = Status.AWAITING_DEPOSIT, known: Facts = NOTHING
) -> tuple[Status, Facts]:
    """What an order is after these answers, one by one, as a poll does it."""
    for answer in answers:
        known = known.merge(answer)
        status = next_status(status, known, at(200), created_at=START).status
    return status, known


def public(status: Status, facts: Facts) -> dict[str, Any]:
    return {"status": status, "deposits": facts.deposits, "payouts": facts.withdrawals}
