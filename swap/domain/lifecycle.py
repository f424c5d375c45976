"""States of an order and the facts that move it (docs/upstream.md section 5; drawn in docs/lifecycle.md).

One table says where an order may go, one says what a status means to the outside; the rest is derived. `next_status`
is pure: what the facts say, held back by the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile
from types import MappingProxyType
from typing import Literal

from swap.domain.expiry import ToldExpiry
from swap.domain.facts import Facts, Kind, UpstreamEvent
from swap.domain.ledger import Ledger, Left, account
from swap.domain.transfers import Transfer

__all__ = [
    "BEFORE_ADDRESS",
    "LOCAL_EXPIRY",
    "PROFILES",
    "PUBLIC",
    "TERMINAL",
    "TRANSITIONS",
    "UNCOVERED_FOR",
    "UNSENT_FOR",
    "WATCHED",
    "Decision",
    "Facts",
    "Funds",
    "Profile",
    "Review",
    "Status",
    "Transfer",
    "UpstreamEvent",
    "account",
    "can_move",
    "expires_by_age",
    "funds",
    "is_final",
    "next_status",
    "public_name",
    "review_due",
    "says_ended",
    "whereabouts",
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
# Back to awaiting_deposit goes only an expiry that the upstream told and took back, and a hold by a form link that is no
# longer told; on_hold expires by a form link that nobody answered. All of them only while nothing was paid.
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
            {S.AWAITING_DEPOSIT, S.CONFIRMING, S.EXCHANGING, S.SENDING, S.REFUNDING, S.COMPLETED, S.REFUNDED}
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
        S.COMPLETED: frozenset({S.REFUNDED, S.NEEDS_REVIEW}),
        S.REFUNDED: frozenset({S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING, S.COMPLETED, S.NEEDS_REVIEW}),
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
Review = Literal["reversal", "refund_conflict", "uncovered"]
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
# How long a deposit may lie with the upstream, or wait to be confirmed, without any movement before a person is asked to
# look; and how long a payout may be under way: a bank takes some days, and is closed on some.
UNCOVERED_FOR, UNSENT_FOR = timedelta(hours=24), timedelta(hours=72)


def can_move(from_: Status, to: Status) -> bool:
    return to in TRANSITIONS[from_]


def public_name(status: Status, before_review: Status | None = None) -> Status:
    """The name that customers see. A review hides behind the status before it. Where that is not known, `on_hold` is the
    honest word, and the order stays readable."""
    shown = PROFILES[status].public
    if shown is None and before_review is not None:
        shown = PROFILES[before_review].public
    return shown or S.ON_HOLD


def whereabouts(status: Status, facts: Facts, before_review: Status | None = None) -> Status:
    """The status that says where the money is. A review keeps the name of an order, but what the upstream says of the money
    goes on to count: it may be paid in, or out, meanwhile."""
    if status is not S.NEEDS_REVIEW or before_review is None:
        return status
    target = _target(before_review, facts, ToldExpiry(), account(facts))
    return target if target is not None and can_move(before_review, target) else before_review


def funds(
    status: Status, deposit_seen: bool, before_review: Status | None = None, *, left: Left | None = None
) -> Funds:
    """Where the money is, in one public word; `status`: as `whereabouts` says. `left`: where a deposit is that
    was neither paid out nor returned; an order that came to its end has nothing more important to say."""
    shown = public_name(status, before_review)
    if left is not None and shown in TERMINAL:
        return left
    profile = PROFILES[shown]
    word = profile.funds if deposit_seen else profile.funds_without_deposit or profile.funds
    assert word is not None  # a public name has a profile with funds
    return word


def is_final(status: Status, deposit_seen: bool, watched: bool, *, left: Left | None = None) -> bool:
    """Whether the customer may stop waiting. `watched`: another poll is planned, as for every order whose address was
    shown. A failed order with a deposit is never final, watched or not: the upstream still has that money. A completed or
    refunded order is final even while it is watched for a reversal, but not while another deposit is `left` with the
    upstream."""
    match PROFILES[status].final:
        case "yes":
            return left is None
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
    expiry_taken_back, refund_conflict. `review`: why a person should look into it, at any status. `unknown_kinds`: to be
    logged. `late_deposit`: this change brings an expired order back. `refused`: the status that the facts say but the
    table forbids; to be journalled once per value, since every later poll says it again."""

    status: Status
    reason: str | None = None
    review: Review | None = None
    unknown_kinds: tuple[str, ...] = ()
    late_deposit: bool = False
    refused: Status | None = None


