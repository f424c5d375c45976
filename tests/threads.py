"""Work done by several threads at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


def race(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work` returned on so many threads that began together; an error fails the test."""
    together = threading.Barrier(count)
    found: list[Any] = [None] * count
    raised: list[BaseException] = []

    def run(number: int) -> None:
        together.wait()
        try:
            found[number] = work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
    return found
