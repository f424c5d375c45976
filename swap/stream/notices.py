"""What the streams tell each other over Redis: that the feed has grown, and rates that one of them has read. All of it may
be lost: the feed is polled as well, and a rate is read again."""

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
    """One per process, for its event loop."""

    def __init__(self, url: str) -> None:
        self._redis = Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2, health_check_interval=10)

    async def run(self, on_feed: Callable[[], None], on_rate: Callable[[dict[str, Any]], None]) -> None:
        """Listen until cancelled; while Redis is away, try again every second.

        `on_feed` is called when the feed may have grown, `on_rate` with each rate as `tell_rate` was given it.
        """
        connected = False
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(FEED, _RATES)
                    connected = True
                    # For what was announced before this process listened.
                    on_feed()
                    while True:
                        notice = await pubsub.get_message(timeout=1.0)
                        if notice is None:
                            continue
                        if notice["channel"] == FEED.encode():
                            on_feed()
                        elif (rate := _read(notice["data"])) is not None:
                            on_rate(rate)
            except (RedisError, OSError) as error:
                if connected:
                    log.warning("stream.redis_away", error=type(error).__name__)
                connected = False
            await asyncio.sleep(_AWAY_SECONDS)

    async def turn(self, pair: str, seconds: float) -> bool:
        """Whether this process is to read this pair's rate now. Always true while Redis is away: they cannot agree then."""
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


def _read(data: bytes) -> dict[str, Any] | None:
    try:
        content = orjson.loads(data)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