# Where nothing was paid, as far as anyone knows, and age ends the waiting. On hold by a form link counts: it holds no money.
_WAITING = frozenset({S.AWAITING_DEPOSIT, S.ON_HOLD})
# Where money must be on its way to an end.
_MOVING = frozenset({S.CONFIRMING, S.EXCHANGING, S.SENDING, S.REFUNDING})


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
    """`facts`: the current answer and what is kept of older ones; `told`: what they said about the order's expiry. creating
    and in_doubt belong to the create and the resolver, needs_review to an operator: these stay, but the flags are reported
    anyway."""
    ledger = account(facts)
    target = None if current in BEFORE_ADDRESS or current is S.NEEDS_REVIEW else _target(current, facts, told, ledger)
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
    elif target is S.AWAITING_DEPOSIT and facts.deposit_seen:
        target = None  # no order that was ever paid asks for money again

    moved = target is not None and can_move(current, target)
    late = moved and current is S.EXPIRED and facts.deposit_seen
    if moved:
        if current is S.COMPLETED:
            reason = "reversal"
        elif late:
            reason = "late_deposit"
        elif ledger.unfounded:
            reason = "refund_conflict"
    status = target if moved and target is not None else current
    return Decision(
        status=status,
        reason=reason if moved else None,
        review="reversal"
        if moved and current is S.COMPLETED
        else review_due(status, facts, now, created_at=created_at),
        unknown_kinds=facts.unknown_kinds,
        late_deposit=late,
        # "Nothing but the creation" is the absence of news, not a claim to be refused.
        refused=None if moved or target in (None, current, S.AWAITING_DEPOSIT) else target,
    )


def review_due(status: Status, facts: Facts, now: datetime, *, created_at: datetime) -> Review | None:
    """Why a person should look into an order of this status by now, whether the upstream still speaks of it or not. Money
    that was paid in is late after a day without any movement, a payout after three; on hold it waits for the customer. What
    only a guessed word calls on the move is late when an order without a deposit would have expired."""
    ledger = account(facts)
    if ledger.unfounded:
        return "refund_conflict"
    if status in (S.ON_HOLD, S.NEEDS_REVIEW):
        return None
    # What was detected and expired all the same was replaced by its sender.
    lies = ledger.left == "with_upstream" or (ledger.left is not None and status is not S.EXPIRED)
    if not lies and status not in _MOVING:
        return None
    late_after = UNCOVERED_FOR if lies or status is not S.SENDING else UNSENT_FOR
    late_after = late_after if facts.deposit_seen else LOCAL_EXPIRY
    return "uncovered" if now - (ledger.moved_at or created_at) >= late_after else None


