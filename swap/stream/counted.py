"""Connections that count what comes in: pings and parts of messages cost time too, and the library takes them by itself."""

from __future__ import annotations

from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame

from swap.infra.token_bucket import LocalBucket
from swap.stream.protocol import Limits


def counted(limits: Limits) -> type[ServerConnection]:
    """The kind of connection that is cut as soon as it sends more frames than it may, whether or not it has said who it
    is."""

    class Counted(ServerConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._frames = LocalBucket(limits.frames_per_second, limits.frame_burst)

        def process_event(self, event: Any) -> None:
            if isinstance(event, Frame) and self._frames.take() > 0:
                self.transport.abort()
            else:
                super().process_event(event)

    return Counted
