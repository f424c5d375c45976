"""What happens to the service meanwhile, as a schedule that the seed decides."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from redis import Redis
from redis.exceptions import RedisError

from drill.database import Store
from drill.environment import SCHEDULERS, WORKERS
from drill.plan import Plan
from drill.processes import Parts

# kind: how often in a full drill, how often in a small one.
_COUNTS = {
    "kill the API": (3, 1),
    "kill a worker": (4, 1),
    "kill a scheduler": (2, 1),
    "flush Redis": (3, 1),
    "restart Redis": (1, 0),
    "Redis away": (1, 1),
    "cut database connections": (4, 1),
    "database away": (2, 1),
    "pause the upstream": (2, 1),
}
# The same for blows that came later. They are thrown on their own, so that those above fall when and where they always did.
_LATER_COUNTS = {
    "stop Redis": (2, 1),
    "stop the database": (2, 1),
    "kill all workers": (2, 1),
}
_TARGETS = {"kill a worker": WORKERS, "kill a scheduler": SCHEDULERS}
# How long a killed part stays away, seconds.
_AWAY = (0.3, 3.0)


@dataclass(frozen=True)
class Blow:
    """`at` and `seconds` (how long it lasts) in real seconds since the clients began."""

    at: float
    kind: str
    seconds: float
    target: str = ""

    @property
    def name(self) -> str:
        return self.kind + (f" {self.target}" if self.target else "")


def schedule(plan: Plan) -> list[Blow]:
    """Spread over the time in which orders are placed, in an order of their own: none falls before some orders are under
    way, and the last must be over before it is asked whether all came right."""
    if not plan.blows:
        return []
    return sorted(
        [*_thrown(plan, plan.dice("blows"), _COUNTS), *_thrown(plan, plan.dice("later blows"), _LATER_COUNTS)],
        key=lambda blow: blow.at,
    )


def _thrown(plan: Plan, rng: Random, counts: Mapping[str, tuple[int, int]]) -> list[Blow]:
    kinds = [kind for kind, count in counts.items() for _ in range(count[1 if plan.small else 0])]
    rng.shuffle(kinds)
    lengths = {
        "Redis away": plan.redis_down,
        "cut database connections": 1.0,
        "database away": plan.database_down,
        "pause the upstream": plan.pause,
        "stop Redis": plan.redis_stopped,
        "stop the database": plan.database_down,
        "kill all workers": plan.workers_dead,
    }
    room = plan.placing_seconds * 0.85 / len(kinds)
    blows = []
    for number, kind in enumerate(kinds):
        at = plan.placing_seconds * 0.1 + room * (number + rng.uniform(0.1, 0.9))
        length = lengths.get(kind) or (rng.uniform(*_AWAY) if kind.startswith(("kill", "restart")) else 0.0)
        blows.append(Blow(at, kind, length, rng.choice(_TARGETS[kind]) if kind in _TARGETS else ""))
    return blows


class FaultInjector:
    """Deals the blows. To be used from the main thread, which starts parts again (see `parts`)."""

    def __init__(self, plan: Plan, parts: Parts, store: Store, redis_url: str) -> None:
        self._parts, self._store, self._redis_url = parts, store, redis_url
        self._left = schedule(plan)
        self._endings: list[tuple[float, Callable[[], None]]] = []
        self._down: Counter[str] = Counter()
        self.dealt: list[tuple[float, float, str]] = []
        """(begun, ended, name) in Unix seconds; paused upstreams are looked up here."""

    @property
    def down(self) -> frozenset[str]:
        return frozenset(name for name, blows in self._down.items() if blows)

    @property
    def busy(self) -> bool:
        return bool(self._left or self._endings)

    def step(self, elapsed: float) -> None:
        """Deal and end what is due, `elapsed` seconds after the clients began."""
        for ending in [one for one in self._endings if one[0] <= elapsed]:
            self._endings.remove(ending)
            ending[1]()
        while self._left and self._left[0].at <= elapsed:
            self._deal(self._left.pop(0), elapsed)

    def end(self) -> None:
        """End whatever still lasts, now."""
        self._left.clear()
        for _, ending in self._endings:
            ending()
        self._endings.clear()

    def _deal(self, blow: Blow, elapsed: float) -> None:
        begun = time.time()
        ending = self._begin(blow)

        def ended() -> None:
            if ending is not None:
                ending()
            self.dealt.append((begun, time.time(), blow.name))

        if blow.seconds:
            self._endings.append((elapsed + blow.seconds, ended))
        else:
            ended()

    def _begin(self, blow: Blow) -> Callable[[], None] | None:
        """Returns what ends the blow."""
        match blow.kind:
            case "kill the API":
                return self._killed("api")
            case "kill a worker" | "kill a scheduler":
                return self._killed(blow.target)
            case "kill all workers":
                return self._killed(*WORKERS)
            case "restart Redis" | "Redis away":
                return self._killed("redis")
            case "stop Redis":
                return self._stopped("redis")
            case "flush Redis":
                with contextlib.suppress(RedisError), Redis.from_url(self._redis_url, socket_timeout=2) as redis:
                    redis.flushall()
                return None
            case "cut database connections":
                return self._store.cut()
            case "database away":
                return self._store.shut()
            case "stop the database":
                # A file cannot be stopped: that nobody may write to it comes nearest.
                return self._stopped("database") if "database" in self._parts.all else self._store.shut()
            case _:
                return self._stopped("sandbox")

    def _stopped(self, name: str) -> Callable[[], None]:
        part = self._parts.all[name]
        part.signal(signal.SIGSTOP)
        return lambda: part.signal(signal.SIGCONT)

    def _killed(self, *names: str) -> Callable[[], None]:
        """A part that several blows keep down starts when the last of them is over."""
        for name in names:
            self._parts.all[name].kill()
        self._down.update(names)

        def again() -> None:
            for name in names:
                self._down[name] -= 1
                if not self._down[name]:
                    self._parts.all[name].start()

        return again
