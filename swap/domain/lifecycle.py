"""States of an order and the facts that move it (docs/upstream.md section 5; drawn in docs/lifecycle.md).

One table says where an order may go, one says what a status means to the outside; the rest is derived. `next_status`
is pure: what the facts say, held back by the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from types import MappingProxyType
from typing import Literal

from swap.domain.expiry import ToldExpiry
from swap.domain.facts import Facts, Kind, Transfer, UpstreamEvent

__all__ = [
    "BEFORE_ADDRESS",
    "LOCAL_EXPIRY",
    "PROFILES",
    "PUBLIC",
    "TERMINAL",
    "TRANSITIONS",
    "WATCHED",
    "Decision",
    "Facts",
    "Funds",
    "Profile",
    "Status",
    "Transfer",
    "UpstreamEvent",
    "can_move",
    "expires_by_age",
    "funds",
    "is_final",
    "next_status",
    "public_name",
    "says_ended",
]


class Status(StrEnum):
    CREATING = "creating"
    IN_DOUBT = "in_doubt"
    AWAITING_DEPOSIT = "awaiting_deposit"
    CONFIRMING = "confirming"
    EXCHANGING = "exchanging"
    SENDING = "sending"
    ON_HOLD = "on_hold"
    REFUNDING = "refunding"
    NEEDS_REVIEW = "needs_review"
    EXPIRED = "expired"
    FAILED = "failed"
    COMPLETED = "completed"
    REFUNDED = "refunded"


S = Status

# The one table. Polls miss steps, so forward moves over several states are listed. needs_review is entered and left by
# an operator, or by the code that raises a conflict for one, never by next_status. Left out on purpose: expired ->
# failed, since the only upstream fact behind it would end the watch over an address that a customer may still pay to.
# Back to awaiting_deposit goes only an expiry that the upstream told and took back; on_hold expires only while nothing
# was paid, by a form link that nobody answered.
TRANSITIONS: Mapping[Status, frozenset[Status]] = MappingProxyType(
    {
        S.CREATING: frozenset({S.AWAITING_DEPOSIT, S.IN_DOUBT, S.FAILED}),
        S.IN_DOUBT: frozenset({S.AWAITING_DEPOSIT, S.CREATING, S.FAILED}),
        S.AWAITING_DEPOSIT: frozenset(
            {S.CONFIRMING, S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING, S.COMPLETED, S.REFUNDED}
            | {S.FAILED, S.EXPIRED, S.NEEDS_REVIEW}
        ),
        S.CONFIRMING: frozenset(
            {S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING, S.COMPLETED, S.REFUNDED}
            | {S.FAILED, S.EXPIRED, S.NEEDS_REVIEW}
        ),
        S.EXCHANGING: frozenset({S.SENDING, S.ON_HOLD, S.REFUNDING, S.COMPLETED, S.REFUNDED, S.FAILED, S.NEEDS_REVIEW}),
        S.SENDING: frozenset({S.ON_HOLD, S.REFUNDING, S.COMPLETED, S.REFUNDED, S.FAILED, S.NEEDS_REVIEW}),
        S.ON_HOLD: frozenset(
            {S.CONFIRMING, S.EXCHANGING, S.SENDING, S.REFUNDING, S.COMPLETED, S.REFUNDED}
            | {S.FAILED, S.EXPIRED, S.NEEDS_REVIEW}
        ),
        S.REFUNDING: frozenset({S.EXCHANGING, S.SENDING, S.ON_HOLD, S.COMPLETED, S.REFUNDED, S.FAILED, S.NEEDS_REVIEW}),
        S.NEEDS_REVIEW: frozenset(
            {S.AWAITING_DEPOSIT, S.CONFIRMING, S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING}
            | {S.EXPIRED, S.FAILED, S.COMPLETED, S.REFUNDED}
        ),
        S.EXPIRED: frozenset(
            {S.AWAITING_DEPOSIT, S.CONFIRMING, S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING}
            | {S.COMPLETED, S.REFUNDED, S.NEEDS_REVIEW}
        ),
        S.FAILED: frozenset({S.REFUNDING, S.COMPLETED, S.REFUNDED, S.NEEDS_REVIEW}),
        S.COMPLETED: frozenset({S.REFUNDED}),
        S.REFUNDED: frozenset(),
    }
)

Funds = Literal[
    "none",
    "with_user",
    "seen_on_chain",
    "with_upstream",
    "on_its_way",
    "held",
    "returning",
    "returned",
    "delivered",
    "not_seen_in_time",
]
Final = Literal["no", "yes", "once unwatched", "once unwatched, without a deposit"]


@dataclass(frozen=True, slots=True)
class Profile:
    """What a status means to the outside. `public` and `funds` are None where the status before a review counts.
    `funds_without_deposit` only where it differs: no customer is told that money is held which was never seen."""

    public: Status | None
    funds: Funds | None
    final: Final
    funds_without_deposit: Funds | None = None


PROFILES: Mapping[Status, Profile] = MappingProxyType(
    {
        S.CREATING: Profile(S.CREATING, "none", "no"),
        S.IN_DOUBT: Profile(S.CREATING, "none", "no"),
        S.AWAITING_DEPOSIT: Profile(S.AWAITING_DEPOSIT, "with_user", "no"),
        S.CONFIRMING: Profile(S.CONFIRMING, "seen_on_chain", "no"),
        S.EXCHANGING: Profile(S.EXCHANGING, "with_upstream", "no"),
        S.SENDING: Profile(S.SENDING, "on_its_way", "no"),
        S.ON_HOLD: Profile(S.ON_HOLD, "held", "no", funds_without_deposit="with_user"),
        S.REFUNDING: Profile(S.REFUNDING, "returning", "no"),
        S.NEEDS_REVIEW: Profile(None, None, "no"),
        S.EXPIRED: Profile(S.EXPIRED, "not_seen_in_time", "once unwatched"),
        S.FAILED: Profile(S.FAILED, "with_upstream", "once unwatched, without a deposit", funds_without_deposit="none"),
        S.COMPLETED: Profile(S.COMPLETED, "delivered", "yes"),
        S.REFUNDED: Profile(S.REFUNDED, "returned", "yes"),
    }
)

PUBLIC: frozenset[Status] = frozenset(p.public for p in PROFILES.values() if p.public is not None)
TERMINAL: frozenset[Status] = frozenset(s for s, p in PROFILES.items() if p.final == "yes")
# Moved only by the create and the resolver: there is no upstream order yet that could be polled.
BEFORE_ADDRESS: frozenset[Status] = frozenset(s for s, p in PROFILES.items() if p.public is S.CREATING)
# Where a poll can still change something. For how long it is polled is decided in swap.domain.schedules.
WATCHED: frozenset[Status] = frozenset(s for s, to in TRANSITIONS.items() if to) - BEFORE_ADDRESS

LOCAL_EXPIRY = timedelta(days=7)


def can_move(from_: Status, to: Status) -> bool:
    return to in TRANSITIONS[from_]


def public_name(status: Status, before_review: Status | None = None) -> Status:
    """The name that customers see. A review hides behind the status before it. Where that is not known, `on_hold` is the
    honest word, and the order stays readable."""
    shown = PROFILES[status].public
    if shown is None and before_review is not None:
        shown = PROFILES[before_review].public
    return shown or S.ON_HOLD


def funds(status: Status, deposit_seen: bool, before_review: Status | None = None) -> Funds:
    """Where the money is, in one public word. Under review: what the status before it says."""
    profile = PROFILES[status]
    if profile.funds is None:
        profile = PROFILES[public_name(status, before_review)]
    word = profile.funds if deposit_seen else profile.funds_without_deposit or profile.funds
    assert word is not None  # a public name has a profile with funds
    return word


def is_final(status: Status, deposit_seen: bool, watched: bool) -> bool:
    """Whether the customer may stop waiting. `watched`: another poll is planned, as for every order whose address was
    shown. A failed order with a deposit is never final, watched or not: the upstream still has that money. A completed
    order is final even while it is watched for a reversal."""
    match PROFILES[status].final:
        case "yes":
            return True
        case "once unwatched":
            return not watched
        case "once unwatched, without a deposit":
            return not watched and not deposit_seen
        case _:
            return False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the facts mean for an order.

    `status`: the new one, maybe unchanged. `reason`: only of a change: reversal, late_deposit, local_expiry,
    expiry_taken_back, refund_conflict. `review`: refund and completion are both in the facts; an operator should look
    into it, at any status. `unknown_kinds`: to be logged. `late_deposit`: this change brings an expired order back.
    `second_deposit`: more than one distinct deposit. `refused`: the status that the facts say but the table forbids; to
    be journalled once per value, since every later poll says it again."""

    status: Status
    reason: str | None = None
    review: bool = False
    unknown_kinds: tuple[str, ...] = ()
    late_deposit: bool = False
    second_deposit: bool = False
    refused: Status | None = None


