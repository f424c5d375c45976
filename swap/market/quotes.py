"""Quotes: what a swap would pay out, and a signed ticket that binds it.

A quote id is the quote itself, signed under SWAP_SECRET_KEYS: nothing is stored until an order spends it. It is bound to
client, route, amount and rate mode, and it makes one order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from itsdangerous import BadData, URLSafeSerializer

from swap.domain import money
from swap.domain.times import iso
from swap.errors import (
    AmountRefused,
    InvalidRequest,
    PairRefused,
    RateModeRefused,
    TryAgainLater,
    UpstreamError,
    UpstreamRefused,
)
from swap.infra.vault import Vault
from swap.market.catalog import Catalog
from swap.tables import InstrumentRow, Order
from swap.upstream.client import UpstreamClient
from swap.upstream.replies import Rate, RateMode, RateRequest

log = structlog.get_logger()

LIFETIME = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Terms:
    """The rate an order is made at. `claimed` is the claimedPublicRate of docs/upstream.md E6; amounts in Decimal."""

    amount_to_get: Decimal | None
    network_fee: Decimal | None
    confirmations_required: int | None
    claimed: dict[str, Any]
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class Ticket:
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
        # itsdangerous signs with the last key and verifies with all; the vault puts the current one first.
        self._serializer = URLSafeSerializer(list(reversed(vault.keys("quote"))), salt="quote")

    def quote(
        self,
        client_id: str,
        source: InstrumentRow,
        target: InstrumentRow,
        amount: Decimal | None,
        mode: RateMode,
        deadline: float,
    ) -> dict[str, Any]:
        """A quote as the API answers it. Without an amount it tells limits only and has no id.

        `deadline`: seconds left for the caller's request. Raises InvalidRequest for an amount outside the limits (with
        the bound), a mode that is not offered or a pair that is not; TryAgainLater when no rate is to be had.
        """
        rate = self.rate(source, target, amount, mode, deadline)
        terms = terms_of(rate)
        now = self._clock()
        answer: dict[str, Any] = {
            "quote_id": None,
            "expires_at": None,
            "from": {"currency": source.currency, "network": source.network},
            "to": {"currency": target.currency, "network": target.network},
            "rate_mode": mode,
            "amount": None if amount is None else money.plain(amount),
            "amount_to_get": _plain(rate.amount_to_get),
            "price": _plain(rate.price),
            "limits": {"min": _plain(rate.min_amount), "max": _plain(rate.max_amount)},
            "fees": {"network": _plain(rate.network_fee), "platform": _plain(rate.platform_fee)},
            "fixed_rate_available": rate.fixed_rate_enabled,
            "confirmations_required": rate.confirmations_required,
            "rate_updated_at": None if rate.updated_at is None else iso(rate.updated_at),
        }
        if amount is not None:
            expires_at = now + LIFETIME
            answer["expires_at"] = iso(expires_at)
            answer["quote_id"] = self._serializer.dumps(
                {
                    "b": _binding(client_id, source, target, amount, mode),
                    "x": int(expires_at.timestamp() * 1000),
                    "g": _plain(terms.amount_to_get),
                    "f": _plain(terms.network_fee),
                    "n": terms.confirmations_required,
                    "c": terms.claimed,
                    "u": None if terms.updated_at is None else iso(terms.updated_at),
                }
            )
        return answer

    def open(
        self,
        quote_id: str,
        client_id: str,
        source: InstrumentRow,
        target: InstrumentRow,
        amount: Decimal,
        mode: RateMode,
    ) -> Ticket:
        """The quote behind the id, if it binds exactly this request. Whether it was spent is for the order to find.

        Raises InvalidRequest on `quote_id` with QUOTE_INVALID, QUOTE_EXPIRED or QUOTE_MISMATCH.
        """
        try:
            content = self._serializer.loads(quote_id)
        except BadData:
            raise _refuse("QUOTE_INVALID", "This quote id was not made here.") from None
        expires_at = datetime.fromtimestamp(content["x"] / 1000, UTC)
        if self._clock() >= expires_at:
            raise _refuse("QUOTE_EXPIRED", f"This quote expired at {iso(expires_at)}; ask for a new one.")
        if content["b"] != _binding(client_id, source, target, amount, mode):
            raise _refuse("QUOTE_MISMATCH", "This quote was made for another route, amount, rate mode or client.")
        terms = Terms(
            amount_to_get=_decimal(content["g"]),
            network_fee=_decimal(content["f"]),
            confirmations_required=content["n"],
            claimed=content["c"],
            updated_at=None if content["u"] is None else datetime.fromisoformat(content["u"]),
        )
        return Ticket(terms=terms, mark=hashlib.sha256(quote_id.encode()).hexdigest(), expires_at=expires_at)

    def still_stand(self, order: Order) -> bool:
        """Whether what the order was promised could be promised now: its rate is fresh by the upstream's clock, and its
        quote, if it was made with one, has not expired."""
        told = order.rate.get("updatedAt")
        quoted_at = datetime.fromisoformat(told) if told else order.created_at
        if self._age(quoted_at) > self._rate_max_age:
            return False
        quote_id = order.request.get("quote_id")
        if quote_id is None:
            return True
        try:
            return bool(self._clock().timestamp() * 1000 < self._serializer.loads(quote_id)["x"])
        except BadData:
            return False

    def check_age(self, terms: Terms) -> None:
        """Raises InvalidRequest (RATE_TOO_OLD) for a rate older than RATE_MAX_AGE by the upstream's own clock."""
        if terms.updated_at is not None and self._age(terms.updated_at) > self._rate_max_age:
            raise _refuse("RATE_TOO_OLD", "The rate behind this quote is too old; ask for a new one.")

    def rate(
        self,
        source: InstrumentRow,
        target: InstrumentRow,
        amount: Decimal | None,
        mode: RateMode,
        deadline: float,
        *,
        priority: str = "read",
    ) -> Rate:
        """The upstream's rate now, checked: right mode, amount within its limits, fresh by its own clock. `priority`: of the
        budget."""
        try:
            request = RateRequest(
                source.currency,
                source.network,
                target.currency,
                target.network,
                amount=amount,
                mode=mode,
                markup=self._markup,
                referrer_id=self._referrer_id,
            )
            rate = self._upstream.rate(request, priority=priority, deadline=deadline)
        except UpstreamRefused as error:
            raise self._explained(error, source, target, mode, deadline) from error
        except UpstreamError as error:
            raise TryAgainLater(
                "No rate is to be had from the upstream right now.",
                code="RATE_UNAVAILABLE",
                retry_after=5,
                cause=error.code,
            ) from error
        if _about_another_pair(rate, source, target):
            log.error("quotes.rate_of_another_pair", source=source.currency, target=target.currency)
            raise TryAgainLater(
                "The upstream's rate is not one for this pair.", code="RATE_UNAVAILABLE", retry_after=10
            )
        if rate.updated_at is not None and self._age(rate.updated_at) > self._rate_max_age:
            raise TryAgainLater(
                "The upstream's rate for this pair is too old to be promised.", code="RATE_UNAVAILABLE", retry_after=10
            )
        self._catalog.learn(source, target, rate)
        if amount is not None:
            problem = outside_limits(amount, rate.min_amount, rate.max_amount, source.currency)
            if problem is not None:
                raise InvalidRequest({"amount": [problem]})
            if rate.amount_to_get is None:
                raise TryAgainLater("The upstream's rate names no payout.", code="RATE_UNAVAILABLE", retry_after=10)
        return rate

    def _explained(
        self, error: UpstreamRefused, source: InstrumentRow, target: InstrumentRow, mode: RateMode, deadline: float
    ) -> InvalidRequest:
        if isinstance(error, AmountRefused):
            bound = error.bound
            minimum = bound if error.side == "min" else None
            maximum = bound if error.side == "max" else None
            what = {"min": "below the minimum", "max": "above the maximum"}.get(error.side or "", "outside the limits")
            return InvalidRequest({"amount": [amount_problem(what, error.code, minimum, maximum, source.currency)]})
        if isinstance(error, RateModeRefused):
            message = f"This pair is not offered at a {mode} rate right now."
            return InvalidRequest({"rate_mode": [{"code": error.code, "message": message}]})
        if isinstance(error, PairRefused):
            message = (
                f"{source.currency} on {source.network} cannot be swapped to {target.currency} on {target.network} now."
            )
            return InvalidRequest({"to": [{"code": "PAIR_UNAVAILABLE", "message": message}]})
        return InvalidRequest({"amount": [{"code": error.code, "message": "The upstream refuses to quote this."}]})

    def _age(self, updated_at: datetime) -> timedelta:
        return self._upstream.upstream_now() - updated_at


