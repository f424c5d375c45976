"""What ends the time in which a shown address may be paid: the upstream's word that the order has expired, the end of a
fixed rate, and silence. Pure; the address stays visible in any case, and the order stays watched.

One answer that says expired may be a mistake, and the customer may have paid a minute ago. So an expiry counts once it was
told twice, and an upstream that goes on to answer well may take it back; but only once, or a customer would be told to pay,
and not to pay, without end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from swap.domain.times import from_iso, iso

APART = timedelta(minutes=10)
"""How far apart, at SWAP_TIME_SCALE 1, two looks must be to confirm an expiry, or to take a confirmed one back."""

MISSED_LOOKS, UNSEEN_FOR = 3, timedelta(minutes=15)
"""An order is no longer known to be payable after this many missed looks in a row, this long after the last good one."""

NotPayable = Literal["fixed_rate_ended", "unverified"]


@dataclass(frozen=True, slots=True)
class ToldExpiry:
    """What the looks at one order said about its expiry. Only HTTP 410 and ERR_ORDER_EXPIRED say it.

    `since`: our time of the first look that said expired; None while nothing stands. `confirmed`: a look at least `APART`
    later said so again. `good_since`: the first good look after the last one that said expired. `doubted`: one that was not
    confirmed was taken back. `withdrawn`: a confirmed one was taken back; the next stands for good.
    """

    since: datetime | None = None
    confirmed: bool = False
    good_since: datetime | None = None
    doubted: bool = False
    withdrawn: bool = False

    def told(self, at: datetime, apart: timedelta = APART) -> ToldExpiry:
        """After a look that said expired."""
        since = self.since or at
        return replace(self, since=since, confirmed=self.confirmed or at - since >= apart, good_since=None)

    def good(self, at: datetime, apart: timedelta = APART) -> ToldExpiry:
        """After a look that agreed with everything. The first doubt goes with one such look; later ones, and an expiry that
        was confirmed, take two, or an upstream that answers both ways would change an order with every look."""
        if self.since is None or (self.confirmed and self.withdrawn):
            return self
        good_since = self.good_since or at
        if (not self.confirmed and not self.doubted) or at - good_since >= apart:
            return ToldExpiry(doubted=True, withdrawn=self.withdrawn or self.confirmed)
        return replace(self, good_since=good_since)

    def second_look_at(self, apart: timedelta = APART) -> datetime | None:
        """From when on a look can confirm what was told, or take it back; None where nothing waits for that."""
        if self.good_since is not None:
            return self.good_since + apart
        return None if self.since is None or self.confirmed else self.since + apart

    def after_deposit(self) -> ToldExpiry:
        """After a new sign of a deposit: what was told before it says nothing about the order as it is now."""
        return replace(self, since=None, confirmed=False, good_since=None)

    @classmethod
    def by_hand(cls, at: datetime) -> ToldExpiry:
        """After a person's word that the order has expired: it stands for good, whatever was told and taken back before."""
        return cls(since=at, confirmed=True, withdrawn=True)

    def to_json(self) -> dict[str, Any] | None:
        """None where there is nothing to remember."""
        if self == ToldExpiry():
            return None
        return {
            "since": None if self.since is None else iso(self.since),
            "confirmed": self.confirmed,
            "good_since": None if self.good_since is None else iso(self.good_since),
            "doubted": self.doubted,
            "withdrawn": self.withdrawn,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> ToldExpiry:
        """The inverse of `to_json`. A value of the wrong form raises KeyError, TypeError or ValueError."""
        if data is None:
            return cls()
        return cls(
            since=from_iso(data["since"]) if data["since"] else None,
            confirmed=data["confirmed"],
            good_since=from_iso(data["good_since"]) if data["good_since"] else None,
            doubted=data["doubted"],
            withdrawn=data["withdrawn"],
        )


def not_payable(told: ToldExpiry, payable_until: datetime | None, now: datetime) -> NotPayable | None:
    """Why an address that passed every check must not be paid to now; None when it may be. The end of a fixed rate is for
    good, so it comes first."""
    if payable_until is not None and now >= payable_until:
        return "fixed_rate_ended"
    return "unverified" if told.since is not None else None


def fixed_rate_end(minutes: int | None, created_at: datetime) -> datetime | None:
    """Until when the rate holds, by fixedRate_maxTimeMinutes; None where no window was told: then none is promised
    (docs/upstream.md T17). `created_at`: when the upstream made the order, by our clock."""
    return None if not minutes else created_at + timedelta(minutes=minutes)