def _target(current: Status, facts: Facts, told: ToldExpiry, ledger: Ledger) -> Status | None:
    """The mapping table, rows top to bottom; None keeps the status. `current` matters only for row 13 (a guess lifts
    awaiting_deposit, and lets go what a form link held; nothing else)."""
    if told.confirmed and not _paid(facts):
        return S.EXPIRED  # row 1
    if ledger.delivered:
        return S.COMPLETED  # rows 3, 4; another deposit does not undo what was delivered
    if ledger.was_delivered or (ledger.refunds and not ledger.open and not ledger.sending):
        return S.REFUNDED  # row 2
    # Row 5, the upstream's failedToCreate, moves no order here: an address that a customer was shown stays watched, whatever
    # the upstream says about its own side. `swap.orders.reply_check` ends payments to it.
    branch = _branch(facts)
    if branch is not None:
        return S.ON_HOLD if branch is Kind.HOLD else S.REFUNDING  # rows 6, 7
    if ledger.sending:
        return S.SENDING  # row 8, and row 4 without a transaction id
    if ledger.registered and not ledger.reversed:
        return S.EXCHANGING  # row 9
    if ledger.refunds:
        # Some is returned, and the rest only seen on chain, or registered after a payout was taken back. From sending no
        # way leads back to exchanging, and where a poll had not seen that payout the order must end the same.
        return S.REFUNDED
    if ledger.open:
        return S.CONFIRMING  # row 10; a listed deposit that is not pending is no reason to say less
    if facts.events or facts.state is None:
        return S.AWAITING_DEPOSIT  # rows 11, 12
    guess = _guess(facts.state) if current in _WAITING else None  # row 13
    return None if current is S.ON_HOLD and guess is S.CONFIRMING else guess


def _branch(facts: Facts) -> Kind | None:
    """The hold or refund request that nothing has ended yet. A completed refund ends what came before it, progress ends a
    hold and a refund that was called off. A form link is a hold of its own, as long as it is told; where events tell of
    holds they know better when it ended. Unknown kinds are ignored: the last event we understand decides (row 12)."""
    kinds = [Kind.of(event.kind) for event in facts.timeline]
    since = list(takewhile(lambda kind: kind is not Kind.REFUND_COMPLETED, kinds))
    line = list(takewhile(lambda kind: kind < Kind.HOLD, since))
    older = since[len(line) :]
    # Money seen on chain after a refund request, or after a hold on money that had come further, is another deposit. It does
    # not end the refund or the hold of the first one.
    another = any(kind is Kind.REFUND_REQUESTED or Kind.DEPOSIT_REGISTERED <= kind < Kind.HOLD for kind in older)
    ended = max(line, default=Kind.UNKNOWN)
    if older and not ended >= (Kind.DEPOSIT_REGISTERED if another else Kind.INCOMING_FUNDS_DETECTED):
        return older[0]
    return Kind.HOLD if facts.kyc_link is not None and Kind.HOLD not in kinds else None


def _paid(facts: Facts) -> bool:
    """Row 1. Whether more than a detection speaks of a deposit. Money that was detected but is never listed may have been
    replaced by its sender."""
    signs = {Kind.of(e.kind) for e in facts.events} - {Kind.UNKNOWN, Kind.CREATION_END, Kind.INCOMING_FUNDS_DETECTED}
    return facts.completed or bool(facts.transfers) or bool(signs)


# In the order in which one client tries them. Only "created" is attested; the other words are that client's guesses.
_ENDED_WORDS = ("refund", "expire", "overdue", "fail", "error", "reject", "cancel")
# How a word begins that is no end: "unconfirmed" and "threshold" say something else than what they contain.
_MOVING_WORDS = (
    *("hold", "frozen", "verif", "kyc", "aml", "send", "withdraw", "payout"),
    *("exchang", "trade", "convert", "process", "received", "confirm"),
)
_DENIALS = frozenset({"not", "no", "non", "never", "un"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def says_ended(state: str | None) -> bool:
    """Whether the upstream's own word for the order is one of an end. It is a guess: it moves nothing, but it is no
    all-clear either."""
    return state is not None and any(w in state.lower() for w in _ENDED_WORDS)


def _guess(state: str) -> Status | None:
    """Row 13, without any event or transfer. Words of an end move nothing. Words of money on the move mean confirming and no
    more, even if they sound further: it is the only such state that a wrong guess can be undone from (row 1)."""
    if says_ended(state):
        return None
    words = [word.lower() for word in _WORD.findall(state)]
    moving = any(word.startswith(_MOVING_WORDS) for word in words) and _DENIALS.isdisjoint(words)
    return S.CONFIRMING if moving else S.AWAITING_DEPOSIT