# Where nothing was paid, as far as anyone knows, and age ends the waiting. On hold by a form link counts: it holds no money.
_WAITING = frozenset({S.AWAITING_DEPOSIT, S.ON_HOLD})


def expires_by_age(
    current: Status, facts: Facts, now: datetime, *, created_at: datetime, local_expiry: timedelta = LOCAL_EXPIRY
) -> bool:
    """Whether the order expires here, without any word from the upstream. It stays watched: a late deposit is still
    found."""
    return current in _WAITING and not facts.deposit_seen and now - created_at >= local_expiry


def next_status(
    current: Status,
    facts: Facts,
    now: datetime,
    *,
    created_at: datetime,
    told: ToldExpiry = ToldExpiry(),  # noqa: B008 - frozen: nothing was told
    local_expiry: timedelta = LOCAL_EXPIRY,
) -> Decision:
    """`facts` is the union of all replies, `told` what they said about the order's expiry. creating and in_doubt belong
    to the create and the resolver, needs_review to an operator: these stay, but the flags are reported anyway."""
    refund, payout = facts.latest(Kind.REFUND_COMPLETED), facts.latest(Kind.WITHDRAWAL_COMPLETED)
    conflict = refund is not None and (facts.completed or payout is not None)
    target = None if current in BEFORE_ADDRESS or current is S.NEEDS_REVIEW else _target(current, facts, told)
    reason: str | None = None
    if current is S.EXPIRED and not facts.deposit_seen:
        # A form link or a guessed word is no deposit. Without one, the order comes back only if the upstream has taken back
        # what it told, and would not expire by age at once.
        back = told.withdrawn and not told.confirmed and now - created_at < local_expiry
        target, reason = (S.AWAITING_DEPOSIT, "expiry_taken_back") if back else (None, None)
    elif target is not S.EXPIRED and expires_by_age(
        current, facts, now, created_at=created_at, local_expiry=local_expiry
    ):
        target, reason = S.EXPIRED, "local_expiry"

    moved = target is not None and can_move(current, target)
    late = moved and current is S.EXPIRED and facts.deposit_seen
    if moved:
        if current is S.COMPLETED:
            reason = "reversal"
        elif late:
            reason = "late_deposit"
        elif conflict:
            reason = "refund_conflict"
    return Decision(
        status=target if moved and target is not None else current,
        reason=reason if moved else None,
        review=conflict or (moved and current is S.COMPLETED),
        unknown_kinds=facts.unknown_kinds,
        late_deposit=late,
        second_deposit=len(facts.deposits) > 1,
        # "Nothing but the creation" is the absence of news, not a claim to be refused.
        refused=None if moved or target in (None, current, S.AWAITING_DEPOSIT) else target,
    )


