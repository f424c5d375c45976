"""Watching 1,000 and 10,000 open orders within 20 requests a second, with the list as a doorbell and without it.

A simulation on a clock of its own, second by second: intervals, claim ranks, slowdown and the list signal's rules are
the service's own functions and constants; orders and their upstream are drawn by chance. Seven in ten orders are paid,
after some minutes, and go through four changes; the others are never paid and stay open for a day. What is shown holds
for a steady state."""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.table import Table

from swap.domain import schedules
from swap.domain.lifecycle import Status
from swap.domain.schedules import Slowdown
from swap.domain.times import Timing
from swap.watching import list_signal, throttle

RPS = 20.0
HOURS = 3.0
WARM_UP_HOURS = 1.0
_REQUESTS_TO_MAKE_ONE = 3  # rate, address, create
_PAID = 0.7
_OPEN_FOR = 86_400.0
_SAMPLE = 500  # of open orders, from which the sum of planned looks is estimated
_STEPS = (Status.CONFIRMING, Status.EXCHANGING, Status.SENDING, Status.COMPLETED)


@dataclass
class _Order:
    """`changes`: (second, status it leads to), as they happen upstream; the rest is what the service knows."""

    born: float
    changes: list[tuple[float, Status]]
    found: int = 0
    status: Status = Status.AWAITING_DEPOSIT
    changed_at: float = 0.0
    looked_at: float = 0.0
    due: float = 0.0
    signalled_at: float = -1.0

    def happened(self, now: float) -> int:
        return sum(1 for at, _ in self.changes if at <= now)

    @property
    def over(self) -> bool:
        return self.found == len(self.changes)


@dataclass(frozen=True)
class Result:
    requests_per_order: float
    looks_per_order: float
    median: float
    p95: float
    worst: float
    stretch: float
    listened_share: float


class _World:
    def __init__(self, size: int, seed: int) -> None:
        self.dice = random.Random(seed)
        mean_life = _PAID * 1800 + (1 - _PAID) * _OPEN_FOR
        self.rate = size / mean_life
        self.next_birth = 0.0

    def order(self, born: float) -> _Order:
        dice, changes, at = self.dice, [], born
        if dice.random() >= _PAID:
            return _Order(born, [(born + _OPEN_FOR, Status.EXPIRED)], changed_at=born)
        at += dice.lognormvariate(6.2, 0.7)  # paid after eight minutes, half of them
        for status, mean in zip(_STEPS, (0, 600, 120, 180), strict=True):
            at += dice.expovariate(1 / mean) if mean else 0
            changes.append((at, status))
        return _Order(born, changes, changed_at=born)

    def born_before(self, now: float) -> Iterator[_Order]:
        while self.next_birth <= now:
            yield self.order(self.next_birth)
            self.next_birth += self.dice.expovariate(self.rate)


