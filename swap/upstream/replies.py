"""What the v2 upstream answered, in our terms. Frozen; nothing here reads JSON (see `decode`) or opens a connection.

Conventions that hold for every type below (docs/upstream.md sections 3 and 5):

* A field the answer did not carry is None. So is one that carries `null`, `""` or, for amounts, a sentinel that is not
  a positive number (T9: `"-1"`, `"0"`). An echo check must therefore treat None as "unknown", never as "differs".
* Amounts are Decimal; times are aware, UTC, cut to milliseconds, and in the upstream's clock.
* Ids are opaque text (T4, C7, C21); titles keep the upstream's spelling (T7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from swap.domain.lifecycle import Facts
from swap.domain.money import plain
from swap.domain.times import iso
from swap.errors import RateModeRefused

RateMode = Literal["FLOATING", "FIXED"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One row of E1. `precision` is for rounding what we send, nothing else (T8).

    `type` is "crypto", or "fiat" for every other literal: the upstream's own word for fiat is not known (section 8).
    `requires_memo` None: not said, which is not a no.
    `name`: the friendly title under either of its names (C9), else the full name, else the currency title.
    """

    currency: str
    network: str
    type: Literal["crypto", "fiat"]
    slug: str | None
    name: str
    precision: int
    requires_memo: bool | None
    contract_address: str | None
    logo_url: str | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A direction that can be traded (E4a). Pairs are directed: the way back is a pair of its own."""

    from_currency: str
    from_network: str
    to_currency: str
    to_network: str
    active: bool = True


@dataclass(frozen=True, slots=True)
class AddressVerdict:
    """E3. `reason` in the upstream's words, None when it gave none (a bare `false`); `field` says whose fault it is."""

    valid: bool
    reason: str | None = None
    field: Literal["address", "memo"] | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """E5: the rate for one direction, and one amount when an amount was asked for.

    `min_amount` / `max_amount`: in the *from* currency, generalMinAmount / generalMaxAmount, else depositRules (C15).
    `network_fee` (finalNetworkFeeAmount) and `platform_fee` (platformFee_Absolute): in the *to* currency as far as is
    known. `confirmations_required`: minConfirmationsToTrade, of the deposit. `quotes`: as received, strings only.
    """

    from_currency: str | None
    from_network: str | None
    to_currency: str | None
    to_network: str | None
    amount_to_give: Decimal | None
    amount_to_get: Decimal | None
    price: Decimal | None
    rate_mode: RateMode | None
    fixed_rate_enabled: bool | None
    min_amount: Decimal | None
    max_amount: Decimal | None
    network_fee: Decimal | None
    platform_fee: Decimal | None
    updated_at: datetime | None
    confirmations_required: int | None
    quotes: dict[str, dict[str, str]] | None

    def claimed(self) -> dict[str, Any]:
        """`claimedPublicRate` for a create (E6): decimal strings, `updatedAt` always as an ISO string (C6).

        What the rate did not name is left out rather than sent as null.
        """
        claimed: dict[str, Any] = {}
        if self.price is not None:
            claimed["price"] = plain(self.price)
        if self.amount_to_get is not None:
            claimed["claimedAmountToReceive"] = plain(self.amount_to_get)
        if self.updated_at is not None:
            claimed["updatedAt"] = iso(self.updated_at)
        if self.network_fee is not None:
            claimed["finalNetworkFeeAmount"] = plain(self.network_fee)
        if self.platform_fee is not None:
            claimed["platformFee_Absolute"] = plain(self.platform_fee)
        if self.quotes is not None:
            claimed["quotes"] = self.quotes
        return claimed

    def require_mode(self, mode: RateMode) -> Rate:
        """This rate, if it is in `mode`; raises RateModeRefused when the upstream quoted another one (T12).

        A rate without a mode passes as FLOATING only: that is the upstream's default, and a FIXED promise made on an
        answer that does not say FIXED would be ours to pay.
        """
        if (self.rate_mode or "FLOATING") != mode:
            raise RateModeRefused(f"asked for a {mode} rate, quoted {self.rate_mode or 'without a mode'}")
        return self


