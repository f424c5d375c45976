"""Rate channels: one read per subscribed pair and interval for the whole fleet, however many sockets follow it.

The streams take turns over Redis; the one whose turn it is reads, and publishes what it read to the others. Reads leave
the upstream's reserve alone (priority "look"), and take a tenth of UPSTREAM_RPS at most: with many pairs each one is read
less often.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap.domain.money import plain
from swap.domain.times import iso
from swap.errors import InvalidRequest, ServiceError, SwapError
from swap.market.catalog import Snapshot, pair_key
from swap.market.quotes import Swap
from swap.store.catalog import PairKey
from swap.stream.notices import Notices
from swap.stream.protocol import message
from swap.stream.threads import InThread
from swap.tables import InstrumentRow
from swap.upstream.replies import Rate
from swap.wiring import Service

log = structlog.get_logger()

_EVERY_SECONDS = 10.0
_SHARE = 0.1
_MAX_PAIRS = 200
_READ_SECONDS = 8.0
_TICK_SECONDS = 0.5

Pair = tuple[InstrumentRow, InstrumentRow]


@dataclass
class _Followed:
    source: InstrumentRow
    target: InstrumentRow
    # How many sockets follow it under each name of the pair, and how many of each owner.
    names: Counter[str] = field(default_factory=Counter)
    owners: Counter[str] = field(default_factory=Counter)
    last: dict[str, Any] | None = None
    due: float = 0.0
    reading: bool = False


class Rates:
    """`publish(name, message)`: to every socket on that channel. `in_thread`: for the database; `in_reader`: for what
    waits for the upstream. `background`: runs a coroutine beside the caller. `monotonic`: any seconds."""

    def __init__(
        self,
        service: Service,
        notices: Notices,
        publish: Callable[[str, bytes], None],
        in_thread: InThread,
        in_reader: InThread,
        background: Callable[[Coroutine[Any, Any, Any]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._notices, self._publish = service, notices, publish
        self._in_thread, self._in_reader, self._background = in_thread, in_reader, background
        self._monotonic = monotonic
        self._followed: dict[PairKey, _Followed] = {}
        self._own = secrets.token_hex(8)

    def room(self, pair: Pair, owner: str, also: Collection[Pair] = ()) -> bool:
        """Whether this owner may follow the pair, beside those in `also` that it is about to follow. No more than 200 can be
        read often enough to be of use. An owner takes a further one only while more places are free than it holds, so that
        whoever comes later finds some too."""
        new = {key for each in also if (key := pair_key(*each)) not in self._followed}
        key = pair_key(*pair)
        if key in self._followed or key in new:
            return True
        held = len(new) + sum(owner in followed.owners for followed in self._followed.values())
        return held < _MAX_PAIRS - len(self._followed) - len(new)

    def join(self, name: str, pair: Pair, owner: str) -> bytes | None:
        """One more socket follows the channel. Returns the message with what is known, if anything is."""
        followed = self._followed.setdefault(pair_key(*pair), _Followed(*pair))
        followed.names[name] += 1
        followed.owners[owner] += 1
        return None if followed.last is None else _message(name, followed.last)

    def leave(self, name: str, owner: str) -> None:
        for pair, followed in list(self._followed.items()):
            if name in followed.names:
                for counted, one in ((followed.names, name), (followed.owners, owner)):
                    counted[one] -= 1
                    if counted[one] <= 0:
                        del counted[one]
                if not followed.names:
                    del self._followed[pair]

    async def pair(self, name: str) -> Pair | None:
        """`rates.BTC:BTC-USDT:TRC20`; a "-" may also stand inside a title, so each is tried as the one between the two."""
        snapshot: Snapshot = await self._in_thread(self._service.catalog.snapshot)
        text = name.removeprefix("rates.")
        for place, letter in enumerate(text):
            if letter != "-":
                continue
            source, target = _instrument(snapshot, text[:place]), _instrument(snapshot, text[place + 1 :])
            if source is not None and target is not None and snapshot.has_pair(source, target):
                return source, target
        return None

    # --- reading -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read what is due until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = self._monotonic()
            settings = self._service.settings
            share = float(settings.upstream_rps) * _SHARE
            every = max(_EVERY_SECONDS / float(settings.time_scale), len(self._followed) / share)
            for pair, followed in self._followed.items():
                if followed.due <= now and not followed.reading:
                    followed.due, followed.reading = now + every, True
                    self._background(self._read(pair, followed, every))

    async def _read(self, pair: PairKey, followed: _Followed, every: float) -> None:
        try:
            # A little less than the interval, so that the stream that had the last turn finds it free again.
            if await self._notices.turn("|".join(pair), every * 0.9):
                rate = await self._in_reader(self._ask, followed)
                self._take(pair, rate)
                await self._notices.tell_rate({"by": self._own, "pair": pair, "rate": rate})
        finally:
            followed.reading = False

    def _ask(self, followed: _Followed) -> dict[str, Any]:
        try:
            swap = Swap(followed.source, followed.target, None, "FLOATING")
            rate = self._service.quotes.rate(swap, _READ_SECONDS, priority="look")
        except InvalidRequest as error:
            return {"code": next(iter(error.fields.values()))[0].code}
        except ServiceError as error:
            return {"code": error.code}
        except (SwapError, SQLAlchemyError) as error:
            log.warning("stream.rate_not_read", error=type(error).__name__)
            return {"code": "RATE_UNAVAILABLE"}
        return _rate_view(followed.source, followed.target, rate, iso(self._service.clock()))

    def hear(self, content: dict[str, Any]) -> None:
        """A rate that a stream has read."""
        pair, rate = content.get("pair"), content.get("rate")
        if content.get("by") != self._own and isinstance(pair, list) and len(pair) == 4 and isinstance(rate, dict):
            self._take((pair[0], pair[1], pair[2], pair[3]), rate)

    def _take(self, pair: PairKey, rate: dict[str, Any]) -> None:
        followed = self._followed.get(pair)
        if followed is None:
            return
        followed.last = rate
        for name in followed.names:
            self._publish(name, _message(name, rate))


def _message(name: str, rate: dict[str, Any]) -> bytes:
    if "code" in rate:
        return message("rate", channel=name, rate=None, code=rate["code"])
    return message("rate", channel=name, rate=rate, code=None)


def _rate_view(source: InstrumentRow, target: InstrumentRow, rate: Rate, read_at: str) -> dict[str, Any]:
    return {
        "from": {"currency": source.currency, "network": source.network},
        "to": {"currency": target.currency, "network": target.network},
        "rate_mode": "FLOATING",
        "price": None if rate.price is None else plain(rate.price),
        "limits": {
            "min": None if rate.min_amount is None else plain(rate.min_amount),
            "max": None if rate.max_amount is None else plain(rate.max_amount),
        },
        "fixed_rate_available": rate.fixed_rate_enabled,
        "rate_updated_at": None if rate.updated_at is None else iso(rate.updated_at),
        "read_at": read_at,
    }


def _instrument(snapshot: Snapshot, text: str) -> InstrumentRow | None:
    currency, colon, network = text.partition(":")
    return snapshot.instrument(currency, network) if colon else None
