"""One connection: who it is, what it follows, and what it may still be sent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from swap.domain.times import iso, to_ms
from swap.errors import ServiceError
from swap.infra.token_bucket import LocalBucket
from swap.push.feed import EVERYTHING, Feed
from swap.store.events import EventFilter
from swap.stream import protocol
from swap.stream.channels import check
from swap.stream.identity import Identity, identify
from swap.stream.live import Live
from swap.stream.protocol import ORDERS, Close, Entry, Limits, SocketRefused, message
from swap.stream.rates import Pair, Rates
from swap.stream.threads import InThread
from swap.wiring import Service

log = structlog.get_logger()

# Not live yet: no position is above it.
_REPLAYING = 2**63
_PAGE = 100
# This many entries may be written at once; more are sent one by one, each waiting for the reader.
_AT_ONCE = 20
_numbers = itertools.count()


class Host(Protocol):
    """What a socket needs of the process it is open in."""

    service: Service
    limits: Limits
    live: Live
    rates: Rates
    in_thread: InThread
    replays: asyncio.Semaphore

    def admit(self, opened: Socket, identity: Identity) -> bool: ...

    def join(self, name: str, follower: Socket, pair: Pair | None) -> bytes | None: ...

    def leave(self, name: str, follower: Socket) -> None: ...

    def background(self, work: Coroutine[Any, Any, Any]) -> None: ...


class Socket:
    """One connection, from its authentication to its end. `identity`: None until then."""

    def __init__(self, host: Host, connection: ServerConnection) -> None:
        self._host, self._connection = host, connection
        self.number = next(_numbers)
        self.identity: Identity | None = None
        # Order channels: the position after which it is live. The others carry no positions.
        self._live_after: dict[str, int] = {}
        self._others: set[str] = set()
        self._ended = False
        # Bytes that the client had not taken at the last heartbeat, and for how many in a row they did not become fewer.
        self._unread = self._stalled = 0
        self.budgets = [LocalBucket(host.limits.per_second, host.limits.burst)]

    # --- listening to it ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            async with asyncio.timeout(self._host.limits.auth_seconds):
                first = await self._connection.recv()
                authenticated = await self._authenticate(first)
        except TimeoutError:
            authenticated = False
            self.end(Close.NOT_AUTHENTICATED, "no auth in time")
        if authenticated:
            async for text in self._connection:
                if any(budget.take() > 0 for budget in self.budgets):
                    self.end(Close.TOO_MANY_MESSAGES, "too many messages")
                if self._ended:
                    break
                await self._handle(text)
        await self._connection.wait_closed()

    async def _authenticate(self, text: str | bytes) -> bool:
        request_id = None
        try:
            content = protocol.read(text)
            request_id = content.get("id")
            if content["op"] != "auth":
                raise SocketRefused("NOT_AUTHENTICATED", 'The first message must be {"op": "auth", ...}.')
            identity = await identify(self._host.service, self._host.in_thread, self._connection, content)
        except (SocketRefused, ServiceError) as error:
            self.put(protocol.refusal(error, request_id))
            self.end(Close.NOT_AUTHENTICATED, error.code)
            return False
        except SQLAlchemyError:
            self.end(Close.TRY_LATER, "try again later")
            return False
        if not self._host.admit(self, identity):
            self.put(
                protocol.refusal(SocketRefused("TOO_MANY_CONNECTIONS", "Close some of the others first."), request_id)
            )
            self.end(Close.TRY_LATER, "too many connections")
            return False
        self.identity = identity
        expires_at = None if identity.expires_at is None else iso(identity.expires_at)
        self.put(message("authenticated", id=request_id, order_id=identity.order_id, expires_at=expires_at))
        return True

    async def _handle(self, text: str | bytes) -> None:
        request_id = None
        try:
            content = protocol.read(text)
            request_id = content.get("id")
            match content["op"]:
                case "subscribe":
                    await self._subscribe(content, request_id)
                case "unsubscribe":
                    self._unsubscribe(content, request_id)
                case "ping":
                    self.put(message("pong", id=request_id, time=to_ms(self._host.service.clock())))
                case "auth":
                    raise SocketRefused("ALREADY_AUTHENTICATED", "Open another connection for another identity.")
                case _:
                    raise SocketRefused("BAD_MESSAGE", "There are: auth, subscribe, unsubscribe, ping.")
        except (SocketRefused, ServiceError) as error:
            self.put(protocol.refusal(error, request_id))
        except SQLAlchemyError as error:
            log.error("stream.database_away", error=type(error).__name__)
            self.put(protocol.refusal(SocketRefused("TEMPORARILY_UNAVAILABLE", "Try again in a moment."), request_id))

    # --- channels ----------------------------------------------------------------------------------------------------

    async def _subscribe(self, content: dict[str, Any], request_id: str | None) -> None:
        names = protocol.channels_of(content)
        after = content.get("after")
        if after is not None and (not isinstance(after, str) or len(after) > 64):
            raise SocketRefused("BAD_MESSAGE", '"after" is a cursor.')
        assert self.identity is not None
        host, followed = self._host, {*self._live_after, *self._others}
        orders = host.service.orders
        pairs = await check(self.identity, names, followed, orders=orders, rates=host.rates, in_thread=host.in_thread)
        limit = self._host.limits.channels
        if len(self._live_after) + len(self._others) + len(names) > limit:
            raise SocketRefused("TOO_MANY_CHANNELS", f"A connection has at most {limit} channels.", limit=limit)
        feeds = [name for name in names if name == ORDERS or name.startswith("order.")]
        if after is not None and not feeds:
            raise SocketRefused("BAD_MESSAGE", '"after" is for channels of orders.')
        start = self._host.live.position
        if after is not None:
            start = await self._host.in_thread(self._host.service.feed.position, after)
            if not after.endswith(self._host.live.epoch):
                # The feed has begun anew, and the live one is about to notice: its positions are still of the old epoch.
                raise SocketRefused("TEMPORARILY_UNAVAILABLE", "Try again in a moment.")
        if self._ended:
            return
        self.put(message("subscribed", id=request_id, channels=names, cursor=self._cursor(start) if feeds else None))
        for name in feeds:
            self._live_after[name] = start if after is None else _REPLAYING
            self._host.live.join(self._client_id, name, self)
        if after is not None:
            try:
                await self._replay(feeds, start)
            except (ServiceError, SQLAlchemyError):
                # Not subscribed after all; what was sent carries its cursors.
                for name in feeds:
                    self._drop(name)
                raise
        for name in names:
            if name not in feeds and not self._ended:
                self._others.add(name)
                first = self._host.join(name, self, pairs.get(name))
                if first is not None:
                    self.put(first)

    def _unsubscribe(self, content: dict[str, Any], request_id: str | None) -> None:
        names = protocol.channels_of(content)
        for name in names:
            self._drop(name)
        self.put(message("unsubscribed", id=request_id, channels=names))

    def _drop(self, name: str) -> None:
        if self._live_after.pop(name, None) is not None:
            self._host.live.leave(self._client_id, name, self)
        if name in self._others:
            self._others.discard(name)
            self._host.leave(name, self)

    async def _replay(self, names: list[str], position: int) -> None:
        """Send what these channels missed since that position, then hand them over to the live feed."""
        live, feed = self._host.live, self._host.service.feed
        only = EVERYTHING if ORDERS in names else EventFilter(order_ids=protocol.order_ids(names))
        while not self._ended:
            entries = live.since(position)
            if entries is None:
                async with self._host.replays:
                    entries, end = await self._host.in_thread(_page, feed, self._client_id, position, only)
                memory = False
            else:
                # The database may have been read further than the live feed has come.
                end, memory = max(position, live.position), True
            wanted = [(entry, among) for entry in entries if (among := _among(entry, self._client_id, names))]
            if memory and len(wanted) <= _AT_ONCE:
                # Without waiting in between: the live feed cannot move while this is done.
                for entry, among in wanted:
                    self.put(entry.message(among, reduced=self._reduced))
                for name in names:
                    self._live_after[name] = end
                self.put(message("live", channels=names, cursor=self._cursor(end)))
                return
            for entry, among in wanted:
                if not await self._send(entry.message(among, reduced=self._reduced)):
                    return
            position = end

    # --- speaking to it ----------------------------------------------------------------------------------------------

    def offer(self, entry: Entry) -> None:
        """An entry of the live feed."""
        among = tuple(name for name in entry.names() if entry.position > self._live_after.get(name, _REPLAYING))
        if among:
            self.put(entry.message(among, reduced=self._reduced))

    def put(self, text: bytes) -> None:
        """Write without waiting. A client that leaves too much unread is sent away: its slowness must not cost us memory, or
        other clients time."""
        if self._ended:
            return
        if self._connection.transport.get_write_buffer_size() > self._host.limits.buffer:
            log.info("stream.too_slow", client_id=self.identity.client_id if self.identity else None)
            self.end(Close.TOO_SLOW, "too slow; resume by cursor")
            return
        broadcast((self._connection,), text, text=True)

    async def _send(self, text: bytes) -> bool:
        """Write, and wait until the reader has room for more. False when the connection has ended."""
        if self._ended:
            return False
        try:
            async with asyncio.timeout(self._host.limits.send_seconds):
                await self._connection.send(text, text=True)
        except TimeoutError:
            self.end(Close.TOO_SLOW, "too slow; resume by cursor")
        except ConnectionClosed:
            self._ended = True
        return not self._ended

    def heartbeat(self, messages: dict[str | None, bytes]) -> None:
        """`cursor`: all up to there was sent on every channel of orders; null while one of them is being replayed, or
        there is no such channel. `messages`: those of this round so far, by cursor."""
        unread = self._connection.transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if unread and unread >= self._unread else 0
        self._unread = unread
        if self._stalled >= self._host.limits.stalls:
            # It will never answer a ping either: that waits behind what is not read.
            self.end(Close.TOO_SLOW, "nothing is read; resume by cursor")
        cursor = None
        positions = self._live_after.values()
        if positions and _REPLAYING not in positions:
            # A channel may be further than the live feed has come; the others are not.
            cursor = self._cursor(max(self._host.live.position, min(positions)))
        if cursor not in messages:
            messages[cursor] = message("heartbeat", cursor=cursor, time=to_ms(self._host.service.clock()))
        self.put(messages[cursor])

    def end(self, code: Close, reason: str) -> None:
        """Close with this code, once; nothing more is written."""
        if self._ended:
            return
        self._ended = True
        self.forget()
        self._host.background(_close(self._connection, code, reason, self._host.limits.close_seconds + 1))

    def abort(self) -> None:
        """Cut the connection; it had its time to close."""
        self._connection.transport.abort()

    def forget(self) -> None:
        """Stop following anything."""
        for name in (*self._live_after, *self._others):
            self._drop(name)

    @property
    def follows_orders(self) -> bool:
        return bool(self._live_after)

    @property
    def _client_id(self) -> str:
        assert self.identity is not None
        return self.identity.client_id

    @property
    def _reduced(self) -> bool:
        return self.identity is None or self.identity.order_id is not None

    def _cursor(self, position: int) -> str:
        return self._host.live.cursor(position)


def _among(entry: Entry, client_id: str, names: list[str]) -> tuple[str, ...]:
    """Those of the channels on which the entry travels to this client."""
    return tuple(name for name in entry.names() if name in names) if entry.client_id == client_id else ()


async def _close(connection: ServerConnection, code: Close, reason: str, seconds: float) -> None:
    # The handshake has a limit of its own, but that begins only once all that was written before has been taken.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await connection.close(code, reason)
    connection.transport.abort()


def _page(feed: Feed, client_id: str, position: int, only: EventFilter) -> tuple[list[Entry], int]:
    page = feed.read(client_id, position, _PAGE, only)
    return [Entry.of(event, page.epoch) for event in page.events], page.end
