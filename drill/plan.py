"""How large a drill is, and how its times are scaled. Everything that chance decides comes from `seed`."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

ENDPOINT_CLIENTS = 4
"""Product backends; each owns several API keys and at least one webhook endpoint."""
KEYS_EACH = 2


@dataclass(frozen=True)
class Plan:
    """Seconds are real ones; `seconds` is the most that may pass until all is well. `scale` is SWAP_TIME_SCALE, `speed`
    the sandbox's.

    The upstream's timeouts are never scaled by the service, so they are made short here. The sandbox's delays and list lag
    are set from both, so that they are to the service as in real life: a list may lag behind, and a create may be accepted
    after its call has timed out. `create_attempts`: SWAP_CREATE_ATTEMPTS; `spare_limit`:
    SWAP_SPARE_LIMIT. `weights`: of faults, (name, weight), on top of the profile's.
    """

    orders: int
    threads: int
    seconds: float
    seed: int
    scale: float
    speed: float
    rps: float
    profile: str = "chaos"
    blows: bool = True
    database_url: str | None = None
    id_form: str | None = None
    mutant: str | None = None
    weights: tuple[tuple[str, float], ...] = ()
    create_attempts: int = 3
    spare_limit: int = 50
    create_timeout: float = 2.0
    read_timeout: float = 2.0

    @property
    def placing_seconds(self) -> float:
        """While orders are placed and blows fall; the rest is for coming right again, and for the audit."""
        return self.seconds * (0.168 if self.small else 0.5)

    @property
    def settled_by(self) -> float:
        """Seconds after the start at which waiting ends; what remains is for the audit."""
        return self.seconds - max(6.0, 0.07 * self.seconds)

    @property
    def small(self) -> bool:
        return self.seconds < 240

    @property
    def resolver_step(self) -> float:
        """Between two list reads of a proof of absence: 10 s of the service's time, but see above."""
        return max(10 / self.scale, self.read_timeout + 2)

    @property
    def list_lag(self) -> float:
        return min(10.0, self.resolver_step)

    @property
    def late_answer(self) -> float:
        """The sandbox's `delay_seconds`: 20 s where a create is given 15."""
        return self.create_timeout * 4 / 3

    @property
    def accepted_late(self) -> float:
        """The sandbox's `late_seconds`: 45 s where a create is given 15."""
        return self.create_timeout * 3

    @property
    def doubt_seconds(self) -> float:
        """How long an order may stay undecided after its last attempt: ten minutes of the service's time, and what the
        blows may add to it: the longest, two jobs that were lost, and a resolver step after each."""
        return 600 / self.scale + self.longest_blow + 2 * (self.lease + self.resolver_step) + 10

    @property
    def lease(self) -> float:
        """Until an order whose job was lost, with its worker or with Redis, is taken up again. Never shorter than the work
        it guards, and so not scaled: the longest look, a create, and the wait in the queue."""
        return 2 * self.read_timeout + 5 + self.create_timeout + 12

    @property
    def redis_down(self) -> float:
        return 5.0 if self.small else 30.0

    @property
    def database_down(self) -> float:
        return 2.0 if self.small else 6.0

    @property
    def redis_stopped(self) -> float:
        """Longer than any wait for an answer of Redis."""
        return 3.0 if self.small else 10.0

    @property
    def workers_dead(self) -> float:
        """A minute of the service's time; in a full drill long enough to see that others took up the work."""
        return max(60 / self.scale, 5.0 if self.small else 30.0)

    @property
    def pause(self) -> float:
        """How long the upstream hangs: longer than any call to it waits."""
        return 3.0 if self.small else 8.0

    @property
    def longest_blow(self) -> float:
        return max(self.redis_down, self.redis_stopped, self.database_down, self.workers_dead, self.pause)

    @property
    def faults(self) -> dict[str, object]:
        """For PUT /sandbox/faults."""
        faults: dict[str, object] = {"delay_seconds": self.late_answer, "late_seconds": self.accepted_late}
        faults |= {"list_lag_seconds": self.list_lag, "behind_seconds": 60 / self.scale}
        if self.id_form == "uuid":
            faults |= {"id.string": 0.0, "id.uuid": 1.0}
        return faults | dict(self.weights)

    def dice(self, purpose: str) -> Random:
        """Chance for one purpose; asking for more of one moves no other."""
        return Random(f"drill {self.seed} {purpose}")  # noqa: S311 - repeats a run, protects nothing


_FULL: dict[str, Any] = {
    "orders": 500,
    "threads": 16,
    "seconds": 480.0,
    "seed": 1,
    "scale": 10.0,
    "speed": 20.0,
    "rps": 40.0,
    "create_timeout": 4.0,
}
_SMALL: dict[str, Any] = _FULL | {
    "orders": 60,
    "seconds": 150.0,
    "scale": 18.0,
    "speed": 60.0,
    "rps": 60.0,
    "create_timeout": 2.0,
    "read_timeout": 1.5,
}


def full(**changed: Any) -> Plan:
    """500 orders in 8 minutes, unless changed."""
    return Plan(**_FULL | changed)


def small(**changed: Any) -> Plan:
    """60 orders in about two minutes, unless changed. Two and a half are the limit: an order whose create was lost twice,
    and which then cannot be told from another, takes nearly as long to be given up; and an expiry is believed when it was
    told twice, ten minutes of the service's time apart."""
    return Plan(**_SMALL | changed)
