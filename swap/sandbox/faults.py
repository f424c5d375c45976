"""Everything that can go wrong at the sandbox: the names, their weights, and the dice.

A name is `<where>.<what>`. `where` is an endpoint (`create`, `list`, `info`, `rate`, `catalog`, `address`), or `id`,
`order`, `deposits` and `place` (fixed for an order when it is made), `events` (how one answer of public-info lists them),
`wire` (what else travels on the connection) or `any`.
A weight is a probability: of a request, of an order, or of an answer.

Names of one *group* exclude each other, and one throw of the dice decides among them: with independent throws the
later names would happen less often than their weights say. What may happen together has a group of its own. So has every
fault that came later: a name more in an old group would move what a seed gives.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Endpoint = Literal["create", "list", "info", "rate", "catalog", "address", "other"]

STALE = "info.stale"
OTHER_DESTINATION = "create.accept_then_other_destination"
NO_DEPOSIT = "create.accept_then_no_deposit"
DELAY_THEN_ACCEPT = "create.delay_then_accept"
ID_STRING, ID_UUID = "id.string", "id.uuid"
LISTED_LATE, BARE_INFO = "order.listed_late", "order.bare_info"
NUMERIC_MEMO, ONE_ID = "order.numeric_memo", "order.info_one_id"
DUPLICATED, SHUFFLED = "events.duplicated", "events.shuffled"
OLDEST_FIRST, UNKNOWN_KIND = "events.oldest_first", "events.unknown_kind"
SKEWED_DATE = "any.skewed_date"
ACCEPT_LATE, BEHIND = "create.accept_late", "list.behind"
ALTERNATING = "order.alternating"
REPLACED, REDATED, DOUBLED = "deposits.replaced", "deposits.redated", "deposits.doubled"
PARTLY_REFUNDED = "deposits.partly_refunded"
PER_REFUND, AFTER_EXPIRY, SHARED_MEMO = "place.per_refund", "place.after_expiry", "place.shared_memo"
EARLY_HINTS, ANSWERED_TWICE, SHIFTED = "wire.early_hints", "wire.doubled", "wire.shifted"
LIMIT_EXCEEDED = "limit.exceeded"
"""Counted like a fault, but decided by the clock and `limit_per_second` instead of the dice."""


@dataclass(frozen=True)
class Fault:
    """`weight` is the one of the profile `chaos`. `group`: see the module."""

    name: str
    weight: float
    meaning: str
    group: str


# The order of creates matters: `accept_then_` means that the order exists no matter what the caller was answered.
_CREATE: tuple[tuple[str, float, str], ...] = (
    ("drop", 0.04, "nothing made; connection closed without an answer"),
    ("error_500", 0.01, "nothing made; 500 in JSON"),
    ("html_502", 0.01, "nothing made; 502 in HTML, as a proxy writes it"),
    ("html_403", 0.02, "nothing made; 403 in HTML, as a WAF writes it"),
    ("rate_limited", 0.02, "nothing made; 429 with Retry-After"),
    ("rate_limited_bare", 0.02, "nothing made; 429 without Retry-After"),
    ("accept_then_drop", 0.08, "order made; connection closed without an answer"),
    ("accept_then_500", 0.05, "order made; 500 in JSON"),
    ("accept_then_502", 0.01, "order made; 502 in HTML, as a proxy writes it"),
    ("accept_then_truncated", 0.05, "order made; 201 whose JSON stops in the middle"),
    ("accept_then_malformed", 0.005, "order made; 201 with a body that is not JSON"),
    ("accept_then_hello", 0.005, 'order made; 201 with `{"hello":"world"}`'),
    ("accept_then_delay", 0.01, "order made at once; the answer waits `delay_seconds`"),
    ("delay_then_accept", 0.01, "order made only after `delay_seconds`, then answered"),
    ("accept_then_no_deposit", 0.01, "order made; 201 with `depositAddress` null"),
    ("accept_then_other_destination", 0.01, "order made as asked; the answer echoes another valid destination"),
)

_READS: tuple[Endpoint, ...] = ("list", "info", "rate", "catalog", "address")

# What, its weights for the five reads in this order (None: does not exist there), meaning.
_READ: tuple[tuple[str, tuple[float | None, ...], str], ...] = (
    ("drop", (0.0075, 0.0025, 0.005, 0.005, 0.005), "connection closed without an answer"),
    ("error_500", (0.02, 0.01, 0.01, 0.01, 0.01), "500 in JSON"),
    ("html_502", (0.015, 0.01, 0.005, 0.005, 0.005), "502 in HTML"),
    ("html_403", (0.005, 0.005, 0.0025, 0.0025, 0.0025), "403 in HTML, as a WAF writes it"),
    ("rate_limited", (0.02, 0.01, 0.005, 0.005, 0.005), "429 with Retry-After"),
    ("rate_limited_bare", (0.01, 0.01, 0.005, 0.005, 0.005), "429 without Retry-After"),
    ("truncated", (0.01, 0.005, 0.0025, 0.0025, 0.0025), "2xx whose JSON stops in the middle"),
    ("malformed", (0.0025, 0.0025, 0.0025, 0.0025, 0.0025), "2xx with a body that is not JSON"),
    ("hello", (0.0025, 0.0025, 0.0025, 0.0025, 0.0025), '2xx with `{"hello":"world"}`'),
    ("delay", (0.0025, 0.0025, 0, 0, 0), "a good answer that waits `delay_seconds`"),
    ("no_content", (0.005, None, None, None, None), "204 without a body"),
    ("empty", (None, None, None, 0, None), "200 with `[]`: a catalog that lists nothing"),
    ("stale", (None, 0.04, None, None, None), "the order as it was just before one of its last three changes"),
)

# Per order and per answer: name, weight, meaning, group where it is not the name itself.
_OTHER: tuple[tuple[str, float, str, str | None], ...] = (
    (ID_STRING, 0.2, "create answers `orderId` as a numeric string", "id"),
    (ID_UUID, 0.1, "create answers a UUID and no number; the list has nothing but the number", "id"),
    (LISTED_LATE, 0.3, "the list shows the order only up to `list_lag_seconds` after it was made", None),
    (BARE_INFO, 0.05, "public-info leaves out the deposit address, the refund address and both memos", None),
    (NUMERIC_MEMO, 0.2, "memos without leading zeros are JSON numbers, in create and public-info", None),
    (ONE_ID, 0, "public-info repeats only the id it was asked with, so it links no two ids", None),
    (DUPLICATED, 0.05, "every event is listed twice", None),
    (OLDEST_FIRST, 0.05, "the events come oldest first", None),
    (SHUFFLED, 0.05, "the events come in no order at all", None),
    (UNKNOWN_KIND, 0.03, "the newest event is of a kind that nobody has documented", None),
    (SKEWED_DATE, 0.05, "the Date header is wrong by half to all of `skew_seconds`, either way", None),
    (ACCEPT_LATE, 0.005, "order made only after `late_seconds`, when nobody waits any more, then answered", None),
    (BEHIND, 0.02, "the list as it was `behind_seconds` ago, without what was made since", None),
    (ALTERNATING, 0.03, "every second look at public-info is stale, as by `info.stale`", None),
    (REPLACED, 0.03, "the pending deposit is replaced (RBF): another transaction id and time", "deposits"),
    (REDATED, 0.03, "a deposit's `createdAt` moves when it is confirmed", "deposits"),
    (DOUBLED, 0.03, "public-info lists every deposit twice", "deposits"),
    (PARTLY_REFUNDED, 0.5, "of two deposits, the one that is not exchanged is sent back", None),
    (PER_REFUND, 0.01, "the deposit details of an earlier order with the same refund address", None),
    (AFTER_EXPIRY, 0.01, "the deposit details of an earlier order that expired unpaid", None),
    (SHARED_MEMO, 0.1, "one deposit address for all orders of the instrument, told apart by memo", None),
    (EARLY_HINTS, 0.01, "a `103 Early Hints` before the answer", None),
    (ANSWERED_TWICE, 0.005, "the answer is sent twice on a kept connection", None),
    (SHIFTED, 0.005, "a kept connection sends the answer before once more: all that follow are one late", None),
)

BESIDE: dict[str, str] = {"create": ACCEPT_LATE, "list": BEHIND}
"""By endpoint: what may happen to a request that got none of the faults of its endpoint's own group."""