def _target(current: Status, facts: Facts, told: ToldExpiry) -> Status | None:
    """The mapping table, rows top to bottom; None keeps the status. `current` matters only for row 13 (a guess lifts
    awaiting_deposit, nothing else)."""
    if told.confirmed and not _paid(facts):
        return S.EXPIRED  # row 1
    refund, payout = facts.latest(Kind.REFUND_COMPLETED), facts.latest(Kind.WITHDRAWAL_COMPLETED)
    if refund is not None and (payout is None or payout <= refund):
        return S.REFUNDED  # row 2
    if facts.completed:
        return S.COMPLETED  # row 3
    if payout is not None and any(w.tx_id for w in facts.withdrawals):
        return S.COMPLETED  # row 4
    # Row 5, the upstream's failedToCreate, moves no order here: an address that a customer was shown stays watched, whatever
    # the upstream says about its own side. `swap.orders.reply_check` ends payments to it.

    line, branch = _newest(facts)
    if not line and branch is not None:
        return S.ON_HOLD if branch is Kind.HOLD else S.REFUNDING  # rows 6, 7
    furthest = max(line, default=Kind.CREATION_END)
    if furthest >= Kind.FUNDS_WITHDRAWAL_START:
        return S.SENDING  # row 8, and row 4 without a transaction id
    if furthest is Kind.DEPOSIT_REGISTERED:
        return S.EXCHANGING  # row 9
    if furthest is Kind.INCOMING_FUNDS_DETECTED or facts.transfers:
        return S.CONFIRMING  # row 10; a listed deposit that is not pending is no reason to say less
    if facts.events or facts.state is None:
        return S.AWAITING_DEPOSIT if not facts.unknown_kinds else None  # rows 11, 12
    return _guess(facts.state) if current is S.AWAITING_DEPOSIT else None  # row 13