def _about_another_pair(rate: Rate, source: InstrumentRow, target: InstrumentRow) -> bool:
    """Whether the answer names other instruments, from a cache that got mixed up, say. Not naming any is allowed."""
    told = (rate.from_currency, rate.from_network, rate.to_currency, rate.to_network)
    asked = (source.currency_key, source.network_key, target.currency_key, target.network_key)
    return any(a is not None and a.casefold() != b for a, b in zip(told, asked, strict=True))


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
) -> dict[str, Any] | None:
    """The field problem of an amount outside its limits, or None. Limits in the deposit currency."""
    if minimum is not None and amount < minimum:
        return amount_problem("below the minimum", "AMOUNT_BELOW_MINIMUM", minimum, maximum, currency)
    if maximum is not None and amount > maximum:
        return amount_problem("above the maximum", "AMOUNT_ABOVE_MAXIMUM", minimum, maximum, currency)
    return None


def amount_problem(
    what: str, code: str, minimum: Decimal | None, maximum: Decimal | None, currency: str
) -> dict[str, Any]:
    bound = minimum if "minimum" in what else maximum
    known = f" of {money.plain(bound)} {currency}" if bound is not None else ""
    return {"code": code, "message": f"The amount is {what}{known}.", "min": _plain(minimum), "max": _plain(maximum)}


def _binding(client_id: str, source: InstrumentRow, target: InstrumentRow, amount: Decimal, mode: str) -> str:
    parts = (client_id, source.currency, source.network, target.currency, target.network, money.plain(amount), mode)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _refuse(code: str, message: str) -> InvalidRequest:
    return InvalidRequest({"quote_id": [{"code": code, "message": message}]})


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else money.plain(amount)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
