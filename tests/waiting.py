"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20, explain: Callable[[], str] = str) -> None:
    """Returns as soon as the condition holds. Fails the test, with the explanation, when it does not within the time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within its time: {explain()}"
        time.sleep(0.01)
