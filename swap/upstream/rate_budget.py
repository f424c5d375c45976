"""The fleet-wide rate towards the upstream: at most UPSTREAM_RPS, less where the upstream says so, learned together.

One Lua script on Redis' own clock keeps the tokens and the rate. The rate rises slowly and is cut by a tenth whenever the
upstream answers 429; it settles just below what the upstream allows. Bursts are at most a quarter second's worth. When Redis
has lost its state, what was spent and learned is lost too, so the rate starts at a quarter. Without Redis every process
spends a tenth of the rate by itself: ten processes together then keep to it.

Priorities: while a call waits for its turn, those of lower priority stand back, in every process: creates come before what
resolves them, then polls of orders, then quotes, then what a frontend asks while its customer types. One turn in eight is
each one's own all the same, so that nothing starves. In a process, the calls of one client stand in one line and the clients
side by side, so that whoever has many calls waits for its own.

Calls that make or resolve an order may spend everything; polls of orders leave the last fifth of the tokens alone. Checks of
addresses have shares of their own, so that a storm of them cannot delay other calls. Those for an order
being made have two fifths of the rate. Those that a frontend asks for while its customer types have one fifth, and never
touch the last half of the tokens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from redis import Redis

from swap.errors import RateLimited
from swap.infra.redis_guard import RedisGuard
from swap.infra.token_bucket import LocalBucket, SharedBucket

LOOK, CHECK, PREVIEW = "look", "check", "preview"
_RANKS = {"create": 0, CHECK: 0, "resolve": 1, LOOK: 2, "read": 3, PREVIEW: 4}
CHECKS = frozenset({CHECK, PREVIEW})

ASKING_FOR: ContextVar[str] = ContextVar("asking_for", default="")
"""The client for whose request this thread asks the upstream; empty for the service's own work."""

# Field `rate`: what is spent now; `refused`: the rate at which the upstream said 429 last; `pause`: not before, as it asked.
# The rate rises briskly up to nine tenths of that, and slowly from there. `waits0` to `waits3`: until when a call of that
# rank waits; `served0` to `served4`: when one had its turn. KEYS[1]; ARGV: top rate, reserved share, clock (empty: Redis'
# own), and for a turn the rank and how long the caller would wait. Returns the seconds to wait as text, "0" when a token was
# taken.
_STATE = """
local top = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(ARGV[3]) or (clock[1] + clock[2] / 1000000)
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at', 'rate', 'refused', 'pause', 'cut')
local rate = math.min(top, tonumber(kept[3]) or top / 4)
local refused = tonumber(kept[4]) or top
local pause = tonumber(kept[5]) or 0
local cut = tonumber(kept[6]) or 0
local passed = math.max(0, now - (tonumber(kept[2]) or now))
local function text(number) return string.format('%.17g', number) end
"""

_TAKE = (
    _STATE
    + """
local brisk = math.max(0, math.min(passed, (0.9 * refused - rate) / (0.05 * top)))
rate = math.min(top, rate + brisk * 0.05 * top + (passed - brisk) * 0.01 * top)
local burst = math.max(1, rate / 4)
local tokens = math.min(burst, (tonumber(kept[1]) or burst / 4) + passed * rate)
local wanted = math.min(burst, 1 + tonumber(ARGV[2]) * burst)
local rank, patience = tonumber(ARGV[4]), tonumber(ARGV[5])
local line = redis.call('HMGET', KEYS[1], 'served' .. rank, 'waits0', 'waits1', 'waits2', 'waits3')
local before = 0
if now - (tonumber(line[1]) or 0) < 8 / rate then
  for higher = 0, rank - 1 do before = math.max(before, (tonumber(line[higher + 2]) or 0) - now) end
end
local wait = 0
if now < pause then wait = pause - now
elseif tokens < wanted - 1e-6 then wait = math.max(0.001, (wanted - tokens) / rate)
elseif before > 0 then wait = math.max(0.001, math.min(before, 1 / rate))
else
  tokens = tokens - 1
  redis.call('HSET', KEYS[1], 'served' .. rank, text(now))
end
if wait > 0 and wait <= patience then redis.call('HSET', KEYS[1], 'waits' .. rank, text(now + math.min(wait, 2) + 0.05)) end
redis.call('HSET', KEYS[1], 'tokens', text(tokens), 'at', text(now), 'rate', text(rate))
redis.call('PEXPIRE', KEYS[1], 3600000)
return tostring(wait)
"""
)

# Many answers of one second are one refusal: the rate is cut once, the pause is the longest asked for.
_CUT = (
    _STATE
    + """
if now - cut >= 1 then
  refused = rate
  rate = math.max(rate * 0.9, top / 100)
  cut = now
end
pause = math.max(pause, now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'at', text(now), 'rate', text(rate), 'refused', text(refused),
           'pause', text(pause), 'cut', text(cut), 'tokens', '0')
redis.call('PEXPIRE', KEYS[1], 3600000)
return tostring(rate)
"""
)

