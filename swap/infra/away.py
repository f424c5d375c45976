"""Slow is treated like dead: a server that failed is left alone, and then one caller at a time finds out whether it is back.

Without this everybody who needs it would spend the whole timeout, with a thread, for as long as it hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence


class Away:
    """What all users of one server in this process know of it together. Thread-safe.

    `pauses`: seconds for which it is left alone after a first failure, the second in a row, and so on; the last one stays.
    `monotonic`: any seconds, for tests.
    """

    def __init__(self, pauses: Sequence[float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pauses, self._monotonic = pauses, monotonic
        self._failures = 0
        self._until = self._tried_until = 0.0
        self._lock = threading.Lock()

    def may_ask(self) -> bool:
        """Whether to ask it now. Once a pause is over this is true for one caller; for the next one only when that one has
        told how it went, or not for as long again."""
        if not self._failures:
            return True
        with self._lock:
            now = self._monotonic()
            if now < max(self._until, self._tried_until):
                return False
            self._tried_until = now + self._pause()
            return True

    def answered(self) -> None:
        if self._failures:
            with self._lock:
                self._failures = 0

    def failed(self) -> None:
        """It did not answer. Calls that were under way together count as one failure."""
        with self._lock:
            now = self._monotonic()
            if self._failures and now < self._until:
                return
            self._failures += 1
            self._until, self._tried_until = now + self._pause(), 0.0

    def _pause(self) -> float:
        return self._pauses[min(self._failures, len(self._pauses)) - 1]
