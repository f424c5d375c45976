"""Deposits and payouts as the upstream lists them, and what of an older answer outlives a newer one.

A listing is a claim: a pending deposit may be replaced by its sender (another transaction id, another time), and a payout
that was not yet completed may be sent again. So only what was settled outlives an answer that no longer lists it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from swap.domain.times import cut_to_ms, from_iso, iso

_HASH = re.compile(r"(?:0x)?[0-9a-f]{64}", re.ASCII | re.IGNORECASE)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One entry of `deposits` or `withdrawals`. `amount` in the currency of its side; `at` in upstream time.
    `confirmations` None when the upstream did not say. `pending`: it may still be replaced, or sent again; a payout until
    it is completed."""

    direction: Literal["deposit", "withdrawal"]
    amount: Decimal | None
    tx_id: str | None
    at: datetime | None
    confirmations: int | None = None
    pending: bool = False

    def __post_init__(self) -> None:
        if self.amount is not None and not self.amount.is_finite():
            raise ValueError("an amount must be a finite number")
        object.__setattr__(self, "tx_id", (self.tx_id or "").strip() or None)
        if self.at is not None:
            object.__setattr__(self, "at", cut_to_ms(self.at))

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two entries of one answer the same transfer: the transaction id; without one, time and amount."""
        return (self.direction, self.tx) if self.tx_id else (self.direction, None, self.at, self.amount)

    @property
    def tx(self) -> str | None:
        """The transaction id in one spelling: a hash of 32 bytes in hexadecimal is the same with 0x and without, and in
        capitals. Ids of other forms (base58, say) are compared as they are."""
        id_ = self.tx_id
        return id_.lower().removeprefix("0x") if id_ and _HASH.fullmatch(id_) else id_

    def to_json(self) -> dict[str, Any]:
        """Plain types; the amount as a decimal string in plain notation."""
        return {
            "direction": self.direction,
            "amount": None if self.amount is None else format(self.amount, "f"),
            "tx_id": self.tx_id,
            "at": None if self.at is None else iso(self.at),
            "confirmations": self.confirmations,
            "pending": self.pending,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Transfer:
        return cls(
            direction=data["direction"],
            amount=None if data.get("amount") is None else Decimal(data["amount"]),
            tx_id=data.get("tx_id"),
            at=from_iso(data["at"]) if data.get("at") else None,
            confirmations=data.get("confirmations"),
            pending=data.get("pending", False),
        )


def distinct(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Each transfer once, oldest first. Sightings of one transfer become one: the amount is that of the sighting which is
    not pending, then of the most confirmed one."""
    same: dict[tuple[Any, ...], list[Transfer]] = {}
    for transfer in transfers:
        same.setdefault(transfer.key, []).append(transfer)
    joined = []
    for group in same.values():
        # The last terms only pick a spelling (0.1 or 0.10) and a time, so that equal facts have equal JSON.
        first, *others = sorted(group, key=_attested, reverse=True)
        for other in others:
            first = join(first, other)
        joined.append(first)
    return tuple(sorted(joined, key=_order))


def carry(listed: Sequence[Transfer], older: Sequence[Transfer]) -> list[Transfer]:
    """The transfers of an answer, and the settled ones of an `older` answer that this one does not list.

    An older transfer without a transaction id cannot be told from a listed one, so it is kept only where nothing is
    listed in its direction. A listed one without an id may be a settled one whose id this answer left out."""
    mine = {transfer.key for transfer in listed}
    twins = {transfer.key: transfer for transfer in older}
    missing = [transfer for transfer in older if transfer.key not in mine and not transfer.pending]
    carried = []
    for transfer in listed:
        twin = twins.get(transfer.key) or _named_twin(transfer, missing)
        if twin in missing:
            missing.remove(twin)
        carried.append(join(transfer, twin) if twin else transfer)
    directions = {transfer.direction for transfer in listed}
    return carried + [transfer for transfer in missing if transfer.tx_id or transfer.direction not in directions]


def from_sightings(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Rows of before this version hold every sighting of a transfer. One without an id is the transfer with an id of the
    same moment: of the same amount, or of another one where no sighting has that amount (two payments in one block)."""
    rows = distinct(transfers)
    named = [row for row in rows if row.tx_id]
    moments = [(row.direction, row.at, row.amount) for row in rows if not row.tx_id]
    kept, free = list(named), [one for one in named if (one.direction, one.at, one.amount) not in moments]
    for row in (row for row in rows if not row.tx_id):
        homes = [one for one in named if (one.direction, one.at) == (row.direction, row.at)]
        if any(row.amount in (None, one.amount) for one in homes):
            continue
        home = next((one for one in homes if one in free), None)
        if home is None:
            kept.append(row)
        else:
            free.remove(home)
    # Whether a payout was complete was not kept with it.
    return tuple(sorted((replace(t, pending=t.pending or t.direction == "withdrawal") for t in kept), key=_order))


def join(newer: Transfer, older: Transfer) -> Transfer:
    """Two sightings of one transfer. Confirmations only rise, and what was settled once stays so; else the newer one
    counts where it says something."""
    confirmations = [c for c in (newer.confirmations, older.confirmations) if c is not None]
    return replace(
        newer,
        amount=older.amount if newer.amount is None else newer.amount,
        tx_id=newer.tx_id or older.tx_id,
        at=newer.at or older.at,
        confirmations=max(confirmations, default=None),
        pending=newer.pending and older.pending,
    )


def _named_twin(transfer: Transfer, missing: Sequence[Transfer]) -> Transfer | None:
    if transfer.tx_id:
        return None
    named = [one for one in missing if one.tx_id and one.direction == transfer.direction]
    return next((one for one in named if transfer.at in (None, one.at) or transfer.amount in (None, one.amount)), None)


def _attested(transfer: Transfer) -> tuple[Any, ...]:
    amount = transfer.amount
    known = (amount is not None, not transfer.pending, transfer.confirmations or 0)
    return (*known, amount or Decimal(0), len(str(amount)), transfer.at or EPOCH)


def _order(transfer: Transfer) -> tuple[Any, ...]:
    amount, at = transfer.amount, transfer.at
    when, much = (at is None, at or EPOCH), (amount is None, amount or Decimal(0))
    return (transfer.direction, *when, *much, transfer.tx_id or "", transfer.pending, transfer.confirmations or -1)
