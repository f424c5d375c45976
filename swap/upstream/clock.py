"""How far the upstream's clock is from ours, learned from the Date header of its answers."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from statistics import median

log = logging.getLogger(__name__)

# The median of this many answers; fewer than _ENOUGH count for nothing, because a single one may be half a minute off.
_KEPT, _ENOUGH = 9, 3
_NOTICED_SECONDS = 1.0
_LARGEST_SECONDS = 60.0
_PROMPT_SECONDS = 5.0


class UpstreamClock:
    """The offset of the upstream's clock, the median of the last answers, in seconds; positive when theirs is ahead.
    Thread-safe.

    Signed timestamps must be near the upstream's time; how near is not known (docs/upstream.md section 9). Up to a second is
    ignored: the header itself has whole seconds. More than 60 s is not applied but raises `alarm`: then it is not clear
    whose clock is wrong, and a person has to look.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._samples: deque[float] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def observe(self, headers: Mapping[str, str], seconds: float) -> None:
        """Learn from an answer that has just arrived and took `seconds`. Answers from a cache, and slow
        ones, say nothing about now."""
        if seconds > _PROMPT_SECONDS or headers.get("Age", "0").strip() != "0":
            return
        try:
            theirs = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        # Half a second more: the header is cut down to whole seconds. Half the way back: the answer was under way.
        sample = theirs + 0.5 - (self._clock() - seconds / 2)
        with self._lock:
            before = self.alarm
            self._samples.append(sample)
            if self.alarm and not before:
                log.error("the upstream's clock and ours are %.0f seconds apart; nothing is corrected", self._middle)

    @property
    def offset_seconds(self) -> float:
        """The offset as it is applied: 0 up to a second and above 60."""
        offset = self._middle
        return offset if _NOTICED_SECONDS < abs(offset) <= _LARGEST_SECONDS else 0.0

    @property
    def known(self) -> bool:
        """Whether there were enough answers to know the offset, and it is small enough to be applied."""
        return len(self._samples) >= _ENOUGH and not self.alarm

    @property
    def alarm(self) -> bool:
        return abs(self._middle) > _LARGEST_SECONDS

    @property
    def _middle(self) -> float:
        samples = tuple(self._samples)
        return median(samples) if len(samples) >= _ENOUGH else 0.0

    def now(self) -> datetime:
        """The time at the upstream, aware UTC."""
        return datetime.fromtimestamp(self._clock() + self.offset_seconds, UTC)

    def timestamp(self) -> str:
        """The time at the upstream as signed: epoch milliseconds as text (C5)."""
        return str(int((self._clock() + self.offset_seconds) * 1000))
