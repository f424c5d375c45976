"""What the upstream has said about one order, and how two answers become one (docs/upstream.md section 5).

Times are aware UTC, cut to milliseconds. Amounts are Decimals in the currency of their side. A value here is always in
canonical form: the same facts, received in any order, are equal and have equal JSON.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal

from swap.domain.times import cut_to_ms, from_iso, iso

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_HOLD_WORDS = ("AML", "FROZEN", "HOLD", "KYC")


class Kind(IntEnum):
    """What an event kind means, in order of appearance. The order breaks ties between events of one millisecond: a hold or
    a refund beats the progress it came with, and an unknown kind never beats a known one."""

    UNKNOWN = 0
    CREATION_END = 1
    INCOMING_FUNDS_DETECTED = 2
    DEPOSIT_REGISTERED = 3
    FUNDS_WITHDRAWAL_START = 4
    WITHDRAWAL_COMPLETED = 5
    HOLD = 6
    REFUND_REQUESTED = 7
    REFUND_COMPLETED = 8

    @classmethod
    def of(cls, raw: str) -> Kind:
        """The exact names first; then the hold words as substrings, since only one full hold kind is attested. So a kind
        such as KYC_PASSED reads as a hold until progress follows: that is late, but never a false all-clear."""
        name = raw.strip().upper()
        if name in cls.__members__:
            return cls[name]
        return cls.HOLD if any(word in name for word in _HOLD_WORDS) else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class UpstreamEvent:
    """One entry of `orderEvents`: the raw kind, and its time in upstream time (aware UTC)."""

    kind: str
    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", cut_to_ms(self.at))


@dataclass(frozen=True, slots=True)
class Transfer:
    """One entry of `deposits` or `withdrawals`. `amount` in the currency of its side; `at` in upstream time.
    `pending` only for deposits; `confirmations` None when the upstream did not say."""

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


def _order(transfer: Transfer) -> tuple[Any, ...]:
    amount, at = transfer.amount, transfer.at
    return (transfer.direction, at is None, at or EPOCH, amount is None, amount or Decimal(0), transfer.tx_id or "")


def _one(sightings: list[Transfer]) -> Transfer:
    """Several sightings of one transfer as one. Confirmations only rise, and a transfer that was once not pending never is
    pending again. The amount is the best attested one: from a sighting with a transaction id, then one that is not
    pending, then the most confirmed."""
    amounts = [s for s in sightings if s.amount is not None]
    best = max(
        amounts,
        # The last term only picks a spelling (0.1 or 0.10), so that equal facts have equal JSON.
        key=lambda s: (s.tx_id is not None, not s.pending, s.confirmations or 0, s.amount, len(str(s.amount))),
        default=None,
    )
    return Transfer(
        direction=sightings[0].direction,
        amount=best.amount if best else None,
        tx_id=next((s.tx_id for s in sightings if s.tx_id), None),
        at=min((s.at for s in sightings if s.at), default=None),
        confirmations=max((s.confirmations for s in sightings if s.confirmations is not None), default=None),
        pending=all(s.pending for s in sightings),
    )


def _sightings(transfers: Iterable[Transfer]) -> tuple[Transfer, ...]:
    """Equal sightings folded together: their number grows with different ids, times and amounts, not with the polls."""
    same: dict[tuple[Any, ...], list[Transfer]] = {}
    for transfer in transfers:
        same.setdefault((transfer.direction, transfer.tx_id, transfer.at, transfer.amount), []).append(transfer)
    return tuple(sorted((_one(group) for group in same.values()), key=_order))


def _resolve(sightings: tuple[Transfer, ...]) -> tuple[Transfer, ...]:
    """Merge the sightings of one transfer. Two sightings are one transfer if they have the same id; or the same time, where
    one has no id yet; or the same time and amount, where neither has an id. That relation is not transitive (two payments
    in one block). So it is worked out from all sightings each time, never pair by pair: the result cannot depend on the
    order of replies."""
    named: dict[tuple[str, str], list[Transfer]] = {}
    for s in sightings:
        if s.tx_id:
            named.setdefault((s.direction, s.tx_id), []).append(s)
    groups = list(named.values())

    def near(sighting: Transfer) -> list[list[Transfer]]:
        return [g for g in groups if g[0].direction == sighting.direction and any(m.at == sighting.at for m in g)]

    # Equal amounts are joined first. Then a transfer with an id may absorb one sighting of another amount, and only one: of
    # two transfers that were seen side by side without ids, neither may vanish because the other got its id. Sightings
    # without amount are joined last.
    unlike: list[Transfer] = []
    blank: list[Transfer] = []
    for s in (s for s in sightings if not s.tx_id):
        equal = [g for g in near(s) if any(m.amount == s.amount for m in g)]
        if equal:
            equal[0].append(s)
        else:
            (blank if s.amount is None else unlike).append(s)
    for s in (*unlike, *blank):
        homes = [g for g in near(s) if s.amount is None or (g[0].tx_id and all(m.tx_id for m in g))]
        if homes:
            homes[0].append(s)
        else:
            groups.append([s])
    return tuple(sorted((_one(group) for group in groups), key=_order))


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the upstream has ever said about one order. A reply only ever adds (`merge`).

    `transfers` may be given in any order and with repeats; it reads back as distinct transfers, oldest first.
    `kyc_since` is the upstream time of the newest event known when the form link first appeared (the epoch without any
    event): a link has no time of its own, and "no later progress" (row 6) needs one. Leave it out; it is filled in.
    `sightings` is what `transfers` was resolved from; internal."""

    events: frozenset[UpstreamEvent] = frozenset()
    transfers: tuple[Transfer, ...] = ()
    completed: bool = False
    failed_to_create: bool = False
    pending_to_create: bool = False
    kyc_link: str | None = None
    state: str | None = None
    kyc_since: datetime | None = None
    sightings: tuple[Transfer, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("events", frozenset(self.events))
        put("sightings", _sightings(self.transfers))
        put("transfers", _resolve(self.sightings))
        put("kyc_link", self.kyc_link or None)
        put("state", self.state or None)
        if self.kyc_link is None:
            put("kyc_since", None)
        elif self.kyc_since is None:
            put("kyc_since", max((e.at for e in self.events), default=EPOCH))
        else:
            put("kyc_since", cut_to_ms(self.kyc_since))

    @property
    def deposits(self) -> tuple[Transfer, ...]:
        return tuple(t for t in self.transfers if t.direction == "deposit")

    @property
    def withdrawals(self) -> tuple[Transfer, ...]:
        return tuple(t for t in self.transfers if t.direction == "withdrawal")

    @property
    def timeline(self) -> tuple[UpstreamEvent, ...]:
        """Events, newest first; ties are broken by `Kind`. The order of the upstream's array is never trusted."""
        return tuple(sorted(self.events, key=lambda e: (e.at, Kind.of(e.kind), e.kind), reverse=True))

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        """Raw kinds that no row of the mapping reads, newest first, each once."""
        return tuple(dict.fromkeys(e.kind for e in self.timeline if Kind.of(e.kind) is Kind.UNKNOWN))

    @property
    def deposit_seen(self) -> bool:
        """Any sign that money came in, in the wide sense: listed, detected, frozen, paid out or being returned. It keeps an
        order from expiring, and a failed order watched; so a false yes is the cheap mistake."""
        return self.signs > 0

    @property
    def signs(self) -> int:
        """How many things speak of a deposit, in the same wide sense: grows when a poll brings a new one."""
        kinds = sum(Kind.of(e.kind) > Kind.CREATION_END for e in self.events)
        return kinds + len(self.transfers) + self.completed

    def latest(self, kind: Kind) -> datetime | None:
        return max((e.at for e in self.events if Kind.of(e.kind) is kind), default=None)

    def merge(self, other: Facts) -> Facts:
        """The union by content; `other` is the newer answer. Idempotent, associative and monotone. Commutative except for
        the two fields that are replaced: `state` and `kyc_link` are the newer one that is not None. A flag that was true
        and a link that was named stay: an answer that leaves something out takes nothing back."""
        since = [at for at in (self.kyc_since, other.kyc_since) if at is not None]
        return Facts(
            events=self.events | other.events,
            transfers=self.sightings + other.sightings,
            completed=self.completed or other.completed,
            failed_to_create=self.failed_to_create or other.failed_to_create,
            pending_to_create=self.pending_to_create or other.pending_to_create,
            kyc_link=other.kyc_link or self.kyc_link,
            state=other.state or self.state,
            kyc_since=min(since, default=None),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types, exact and in a fixed order: equal facts give equal text. Amounts as decimal strings in plain
        notation, times as ISO 8601 with milliseconds and `Z`. `transfers` holds the sightings."""
        return {
            "events": [{"kind": e.kind, "at": iso(e.at)} for e in reversed(self.timeline)],
            "transfers": [
                {
                    "direction": s.direction,
                    "amount": None if s.amount is None else format(s.amount, "f"),
                    "tx_id": s.tx_id,
                    "at": None if s.at is None else iso(s.at),
                    "confirmations": s.confirmations,
                    "pending": s.pending,
                }
                for s in self.sightings
            ],
            "completed": self.completed,
            "failed_to_create": self.failed_to_create,
            "pending_to_create": self.pending_to_create,
            "kyc_link": self.kyc_link,
            "kyc_since": None if self.kyc_since is None else iso(self.kyc_since),
            "state": self.state,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Facts:
        """The inverse of `to_json`. A missing key means that the upstream said nothing, so older rows stay readable. A value
        of the wrong form raises ValueError, KeyError, TypeError or decimal.InvalidOperation: we wrote it ourselves."""
        return cls(
            events=frozenset(UpstreamEvent(e["kind"], from_iso(e["at"])) for e in data.get("events", ())),
            transfers=tuple(
                Transfer(
                    direction=t["direction"],
                    amount=None if t.get("amount") is None else Decimal(t["amount"]),
                    tx_id=t.get("tx_id"),
                    at=from_iso(t["at"]) if t.get("at") else None,
                    confirmations=t.get("confirmations"),
                    pending=t.get("pending", False),
                )
                for t in data.get("transfers", ())
            ),
            completed=data.get("completed", False),
            failed_to_create=data.get("failed_to_create", False),
            pending_to_create=data.get("pending_to_create", False),
            kyc_link=data.get("kyc_link"),
            state=data.get("state"),
            kyc_since=from_iso(data["kyc_since"]) if data.get("kyc_since") else None,
        )
