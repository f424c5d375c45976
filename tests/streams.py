"""Real gateways on a loopback port, and sockets to them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from swap.domain.signing import sign_request
from swap.stream.protocol import Limits
from swap.stream.server import Gateway
from swap.wiring import Service
from tests.conftest import Clock, Shop

PATIENCE = 30.0


class Running:
    """A gateway on a loop of its own."""

    def __init__(self, service: Service, limits: Limits | None = None, port: int = 0) -> None:
        self._started = threading.Event()
        self._limits, self._service = limits, service
        self.port = port
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(PATIENCE)

    async def _serve(self) -> None:
        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.gateway = Gateway(self._service, self._limits)
        self.port = await self.gateway.start("127.0.0.1", self.port)
        self._started.set()
        await self._stop.wait()
        await self.gateway.close()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    def call(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine function on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(PATIENCE)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def streaming(service: Service, limits: Limits | None = None) -> Iterator[Running]:
    running = Running(service, limits)
    try:
        yield running
    finally:
        running.stop()


class Peer:
    """One socket, from the other side. Heartbeats are put aside."""

    def __init__(self, url: str, **options: Any) -> None:
        self._open = connect(url, compression=None, proxy=None, **options)
        self.socket: ClientConnection = self._open.__enter__()
        self.heartbeats: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._open.__exit__(*reason)

    def say(self, **content: Any) -> None:
        self.socket.send(json.dumps(content))

    def hear(self, timeout: float = PATIENCE) -> dict[str, Any]:
        while True:
            content: dict[str, Any] = json.loads(self.socket.recv(timeout))
            if content["type"] != "heartbeat":
                return content
            self.heartbeats.append(content)

    def ask(self, **content: Any) -> dict[str, Any]:
        self.say(**content)
        return self.hear()

    def until(self, type: str) -> list[dict[str, Any]]:
        """Everything up to the first message of that type, which comes last."""
        heard = [self.hear()]
        while heard[-1]["type"] != type:
            heard.append(self.hear())
        return heard

    def events(self, count: int) -> list[dict[str, Any]]:
        return [message["event"] for message in (self.hear() for _ in range(count)) if message["type"] == "event"]

    def closed(self) -> tuple[int, str]:
        """Code and reason with which the other side ends it; what comes before that is passed over."""
        try:
            while True:
                self.socket.recv(PATIENCE)
        except ConnectionClosed as error:
            assert error.rcvd is not None, error
            return error.rcvd.code, error.rcvd.reason

    def cut(self) -> bool:
        """Whether the other side ends it without a word."""
        try:
            while True:
                self.socket.recv(PATIENCE)
        except ConnectionClosed as error:
            return error.rcvd is None


_last_stamp: dict[str, int] = {}
_stamping = threading.Lock()


def credentials(shop: Shop, clock: Clock) -> dict[str, str]:
    """Never the same twice: what opens a connection opens no other."""
    with _stamping:
        stamp = max(int(clock.time() * 1000), _last_stamp.get(shop.key, 0) + 1)
        _last_stamp[shop.key] = stamp
    timestamp = str(stamp)
    signature = sign_request(shop.secret, "GET", "/v1/stream", "", timestamp, b"")
    return {"op": "auth", "key": shop.key, "timestamp": timestamp, "signature": signature}


def entered(url: str, shop: Shop, clock: Clock, **options: Any) -> Peer:
    """An authenticated socket."""
    peer = Peer(url, **options)
    assert peer.ask(**credentials(shop, clock))["type"] == "authenticated"
    return peer
