"""Every process shows that it lives, and a part that is silent is missed."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from swap.ops.heartbeats import KEPT, Heartbeats, PartState
from swap.store.database import Database
from tests.conftest import Clock
from tests.waiting import until


@pytest.fixture
def heartbeats(database: Database, clock: Clock) -> Heartbeats:
    return Heartbeats(database, clock)


def state(heartbeats: Heartbeats, name: str) -> PartState:
    return next((part for part in heartbeats.parts() if part.name == name), PartState(name, 0, 0, None))


def missed(heartbeats: Heartbeats) -> list[str]:
    with capture_logs() as logs:
        heartbeats.raise_alarm()
    assert {line["log_level"] for line in logs} <= {"error"}
    return [line["silent"] for line in logs if line["event"] == "part.silent"]


def test_a_worker_lives_for_each_queue_it_serves_for_fifteen_seconds_after_a_heartbeat(
    heartbeats: Heartbeats, clock: Clock
) -> None:
    pulse = heartbeats.start("worker", ["watch"])
    until(lambda: heartbeats.alive("worker watch"))
    assert not heartbeats.alive("worker push")
    clock.advance(14)
    assert heartbeats.alive("worker watch")
    clock.advance(1)
    assert not heartbeats.alive("worker watch")
    heartbeats.beat(pulse._heartbeat)
    assert heartbeats.alive("worker watch")
    pulse.stop()
    assert state(heartbeats, "worker watch").alive == 0
    assert state(heartbeats, "worker watch").silent == 0, "it was told to"


def test_two_processes_of_one_part_are_counted_apart(heartbeats: Heartbeats, clock: Clock) -> None:
    first, second = heartbeats.start("api"), heartbeats.start("api")
    until(lambda: state(heartbeats, "api").alive == 2)
    clock.advance(16)
    heartbeats.beat(second._heartbeat)
    assert (state(heartbeats, "api").alive, state(heartbeats, "api").silent) == (1, 1)
    assert not state(heartbeats, "api").missing
    clock.advance(KEPT)
    assert "api" not in [part.name for part in heartbeats.parts()]
    for pulse in (first, second):
        pulse.stop()


def test_parts_of_which_none_lives_are_told_once_a_minute_by_one_process(
    heartbeats: Heartbeats, twin: Database, clock: Clock
) -> None:
    other = Heartbeats(twin, clock)
    assert missed(heartbeats) == ["scheduler", "worker push", "worker watch"]
    assert missed(heartbeats) == []
    clock.advance(61)
    parts = ("api", "scheduler", "stream")
    pulses = [heartbeats.start(part) for part in parts]
    until(lambda: all(heartbeats.alive(part) for part in parts))
    for pulse in pulses:
        pulse.stop()
    clock.advance(61)
    assert missed(other) == ["scheduler", "worker push", "worker watch"], "the others were told to stop"
    for pulse in pulses:
        heartbeats.beat(pulse._heartbeat)
    clock.advance(61)
    assert missed(other) == [*parts, "worker push", "worker watch"], "these were killed"


def test_an_installation_that_starts_has_a_minute_to_bring_up_its_workers(heartbeats: Heartbeats, clock: Clock) -> None:
    with capture_logs() as logs:
        pulse = heartbeats.start("scheduler")
        until(lambda: heartbeats.alive("scheduler"))
        pulse.stop()
    assert logs == []
    clock.advance(61)
    heartbeats.beat(pulse._heartbeat)
    assert missed(heartbeats) == ["worker push", "worker watch"]
