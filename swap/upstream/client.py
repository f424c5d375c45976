"""The v2 upstream: what can be asked of it, as methods (docs/upstream.md section 3).

Reads are tried up to three times within their deadline; a create is sent once or not at all, and its outcome is one of
four: an order, a refusal of the written list, NotSent, OutcomeUnknown (`refusals`). A deadline covers everything a
call does: waiting for a turn, every attempt and the pauses between them; without one a read has `read_timeout` seconds
in all, a create `create_timeout`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal
from urllib.parse import quote, urlencode

from swap.domain.money import plain
from swap.domain.signing import compact_json
from swap.errors import Blocked, ConfigurationError, Malformed, RequestRefused, UpstreamNotFound
from swap.upstream import decode
from swap.upstream.exchange import LARGE, Exchange, Question
from swap.upstream.journal import Call
from swap.upstream.refusals import verdict_of
from swap.upstream.replies import (
    AddressVerdict,
    CreateRequest,
    Instrument,
    ListedOrder,
    OrderReply,
    Pair,
    PairDetail,
    Rate,
    RateMode,
)
from swap.upstream.transport import Transport

ValidateVariant = Literal["a", "b", "c"]
InfoVariant = Literal["a", "c"]

_PAGE, _PAGES = 500, 128

# E8: whether the site's GUID goes under the same name is not settled, so the name has one home.
_ORDER_ID_PARAMETER = "orderId"

# C3: path and whether it is signed.
_VALIDATE: dict[ValidateVariant, tuple[str, bool]] = {
    "a": ("/api/v1/instruments/public/validate-address", False),
    "b": ("/api/v2/instruments/public/validate-address", True),
    "c": ("/api/v2/instruments/validate-address", True),
}


class UpstreamClient:
    """Thread-safe; one per key pair. Its repr shows no key.

    `on_call` is told of every HTTP attempt and how it ended; what it raises is logged and otherwise ignored, for an
    answer in hand must not be lost to its journal. `take(priority, max_wait)` is asked for leave before every HTTP
    attempt, priority "create", "read", or what `order` and `validate_address` were given; what it raises ends the call.
    `signed_reads` signs the reads that need no signature as well (C1). `validate_variants`, `info_variants`: which
    forms of E3 and E8 to try, in this order (C3, C10). `clock` gives epoch seconds, `monotonic` any seconds.

    Raises ConfigurationError for a base URL, user agent or keys that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        public_key: str,
        secret_key: str,
        *,
        user_agent: str,
        proxy: str | None = None,
        read_timeout: float = 12.0,
        create_timeout: float = 15.0,
        on_call: Callable[[Call], None] | None = None,
        take: Callable[[str, float], None] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
        signed_reads: bool = False,
        list_path: str = "/api/v2/orders/public",
        validate_variants: Sequence[ValidateVariant] = ("b", "a"),
        info_variants: Sequence[InfoVariant] = ("a",),
    ) -> None:
        mistakes = [
            f"The upstream's {name} key must be printable text without spaces."
            for name, key in (("public", public_key), ("secret", secret_key))
            if not key or not key.isascii() or not key.isprintable() or " " in key
        ]
        if not validate_variants or not info_variants:
            mistakes.append("At least one form of address validation and of order info is needed.")
        if mistakes:
            raise ConfigurationError(mistakes)
        self._public_key = public_key
        self._list_path = list_path
        self._validate_variants, self._info_variants = tuple(validate_variants), tuple(info_variants)
        self._transport = Transport(base_url, user_agent=user_agent, proxy=proxy)
        self._exchange = Exchange(
            self._transport,
            public_key,
            secret_key,
            read_timeout=read_timeout,
            create_timeout=create_timeout,
            on_call=on_call,
            take=take,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            rng=rng or random.Random(),  # noqa: S311 - spreads retries, protects nothing
            signed_reads=signed_reads,
        )

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
        return self._public_key

    @property
    def offset_seconds(self) -> float:
        """How far the upstream's clock is ahead, as applied to signatures; see `UpstreamClock`."""
        return self._exchange.clock.offset_seconds

    @property
    def offset_known(self) -> bool:
        """Whether the upstream's clock was heard often enough to tell its time."""
        return self._exchange.clock.known

    @property
    def clock_alarm(self) -> bool:
        """The clocks are more than a minute apart: nothing is corrected, somebody has to look."""
        return self._exchange.clock.alarm

    def upstream_now(self) -> datetime:
        """The time at the upstream, aware UTC."""
        return self._exchange.clock.now()

    # --- catalog -----------------------------------------------------------------------------------------------------

    def instruments(self, *, deadline: float | None = None) -> list[Instrument]:
        """E1, all of them; never empty."""
        question = Question("instruments", "GET", "/api/v2/instruments/public", max_bytes=LARGE)
        return self._exchange.ask(question, decode.read_instruments, self._exchange.until(deadline))

    def instrument(self, currency: str, network: str, *, deadline: float | None = None) -> Instrument:
        """E2. Raises UpstreamNotFound or another UpstreamRefused for one the upstream does not know; the shape is not
        settled."""
        body = compact_json({"currencyTitle": currency, "networkTitle": network})
        question = Question("instrument", "POST", "/api/v2/instruments/public/one", body=body, signed=True)
        return self._exchange.ask(question, decode.read_instrument, self._exchange.until(deadline))

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
        """E3. `priority`: of the budget.

        Raises Blocked when no configured form of it can be reached: then create has to judge the address.
        """
        fields = {"currencyTitle": currency, "networkTitle": network, "address": address}
        body = compact_json({**fields, "memo": memo} if memo else fields)
        until = self._exchange.until(deadline)
        for variant in self._validate_variants:
            path, signed = _VALIDATE[variant]
            question = Question("validate", "POST", path, body=body, signed=signed, priority=priority)
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
        found: dict[tuple[str, ...], Pair] = {}
        for page in range(_PAGES):
            query = urlencode((("offset", str(page * _PAGE)), ("limit", str(_PAGE))))
            question = Question("pairs", "GET", "/api/v2/pairs/public", query=query, max_bytes=LARGE)
            rows, length = self._exchange.ask(
                question, decode.read_pairs, until if deadline is not None else self._exchange.until(None)
            )
            before = len(found)
            for pair in rows:
                sides = (pair.from_currency, pair.from_network, pair.to_currency, pair.to_network)
                found.setdefault(tuple(map(str.casefold, sides)), pair)
            if length != _PAGE or len(found) == before:
                break
        if not found:
            raise Malformed("pairs: an empty catalog")
        return [pair for pair in found.values() if pair.active]

    def pair(
        self, from_currency: str, from_network: str, to_currency: str, to_network: str, *, deadline: float | None = None
    ) -> PairDetail:
        """E4c, signed."""
        query = _query(_titles(from_currency, from_network, to_currency, to_network))
        question = Question("pair", "GET", "/api/v2/pairs/one", query=query, signed=True)
        return self._exchange.ask(question, decode.read_pair_detail, self._exchange.until(deadline))

    # --- rates -------------------------------------------------------------------------------------------------------

    def rate(
        self,
        from_currency: str,
        from_network: str,
        to_currency: str,
        to_network: str,
        *,
        amount: Decimal | None,
        mode: RateMode = "FLOATING",
        markup: Decimal | None = None,
        referrer_id: str | None = None,
        priority: str = "read",
        deadline: float | None = None,
    ) -> Rate:
        """E5a. `amount` on the deposit side; None asks for limits only. `markup` in percent. `priority`: of the budget.

        Raises AmountRefused out of range, PairRefused, RateModeRefused also when another mode came back (T12).
        """
        query = _titles(from_currency, from_network, to_currency, to_network)
        query.append(("claimedDepositAmountCurrency", from_currency))  # C19: always sent
        if amount is not None:
            query.append(("claimedDepositAmount", plain(amount)))
        query.append(("rateMode", mode))
        if markup is not None:
            query.append(("markup", plain(markup)))
        if referrer_id:
            query.append(("referrerId", referrer_id))
        query.append(("exchangeType", "crypto"))
        question = Question("rate", "GET", "/api/v2/rates/public/one", query=_query(query), priority=priority)
        return self._rate(question, amount, mode, deadline)

    def rate_post(
        self,
        from_currency: str,
        from_network: str,
        to_currency: str,
        to_network: str,
        *,
        amount: Decimal,
        mode: RateMode = "FLOATING",
        markup: Decimal | None = None,
        deadline: float | None = None,
    ) -> Rate:
        """E5b, signed; otherwise as `rate`."""
        fields = dict(_titles(from_currency, from_network, to_currency, to_network))
        fields["claimedDepositAmount"] = plain(amount)
        fields["rateMode"] = mode
        fields["claimedDepositAmountCurrency"] = from_currency
        fields["markup"] = plain(markup or Decimal(0))
        question = Question("rate", "POST", "/api/v2/rates/public/one", body=compact_json(fields), signed=True)
        return self._rate(question, amount, mode, deadline)

    def _rate(self, question: Question, amount: Decimal | None, mode: RateMode, deadline: float | None) -> Rate:
        def read(body: object) -> Rate:
            return decode.read_rate(body, with_amount=amount is not None)

        return self._exchange.ask(question, read, self._exchange.until(deadline)).require_mode(mode)

    # --- orders ------------------------------------------------------------------------------------------------------

    def orders(
        self, *, deadline: float | None = None, max_bytes: int = LARGE, priority: str = "read"
    ) -> list[ListedOrder]:
        """E7: every order of this public key, in one answer. Never with a query: pagination breaks the signature.

        Raises Malformed with cause `too_large` for an answer of more than `max_bytes`."""
        question = Question("orders", "GET", self._list_path, signed=True, max_bytes=max_bytes, priority=priority)
        return self._exchange.ask(question, decode.read_orders, self._exchange.until(deadline))

    def order(
        self,
        order_id: str,
        destination_address: str,
        *,
        order_ref: str | None = None,
        priority: str = "look",
        deadline: float | None = None,
    ) -> OrderReply:
        """E8: one order by any of its ids and its destination. `order_ref`: our id, for the journal. `priority`: of the
        budget.

        Raises UpstreamNotFound, OrderExpired, and Malformed when the answer is about another order.
        """
        until = self._exchange.until(deadline)
        for variant in self._info_variants:
            query = [(_ORDER_ID_PARAMETER, order_id)]
            if variant == "a":
                query.append(("destinationAddress", destination_address))  # C10: send both
            path = "/api/v2/orders/public-info" if variant == "a" else "/api/v2/orders/info"
            question = Question(
                "order", "GET", path, query=_query(query), order_ref=order_ref or order_id, priority=priority
            )

            def read(body: object) -> OrderReply:
                return _about(decode.read_order(body), order_id, destination_address)

            try:
                return self._exchange.ask(question, read, until)
            except (Blocked, UpstreamNotFound) as error:
                last = error
        raise last

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
        return self._exchange.create(body, order_ref=order_ref, attempt=attempt, deadline=deadline)


def _titles(from_currency: str, from_network: str, to_currency: str, to_network: str) -> list[tuple[str, str]]:
    return [
        ("instrumentFromCurrencyTitle", from_currency),
        ("instrumentFromNetworkTitle", from_network),
        ("instrumentToCurrencyTitle", to_currency),
        ("instrumentToNetworkTitle", to_network),
    ]


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    # %20 rather than "+": where a query is signed, raw and decoded forms are confused least (C13).
    return urlencode(pairs, quote_via=quote)


def _about(order: OrderReply, order_id: str, destination_address: str) -> OrderReply:
    """The order, if it can be the one that was asked for. An answer need not repeat the id it was asked with (T4); but
    where it does not, another number or another destination shows that it is about another order."""
    if order_id in order.refs:
        return order
    other_number = order.order_id is not None and order_id.isascii() and order_id.isdigit()
    told = order.destination_address
    if other_number or (told is not None and told.casefold() != destination_address.casefold()):
        raise Malformed("order: the answer is about another order", found=order)
    return order