def _table() -> dict[str, Fault]:
    rows = [Fault(f"create.{what}", weight, meaning, "create") for what, weight, meaning in _CREATE]
    rows += [
        Fault(f"{endpoint}.{what}", weight, meaning, endpoint)
        for position, endpoint in enumerate(_READS)
        for what, weights, meaning in _READ
        if (weight := weights[position]) is not None
    ]
    rows += [Fault(name, weight, meaning, group or name) for name, weight, meaning, group in _OTHER]
    return {row.name: row for row in rows}


FAULTS: dict[str, Fault] = _table()

PROFILES: dict[str, dict[str, float]] = {
    "clean": dict.fromkeys(FAULTS, 0.0),
    "chaos": {name: fault.weight for name, fault in FAULTS.items()},
}

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, fault in FAULTS.items() if fault.group == group)
    for group in dict.fromkeys(fault.group for fault in FAULTS.values())
}


def reweighted(weights: Mapping[str, float], changes: Mapping[str, object]) -> dict[str, float]:
    """`weights` with `changes`. Raises ValueError, naming the culprit, for a name that is not in the table, for what is
    no probability, and for a group that adds up to more than 1."""
    result = dict(weights)
    for name, weight in changes.items():
        if name not in FAULTS:
            raise ValueError(f"{name} is not a fault")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise ValueError(f"{name} must be a number from 0 to 1")
        result[name] = float(weight)
    for group, names in GROUPS.items():
        # Eleven times 0.1 is a mistake, ten times 0.1 is 0.9999999999999999.
        if sum(result[name] for name in names) > 1.000001:
            raise ValueError(f"the weights of {group} add up to more than 1")
    return result