class Simulation:
    """`list_lag`: seconds by which the list is behind; None: no list."""

    def __init__(self, size: int, list_lag: float | None, seed: int = 1) -> None:
        self.world, self.list_lag, self.dice = _World(size, seed), list_lag, random.Random(seed + 1)
        self.timing = Timing(rng=self.dice)
        self.now = 0.0
        self.pace, self.trusted = Slowdown(), False
        self.counted = self.announced = 0
        self.list_began, self.off_until = -1e9, 0.0
        self.open: dict[int, _Order] = {}
        self.heap: list[tuple[float, int]] = []
        self.delays: list[float] = []
        self.requests = self.looks = self.ended = 0
        self.tokens = 0.0
        for number in range(size):
            # As found in a steady state: the longer an order is open, the likelier it is met.
            order = self._met()
            self._watch(number, order)
        self.number = size

    def _met(self) -> _Order:
        while True:
            order = self.world.order(0.0)
            life = order.changes[-1][0]
            if self.dice.random() < life / _OPEN_FOR or life > _OPEN_FOR:
                break
        age = self.dice.uniform(0, life)
        order.born -= age
        order.changes = [(at - age, status) for at, status in order.changes]
        order.changed_at = order.born
        order.found = order.happened(0.0)
        if order.found:
            order.changed_at, order.status = order.changes[order.found - 1]
        return order

    def _watch(self, number: int, order: _Order) -> None:
        self.open[number] = order
        self._plan(number, order)

    def _plan(self, number: int, order: _Order) -> None:
        state = schedules.PollState(
            order.status,
            age=timedelta(seconds=self.now - order.born),
            since_change=timedelta(seconds=self.now - order.changed_at),
        )
        wait = schedules.next_poll(state, self.timing, self.pace)
        assert wait is not None
        order.due = self.now + wait.total_seconds()
        heapq.heappush(self.heap, (order.due, number))

    def run(self) -> Result:
        start, end = WARM_UP_HOURS * 3600, (WARM_UP_HOURS + HOURS) * 3600
        listened = stretched = measured = 0.0
        while self.now < end:
            if self.now == start:
                self.delays, self.requests, self.looks, self.ended = [], 0, 0, 0
            self._second()
            self.now += 1
            if self.now > start:
                measured += 1
                listened += self.pace.list_trusted
                stretched += max(self.pace.moving, self.pace.fresh, self.pace.aged)
        ended = max(1, self.ended)
        cuts = statistics.quantiles(self.delays, n=20)
        return Result(
            self.requests / ended,
            self.looks / ended,
            statistics.median(self.delays),
            cuts[18],
            max(self.delays),
            stretched / measured,
            listened / measured,
        )

    def _second(self) -> None:
        spent = 0
        for order in self.world.born_before(self.now):
            spent += _REQUESTS_TO_MAKE_ONE
            self.number += 1
            self._watch(self.number, order)
        if (
            self.list_lag is not None
            and self.now >= self.off_until
            and self.now % list_signal.EVERY.total_seconds() == 0
        ):
            spent += 1
            self._read_list(self.list_lag)
        if self.now % throttle.EVERY.total_seconds() == 0:
            self._set_pace()
        self.requests += spent
        # Looks leave a fifth of the burst to others; what those spend is gone.
        self.tokens = min(self.tokens + RPS - spent, RPS)
        for number in self._claim(int(self.tokens)):
            self.tokens -= 1
            self._look(number)

    def _claim(self, limit: int) -> list[int]:
        """As swap.watching.due claims: four fifths by rank, a fifth to those that wait longest."""
        due: list[tuple[float, int]] = []
        while self.heap and self.heap[0][0] <= self.now:
            at, number = heapq.heappop(self.heap)
            order = self.open.get(number)
            if order is not None and order.due == at:
                due.append((at, number))
        if len(due) > limit:

            def rank(entry: tuple[float, int]) -> tuple[int, float]:
                order = self.open[entry[1]]
                return schedules.claim_rank(order.status), entry[0]

            by_rank = sorted(due, key=rank)
            first = by_rank[: limit - limit // 5]
            fair = sorted(by_rank[limit - limit // 5 :])[: limit // 5]
            kept = {number for _, number in (*first, *fair)}
            for entry in due:
                if entry[1] not in kept:
                    heapq.heappush(self.heap, entry)
            return list(kept)
        return [number for _, number in due]

    def _look(self, number: int) -> None:
        order = self.open[number]
        self.requests += 1
        self.looks += 1
        happened = order.happened(self.now)
        if happened > order.found:
            newest = order.changes[happened - 1][0]
            found = order.changes[order.found : happened]
            self.delays += [self.now - at for at, status in found if status is not Status.EXPIRED]
            announced = order.signalled_at >= newest
            missed = newest < self.list_began - list_signal.EVERY.total_seconds()
            if newest > order.looked_at and (announced or missed):
                self.counted += 1
                self.announced += announced
            order.found, (order.changed_at, order.status) = happened, order.changes[happened - 1]
        order.looked_at = self.now
        if order.over:
            del self.open[number]
            self.ended += 1
        else:
            self._plan(number, order)

    def _read_list(self, lag: float) -> None:
        self.list_began = self.now
        for number, order in self.open.items():
            seen = order.happened(self.now - lag)
            if seen > order.found and order.changes[seen - 1][0] > order.looked_at - 5:
                order.signalled_at = self.now
                if order.due > self.now:
                    order.due = self.now
                    heapq.heappush(self.heap, (self.now, number))
        if self.counted >= list_signal.ENOUGH:
            self.trusted = self.announced >= float(list_signal.TRUSTED_FROM) * self.counted
            if not self.trusted:
                self.counted = self.announced = 0
                self.off_until = self.now + list_signal.OFF_FOR.total_seconds()

    def _set_pace(self) -> None:
        sums: dict[schedules.Tier, float] = {"moving": 0.0, "fresh": 0.0, "aged": 0.0}
        some = self.dice.sample(list(self.open.values()), min(_SAMPLE, len(self.open)))
        for order in some:
            age = timedelta(seconds=self.now - order.born)
            state = schedules.PollState(
                order.status,
                age=age,
                since_change=timedelta(seconds=self.now - order.changed_at),
            )
            every = schedules.next_poll(state, _EVEN, Slowdown(list_trusted=self.trusted))
            assert every is not None
            sums[schedules.tier(order.status, age)] += len(self.open) / len(some) / every.total_seconds()
        self.pace = schedules.slowdown_for(sums, throttle.POLLS_SHARE * RPS, list_trusted=self.trusted)


class _Even(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


_EVEN = Timing(rng=_Even())


def run() -> None:
    table = Table(
        title=f"watching within {RPS:g} requests a second; delay: from money moving upstream to our knowing it"
    )
    for name in ("open orders", "list", "requests/order", "looks/order", "median s", "p95 s", "worst s", "spread out"):
        table.add_column(name, justify="right")
    for size in (1_000, 10_000):
        for name, lag in (("none", None), ("at once", 0.0), ("10 s behind", 10.0), ("60 s behind", 60.0)):
            found = Simulation(size, lag).run()
            heard = f"{name}, trusted {found.listened_share:.0%}" if lag is not None else name
            table.add_row(
                *(f"{size:,}", heard, f"{found.requests_per_order:.1f}", f"{found.looks_per_order:.1f}"),
                *(f"{found.median:.1f}", f"{found.p95:.1f}", f"{found.worst:.0f}", f"x {found.stretch:.1f}"),
            )
    Console(width=120).print(table)