_KEY = "swap:budget:upstream"
_RESERVES = {LOOK: 0.2, PREVIEW: 0.5}
_SHARES = {CHECK: 0.4, PREVIEW: 0.2}
# A new bucket starts at a quarter: enough for both addresses of a first order.
_SMALLEST_BURST = 8.0
# What an upstream may ask us to wait at most; a longer pause is looked at again then.
_LONGEST_PAUSE = 60.0


class RateBudget:
    """Thread-safe. `rps`: UPSTREAM_RPS. `redis_clock`: seconds, for tests; None takes Redis' own."""

    def __init__(
        self,
        redis: Redis,
        guard: RedisGuard,
        rps: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        redis_clock: Callable[[], float] | None = None,
    ) -> None:
        self._take, self._cut = redis.register_script(_TAKE), redis.register_script(_CUT)
        self._rate = redis.register_script(_STATE + "return text(rate)")
        self._rps = rps
        self._alone = LocalBucket(rps / 10, 1.0, monotonic)
        self._shares = SharedBucket(redis, guard)
        self._shares_alone = {
            priority: LocalBucket(rps * share / 10, 1.0, monotonic) for priority, share in _SHARES.items()
        }
        self._monotonic, self._sleep, self._redis_clock = monotonic, sleep, redis_clock
        self._guard = guard
        # How many are in each line, and the lock that the first of them holds.
        self._lines: dict[tuple[str, str], tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    def take(self, priority: str, max_wait: float) -> None:
        """Wait for one request's turn, at most `max_wait` seconds.

        `priority`: create, resolve, look, read, check or preview. "look" leaves a reserve to the others, "check" and
        "preview" have shares of their own on top. Raises RateLimited (cause "limit") when the turn would come later than
        `max_wait`.
        """
        give_up = self._monotonic() + max_wait
        with self._in_line((priority, ASKING_FOR.get()), max_wait):
            if priority in _SHARES:
                self._wait(lambda: self._take_share(priority), give_up)
            self._wait(lambda: self._take_token(priority, give_up), give_up)

    @contextmanager
    def _in_line(self, line: tuple[str, str], max_wait: float) -> Iterator[None]:
        """Stand behind the others of this process that ask for the same client with the same priority."""
        with self._lock:
            first, waiting = self._lines.get(line, (threading.Lock(), 0))
            self._lines[line] = first, waiting + 1
        try:
            if not first.acquire(timeout=max(0.0, max_wait)):
                raise RateLimited("Our own budget of requests to the upstream is spent.", retry_after=1)
            try:
                yield
            finally:
                first.release()
        finally:
            with self._lock:
                first, waiting = self._lines.pop(line)
                if waiting > 1:
                    self._lines[line] = first, waiting - 1

    def _wait(self, ask: Callable[[], float], give_up: float) -> None:
        while (wait := ask()) > 0:
            if self._monotonic() + wait > give_up:
                raise RateLimited("Our own budget of requests to the upstream is spent.", retry_after=wait)
            self._sleep(wait)

    def rate(self) -> float:
        """Requests a second that may be spent now: what was learned, or this process' own share without Redis."""
        rate = self._ask(self._rate, 0)
        return self._rps / 10 if rate is None else rate

    def left(self, remaining: int, reset: float | None) -> None:
        """The upstream says how many requests it will still answer (X-RateLimit-Remaining), and in how many seconds it
        begins to count anew. None left is a 429 that can be avoided: the rate is cut the same way, and where the new
        count is further off than a second, nothing is sent until then."""
        if remaining <= 0:
            self._ask(self._cut, min(reset, _LONGEST_PAUSE) if reset is not None and reset > 1 else 0)

    def _take_token(self, priority: str, give_up: float) -> float:
        patience = max(0.0, give_up - self._monotonic())
        wait = self._ask(self._take, _RESERVES.get(priority, 0), _RANKS[priority], patience)
        return self._alone.take() if wait is None else wait

    def _take_share(self, priority: str) -> float:
        rate = self._rps * _SHARES[priority]
        wait = self._shares.take(f"upstream:{priority}", rate=rate, burst=max(_SMALLEST_BURST, 2 * rate))
        return self._shares_alone[priority].take() if wait is None else wait

    def refused(self, retry_after: float | None) -> None:
        """The upstream answered 429: spend less from now on, and nothing for as long as it asked (seconds)."""
        self._ask(self._cut, min(retry_after or 0, _LONGEST_PAUSE))

    def _ask(self, script: Any, argument: float, *more: float) -> float | None:
        clock = "" if self._redis_clock is None else self._redis_clock()
        return self._guard.ask(lambda: float(script(keys=[_KEY], args=[self._rps, argument, clock, *more])))
