"""One read serves all who ask the same within a moment."""

from __future__ import annotations

import threading

import pytest

from swap.infra.shared_reads import SharedReads
from tests.threads import race


class Upstream:
    """Counts what it is asked; answers once it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()
        self.go.set()
        self.fails = False

    def __call__(self) -> str:
        self.asked += 1
        assert self.go.wait(10)
        if self.fails:
            raise ValueError("away")
        return f"answer {self.asked}"


def test_all_who_ask_meanwhile_and_a_moment_later_are_told_the_same() -> None:
    upstream, now = Upstream(), [100.0]
    reads: SharedReads[str] = SharedReads(1.0, lambda: now[0])
    assert race(8, lambda _: reads.read("BTC", upstream, 10)) == ["answer 1"] * 8
    assert reads.kept("BTC") == "answer 1"
    assert reads.read("XRP", upstream, 10) == "answer 2"
    now[0] += 1.0
    assert reads.kept("BTC") is None
    assert reads.read("BTC", upstream, 10) == "answer 3"


def test_a_failure_is_told_to_those_who_waited_and_to_nobody_later() -> None:
    upstream = Upstream()
    upstream.fails = True
    reads: SharedReads[str] = SharedReads(1.0)
    with pytest.raises(ValueError, match="away"):
        reads.read("BTC", upstream, 10)
    upstream.fails = False
    assert reads.kept("BTC") is None
    assert reads.read("BTC", upstream, 10) == "answer 2"


def test_whoever_waits_for_the_read_of_another_does_not_wait_for_ever() -> None:
    upstream = Upstream()
    upstream.go.clear()
    reads: SharedReads[str] = SharedReads(1.0)
    first = threading.Thread(target=reads.read, args=("BTC", upstream, 10))
    first.start()
    while not upstream.asked:
        pass
    with pytest.raises(TimeoutError):
        reads.read("BTC", upstream, 0.05)
    upstream.go.set()
    first.join()


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swap.infra.shared_reads._MOST_KEPT", 10)
    upstream = Upstream()
    reads: SharedReads[str] = SharedReads(60.0)
    for number in range(100):
        reads.read(number, upstream, 10)
    assert len(reads._reads) <= 10