@dataclass(frozen=True)
class Knobs:
    """How bad a fault is when it happens. Seconds; none of them is divided by the world's speed, since what they are
    measured against (timeouts, clocks, budgets) is not either.

    `delay_seconds`: real seconds a late answer waits; the default is above the 15 s that clients of the upstream give a
    create (docs/upstream.md T6). `late_seconds`: the same for an order that is made when its caller has long given up, and
    may have asked again. `list_lag_seconds`: the longest an order stays unlisted, in the world's time; `behind_seconds`:
    how old a list is that is behind, in the world's time.
    `skew_seconds`: the largest error of a Date header. `retry_after_seconds`: what `rate_limited` asks for, whole
    seconds.

    `limit_per_second`: requests answered in one second of the clock, all endpoints together; the rest gets 429. 0 is no
    limit. `limit_retry_after` adds Retry-After to those, `limit_headers` adds X-RateLimit-Limit, -Remaining and -Reset
    (seconds) to every answer; no evidence says that the upstream sends any of them.
    """

    delay_seconds: float = 20.0
    late_seconds: float = 45.0
    list_lag_seconds: float = 10.0
    behind_seconds: float = 60.0
    skew_seconds: float = 30.0
    retry_after_seconds: int = 1
    limit_per_second: int = 0
    limit_retry_after: bool = True
    limit_headers: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if isinstance(default, bool):
                fits = isinstance(value, bool)
            elif isinstance(default, int):
                fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1_000_000
            else:
                fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 86_400
            if not fits:
                raise ValueError(f"{field.name} cannot be {value!r}")

    def changed(self, changes: Mapping[str, Any]) -> Knobs:
        """Raises ValueError for a value that makes no sense."""
        return replace(self, **changes)


KNOBS: tuple[str, ...] = tuple(field.name for field in fields(Knobs))


def dice(seed: int, *key: object) -> float:
    """From 0 up to, not including, 1: the same for the same seed and key, in every process and Python."""
    digest = hashlib.sha256(" ".join(map(str, ("swap sandbox fault", seed, *key))).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def throw(group: str, weights: Mapping[str, float], chance: float) -> str | None:
    """Which of the group's names `chance` (from `dice`) falls on, or None."""
    for name in GROUPS[group]:
        chance -= weights[name]
        if chance < 0:
            return name
    return None


_CREATE_PATH = re.compile(r"/api/v[12]/orders/public/create")
_PATHS: tuple[tuple[re.Pattern[str], Endpoint], ...] = (
    (re.compile(r"/api/v2/orders(/public)?"), "list"),
    (re.compile(r"/api/v[12]/orders/(public-info|info)"), "info"),
    (re.compile(r"/api/v[12]/rates/.*"), "rate"),
    (re.compile(r"/api/v[12]/instruments/.*validate-address"), "address"),
    (re.compile(r"/api/v[12]/(instruments|pairs)/.*"), "catalog"),
)


def endpoint_of(method: str, path: str) -> Endpoint:
    """`other` for everything the sandbox does not play; nothing goes wrong there."""
    if _CREATE_PATH.fullmatch(path):
        return "create" if method == "POST" else "other"
    return next((name for pattern, name in _PATHS if pattern.fullmatch(path)), "other")
