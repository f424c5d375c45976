"""One connection: who it is, what it follows, and what it may still be sent."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from swap.domain.times import iso
from swap.errors import ServiceError
from swap.infra.token_bucket import LocalBucket
from swap.push.feed import EVERYTHING
from swap.store import orders as order_rows
from swap.store.events import EventFilter
from swap.stream import protocol
from swap.stream.protocol import INSTRUMENTS, ORDERS, Close, Entry, SocketRefused, message

if TYPE_CHECKING:
    from swap.stream.rates import Pair
    from swap.stream.server import Gateway

log = structlog.get_logger()

# Not live yet: no position is above it.
_REPLAYING = 2**63
_PAGE = 100
# So few entries may be written at once; more are sent one by one, each waiting for the reader.
_AT_ONCE = 20
_SCOPES = {ORDERS: "orders", "order": "orders", "rates": "quotes", INSTRUMENTS: "catalog"}
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who authenticated: with a key, or with an order's tracking token."""

    client_id: str
    scopes: frozenset[str] = frozenset()
    key: str | None = None
    order_id: str | None = None
    token_version: int = 0
    expires_at: datetime | None = None


class Socket:
    def __init__(self, gateway: Gateway, connection: ServerConnection) -> None:
        self._gateway, self._connection = gateway, connection
        self.number = next(_numbers)
        self.identity: Identity | None = None
        # Order channels: the position after which it is live. The others carry no positions.
        self._live_after: dict[str, int] = {}
        self._others: set[str] = set()
        self._ended = False
        # How much it had not taken at the last heartbeat, and for how many in a row that has not become less.
        self._unread = self._stalled = 0
        limits = gateway.limits
        self.budgets = [LocalBucket(limits.per_second, limits.burst)]

    # --- listening to it ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            async with asyncio.timeout(self._gateway.limits.auth_seconds):
                first = await self._connection.recv()
                known = await self._authenticate(first)
        except TimeoutError:
            known = False
            self.end(Close.NOT_AUTHENTICATED, "no auth in time")
        if known:
            async for text in self._connection:
                if any(budget.take() > 0 for budget in self.budgets):
                    self.end(Close.TOO_MANY_MESSAGES, "too many messages")
                if self._ended:
                    break
                await self._handle(text)
        await self._connection.wait_closed()

    async def _authenticate(self, text: str | bytes) -> bool:
        given = None
        try:
            content = protocol.read(text)
            given = content.get("id")
            if content["op"] != "auth":
                raise SocketRefused("NOT_AUTHENTICATED", 'The first message must be {"op": "auth", ...}.')
            identity = await self._gateway.identify(content)
        except (SocketRefused, ServiceError) as error:
            self.put(protocol.refusal(error, given))
            self.end(Close.NOT_AUTHENTICATED, error.code)
            return False
        except SQLAlchemyError:
            self.end(Close.TRY_LATER, "try again later")
            return False
        if not self._gateway.admit(self, identity):
            self.put(protocol.refusal(SocketRefused("TOO_MANY_CONNECTIONS", "Close some of the others first."), given))
            self.end(Close.TRY_LATER, "too many connections")
            return False
        self.identity = identity
        expires_at = None if identity.expires_at is None else iso(identity.expires_at)
        self.put(message("authenticated", id=given, order_id=identity.order_id, expires_at=expires_at))
        return True

    async def _handle(self, text: str | bytes) -> None:
        given = None
        try:
            content = protocol.read(text)
            given = content.get("id")
            match content["op"]:
                case "subscribe":
                    await self._subscribe(content, given)
                case "unsubscribe":
                    self._unsubscribe(content, given)
                case "ping":
                    self.put(message("pong", id=given, time=self._gateway.now_ms()))
                case "auth":
                    raise SocketRefused("ALREADY_AUTHENTICATED", "Open another connection for another identity.")
                case _:
                    raise SocketRefused("BAD_MESSAGE", "There are: auth, subscribe, unsubscribe, ping.")
        except (SocketRefused, ServiceError) as error:
            self.put(protocol.refusal(error, given))
        except SQLAlchemyError as error:
            log.error("stream.database_away", error=type(error).__name__)
            self.put(protocol.refusal(SocketRefused("TEMPORARILY_UNAVAILABLE", "Try again in a moment."), given))

    # --- channels ----------------------------------------------------------------------------------------------------

    async def _subscribe(self, content: dict[str, Any], given: str | None) -> None:
        names = protocol.channels_of(content)
        after = content.get("after")
        if after is not None and (not isinstance(after, str) or len(after) > 64):
            raise SocketRefused("BAD_MESSAGE", '"after" is a cursor.')
        pairs = await self._check(names)
        feeds = [name for name in names if name == ORDERS or name.startswith("order.")]
        if after is not None and not feeds:
            raise SocketRefused("BAD_MESSAGE", '"after" is for channels of orders.')
        start = self._gateway.live.position
        if after is not None:
            start = await self._gateway.in_thread(self._gateway.service.feed.position, after)
            if not after.endswith(self._gateway.live.epoch):
                # The feed has begun anew, and the live one is about to notice: its positions are still of the old life.
                raise SocketRefused("TEMPORARILY_UNAVAILABLE", "Try again in a moment.")
        if self._ended:
            return
        self.put(message("subscribed", id=given, channels=names, cursor=self._cursor(start) if feeds else None))
        for name in feeds:
            self._live_after[name] = start if after is None else _REPLAYING
            self._gateway.live.join(self._client_id, name, self)
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
                first = self._gateway.join(name, self, pairs.get(name))
                if first is not None:
                    self.put(first)

    async def _check(self, names: list[str]) -> dict[str, Pair]:
        """The pairs of the channels of rates. Raises SocketRefused with every problem at once."""
        assert self.identity is not None
        found: dict[str, str] = {}
        for name in names:
            code = self._problem(name, self.identity)
            if code is not None:
                found[name] = code
        asked = [order_id for order_id in protocol.order_ids(names) if f"order.{order_id}" not in found]
        if asked and self.identity.order_id is None:
            owned = await self._gateway.in_thread(self._owned, asked)
            found |= {f"order.{order_id}": "ORDER_NOT_FOUND" for order_id in asked if order_id not in owned}
        pairs: dict[str, Pair] = {}
        for name in names:
            if name.startswith("rates.") and name not in found:
                pair = await self._gateway.rates.pair(name)
                if pair is None:
                    found[name] = "PAIR_UNKNOWN"
                elif not self._gateway.rates.room(pair):
                    found[name] = "TOO_MANY_PAIRS"
                else:
                    pairs[name] = pair
        if not found and len(self._live_after) + len(self._others) + len(names) > self._gateway.limits.channels:
            limit = self._gateway.limits.channels
            raise SocketRefused("TOO_MANY_CHANNELS", f"A connection has at most {limit} channels.", limit=limit)
        if found:
            raise SocketRefused("CHANNELS_REFUSED", "Nothing was subscribed to.", channels=found)
        return pairs

    def _problem(self, name: str, identity: Identity) -> str | None:
        if name in self._live_after or name in self._others:
            return "ALREADY_SUBSCRIBED"
        kind, dot, rest = name.partition(".")
        if kind not in _SCOPES or bool(rest) != (kind in ("order", "rates")) or bool(dot) != bool(rest):
            return "CHANNEL_UNKNOWN"
        if identity.order_id is not None:
            return None if name == f"order.{identity.order_id}" else "CHANNEL_NOT_ALLOWED"
        return None if _SCOPES[kind] in identity.scopes else "SCOPE_MISSING"

    def _owned(self, asked: list[str]) -> set[str]:
        with self._gateway.service.database.read() as session:
            return order_rows.owned_by(session, self._client_id, asked)

    def _unsubscribe(self, content: dict[str, Any], given: str | None) -> None:
        names = protocol.channels_of(content)
        for name in names:
            self._drop(name)
        self.put(message("unsubscribed", id=given, channels=names))

    def _drop(self, name: str) -> None:
        if self._live_after.pop(name, None) is not None:
            self._gateway.live.leave(self._client_id, name, self)
        if name in self._others:
            self._others.discard(name)
            self._gateway.leave(name, self)

    async def _replay(self, names: list[str], position: int) -> None:
        """Send what these channels missed since that position, then hand them over to the live feed."""
        live, feed = self._gateway.live, self._gateway.service.feed
        only = EVERYTHING if ORDERS in names else EventFilter(order_ids=protocol.order_ids(names))
        while not self._ended:
            entries = live.since(position)
            if entries is None:
                async with self._gateway.replays:
                    entries, end = await self._gateway.in_thread(_page, feed, self._client_id, position, only)
                memory = False
            else:
                # The database may have been read further than the live feed has come.
                end, memory = max(position, live.position), True
            wanted = [(entry, among) for entry in entries if (among := self._among(entry, names))]
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

    def _among(self, entry: Entry, names: list[str]) -> tuple[str, ...]:
        if entry.client_id != self._client_id:
            return ()
        return tuple(name for name in entry.names() if name in names)

    # --- speaking to it ----------------------------------------------------------------------------------------------

    def offer(self, entry: Entry) -> None:
        """An entry of the live feed."""
        among = tuple(name for name in entry.names() if entry.position > self._live_after.get(name, _REPLAYING))
        if among:
            self.put(entry.message(among, reduced=self._reduced))

    def put(self, text: bytes) -> None:
        """Write without waiting. Whoever leaves too much unread is sent away: nobody's slowness costs us memory, or others
        time."""
        if self._ended:
            return
        if self._connection.transport.get_write_buffer_size() > self._gateway.limits.buffer:
            log.info("stream.too_slow", client_id=self.identity.client_id if self.identity else None)
            self.end(Close.TOO_SLOW, "too slow; resume by cursor")
            return
        broadcast((self._connection,), text, text=True)

    async def _send(self, text: bytes) -> bool:
        """Write, and wait until the reader has room for more. False when there is none any more."""
        if self._ended:
            return False
        try:
            async with asyncio.timeout(self._gateway.limits.send_seconds):
                await self._connection.send(text, text=True)
        except TimeoutError:
            self.end(Close.TOO_SLOW, "too slow; resume by cursor")
        except ConnectionClosed:
            self._ended = True
        return not self._ended

    def heartbeat(self, made: dict[str | None, bytes]) -> None:
        """`cursor`: all up to there was sent on every channel of orders; null while one of them is being replayed, or
        there is none. `made`: messages made in this round already."""
        unread = self._connection.transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if unread and unread >= self._unread else 0
        self._unread = unread
        if self._stalled >= self._gateway.limits.stalls:
            # Nor will it ever answer a ping: that waits behind what is not read.
            self.end(Close.TOO_SLOW, "nothing is read; resume by cursor")
        cursor = None
        positions = self._live_after.values()
        if positions and _REPLAYING not in positions:
            # A channel may be further than the live feed has come; the others are not.
            cursor = self._cursor(max(self._gateway.live.position, min(positions)))
        if cursor not in made:
            made[cursor] = message("heartbeat", cursor=cursor, time=self._gateway.now_ms())
        self.put(made[cursor])

    def end(self, code: Close, reason: str) -> None:
        """Close with this code, once; nothing more is written."""
        if self._ended:
            return
        self._ended = True
        self.forget()
        self._gateway.background(self._close(code, reason))

    async def _close(self, code: Close, reason: str) -> None:
        # The handshake has a limit of its own, but that begins only once all that was written before has been taken.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._gateway.limits.close_seconds + 1):
                await self._connection.close(code, reason)
        self.abort()

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
        return self._gateway.live.cursor(position)


def _page(feed: Any, client_id: str, position: int, only: EventFilter) -> tuple[list[Entry], int]:
    stretch = feed.read(client_id, position, _PAGE, only)
    return [Entry.of(event, stretch.epoch) for event in stretch.events], stretch.end