@dataclass(frozen=True, slots=True)
class OrderReply:
    """An order as E6 or E8 returned it, echo and facts alike.

    `order_id`: the numeric id as text, or None. `refs`: every id form seen, in the order orderId, uuid, legacyOrderId,
    id, reference, depositAddress.orderId, without repetition. `confirmations`: how many the upstream asks for on the
    deposit (minConfirmationsToTrade), where named. `fixed_rate_minutes`: how long after its creation a fixed rate holds
    (fixedRate_maxTimeMinutes), where named. `state` and `status`: raw. `raw`: the answer as parsed, for the
    journal; numbers with a point are Decimal. `deposit_currency`, `deposit_network`: what the deposit address is said to be
    one of. `unreadable`: upstream's names of fields that are there, but in a form that is not known.
    """

    order_id: str | None
    refs: tuple[str, ...]
    deposit_address: str | None = None
    deposit_memo: str | None = None
    deposit_currency: str | None = None
    deposit_network: str | None = None
    payment_link: str | None = None
    from_currency: str | None = None
    from_network: str | None = None
    to_currency: str | None = None
    to_network: str | None = None
    rate_mode: RateMode | None = None
    amount: Decimal | None = None
    amount_to_get: Decimal | None = None
    destination_address: str | None = None
    destination_memo: str | None = None
    refund_address: str | None = None
    refund_memo: str | None = None
    created_at: datetime | None = None
    confirmations: int | None = None
    fixed_rate_minutes: int | None = None
    state: str | None = None
    status: str | None = None
    facts: Facts = field(default_factory=Facts)
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    unreadable: tuple[str, ...] = ()

    @property
    def primary_ref(self) -> str | None:
        """The id to ask with: the numeric one where known, else the first other form seen; None without any (T4)."""
        return self.order_id or (self.refs[0] if self.refs else None)

    @property
    def complete(self) -> bool:
        """Whether the customer can be told where to pay: an id, and a deposit address or a payment link."""
        return bool(self.refs) and (self.deposit_address is not None or self.payment_link is not None)


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """One row of E7. The list knows no memos, no deposit address, and not always the id that create returned (T4).

    `paid_out`: amountToWithdrawFact. `completed` None: not named. `refs`: orderId, uuid, legacyOrderId, id, reference,
    providerReference.
    """

    order_id: str | None
    refs: tuple[str, ...]
    destination_address: str | None
    refund_address: str | None
    amount: Decimal | None
    amount_to_get: Decimal | None
    paid_out: Decimal | None
    from_currency: str | None
    from_network: str | None
    to_currency: str | None
    to_network: str | None
    created_at: datetime | None
    updated_at: datetime | None
    completed: bool | None
    state: str | None


@dataclass(frozen=True, slots=True)
class RateRequest:
    """What E5a is asked for. `amount` on the deposit side; None asks for limits only. `markup` in percent."""

    from_currency: str
    from_network: str
    to_currency: str
    to_network: str
    amount: Decimal | None = None
    mode: RateMode = "FLOATING"
    markup: Decimal | None = None
    referrer_id: str | None = None

    def query(self) -> list[tuple[str, str]]:
        """The parameters, in the order in which they are sent."""
        query = [
            ("instrumentFromCurrencyTitle", self.from_currency),
            ("instrumentFromNetworkTitle", self.from_network),
            ("instrumentToCurrencyTitle", self.to_currency),
            ("instrumentToNetworkTitle", self.to_network),
            ("claimedDepositAmountCurrency", self.from_currency),  # C19: always sent
        ]
        if self.amount is not None:
            query.append(("claimedDepositAmount", plain(self.amount)))
        query.append(("rateMode", self.mode))
        if self.markup is not None:
            query.append(("markup", plain(self.markup)))
        if self.referrer_id:
            query.append(("referrerId", self.referrer_id))
        query.append(("exchangeType", "crypto"))
        return query


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What E6 is asked for. `amount` on the deposit side, already rounded to the instrument's precision (T8).

    `claimed_rate`: `Rate.claimed()` of the rate the customer saw. `markup` in percent. Memos are text, always (C8).
    Raises ValueError when `markup` is set without `referrer_id`: the upstream refuses that, even for "0" (T10).
    """

    from_currency: str
    from_network: str
    to_currency: str
    to_network: str
    amount: Decimal
    destination_address: str
    destination_memo: str | None = None
    refund_address: str | None = None
    refund_memo: str | None = None
    rate_mode: RateMode = "FLOATING"
    claimed_rate: dict[str, Any] | None = None
    network_fee: Decimal | None = None
    markup: Decimal | None = None
    referrer_id: str | None = None

    def __post_init__(self) -> None:
        if self.markup is not None and not self.referrer_id:
            raise ValueError("a markup needs a referrer id, or the upstream refuses the order")

    def body(self) -> dict[str, Any]:
        """The E6 body. Absent options are left out: clients in the field disagree on null and "" but all may omit."""
        body: dict[str, Any] = {
            "instrumentFrom": {"currencyTitle": self.from_currency, "networkTitle": self.from_network},
            "instrumentTo": {"currencyTitle": self.to_currency, "networkTitle": self.to_network},
            "destinationAddress": self.destination_address,
        }
        if self.destination_memo:
            body["destinationAddressMemo"] = self.destination_memo
        if self.refund_address:
            body["refundAddress"] = self.refund_address
        if self.refund_memo:
            body["refundAddressMemo"] = self.refund_memo
        body["claimedDepositAmount"] = plain(self.amount)
        body["rateMode"] = self.rate_mode
        if self.network_fee is not None:
            body["claimedNetworkFee"] = plain(self.network_fee)
        if self.referrer_id:
            body["referrerId"] = self.referrer_id
            if self.markup is not None:
                body["markup"] = plain(self.markup)
        if self.claimed_rate:
            body["claimedPublicRate"] = self.claimed_rate
        return body
