"""The gateway: lets sockets in, feeds them all from one reader, and lets them go. One event loop; what waits for the
database or the upstream runs on a few threads."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import MultipleValuesError
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from swap.domain.times import iso
from swap.infra import descriptors
from swap.infra.token_bucket import LocalBucket
from swap.stream.counted import counted
from swap.stream.identity import Identity, ended
from swap.stream.live import Live
from swap.stream.notices import Notices
from swap.stream.protocol import INSTRUMENTS, PATH, Close, Limits, message
from swap.stream.rates import Pair, Rates
from swap.stream.sockets import Socket
from swap.stream.threads import Threads
from swap.wiring import Service

log = structlog.get_logger()

_PING_SECONDS, _PONG_SECONDS = 30.0, 10.0
_HEARTBEAT_SECONDS = 15
_CHECK_SECONDS = 5.0
_CATALOG_SECONDS = 2.0
_REPLAYS_AT_ONCE = 4


def run(service: Service) -> None:
    """Serve on SWAP_STREAM_BIND until SIGTERM or SIGINT; then every client is asked to come back, to another process."""
    descriptors.raise_limit()
    asyncio.run(_serve(service))


async def _serve(service: Service) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    host, _, port = service.settings.stream_bind.rpartition(":")
    gateway = Gateway(service)
    starting = asyncio.ensure_future(gateway.start(host.strip("[]"), int(port)))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    pulse = None
    if starting.done():
        await starting
        pulse = service.heartbeats.start("stream")
        log.info("stream.started", bind=service.settings.stream_bind)
        await stopping
    else:
        starting.cancel()
    # A thread may be waiting for an upstream or a database that does not answer.
    end = threading.Timer(service.settings.drain_seconds + 1, os._exit, args=(0,))
    end.daemon = True
    end.start()
    await gateway.close()
    if pulse is not None:
        pulse.stop()
    log.info("stream.stopped")


class Gateway:
    """One per process: its sockets, and what feeds them. `limits`: None takes the ones for production."""

    def __init__(self, service: Service, limits: Limits | None = None) -> None:
        assert service.settings.redis_url is not None
        self.service, self.limits = service, limits or Limits()
        self._threads = Threads()
        self.in_thread = self._threads.database
        self.live = Live(service.feed, self._threads.live, self._end_cursors)
        self._notices = Notices(service.settings.redis_url)
        self.rates = Rates(service, self._notices, self.publish, self.in_thread, self._threads.rates, self.background)
        self.replays = asyncio.Semaphore(_REPLAYS_AT_ONCE)
        self._origins = frozenset(service.settings.allowed_origins)
        self._open: dict[Socket, None] = {}  # the oldest first
        self._known: set[Socket] = set()
        self._count: Counter[str] = Counter()
        self._budgets: dict[str, LocalBucket] = {}
        self._followers: dict[str, set[Socket]] = {}
        self._catalog_version = -1
        self._catalog_told: bytes | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: list[asyncio.Task[Any]] = []
        self._server: Server | None = None
        self._stack = AsyncExitStack()

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, host: str, port: int) -> int:
        """Listen; waits until the database answers. Returns the port."""
        while True:
            try:
                await self.live.start()
                break
            except SQLAlchemyError as error:
                log.error("stream.database_away", error=type(error).__name__)
                await asyncio.sleep(1)
        quiet = logging.getLogger("swap.stream.websockets")
        quiet.setLevel(logging.CRITICAL)  # what strangers send to an open port is not worth a line
        limits = self.limits
        self._server = await self._stack.enter_async_context(
            serve(
                self._handle,
                host,
                port,
                process_request=self._admit_request,
                compression=None,  # a window per socket costs more memory than the rest of it
                ping_interval=_PING_SECONDS,
                ping_timeout=_PONG_SECONDS,
                close_timeout=limits.close_seconds,
                max_size=limits.message,
                max_queue=8,
                write_limit=limits.buffer // 4,
                server_header=None,
                create_connection=counted(limits),
                logger=quiet,
                backlog=4096,
            )
        )
        for listening in self._server.sockets:
            # Inherited by every accepted socket. Left alone the kernel grows it to megabytes for a reader that sleeps.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, limits.kernel_buffer)
        listen = partial(self._notices.run, self.live.ring, self.rates.hear)
        for work in (self.live.run, listen, self.rates.run, self._heartbeats):
            self._loops.append(asyncio.create_task(_for_ever(work)))
        for seconds, step in ((_CHECK_SECONDS, self._check_identities), (_CATALOG_SECONDS, self._check_catalog)):
            self._loops.append(asyncio.create_task(_for_ever(step, seconds)))
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def close(self) -> None:
        """Ask every client to come back, and wait for them to go, at most SWAP_DRAIN_SECONDS."""
        if self._server is not None:
            self._server.close(code=Close.RESTARTING, reason="restarting; come back and resume by cursor")
            with suppress(TimeoutError):
                async with asyncio.timeout(self.service.settings.drain_seconds):
                    await self._server.wait_closed()
            for socket_ in list(self._open):
                socket_.abort()
        left = {*self._loops, *self._tasks}
        for _ in range(50):
            if not left:
                break
            # More than once: redis-py swallows a cancellation that comes while it connects.
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.1)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._stack.aclose()
        await self._notices.close()
        # Nothing is left for the loop to do while this waits.
        self._threads.close()

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- coming and going --------------------------------------------------------------------------------------------

    async def _admit_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(HTTPStatus.OK, "alive\n")
        if request.path.partition("?")[0] != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"The stream is at {PATH}.\n")
        if "?" in request.path:
            return connection.respond(HTTPStatus.BAD_REQUEST, "Nothing goes into the URL; URLs are logged.\n")
        try:
            origin = request.headers.get("Origin")
        except MultipleValuesError:
            origin = ""
        # Only browsers send one. They may do what a tracking token allows, from the sites that were named.
        if origin is not None and origin not in self._origins:
            return connection.respond(HTTPStatus.FORBIDDEN, "This site is not in SWAP_ALLOWED_ORIGINS.\n")
        # Only the oldest of those that have not said who they are makes room: however many come, who does is not kept out.
        if len(self._open) - len(self._known) >= self.limits.unknown:
            next(opened for opened in self._open if opened not in self._known).abort()
        if len(self._open) >= self.limits.sockets:
            response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections; try again later.\n")
            response.headers["Retry-After"] = "5"
            return response
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        opened = Socket(self, connection)
        self._open[opened] = None
        try:
            await opened.run()
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("stream.socket_broke")
            raise
        finally:
            opened.forget()
            del self._open[opened]
            if opened in self._known and opened.identity is not None:
                self._known.discard(opened)
                owner = opened.identity.owner
                self._count[owner] -= 1
                if not self._count[owner]:
                    del self._count[owner], self._budgets[owner]

    def admit(self, opened: Socket, identity: Identity) -> bool:
        """Count it in, unless its owner has too many already."""
        owner = identity.owner
        limit = self.limits.per_client if identity.order_id is None else self.limits.per_order
        if self._count[owner] >= limit:
            return False
        self._count[owner] += 1
        self._known.add(opened)
        opened.budgets.append(
            self._budgets.setdefault(owner, LocalBucket(self.limits.client_per_second, self.limits.client_burst))
        )
        return True

    # --- channels that are not orders --------------------------------------------------------------------------------

    def join(self, name: str, follower: Socket, pair: Pair | None) -> bytes | None:
        """Returns what is known already, as a message."""
        self._followers.setdefault(name, set()).add(follower)
        if pair is not None:
            return self.rates.join(name, pair, _owner(follower))
        return self._catalog_told

    def leave(self, name: str, follower: Socket) -> None:
        followers = self._followers.get(name, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(name, None)
        if name != INSTRUMENTS:
            self.rates.leave(name, _owner(follower))

    def publish(self, name: str, text: bytes) -> None:
        for follower in list(self._followers.get(name, ())):
            follower.put(text)

    async def _check_catalog(self) -> None:
        if INSTRUMENTS not in self._followers:
            return
        snapshot = await self.in_thread(self.service.catalog.snapshot)
        if snapshot.as_of is not None and snapshot.version != self._catalog_version:
            self._catalog_version = snapshot.version
            at = iso(snapshot.as_of)
            self._catalog_told = message(INSTRUMENTS, channel=INSTRUMENTS, version=snapshot.version, as_of=at)
            self.publish(INSTRUMENTS, self._catalog_told)

    # --- watching over them ------------------------------------------------------------------------------------------

    async def _heartbeats(self) -> None:
        turn = 0
        while True:
            # A fifteenth of them each second, so that they do not all come at once.
            await asyncio.sleep(1)
            turn = (turn + 1) % _HEARTBEAT_SECONDS
            messages: dict[str | None, bytes] = {}
            for opened in list(self._known):
                if opened.number % _HEARTBEAT_SECONDS == turn:
                    opened.heartbeat(messages)

    async def _check_identities(self) -> None:
        """End the sockets of keys and tokens that were revoked or have expired."""
        sockets = [(opened, opened.identity) for opened in self._known if opened.identity is not None]
        over = await ended(self.service, self.in_thread, (identity for _, identity in sockets))
        for opened, identity in sockets:
            if identity in over:
                opened.end(Close.CREDENTIALS_ENDED, "the key or token was revoked, or has expired")

    def _end_cursors(self) -> None:
        for opened in list(self._known):
            if opened.follows_orders:
                opened.end(Close.CURSORS_VOID, "the feed was restored; begin without a cursor")


def _owner(follower: Socket) -> str:
    assert follower.identity is not None
    return follower.identity.owner


async def _for_ever(work: Callable[[], Coroutine[Any, Any, None]], pause: float = 1.0) -> None:
    """Run it again and again, even when it breaks."""
    while True:
        await _logged(work())
        await asyncio.sleep(pause)


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    """Run it; what breaks it is logged here, since no caller waits for it."""
    try:
        await work
    except SQLAlchemyError as error:
        log.error("stream.database_away", error=type(error).__name__)
    except Exception:
        log.exception("stream.work_broke")
