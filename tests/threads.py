"""Work done by several threads at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def errors_of(count: int, work: Callable[[int], object]) -> list[BaseException]:
    """Run `work` on so many threads that begin together. Returns what they raised."""
    together = threading.Barrier(count)
    raised: list[BaseException] = []

    def run(number: int) -> None:
        together.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def race(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returned on so many threads that began together; an error fails the test."""
    found: list[Any] = [None] * count

    def keep(number: int) -> None:
        found[number] = work(number)

    for error in errors_of(count, keep):
        raise error
    return found