def _newest(facts: Facts) -> tuple[list[Kind], Kind | None]:
    """The progress since the last hold or refund request, and that hold or request (None when there was none).

    A form link is read as a hold at the moment when it first appeared, above everything of the same moment. Unknown kinds
    are ignored: the last event we understand decides, so the result does not depend on when we polled (row 12). The
    furthest kind since the branch counts, not the last, because a second deposit is announced while the first is already
    on its way out."""
    seen = [(e.at, int(Kind.of(e.kind)), Kind.of(e.kind)) for e in facts.events]
    if facts.kyc_since is not None:
        seen.append((facts.kyc_since, len(Kind), Kind.HOLD))
    kinds = [kind for _, _, kind in sorted(seen, reverse=True) if kind > Kind.CREATION_END]
    # A refund can only be the newest thing here when row 2 has spoken; before a later payout it is history.
    kinds = [kind for kind in kinds if kind is not Kind.REFUND_COMPLETED]
    line = list(takewhile(lambda kind: kind < Kind.HOLD, kinds))
    older = kinds[len(line) :]
    if not older:
        return line, None
    # Money seen on chain after a refund request, or after a hold on money that had come further, is another deposit. It does
    # not end the refund or the hold of the first one.
    another = older[0] is Kind.REFUND_REQUESTED or any(Kind.DEPOSIT_REGISTERED <= k < Kind.HOLD for k in older)
    if another and max(line, default=None) is Kind.INCOMING_FUNDS_DETECTED:
        line = []
    return line, older[0]


def _paid(facts: Facts) -> bool:
    """Row 1. Whether more than a detection speaks of a deposit. Money that was detected but is never listed may have been
    replaced by its sender."""
    signs = {Kind.of(e.kind) for e in facts.events} - {Kind.UNKNOWN, Kind.CREATION_END, Kind.INCOMING_FUNDS_DETECTED}
    return facts.completed or bool(facts.transfers) or bool(signs)


# In the order in which one client tries them. Only "created" is attested; the other words are that client's guesses.
_ENDED_WORDS = ("refund", "expire", "overdue", "fail", "error", "reject", "cancel")
_MOVING_WORDS = (
    *("hold", "frozen", "verif", "kyc", "aml", "send", "withdraw", "payout"),
    *("exchang", "trade", "convert", "process", "received", "confirm"),
)


def says_ended(state: str | None) -> bool:
    """Whether the upstream's own word for the order is one of an end. It is a guess: it moves nothing, but it is no
    all-clear either."""
    return state is not None and any(w in state.lower() for w in _ENDED_WORDS)


def _guess(state: str) -> Status | None:
    """Row 13, without any event or transfer. Words of an end move nothing. Words of money on the move mean confirming and no
    more, even if they sound further: it is the only such state that a wrong guess can be undone from (row 1)."""
    if says_ended(state):
        return None
    return S.CONFIRMING if any(w in state.lower() for w in _MOVING_WORDS) else S.AWAITING_DEPOSIT
