"""Token buckets: one that all processes share, in Redis, and one of a process alone.

The shared one is a Lua script on Redis' own clock, so that processes with skewed clocks cannot cheat each other. It fills at
`rate` tokens a second up to `burst`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redis import Redis

from swap.infra.redis_guard import RedisGuard

# Returns the seconds to wait, "0" when the tokens were taken, and the tokens that are left, as text. A bucket that is not
# there yet starts at a quarter:
# after a flush it is not known what was spent in the last moment.
_TAKE = """
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(bucket[1]) or burst / 4
local at = tonumber(bucket[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate)
local wait = 0
if tokens >= wanted then tokens = tokens - wanted else wait = (wanted - tokens) / rate end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * (burst / rate + 60)))
return {tostring(wait), tostring(tokens)}
"""


class SharedBucket:
    """One script, many buckets by name. Thread-safe."""

    def __init__(self, redis: Redis, guard: RedisGuard) -> None:
        self._script = redis.register_script(_TAKE)
        self._guard = guard

    def take(self, name: str, *, rate: float, burst: float, tokens: float = 1) -> float | None:
        """Take `tokens`. Returns 0 when taken, the seconds until they will be there, or None while Redis is away."""
        answer = self.take_and_look(name, rate=rate, burst=burst, tokens=tokens)
        return None if answer is None else answer[0]

    def take_and_look(self, name: str, *, rate: float, burst: float, tokens: float = 1) -> tuple[float, float] | None:
        """As `take`, and how many tokens are left."""
        answer: Any = self._guard.ask(lambda: self._script(keys=[f"swap:bucket:{name}"], args=[rate, burst, tokens]))
        return None if answer is None else (float(answer[0]), float(answer[1]))


class LocalBucket:
    """A token bucket of this process alone. Starts full."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._monotonic = rate, burst, monotonic
        self._tokens, self._at = burst, monotonic()
        self._lock = threading.Lock()

    def take(self, tokens: float = 1) -> float:
        """Returns 0 when taken, else the seconds until the tokens will be there."""
        with self._lock:
            now = self._monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens >= tokens:
                self._tokens -= tokens
                return 0.0
            return (tokens - self._tokens) / self._rate
