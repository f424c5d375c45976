"""The v2 upstream: what can be asked of it, as methods (docs/upstream.md section 3).

Reads are tried up to three times within their deadline; a create is sent once or not at all, and its outcome is one of
four: an order, a refusal of the written list, NotSent, OutcomeUnknown (`refusals`). A deadline covers everything a
call does: waiting for a turn, every attempt and the pauses between them; without one a read has `read_timeout` seconds
in all, a create `create_timeout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from urllib.parse import quote, urlencode

from swap.domain.signing import compact_json
from swap.domain.times import Timing
from swap.errors import Blocked, Malformed, RequestRefused, UpstreamNotFound
from swap.upstream import decode
from swap.upstream.echoes import Asked, Titles, same_text
from swap.upstream.exchange import LARGE, Exchange, OnCall, Question, Take
from swap.upstream.key_pair import KeyPair
from swap.upstream.refusals import verdict_of
from swap.upstream.replies import (
    AddressVerdict,
    CreateRequest,
    Instrument,
    ListedOrder,
    OrderReply,
    Pair,
    Rate,
    RateRequest,
)
from swap.upstream.transport import Transport

_PAGE, _PAGES = 500, 128

# E8: whether the site's GUID goes under the same name is not settled, so the name has one home.
_ORDER_ID_PARAMETER = "orderId"

# C3: the forms of E3 in the order in which they are tried; path, and whether it is signed.
_VALIDATE = (
    ("/api/v2/instruments/public/validate-address", True),
    ("/api/v1/instruments/public/validate-address", False),
)


class UpstreamClient:
    """Thread-safe; one per key pair, on a transport of its own. Its repr shows no key.

    `take(priority, max_wait)` is asked for leave before every HTTP attempt, priority "create", "read", or what the method
    was given; what it raises ends the call. `on_call` receives every HTTP attempt and how it ended; what it raises is
    logged and otherwise ignored, for an answer in hand must not be lost to its journal.
    """

    def __init__(
        self,
        transport: Transport,
        keys: KeyPair,
        timing: Timing,
        *,
        take: Take | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        self._transport, self._keys, self._timing = transport, keys, timing
        self._exchange = Exchange(transport, keys, timing, take, on_call)

    def __repr__(self) -> str:
        return f"UpstreamClient({self._transport.base_url!r})"

    def close(self) -> None:
        """Close idle connections. The client can be used again afterwards."""
        self._transport.close()

    def hang_up(self) -> None:
        """End every call that is open, and refuse every later one: this process is about to end. An open create comes
        back as any whose answer never came: OutcomeUnknown, or NotSent where nothing was sent yet."""
        self._transport.hang_up()

    @property
    def public_key(self) -> str:
        """Which key pair this is; orders belong to the public key that made them (E7)."""
        return self._keys.public

    @property
    def offset_seconds(self) -> float:
        """How far the upstream's clock is ahead, as applied to signatures; see `UpstreamClock`."""
        return self._exchange.clock.offset_seconds

    @property
    def offset_known(self) -> bool:
        """Whether there were enough answers to know the upstream's time."""
        return self._exchange.clock.known

    @property
    def clock_alarm(self) -> bool:
        """The clocks are more than a minute apart: nothing is corrected, an operator has to look."""
        return self._exchange.clock.alarm

    def upstream_now(self) -> datetime:
        """The time at the upstream, aware UTC."""
        return self._exchange.clock.now()

    # --- catalog -----------------------------------------------------------------------------------------------------

    def instruments(self, *, deadline: float | None = None) -> list[Instrument]:
        """E1, all of them; never empty."""
        question = Question("instruments", "GET", "/api/v2/instruments/public", max_bytes=LARGE)
        return self._exchange.ask(question, decode.read_instruments, self._exchange.until(deadline))

    def validate_address(
        self,
        currency: str,
        network: str,
        address: str,
        memo: str | None = None,
        *,
        priority: str = "check",
        deadline: float | None = None,
    ) -> AddressVerdict:
        """E3. `priority`: of the budget. On a connection of its own: `true` fits every question.

        Raises Blocked when neither form of it can be reached: then create has to judge the address.
        """
        fields = {"currencyTitle": currency, "networkTitle": network, "address": address}
        body = compact_json({**fields, "memo": memo} if memo else fields)
        until = self._exchange.until(deadline)
        asked = Asked(instrument=(currency, network), address=address)
        for path, signed in _VALIDATE:
            question = Question(
                "validate", "POST", path, body=body, signed=signed, priority=priority, asked=asked, alone=True
            )
            try:
                return self._exchange.ask(question, decode.read_verdict, until, verdict_of)
            except (Blocked, UpstreamNotFound) as error:
                last = error
        raise Blocked("validate: no form of it can be reached", status=last.status, body=last.body) from last

    def pairs(self, *, deadline: float | None = None) -> list[Pair]:
        """E4a: every active pair, once. Without a deadline each page has `read_timeout`.

        Stops at a short page, at a page with nothing new (the upstream ignores the offset), or after 64,000 rows.
        """
        until = self._exchange.until(deadline)
        pairs: dict[tuple[str, ...], Pair] = {}
        for page in range(_PAGES):
            query = urlencode((("offset", str(page * _PAGE)), ("limit", str(_PAGE))))
            question = Question("pairs", "GET", "/api/v2/pairs/public", query=query, max_bytes=LARGE)
            rows, length = self._exchange.ask(
                question, decode.read_pairs, until if deadline is not None else self._exchange.until(None)
            )
            before = len(pairs)
            for pair in rows:
                sides = (pair.from_currency, pair.from_network, pair.to_currency, pair.to_network)
                pairs.setdefault(tuple(map(str.casefold, sides)), pair)
            if length != _PAGE or len(pairs) == before:
                break
        if not pairs:
            raise Malformed("pairs: an empty catalog")
        return [pair for pair in pairs.values() if pair.active]

    def rate(self, request: RateRequest, *, priority: str = "read", deadline: float | None = None) -> Rate:
        """E5a. `priority`: of the budget.

        Raises AmountRefused out of range, PairRefused, RateModeRefused even when another mode came back (T12), Malformed
        when the answer repeats another pair or amount.
        """
        query, path = _encoded(request.query()), "/api/v2/rates/public/one"
        question = Question("rate", "GET", path, query=query, priority=priority, asked=_asked(request))

        def read(body: object) -> Rate:
            return decode.read_rate(body, with_amount=request.amount is not None)

        return self._exchange.ask(question, read, self._exchange.until(deadline)).require_mode(request.mode)

    # --- orders ------------------------------------------------------------------------------------------------------

    def orders(
        self, *, deadline: float | None = None, max_bytes: int = LARGE, priority: str = "read"
    ) -> list[ListedOrder]:
        """E7: every order of this public key, in one answer. Never with a query: pagination breaks the signature.

        Raises Malformed with cause `too_large` for an answer of more than `max_bytes`."""
        question = Question(
            "orders", "GET", "/api/v2/orders/public", signed=True, max_bytes=max_bytes, priority=priority
        )
        return self._exchange.ask(question, decode.read_orders, self._exchange.until(deadline))

    def order(
        self,
        order_id: str,
        destination_address: str,
        *,
        order_ref: str | None = None,
        priority: str = "look",
        deadline: float | None = None,
        pair: tuple[Titles, Titles] | None = None,
        also: Iterable[str] = (),
    ) -> OrderReply:
        """E8: one order by any of its ids and its destination. `order_ref`: our id, for the journal. `priority`: of the
        budget. `pair`: the order's, for the circuit breaker. `also`: other ids of the same order; it is asked for by the
        next one where the upstream knows none by this one, for not every form of id need be known there (T4).

        Raises UpstreamNotFound, OrderExpired, and Malformed when the answer is about another order.
        """
        until, not_found = self._exchange.until(deadline), None
        for ref in dict.fromkeys([order_id, *also]):
            try:
                return self._order(ref, destination_address, order_ref, priority, until, pair)
            except UpstreamNotFound as error:
                not_found = not_found or error
        assert not_found is not None, "asked by one id at least"
        raise not_found

    def _order(
        self,
        order_id: str,
        destination_address: str,
        order_ref: str | None,
        priority: str,
        until: float,
        pair: tuple[Titles, Titles] | None,
    ) -> OrderReply:
        query = _encoded(
            ((_ORDER_ID_PARAMETER, order_id), ("destinationAddress", destination_address))
        )  # C10: send both
        path = "/api/v2/orders/public-info"
        question = Question(
            endpoint="order",
            method="GET",
            path=path,
            query=query,
            order_ref=order_ref or order_id,
            priority=priority,
            asked=Asked(order_id=order_id, destination=destination_address, order_pair=pair),
        )

        asked_at = self._timing.now()

        def read(body: object) -> OrderReply:
            reply = _about(decode.read_order(body), order_id, destination_address)
            return replace(reply, facts=replace(reply.facts, asked_at=asked_at))

        return self._exchange.ask(question, read, until)

    def create_order(
        self,
        request: CreateRequest,
        *,
        order_ref: str | None = None,
        attempt: int = 1,
        deadline: float | None = None,
    ) -> OrderReply:
        """E6a: sent once, on a connection of its own. `order_ref`, `attempt`: our id and count, for the journal.

        Raises a UpstreamRefused of the written list; NotSent, when no order can have been made; OutcomeUnknown, when one may
        have been, with whatever was read of it as `found`. Nothing else.
        """
        try:
            body = compact_json(request.body())
        except ValueError as error:
            raise RequestRefused(f"create: {error}", cause="validation") from None
        return self._exchange.create(body, _asked(request), order_ref=order_ref, attempt=attempt, deadline=deadline)


def _asked(request: RateRequest | CreateRequest) -> Asked:
    source, target = (request.from_currency, request.from_network), (request.to_currency, request.to_network)
    return Asked(pair=(source, target), amount=request.amount)


def _encoded(query: Sequence[tuple[str, str]]) -> str:
    # %20 rather than "+": the two are confused least.
    return urlencode(query, quote_via=quote)


def _about(order: OrderReply, order_id: str, destination_address: str) -> OrderReply:
    """The order, if it is the one that was asked for. An answer need not repeat the id it was asked with (T4); but where it
    does not, the destination has to show whose it is, and another number shows that it is another's."""
    if order_id in order.refs:
        return order
    other_number = order.order_id is not None and order_id.isascii() and order_id.isdigit()
    address = order.destination_address
    if other_number or address is None or not same_text(address, destination_address):
        raise Malformed("order: the answer is about another order, or does not say about which", found=order)
    return order
