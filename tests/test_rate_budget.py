"""Rates shared by all processes, on a real Valkey, and what is left of them while it is away."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from redis import Redis

from swap.errors import RateLimited
from swap.infra.redis_guard import RedisGuard
from swap.infra.token_bucket import LocalBucket, SharedBucket
from swap.upstream.rate_budget import ASKING_FOR, RateBudget
from tests.waiting import until

NOBODY = "redis://127.0.0.1:1"


class Time:
    """A monotonic clock; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds


def later(redis: Redis, name: str, seconds: float) -> None:
    """Let `seconds` pass for the bucket, whose clock is Redis' own."""
    at = float(redis.hget(f"swap:bucket:{name}", "at") or 0)
    redis.hset(f"swap:bucket:{name}", "at", str(at - seconds))


def test_a_bucket_nobody_knows_starts_at_a_quarter(redis: Redis) -> None:
    bucket = SharedBucket(redis, RedisGuard())
    taken = [bucket.take("b", rate=0.001, burst=20) for _ in range(6)]
    assert taken[:5] == [0.0] * 5
    assert taken[5] == pytest.approx(1000, rel=0.01)


def test_a_bucket_fills_at_its_rate_up_to_its_burst(redis: Redis) -> None:
    bucket = SharedBucket(redis, RedisGuard())
    assert bucket.take("b", rate=0.001, burst=4) == 0
    assert bucket.take("b", rate=0.001, burst=4) != 0
    later(redis, "b", 2001)
    assert [bucket.take("b", rate=0.001, burst=4) == 0 for _ in range(3)] == [True, True, False]
    later(redis, "b", 1e6)
    assert [bucket.take("b", rate=0.001, burst=4) == 0 for _ in range(5)] == [True, True, True, True, False]


def test_a_redis_clock_that_was_set_back_takes_nothing_away(redis: Redis) -> None:
    bucket = SharedBucket(redis, RedisGuard())
    assert bucket.take("b", rate=0.001, burst=8) == 0
    later(redis, "b", -3600)
    assert bucket.take("b", rate=0.001, burst=8) == 0


def test_buckets_are_told_apart_by_name_and_forgotten_in_the_end(redis: Redis) -> None:
    bucket = SharedBucket(redis, RedisGuard())
    assert bucket.take("a", rate=0.01, burst=4) == 0
    assert bucket.take("b", rate=0.01, burst=4) == 0
    assert bucket.take("a", rate=0.01, burst=4) != 0
    assert 0 < int(redis.pttl("swap:bucket:a")) <= 460_000


def test_many_processes_together_take_what_one_may(redis: Redis, redis_url: str) -> None:
    taken: list[float | None] = []

    def work() -> None:
        with Redis.from_url(redis_url) as own:
            bucket = SharedBucket(own, RedisGuard())
            for _ in range(20):
                taken.append(bucket.take("b", rate=0.001, burst=100))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 80
    assert taken.count(0.0) == 25


@pytest.mark.db
def test_redis_away_is_told_and_left_alone_for_a_second() -> None:
    time = Time()
    with Redis.from_url(NOBODY) as nobody:
        bucket = SharedBucket(nobody, RedisGuard(monotonic=time))
        assert bucket.take("b", rate=1, burst=4) is None
    bucket._script = None  # type: ignore[assignment] # a call of it would raise
    time.now += 0.9
    assert bucket.take("b", rate=1, burst=4) is None
    time.now += 0.2
    with pytest.raises(TypeError):
        bucket.take("b", rate=1, burst=4)


def test_a_script_that_redis_has_forgotten_is_sent_again(redis: Redis) -> None:
    bucket = SharedBucket(redis, RedisGuard())
    assert bucket.take("b", rate=0.001, burst=8) == 0
    redis.script_flush()
    assert bucket.take("b", rate=0.001, burst=8) == 0


def test_a_local_bucket_starts_full_and_tells_how_long_to_wait() -> None:
    time = Time()
    bucket = LocalBucket(rate=2, burst=3, monotonic=time)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0.5]
    time.now += 0.25
    assert bucket.take() == pytest.approx(0.25)
    time.now += 0.25
    assert bucket.take() == 0
    time.now += 3600
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0.5]


