"""Times as the service writes and measures them: one text form, milliseconds, and what SWAP_TIME_SCALE does to a delay."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random


def utc_now() -> datetime:
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """ISO-8601 in UTC with milliseconds and `Z`, such as `2025-10-09T08:53:20.000Z`: the one form in which times leave the
    service. `moment` must be aware."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_iso(text: str) -> datetime:
    """The aware UTC time that `iso` wrote."""
    return datetime.fromisoformat(text)


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def from_ms(milliseconds: int) -> datetime:
    """The aware UTC time of this many milliseconds since 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def cut_to_ms(moment: datetime) -> datetime:
    """The time in UTC, cut to milliseconds, as both databases keep it. Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not a time")
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Timing:
    """What time it is, and how long things may take here. One per process; a test hands in clocks of its own.

    `scale`: SWAP_TIME_SCALE, which divides every wait the service makes by itself. `read_timeout`, `create_timeout`:
    seconds that one call to the upstream may take, never scaled. `rng` spreads due times and retries; it protects nothing.
    Raises ValueError for a scale that is not above 0.
    """

    now: Callable[[], datetime] = utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    rng: Random = field(default_factory=Random)
    scale: Decimal = Decimal(1)
    read_timeout: float = 12.0
    create_timeout: float = 15.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError("scale must be more than 0")

    def shorten(self, delay: timedelta, *, at_least: timedelta = timedelta(0)) -> timedelta:
        """The delay, divided by the scale but never below `at_least`: what guards a call outlasts it at any scale."""
        return max(delay / float(self.scale), at_least)

    def scale_rate(self, per_second: float) -> float:
        """How many times a second something happens here that is planned to happen `per_second` times at scale 1."""
        return per_second * float(self.scale)
