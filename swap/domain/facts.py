"""What the upstream has said about one order, and how two answers become one (docs/upstream.md section 5).

Times are aware UTC, cut to milliseconds. Amounts are Decimals in the currency of their side. A value here is always in
canonical form: equal facts have equal JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from swap.domain.times import cut_to_ms, from_iso, iso
from swap.domain.transfers import EPOCH, Transfer, carry, distinct, from_sightings

# What is kept of answers that are history, so that an upstream which dates everything anew at each answer cannot make the
# facts grow: the newest of the events that the current answer does not repeat, of the transfers that it no longer lists,
# and of the pending ones that vanished.
KEPT_EVENTS, KEPT_TRANSFERS, KEPT_MISSED = 100, 50, 20
# A pending deposit that this many answers left out was replaced by its sender.
REPLACED_AFTER = 2

_HOLD_WORDS = frozenset({"FROZEN", "FREEZE", "HOLD", "HELD", "ONHOLD", "HOLDING"})
_HOLD_BEGINNINGS = ("AML", "KYC")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


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
        """The exact names first; then whole words of holding, since only one full hold kind is attested. A word inside
        another one (THRESHOLD, UNFROZEN) says something else. A kind such as KYC_PASSED reads as a hold until progress
        follows: that is late, but never a false all-clear."""
        name = raw.strip().upper()
        if name in cls.__members__:
            return cls[name]
        words = [word.upper() for word in _WORD.findall(raw)]
        held = any(word in _HOLD_WORDS or word.startswith(_HOLD_BEGINNINGS) for word in words)
        return cls.HOLD if held else cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class UpstreamEvent:
    """One entry of `orderEvents`: the raw kind, and its time in upstream time (aware UTC)."""

    kind: str
    at: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", cut_to_ms(self.at))


@dataclass(frozen=True, slots=True)
class Facts:
    """What one answer says about an order; or, merged, the *current* answer and what is kept of those before it.

    Told by the current answer alone: `events`, the flags, `kyc_link`, `state`. `transfers`: those that it lists, and older
    ones that were settled. `asked_at`: when it was asked for; None for the answer to a create. `updated_at`: its
    `updatedAt`, where it names one.

    History: `past` are events that other answers told; `missed` counts, by transaction id, the answers that left out a
    deposit which was pending; `counted` is the largest number of deposits at one time, so that each further deposit is
    told once; `unheld_at`: when an answer left out a form link that was told before, the end of a hold without an event."""

    events: frozenset[UpstreamEvent] = frozenset()
    transfers: tuple[Transfer, ...] = ()
    completed: bool = False
    failed_to_create: bool = False
    pending_to_create: bool = False
    kyc_link: str | None = None
    state: str | None = None
    # When an answer came is not what it says: facts that differ in these alone are equal.
    asked_at: datetime | None = field(default=None, compare=False)
    updated_at: datetime | None = field(default=None, compare=False)
    past: frozenset[UpstreamEvent] = frozenset()
    missed: Mapping[str, int] = field(default_factory=dict, hash=False)
    counted: int = 0
    unheld_at: datetime | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("events", frozenset(self.events))
        put("past", frozenset(_newest(frozenset(self.past) - self.events)))
        put("transfers", distinct(self.transfers))
        put("transfers", tuple(replace(t, pending=t.pending and not self._completed(t)) for t in self.transfers))
        put("kyc_link", self.kyc_link or None)
        put("state", self.state or None)
        put("missed", MappingProxyType(dict(sorted(self.missed.items()))))
        put("counted", max(self.counted, len(self.deposits)))
        for name in ("asked_at", "updated_at", "unheld_at"):
            at = getattr(self, name)
            put(name, None if at is None else cut_to_ms(at))

    @property
    def deposits(self) -> tuple[Transfer, ...]:
        return tuple(t for t in self.transfers if t.direction == "deposit")

    @property
    def withdrawals(self) -> tuple[Transfer, ...]:
        return tuple(t for t in self.transfers if t.direction == "withdrawal")

    @property
    def known(self) -> frozenset[UpstreamEvent]:
        """The events of all answers, as far as they are kept."""
        return self.events | self.past

    @property
    def timeline(self) -> tuple[UpstreamEvent, ...]:
        """Events, newest first; ties are broken by `Kind`. The order of the upstream's array is never trusted."""
        return tuple(sorted(self.events, key=_by_time, reverse=True))

    @property
    def unknown_kinds(self) -> tuple[str, ...]:
        """Raw kinds that no row of the mapping reads, newest first, each once."""
        return tuple(dict.fromkeys(e.kind for e in self.timeline if Kind.of(e.kind) is Kind.UNKNOWN))

    @property
    def deposit_seen(self) -> bool:
        """Any sign that money came in, in the wide sense: listed, detected, frozen, paid out or being returned, by any
        answer. It keeps an order from expiring, and a failed order watched; so a false yes is the cheap mistake."""
        return self.signs > 0

    @property
    def signs(self) -> int:
        """How many things speak of a deposit, in the same wide sense: grows when a poll brings a new one."""
        kinds = sum(Kind.of(e.kind) > Kind.CREATION_END for e in self.known)
        return kinds + self.counted + len(self.withdrawals) + self.completed

    def merge(self, other: Facts) -> Facts:
        """What is known, and another answer. One of the two is the current one from now on; the other is history, of which
        only settled transfers, events and what was counted are kept.

        An answer is stale, and never becomes the current one, when it brings no new event and lacks one that is known, or
        when its `updatedAt` is older. Of the others the one that was asked for last is current. So the same answers,
        merged in any order, have the same current one."""
        news = _supersedes(other, self)
        current, history = (other, self) if news else (self, other)
        missed = _count_missed(self, other) if news else self.missed
        listed = [t for t in current.transfers if not t.pending or missed.get(t.tx or "", 0) < REPLACED_AFTER]
        return Facts(
            events=current.events,
            transfers=tuple(_bounded(listed, carry(listed, history.transfers))),
            completed=current.completed,
            failed_to_create=current.failed_to_create,
            pending_to_create=current.pending_to_create,
            kyc_link=current.kyc_link,
            state=current.state or (history.state if news else None),
            asked_at=current.asked_at,
            updated_at=current.updated_at,
            # A create may tell events in a form that no later answer repeats: they are not what an answer is held against.
            past=current.past | (history.known if history.asked_at or not current.asked_at else frozenset()),
            missed=missed,
            counted=self.counted,
            unheld_at=current.asked_at if news and self.kyc_link and not other.kyc_link else self.unheld_at,
        )

    def _completed(self, transfer: Transfer) -> bool:
        """Whether this is one of the payouts that were completed: as many as the events say, oldest first."""
        if transfer.direction == "deposit" or transfer.tx_id is None:
            return False
        done = sum(Kind.of(e.kind) is Kind.WITHDRAWAL_COMPLETED for e in self.events)
        return transfer in (self.withdrawals if self.completed and not done else self.withdrawals[:done])

    def to_json(self) -> dict[str, Any]:
        """Plain types, exact and in a fixed order: equal facts give equal text, but for the times of asking. Amounts as
        decimal strings in plain notation, times as ISO 8601 with milliseconds and `Z`."""
        return {
            "events": _events_json(self.events),
            "transfers": [transfer.to_json() for transfer in self.transfers],
            "completed": self.completed,
            "failed_to_create": self.failed_to_create,
            "pending_to_create": self.pending_to_create,
            "kyc_link": self.kyc_link,
            "state": self.state,
            "asked_at": None if self.asked_at is None else iso(self.asked_at),
            "updated_at": None if self.updated_at is None else iso(self.updated_at),
            "past": _events_json(self.past),
            "missed": dict(self.missed),
            "counted": self.counted,
            "unheld_at": None if self.unheld_at is None else iso(self.unheld_at),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Facts:
        """The inverse of `to_json`. A missing key means that the upstream said nothing, so older rows stay readable: without
        `asked_at`, `transfers` holds all sightings. A value of the wrong form raises ValueError, KeyError, TypeError or
        decimal.InvalidOperation: we wrote it ourselves."""
        transfers = [Transfer.from_json(transfer) for transfer in data.get("transfers", ())]
        return cls(
            events=_events_from(data.get("events", ())),
            transfers=tuple(transfers) if "asked_at" in data else from_sightings(transfers),
            completed=data.get("completed", False),
            failed_to_create=data.get("failed_to_create", False),
            pending_to_create=data.get("pending_to_create", False),
            kyc_link=data.get("kyc_link"),
            state=data.get("state"),
            asked_at=from_iso(data["asked_at"]) if data.get("asked_at") else None,
            updated_at=from_iso(data["updated_at"]) if data.get("updated_at") else None,
            past=_events_from(data.get("past", ())),
            missed=data.get("missed", {}),
            counted=data.get("counted", 0),
            unheld_at=from_iso(data["unheld_at"]) if data.get("unheld_at") else None,
        )


def _supersedes(news: Facts, known: Facts) -> bool:
    """Whether `news` is the current answer from now on."""
    if news.asked_at is None and _silent(news):
        return False
    if (news.asked_at is None) != (known.asked_at is None):
        return known.asked_at is None  # any look counts more than the answer to a create
    if news.events <= known.known and not news.events >= known.events:
        return False  # stale: no new event, and one is missing
    if known.events < news.events:
        return True
    if news.updated_at is not None and known.updated_at is not None and news.updated_at != known.updated_at:
        return news.updated_at > known.updated_at
    return (news.asked_at or EPOCH) >= (known.asked_at or EPOCH)


def _silent(facts: Facts) -> bool:
    """Whether an answer told nothing about the order itself."""
    flags = facts.completed or facts.failed_to_create or facts.pending_to_create
    return not (facts.events or facts.transfers or flags or facts.kyc_link or facts.state)


def _count_missed(known: Facts, news: Facts) -> dict[str, int]:
    """How often each deposit that was pending has been left out, this answer included."""
    if known.asked_at is None:
        return dict(news.missed)
    listed = {transfer.tx for transfer in news.transfers}
    pending = {t.tx: 0 for t in known.deposits if t.pending and t.tx}
    counts = {**pending, **known.missed, **news.missed}
    counts = {id_: min(n + (id_ not in listed), REPLACED_AFTER) for id_, n in counts.items() if id_}
    return dict([(id_, n) for id_, n in counts.items() if n][-KEPT_MISSED:])


def _bounded(listed: list[Transfer], carried: list[Transfer]) -> list[Transfer]:
    older = sorted(carried[len(listed) :], key=lambda t: (t.at or EPOCH, t.tx_id or ""))
    return carried[: len(listed)] + older[-KEPT_TRANSFERS:]


def _by_time(event: UpstreamEvent) -> tuple[datetime, int, str]:
    return (event.at, Kind.of(event.kind), event.kind)


def _newest(events: Iterable[UpstreamEvent]) -> list[UpstreamEvent]:
    return sorted(events, key=_by_time)[-KEPT_EVENTS:]


def _events_json(events: Iterable[UpstreamEvent]) -> list[dict[str, str]]:
    return [{"kind": e.kind, "at": iso(e.at)} for e in sorted(events, key=_by_time)]


def _events_from(rows: Iterable[dict[str, str]]) -> frozenset[UpstreamEvent]:
    return frozenset(UpstreamEvent(row["kind"], from_iso(row["at"])) for row in rows)
