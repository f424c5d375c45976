"""Decides what goes wrong, and keeps the books about it. Touches no request and no answer: `misbehaviour` plays the
faults on the wire, `bending` inside an answer.

Every decision is a throw of the dice over the seed and a place in a sequence: the n-th request of an endpoint, or the
n-th order. So the same seed and the same sequence of requests give the same faults; and looking at an order more often
does not move the faults of the creates. Clients that run side by side make the sequence, and with it the faults, their
own: then only the frequencies repeat.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from swap.sandbox import faults
from swap.sandbox.deposits import DepositPlace
from swap.sandbox.faults import BESIDE, FAULTS, GROUPS, KNOBS, PROFILES, Endpoint, Knobs, dice, reweighted, throw
from swap.sandbox.timeline import Order
from swap.sandbox.wire import json_number

LARGEST_FORCED = 100_000

IdForm = Literal["number", "string", "uuid"]

_ID_FORMS: dict[str | None, IdForm] = {None: "number", faults.ID_STRING: "string", faults.ID_UUID: "uuid"}


@dataclass
class Turn:
    """One request to the upstream's endpoints. `index` counts from 1 per endpoint. `fault` was decided before the
    request was read, so it may turn out that it cannot be played: `order` and `played` are filled in by the routes that
    know. `order` is the number of the order made or asked about, `played` that an older state was answered."""

    endpoint: Endpoint
    index: int
    fault: str | None = None
    is_forced: bool = False
    order: int | None = None
    played: bool = False


@dataclass
class OrderRecord:
    """What was decided for an order, and what became of its creation. `listed_at` in Unix seconds of the world.

    `was_answered`: a whole, readable 201 that names the order and its deposit address was handed to a connection that
    the caller still held open; false while a late answer waits. `create_fault` None with `was_answered` False is a
    caller that left by itself. `echoed_destination`: what the answer said instead of the order's own. `most_at_once`: the
    most public-info requests about it whose callers waited at the same time.
    """

    id_form: IdForm
    listed_at: float
    traits: frozenset[str]
    create_fault: str | None = None
    was_answered: bool = False
    echoed_destination: str | None = None
    looks: int = 0
    most_at_once: int = 0
    fired: Counter[str] = field(default_factory=Counter)


class Chaos:
    """The faults of one world: weights that can be changed while it runs, faults forced from outside, counters.

    `profile` is `clean` (nothing happens unless forced or weighted) or `chaos`; `weights` go on top of it. `seed` decides
    everything that chance decides. Thread-safe.
    """

    def __init__(
        self,
        profile: str = "clean",
        *,
        seed: int = 0,
        weights: Mapping[str, float] | None = None,
        knobs: Knobs | None = None,
    ) -> None:
        if profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}")
        self.seed = seed
        self.profile = profile
        self.knobs = knobs or Knobs()
        self._weights = reweighted(PROFILES[profile], weights or {})
        self._lock = threading.Lock()
        self._forced: dict[str, deque[str]] = {group: deque() for group in GROUPS}
        self._fired: Counter[str] = Counter()
        self._requests: Counter[Endpoint] = Counter()
        self._records: dict[int, OrderRecord] = {}
        self._window = (0, 0)

    # --- decisions ----------------------------------------------------------------------------------------------------

    def begin(self, endpoint: Endpoint) -> Turn:
        """The next request of an endpoint and what should go wrong with it. `settle` must follow."""
        with self._lock:
            self._requests[endpoint] += 1
            turn = Turn(endpoint, self._requests[endpoint])
            if endpoint in GROUPS:
                turn.fault, turn.is_forced = self._drawn(endpoint, turn.index)
            if turn.fault is None and endpoint in BESIDE:
                turn.fault, turn.is_forced = self._drawn(BESIDE[endpoint], turn.index)
            return turn

    def settle(self, turn: Turn, *, played: bool) -> None:
        """Counts the turn's fault, or puts back a forced one that could not be played, for the next request."""
        if turn.fault is None:
            return
        with self._lock:
            if played:
                self._count(turn.fault, turn.order)
            elif turn.is_forced:
                self._forced[FAULTS[turn.fault].group].appendleft(turn.fault)

    def happens(self, name: str, turn: Turn) -> bool:
        """Whether one of the faults without a group happens to this answer; counted at once."""
        with self._lock:
            drawn, _ = self._drawn(name, turn.endpoint, turn.index)
            if drawn is not None:
                self._count(name, turn.order)
            return drawn is not None

    def chance(self, turn: Turn, purpose: str) -> float:
        """0 up to 1, for the details of a fault."""
        return dice(self.seed, purpose, turn.endpoint, turn.index)

    def place(self, finders: Mapping[str, Callable[[], DepositPlace | None]]) -> tuple[str, DepositPlace] | None:
        """For the order that `adopt` takes next: the `place.` fault it gets, and where it is paid then. `finders` by fault;
        one that finds nothing makes the fault impossible, and a forced one waits."""
        for name, find in finders.items():
            with self._lock:
                drawn, is_forced = self._drawn(name, len(self._records) + 1)
            place = find() if drawn is not None else None
            if place is not None:
                return name, place
            if is_forced:
                with self._lock:
                    self._forced[name].appendleft(name)
        return None

    def adopt(self, order: Order, place_fault: str | None = None) -> None:
        """Decides what holds for a new order as long as it lives. `place_fault`: what `place` has decided before."""
        with self._lock:
            nth = len(self._records) + 1
            memos = (order.destination_memo, order.refund_memo, order.place.memo)
            possible = {"id", faults.LISTED_LATE, faults.BARE_INFO, faults.ONE_ID, faults.ALTERNATING}
            if any(json_number(memo) is not None for memo in memos):
                possible.add(faults.NUMERIC_MEMO)
            if order.scenario.deposits:
                possible.add("deposits")
            if len(order.scenario.deposits) > 1:
                possible.add(faults.PARTLY_REFUNDED)
            drawn = {group: self._drawn(group, nth)[0] for group in sorted(possible)}
            id_fault = drawn["id"]
            traits = {name for name in (*drawn.values(), place_fault) if name is not None}
            lag = self.knobs.list_lag_seconds * (1 - dice(self.seed, "lag", nth))
            self._records[order.number] = OrderRecord(
                id_form=_ID_FORMS[id_fault],
                listed_at=order.created_at + (lag if faults.LISTED_LATE in traits else 0),
                traits=frozenset(traits),
            )
            for name in sorted(traits):
                self._count(name, order.number)

    def alternates(self, number: int) -> bool:
        """Whether this look at the order is one of those that `order.alternating` makes stale: every second one."""
        with self._lock:
            record = self._records[number]
            record.looks += 1
            return faults.ALTERNATING in record.traits and record.looks % 2 == 0

    def _drawn(self, group: str, *place: object) -> tuple[str | None, bool]:
        """(fault, whether it was forced). The dice are thrown only where nothing is forced; they have no memory, so this
        moves no later decision."""
        if self._forced[group]:
            return self._forced[group].popleft(), True
        return throw(group, self._weights, dice(self.seed, group, *place)), False

    def _count(self, name: str, order: int | None) -> None:
        self._fired[name] += 1
        if order in self._records:
            self._records[order].fired[name] += 1

    # --- the rate limit -----------------------------------------------------------------------------------------------

    def admit(self, now: float) -> int | None:
        """How many more requests this second of the clock may bring, negative when this one is already too many; None
        without a limit. Whole seconds, not a sliding window: that is what `GET /sandbox/load` can be compared with."""
        limit = self.knobs.limit_per_second
        if not limit:
            return None
        with self._lock:
            second, used = self._window
            used = used + 1 if second == int(now) else 1
            self._window = int(now), used
            if used > limit:
                self._fired[faults.LIMIT_EXCEEDED] += 1
            return limit - used

    # --- the books ----------------------------------------------------------------------------------------------------

    def record(self, number: int) -> OrderRecord:
        with self._lock:
            return self._records[number]

    def force(self, name: str, count: int = 1) -> None:
        """The next `count` requests, orders or answers where `name` is possible get it, before any chance. Faults of one
        group happen in the order in which they were forced. Raises ValueError for an unknown name or a strange count."""
        if name not in FAULTS:
            raise ValueError(f"{name} is not a fault")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError("count must be a whole number above 0")
        with self._lock:
            queue = self._forced[FAULTS[name].group]
            if len(queue) + count > LARGEST_FORCED:
                raise ValueError(f"no more than {LARGEST_FORCED} faults can wait")
            queue.extend([name] * count)

    def change(self, changes: Mapping[str, Any]) -> None:
        """`profile` first (it sets all weights), then weights and knobs by name. All or nothing: raises ValueError and
        changes nothing when one of them is wrong. What was forced stays."""
        profile = changes.get("profile", self.profile)
        if not isinstance(profile, str) or profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}")
        knobs = {name: value for name, value in changes.items() if name in KNOBS}
        weights = {name: value for name, value in changes.items() if name not in KNOBS and name != "profile"}
        with self._lock:
            changed = reweighted(PROFILES[profile] if "profile" in changes else self._weights, weights)
            self.knobs = self.knobs.changed(knobs)
            self.profile, self._weights = profile, changed

    def report(self) -> dict[str, Any]:
        """Weights and counts of every name; `forced` and `orders` ({order number: {name: count}}) only where there are
        any."""
        with self._lock:
            waiting = Counter(name for queue in self._forced.values() for name in queue)
            return {
                "profile": self.profile,
                "seed": self.seed,
                "weights": dict(self._weights),
                "knobs": {name: getattr(self.knobs, name) for name in KNOBS},
                "fired": {name: self._fired[name] for name in (*FAULTS, faults.LIMIT_EXCEEDED)},
                "forced": dict(waiting),
                "requests": dict(self._requests),
                "orders": {str(number): dict(row.fired) for number, row in self._records.items() if row.fired},
            }
