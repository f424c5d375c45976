"""What happens to the service meanwhile, as a schedule that the seed decides."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from drill.database import Store
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
    rng = plan.dice("blows")
    kinds = [kind for kind, counts in _COUNTS.items() for _ in range(counts[1 if plan.small else 0])]
    rng.shuffle(kinds)
    lengths = {
        "Redis away": plan.redis_down,
        "cut database connections": 1.0,
        "database away": plan.database_down,
        "pause the upstream": plan.pause,
    }
    targets = {"kill a worker": ("worker-1", "worker-2"), "kill a scheduler": ("scheduler-1", "scheduler-2")}
    room = plan.placing_seconds * 0.85 / len(kinds)
    blows = []
    for number, kind in enumerate(kinds):
        at = plan.placing_seconds * 0.1 + room * (number + rng.uniform(0.1, 0.9))
        length = lengths.get(kind) or (rng.uniform(*_AWAY) if kind.startswith(("kill", "restart")) else 0.0)
        blows.append(Blow(at, kind, length, rng.choice(targets[kind]) if kind in targets else ""))
    return blows


class FaultInjector:
    """Deals the blows. To be used from the main thread, which starts parts again (see `parts`)."""

    def __init__(self, plan: Plan, parts: Parts, store: Store, redis_url: str) -> None:
        self._parts, self._store, self._redis_url = parts, store, redis_url
        self._left = schedule(plan)
        self._endings: list[tuple[float, Callable[[], None]]] = []
        self._down: set[str] = set()
        self.dealt: list[tuple[float, float, str]] = []
        """(begun, ended, name) in Unix seconds; paused upstreams are looked up here."""

    @property
    def down(self) -> frozenset[str]:
        return frozenset(self._down)

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
            case "restart Redis" | "Redis away":
                return self._killed("redis")
            case "flush Redis":
                with contextlib.suppress(RedisError), Redis.from_url(self._redis_url, socket_timeout=2) as redis:
                    redis.flushall()
                return None
            case "cut database connections":
                return self._store.cut()
            case "database away":
                return self._store.shut()
            case _:
                self._parts.all["sandbox"].signal(signal.SIGSTOP)
                return lambda: self._parts.all["sandbox"].signal(signal.SIGCONT)

    def _killed(self, name: str) -> Callable[[], None]:
        part = self._parts.all[name]
        if name in self._down:
            return lambda: None
        self._down.add(name)
        part.kill()

        def again() -> None:
            self._down.discard(name)
            part.start()

        return again
