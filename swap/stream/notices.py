"""What the streams hear over Redis: that the feed has grown, and rates that another stream has read. All of it may be lost:
the feed is polled as well, and a rate is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from swap.infra.queue import FEED

log = structlog.get_logger()

_RATES = "swap:rates"
_AWAY_SECONDS = 1.0


class Notices:
    def __init__(self, url: str, on_feed: Callable[[], None], on_rate: Callable[[dict[str, Any]], None]) -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, health_check_interval=10)
        self._on_feed, self._on_rate = on_feed, on_rate

    async def run(self) -> None:
        """Listen until cancelled; where Redis is away, try again every second."""
        heard = False
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(FEED, _RATES)
                    heard = True
                    # What was told while nobody listened.
                    self._on_feed()
                    while True:
                        self._hear(await pubsub.get_message(timeout=1.0))
            except (RedisError, OSError) as error:
                if heard:
                    log.warning("stream.redis_away", error=type(error).__name__)
                heard = False
            await asyncio.sleep(_AWAY_SECONDS)

    def _hear(self, told: dict[str, Any] | None) -> None:
        if told is None:
            return
        if told["channel"] == FEED.encode():
            self._on_feed()
            return
        try:
            content = orjson.loads(told["data"])
        except ValueError:
            return
        if isinstance(content, dict):
            self._on_rate(content)

    async def turn(self, pair: str, seconds: float) -> bool:
        """Whether it is ours to read this pair's rate now; true as well while Redis is away and nobody can agree."""
        try:
            won = await self._redis.set(f"swap:rate:{pair}", "1", nx=True, px=max(1, int(seconds * 1000)))
        except (RedisError, OSError):
            return True
        return bool(won)

    async def tell_rate(self, content: dict[str, Any]) -> None:
        with suppress(RedisError, OSError):
            await self._redis.publish(_RATES, orjson.dumps(content))

    async def close(self) -> None:
        await self._redis.aclose()