@pytest.mark.db
def test_without_redis_a_process_spends_a_tenth_and_waits_no_longer_than_told() -> None:
    time = Time()
    with Redis.from_url(NOBODY) as nobody:
        budget = RateBudget(nobody, RedisGuard(monotonic=time), 10, monotonic=time, sleep=time.sleep)
        budget.take("read", 5)
        budget.take("read", 5)
        assert time.slept == [pytest.approx(1.0)]
        with pytest.raises(RateLimited) as caught:
            budget.take("create", 0.5)
    assert caught.value.cause == "limit"
    assert caught.value.retry_after == pytest.approx(1.0, abs=0.01)
    assert len(time.slept) == 1


def budget_of(redis: Redis, time: Time, rps: float) -> RateBudget:
    return RateBudget(redis, RedisGuard(monotonic=time), rps, monotonic=time, sleep=time.sleep, redis_clock=time)


def spend(budget: RateBudget, time: Time, seconds: float, priority: str = "read") -> Counter[int]:
    """Ask as fast as the budget lets us; requests per clock second."""
    until, spent = time.now + seconds, Counter[int]()
    while time.now < until:
        budget.take(priority, 60)
        spent[int(time.now)] += 1
    return spent


def test_a_budget_nobody_knows_starts_at_a_quarter_and_rises_to_the_whole(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    spent = spend(budget, time, 120)
    seconds = sorted(spent)
    assert sum(spent[s] for s in seconds[:2]) <= 2 * 6
    assert sum(spent[s] for s in seconds[-11:-1]) == pytest.approx(200, abs=3)


@pytest.mark.parametrize("rps", [1, 3, 7, 20, 100])
def test_no_clock_second_sees_more_than_half_again_the_rate(redis: Redis, rps: int) -> None:
    time = Time()
    budget = budget_of(redis, time, rps)
    for pause in (0, 5, 0.3, 30, 0.9):
        time.now += pause
        assert max(spend(budget, time, 20).values()) <= 1.5 * rps


def test_an_upstream_that_allows_seven_a_second_gets_six_to_seven(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    asked, allowed = Counter[int](), Counter[int]()
    end = time.now + 300
    while time.now < end:
        budget.take("read", 60)
        second = int(time.now)
        asked[second] += 1
        if asked[second] > 7:
            budget.refused(None)
        else:
            allowed[second] += 1
    settled = sorted(allowed)[120:-1]
    assert 6 <= sum(allowed[s] for s in settled) / len(settled) <= 7
    refused = sum(asked[s] - allowed[s] for s in settled)
    assert refused / sum(asked[s] for s in settled) < 0.05


def test_an_upstream_that_counts_down_for_us_is_never_asked_too_often(redis: Redis) -> None:
    """X-RateLimit-Remaining: 0 is as good as a 429, and costs nothing."""
    time = Time()
    budget = budget_of(redis, time, 20)
    asked = Counter[int]()
    end = time.now + 300
    while time.now < end:
        budget.take("read", 60)
        asked[int(time.now)] += 1
        budget.left(7 - asked[int(time.now)], 1)
    settled = sorted(asked)[120:-1]
    assert 6 <= sum(asked[s] for s in settled) / len(settled) <= 7
    assert sum(asked[s] > 7 for s in settled) / len(settled) < 0.05


def test_a_count_that_begins_anew_in_a_while_is_waited_for(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    spend(budget, time, 10)
    budget.left(3, 40)
    budget.take("create", 5)
    budget.left(0, 40)
    with pytest.raises(RateLimited) as caught:
        budget.take("create", 5)
    assert caught.value.retry_after == pytest.approx(40, abs=0.1)


def test_the_rate_that_may_be_spent_now_can_be_read(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    assert budget.rate() == pytest.approx(5)
    spend(budget, time, 120)
    assert budget.rate() == pytest.approx(20)


def test_a_pause_the_upstream_asks_for_is_kept_by_everybody(redis: Redis) -> None:
    time = Time()
    one, other = budget_of(redis, time, 20), budget_of(redis, time, 20)
    spend(one, time, 10)
    one.refused(9)
    with pytest.raises(RateLimited) as caught:
        other.take("create", 5)
    assert caught.value.retry_after == pytest.approx(9, abs=0.1)


def test_looks_leave_the_last_fifth_to_creates(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 100)
    spend(budget, time, 1)
    time.now += 300
    with pytest.raises(RateLimited):
        for _ in range(100):
            budget.take("look", 0)
    for _ in range(5):
        budget.take("create", 0)


def test_one_second_of_refusals_cuts_the_rate_once(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    spend(budget, time, 120)
    for _ in range(50):
        budget.refused(None)
    assert float(redis.hget("swap:budget:upstream", "rate") or 0) == pytest.approx(18, rel=0.01)


# --- who is next -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def waiting(redis: Redis, time: Time, priority: str) -> Iterator[None]:
    """While a call of this priority waits for its turn, in another process."""
    sleeping, go = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        sleeping.set()
        assert go.wait(10)
        time.now += seconds

    other = RateBudget(redis, RedisGuard(monotonic=time), 4, monotonic=time, sleep=sleep, redis_clock=time)
    thread = threading.Thread(target=other.take, args=(priority, 60))
    thread.start()
    assert sleeping.wait(10)
    try:
        yield
    finally:
        go.set()
        thread.join()


def is_let(budget: RateBudget, priority: str) -> bool:
    try:
        budget.take(priority, 0)
    except RateLimited:
        return False
    return True


@pytest.mark.parametrize(
    ("first", "later"),
    [("create", "look"), ("check", "read"), ("resolve", "look"), ("look", "read"), ("read", "preview")],
)
def test_while_a_call_waits_those_of_lower_priority_stand_back_in_every_process(
    redis: Redis, first: str, later: str
) -> None:
    time = Time()
    budget = budget_of(redis, time, 4)
    spend(budget, time, 200)
    for priority in ("look", "read", "preview"):
        budget.take(priority, 60)  # each has had its turn just now
    while is_let(budget, "create"):
        pass
    with waiting(redis, time, first):
        time.now += 0.27  # a turn has come by now
        assert not is_let(budget, later)
        assert is_let(budget, first)


def test_nothing_starves_one_turn_in_eight_is_its_own(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 4)
    spend(budget, time, 200)
    while is_let(budget, "read"):
        pass
    turn = 0
    while turn < 12:
        turn += 1
        with waiting(redis, time, "create"):
            time.now += 0.26
            if is_let(budget, "read"):
                break
    assert 3 <= turn <= 6, "two turns pass in each round"


def test_clients_stand_side_by_side_and_the_calls_of_one_behind_each_other(redis: Redis) -> None:
    """Of twenty calls of one client and one of another the latter is not the twenty-first."""
    budget = RateBudget(redis, RedisGuard(), 20)
    budget.take("read", 10)
    order: list[str] = []

    def ask(owner: str) -> None:
        ASKING_FOR.set(owner)
        budget.take("read", 30)
        order.append(owner)

    greedy = [threading.Thread(target=ask, args=("greedy",)) for _ in range(20)]
    for thread in greedy:
        thread.start()
    until(lambda: order.count("greedy") >= 2)
    other = threading.Thread(target=ask, args=("other",))
    other.start()
    for thread in (*greedy, other):
        thread.join()
    assert order.index("other") < 15, order
    assert budget._lines == {}


# --- checks of addresses ---------------------------------------------------------------------------------------------


def test_a_storm_of_previews_leaves_creates_and_looks_their_turn(redis: Redis) -> None:
    time = Time()
    budget = budget_of(redis, time, 20)
    budget.take("read", 60)
    time.now += 60  # rested: the burst of five is there
    granted = 0
    for _ in range(100):
        with contextlib.suppress(RateLimited):
            budget.take("preview", 0)
            granted += 1
    assert granted <= 3
    budget.take("create", 0)
    budget.take("look", 0)


@pytest.mark.parametrize("priority", ["preview", "check"])
def test_address_checks_have_no_more_than_their_share(redis: Redis, priority: str) -> None:
    """However rested the budget is; at a thousandth of a request per second the share does not refill during the test."""
    time = Time()
    budget = budget_of(redis, time, 0.001)
    budget.take("read", 1e6)
    granted = 0
    for _ in range(20):
        time.now += 1e5
        with contextlib.suppress(RateLimited):
            budget.take(priority, 0)
            granted += 1
    assert granted == 2
    budget.take("create", 0)


def test_without_redis_an_address_check_may_still_be_made(redis: Redis) -> None:
    with Redis.from_url(NOBODY) as nobody:
        time = Time()
        budget = budget_of(nobody, time, 10)
        budget.take("check", 0)
        with pytest.raises(RateLimited):
            budget.take("check", 0)
