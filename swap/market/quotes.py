"""Quotes: what a swap would pay out, and a signed ticket that binds it.

A quote id is the quote itself, signed under SWAP_SECRET_KEYS: nothing is stored until an order spends it. It is bound to
client, route, amount and rate mode, and it makes one order.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import structlog
from itsdangerous.encoding import base64_decode, base64_encode

from swap.domain import money
from swap.domain.times import from_iso, iso
from swap.errors import (
    AmountRefused,
    FieldProblem,
    InvalidRequest,
    PairRefused,
    RateModeRefused,
    TryAgainLater,
    UpstreamError,
    UpstreamRefused,
)
from swap.infra.shared_reads import SharedReads
from swap.infra.shares import NoPlace, Shares
from swap.infra.tickets import ExpiredTicket, InvalidTicket, SignedTickets, binding
from swap.infra.vault import Vault
from swap.market.catalog import Catalog, pair_key
from swap.store.catalog import PairKey
from swap.tables import InstrumentRow, Order
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import Rate, RateMode, RateRequest

log = structlog.get_logger()

LIFETIME = timedelta(seconds=60)
# Quotes that one process asks for at once, how long another waits for one of these to end, and how long an answer is good
# for whoever asks the same.
_AT_ONCE = 24
_LINE_SECONDS = 2.0
_SHARED_SECONDS = 1.0
# How long the resolver waits for today's rate.
_RENEW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Swap:
    """What is swapped for what. `amount` on the deposit side; None where only the limits are asked for."""

    source: InstrumentRow
    target: InstrumentRow
    amount: Decimal | None
    mode: RateMode

    @property
    def question(self) -> tuple[PairKey, Decimal | None, RateMode]:
        """What the upstream is asked; equal for equal swaps."""
        return pair_key(self.source, self.target), self.amount, self.mode


@dataclass(frozen=True, slots=True)
class Terms:
    """The rate an order is made at. `claimed` is the claimedPublicRate of docs/upstream.md E6; amounts in Decimal."""

    amount_to_get: Decimal | None
    network_fee: Decimal | None
    confirmations_required: int | None
    claimed: dict[str, Any]
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Quote:
    """An opened quote id. `mark` names it in the table of spent quotes."""

    terms: Terms
    mark: str
    expires_at: datetime


class Quotes:
    def __init__(
        self,
        upstream: UpstreamClient,
        catalog: Catalog,
        vault: Vault,
        clock: Callable[[], datetime],
        *,
        markup: Decimal | None,
        referrer_id: str | None,
        rate_max_age: float,
    ) -> None:
        self._upstream, self._catalog, self._clock = upstream, catalog, clock
        self._markup, self._referrer_id = markup, referrer_id
        self._rate_max_age = timedelta(seconds=rate_max_age)
        self._tickets = SignedTickets(vault, "quote", clock)
        self._room = Shares(_AT_ONCE, waiting=_AT_ONCE // 3)
        self._reads: SharedReads[Rate] = SharedReads(_SHARED_SECONDS)

    def quote(self, client_id: str, swap: Swap, deadline: float, *, asker: str = "") -> dict[str, Any]:
        """A quote as the API answers it. Without an amount it has limits only, and no id. Who asks the same within a second
        is told of the same read.

        `deadline`: seconds left for the caller's request. `asker`: whose places among those who ask it takes, the client's
        own by default. Raises as `rate` does, and TryAgainLater (TOO_MANY_QUOTES) where the asker waits for as many
        already as it may.
        """
        rate = self._reads.kept(swap.question) or self._read_in_turn(asker or client_id, swap, deadline)
        answer: dict[str, Any] = {
            "quote_id": None,
            "expires_at": None,
            "from": {"currency": swap.source.currency, "network": swap.source.network},
            "to": {"currency": swap.target.currency, "network": swap.target.network},
            "rate_mode": swap.mode,
            "amount": _plain(swap.amount),
            "amount_to_get": _plain(rate.amount_to_get),
            "price": _plain(rate.price),
            "limits": {"min": _plain(rate.min_amount), "max": _plain(rate.max_amount)},
            "fees": {"network": _plain(rate.network_fee), "platform": _plain(rate.platform_fee)},
            "fixed_rate_available": rate.fixed_rate_enabled,
            "confirmations_required": rate.confirmations_required,
            "rate_updated_at": None if rate.updated_at is None else iso(rate.updated_at),
        }
        if swap.amount is not None:
            expires_at = self._clock() + LIFETIME
            answer["expires_at"] = iso(expires_at)
            # The nonce: of two customers who ask the same in one millisecond, each can spend a quote.
            parts = (_binding(client_id, swap), _packed(terms_of(rate)), secrets.token_urlsafe(9))
            answer["quote_id"] = self._tickets.issue(*parts, expires_at=expires_at)
        return answer

    def _read_in_turn(self, asker: str, swap: Swap, deadline: float) -> Rate:
        try:
            with self._room.place(asker, _LINE_SECONDS):
                return self._reads.read(swap.question, lambda: self.rate(swap, deadline), deadline)
        except NoPlace:
            raise TryAgainLater(
                "Too many quotes of yours are being asked for at this moment.", code="TOO_MANY_QUOTES", retry_after=1
            ) from None
        except TimeoutError:
            raise TryAgainLater(
                "The upstream gives no rate right now.", code="RATE_UNAVAILABLE", retry_after=5
            ) from None

    def open(self, quote_id: str, client_id: str, swap: Swap) -> Quote | FieldProblem:
        """The quote behind the id, if it binds exactly this swap. Whether it was spent is for the order to find.

        A problem is QUOTE_INVALID, QUOTE_EXPIRED, QUOTE_MISMATCH, or RATE_TOO_OLD: its rate is older than RATE_MAX_AGE by
        the upstream's own clock.
        """
        try:
            (bound_to, packed, *_nonce), expires_at = self._tickets.open(quote_id)
        except ExpiredTicket as error:
            return FieldProblem("QUOTE_EXPIRED", f"This quote expired at {iso(error.expires_at)}; ask for a new one.")
        except InvalidTicket:
            return FieldProblem("QUOTE_INVALID", "This quote id was not made here.")
        if bound_to != _binding(client_id, swap):
            message = "This quote was made for another route, amount, rate mode or client."
            return FieldProblem("QUOTE_MISMATCH", message)
        terms = _unpacked(packed)
        if self._is_too_old(terms.updated_at):
            return FieldProblem("RATE_TOO_OLD", "The rate behind this quote is too old; ask for a new one.")
        return Quote(terms, hashlib.sha256(quote_id.encode()).hexdigest(), expires_at)

    def renewed(self, order: Order, tolerance: Decimal) -> Terms | None:
        """The terms on which the order may be created again: its own while its quote stands; after that today's, if a
        FLOATING rate is within the tolerance of what was promised, or a FIXED one promises as much. None when neither is so.

        Raises TryAgainLater when the upstream gives no rate now.
        """
        if self._stand(order):
            return Terms(order.amount_to_get, order.network_fee, order.confirmations_required, order.rate, None)
        catalog = self._catalog.snapshot()
        source = catalog.instrument(order.from_currency, order.from_network)
        target = catalog.instrument(order.to_currency, order.to_network)
        if source is None or target is None:
            return None
        swap = Swap(source, target, order.amount, "FIXED" if order.rate_mode == "FIXED" else "FLOATING")
        try:
            terms = terms_of(self.rate(swap, _RENEW_SECONDS, priority="resolve"))
        except InvalidRequest:
            return None
        kept = money.keeps_promise(terms.amount_to_get, order.amount_to_get, tolerance, fixed=swap.mode == "FIXED")
        return terms if kept else None

    def _stand(self, order: Order) -> bool:
        """Whether what the order was promised could be promised now: its rate is fresh by the upstream's clock, and its
        quote, if it was made with one, has not expired."""
        updated_at = order.rate.get("updatedAt")
        if self._is_too_old(from_iso(updated_at) if updated_at else order.created_at):
            return False
        quote_id = order.request.get("quote_id")
        if quote_id is None:
            return True
        try:
            self._tickets.open(quote_id)
        except InvalidTicket:
            return False
        return True

    def rate(self, swap: Swap, deadline: float, *, priority: str = "read") -> Rate:
        """The upstream's rate now, checked: right mode, amount within its limits, fresh by its own clock.

        `deadline` in seconds; `priority`: of the budget. Raises InvalidRequest for an amount outside the limits (with the
        bound), a mode that is not offered or a pair that is not; TryAgainLater (RATE_UNAVAILABLE) when the upstream gives
        no usable rate.
        """
        source, target = swap.source, swap.target
        try:
            request = RateRequest(
                source.currency,
                source.network,
                target.currency,
                target.network,
                amount=swap.amount,
                mode=swap.mode,
                markup=self._markup,
                referrer_id=self._referrer_id,
            )
            rate = self._upstream.rate(request, priority=priority, deadline=deadline)
        except UpstreamRefused as error:
            raise _explained(error, swap) from error
        except UpstreamError as error:
            raise TryAgainLater(
                "The upstream gives no rate right now.", code="RATE_UNAVAILABLE", retry_after=5, cause=error.code
            ) from error
        if self._is_too_old(rate.updated_at):
            raise TryAgainLater(
                "The upstream's rate for this pair is too old to be promised.", code="RATE_UNAVAILABLE", retry_after=10
            )
        self._catalog.learn(source, target, rate)
        if swap.amount is not None:
            problem = outside_limits(swap.amount, rate.min_amount, rate.max_amount, source.currency)
            if problem is not None:
                raise InvalidRequest({"amount": [problem]})
            if rate.amount_to_get is None:
                raise TryAgainLater("The upstream's rate names no payout.", code="RATE_UNAVAILABLE", retry_after=10)
        return rate

    def _is_too_old(self, updated_at: datetime | None) -> bool:
        return updated_at is not None and self._upstream.upstream_now() - updated_at > self._rate_max_age


def _explained(error: UpstreamRefused, swap: Swap) -> InvalidRequest:
    if isinstance(error, AmountRefused):
        minimum = error.bound if error.side == "min" else None
        maximum = error.bound if error.side == "max" else None
        what = {"min": "below the minimum", "max": "above the maximum"}.get(error.side or "", "outside the limits")
        problem = _amount_problem(what, error.code, minimum, maximum, swap.source.currency)
        return InvalidRequest({"amount": [problem]})
    if isinstance(error, RateModeRefused):
        return InvalidRequest.on("rate_mode", error.code, f"This pair is not offered at a {swap.mode} rate right now.")
    if isinstance(error, PairRefused):
        source, target = swap.source, swap.target
        message = (
            f"{source.currency} on {source.network} cannot be swapped to {target.currency} on {target.network} now."
        )
        return InvalidRequest.on("to", "PAIR_UNAVAILABLE", message)
    return InvalidRequest.on("amount", error.code, "The upstream refuses to quote this.")


def terms_of(rate: Rate) -> Terms:
    return Terms(
        amount_to_get=rate.amount_to_get,
        network_fee=rate.network_fee,
        confirmations_required=rate.confirmations_required,
        claimed=rate.claimed(),
        updated_at=rate.updated_at,
    )


def outside_limits(
    amount: Decimal, minimum: Decimal | None, maximum: Decimal | None, currency: str
) -> FieldProblem | None:
    """The field problem of an amount outside its limits, or None. Limits in the deposit currency."""
    if minimum is not None and amount < minimum:
        return _amount_problem("below the minimum", "AMOUNT_BELOW_MINIMUM", minimum, maximum, currency)
    if maximum is not None and amount > maximum:
        return _amount_problem("above the maximum", "AMOUNT_ABOVE_MAXIMUM", minimum, maximum, currency)
    return None


def _amount_problem(
    what: str, code: str, minimum: Decimal | None, maximum: Decimal | None, currency: str
) -> FieldProblem:
    bound = minimum if "minimum" in what else maximum
    known = f" of {money.plain(bound)} {currency}" if bound is not None else ""
    return FieldProblem(code, f"The amount is {what}{known}.", {"min": _plain(minimum), "max": _plain(maximum)})


def _binding(client_id: str, swap: Swap) -> str:
    source, target = swap.source, swap.target
    route = (source.currency, source.network, target.currency, target.network)
    return binding(client_id, *route, _plain(swap.amount), swap.mode)


def _packed(terms: Terms) -> str:
    content = {
        "g": _plain(terms.amount_to_get),
        "f": _plain(terms.network_fee),
        "n": terms.confirmations_required,
        "c": terms.claimed,
        "u": None if terms.updated_at is None else iso(terms.updated_at),
    }
    return base64_encode(zlib.compress(orjson.dumps(content))).decode("ascii")


def _unpacked(text: str) -> Terms:
    content = orjson.loads(zlib.decompress(base64_decode(text)))
    return Terms(
        amount_to_get=_decimal(content["g"]),
        network_fee=_decimal(content["f"]),
        confirmations_required=content["n"],
        claimed=content["c"],
        updated_at=None if content["u"] is None else from_iso(content["u"]),
    )


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else money.plain(amount)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
