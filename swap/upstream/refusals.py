"""What an answer that is no success means: the classifier, and the written list of refusals of a create.

The two are kept apart on purpose. For a read a wrong guess costs a wrong message. For a create it costs an order that
exists and is not watched; so a create counts as refused only by the list at the end, each row with its evidence,
and everything else is OutcomeUnknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from swap.errors import (
    AddressRefused,
    AmountRefused,
    AuthFailed,
    Blocked,
    Malformed,
    MemoRefused,
    NotSent,
    OrderExpired,
    OutcomeUnknown,
    PairRefused,
    RateLimited,
    RateModeRefused,
    RequestRefused,
    UpstreamError,
    UpstreamNotFound,
    UpstreamUnavailable,
)
from swap.infra import deadline
from swap.upstream.decode import read_order
from swap.upstream.echoes import NOTHING_ASKED, Asked
from swap.upstream.fields import amount, number, parse_json, string
from swap.upstream.replies import AddressVerdict, OrderReply

TOO_SMALL = "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL"
EXPIRED = "ERR_ORDER_EXPIRED"

# Codes that say no more than that there was an error; then the texts decide.
_SAYING_NOTHING = {"ERR_HTTP", "ERROR", "ERR", "FAIL", "FAILED"}
_UNAVAILABLE = {408, 424}
_FIELDS: tuple[Literal["memo", "address"], ...] = ("memo", "address")
_LONGEST_RETRY_AFTER = 3600.0
_LEFT_HEADERS = ("X-RateLimit-Remaining", "RateLimit-Remaining")
_RESET_HEADERS = ("X-RateLimit-Reset", "RateLimit-Reset")

_AUTH = re.compile(r"signature|api[\s_-]?key|x-api-", re.IGNORECASE)
_MEMO = re.compile(r"memo|\b(?:destination[\s_-]?)?tag\b", re.IGNORECASE)
_ADDRESS = re.compile(r"address", re.IGNORECASE)
_SMALL = re.compile(r"too (?:small|low)|minim|below", re.IGNORECASE)
_BIG = re.compile(r"too (?:large|high)|\bbig\b|maxim|exceed", re.IGNORECASE)
_MODE = re.compile(r"rate[\s_-]?mode", re.IGNORECASE)
_ROUTE = re.compile(r"route|instrument|currency|network|\bpair\b", re.IGNORECASE)
_ID_IN_TEXT = re.compile(rb'"(?:orderId|legacyOrderId)"\s*:\s*(?:"([!#-\[\]-~]{1,128})"|([0-9]{1,40})\s*[,}\]])')
_BOUND_IN_TEXT = re.compile(r"expected[: ]+([0-9]+(?:\.[0-9]+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An answer that is no success, read in any of the shapes A to D (section 4) and in C22's.

    `code`: the string code, upper case, or None. `message`: what was said, texts joined; empty for HTML, whose words
    are a proxy's and not the upstream's. `body`: the parsed JSON object, else {}.
    """

    status: int
    code: str | None
    message: str
    body: dict[str, Any]
    retry_after: float | None = None

    @property
    def data(self) -> dict[str, Any]:
        data = self.body.get("data")
        return data if isinstance(data, dict) else {}

    @property
    def details(self) -> dict[str, Any]:
        for holder in (self.data, self.body):
            details = holder.get("details")
            if isinstance(details, dict):
                return details
        return {}


def read_problem(status: int, body: bytes, headers: Mapping[str, str]) -> ErrorAnswer:
    """Never raises: a body that is no JSON is a problem as well (shape D)."""
    try:
        parsed = parse_json(body)
    except ValueError:
        parsed = None
    answer = parsed if isinstance(parsed, dict) else {}
    error = answer.get("error")
    inner = error if isinstance(error, dict) else {}
    data = answer.get("data") if isinstance(answer.get("data"), dict) else {}
    code = string(answer.get("status")) or string(answer.get("code")) or string(inner.get("code"))
    if code is not None and number(code) is not None:
        code = None
    messages = [answer.get("message"), error, inner.get("message"), (data or {}).get("localizedMessage")]
    texts = [
        text for each in messages for text in (each if isinstance(each, list) else [each]) if isinstance(text, str)
    ]
    if parsed is None and not _looks_like_html(body):
        texts = [body[:500].decode("utf-8", "replace").strip()]
    return ErrorAnswer(
        status, code.strip().upper() if code else None, "; ".join(filter(None, texts)), answer, retry_after(headers)
    )


def _looks_like_html(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, at most an hour; see `deadline.retry_after`."""
    value, date = headers.get("Retry-After", ""), headers.get("Date", "")
    return deadline.retry_after(value, date, longest=_LONGEST_RETRY_AFTER)


def requests_left(headers: Mapping[str, str]) -> tuple[int, float | None] | None:
    """How many more requests will be answered, and in how many seconds the count begins anew, from X-RateLimit-Remaining
    and -Reset (or without the X-); None when the answer names no count. A reset that is read as `retry_after` reads it and
    lies further off than any count lasts is no reset. No evidence says that the upstream sends these (docs/upstream.md
    section 1)."""
    left = next((number(headers[name]) for name in _LEFT_HEADERS if name in headers), None)
    if left is None:
        return None
    value = next((headers[name] for name in _RESET_HEADERS if name in headers), "")
    reset = deadline.retry_after(value, headers.get("Date", ""), longest=2 * _LONGEST_RETRY_AFTER)
    if reset is not None and reset > _LONGEST_RETRY_AFTER:
        reset = None
    return int(min(max(left, Decimal(0)), Decimal(1_000_000))), reset


def classify(problem: ErrorAnswer, endpoint: str, excerpt: str | None = None) -> UpstreamError:
    """The error for a non-create answer (section 4, "Classifier"), to be raised by the caller.

    Differs from the reference in three places, each to the safer side: a 5xx is UpstreamUnavailable no matter what its
    text says, unless its code is known (a broken upstream that mentions an address must not tell a customer that theirs
    is wrong); HTML is never read for words; a 404 is UpstreamNotFound before texts are tried, except that a rate or
    pair that names the route is PairRefused. That an order has expired is known by 410 and by its code alone: a message with
    "expired" may speak of a timestamp, a session or a certificate. `endpoint`: what was asked."""
    status, code = problem.status, problem.code
    kw: dict[str, Any] = {"status": status, "upstream_code": code, "body": excerpt}
    message = f"{endpoint}: {status}" + (f" {code}" if code else "") + (f" {problem.message}"[:300])
    if code == TOO_SMALL:
        return AmountRefused(message, side="min", bound=bound(problem), **kw)
    if code == EXPIRED:
        return OrderExpired(message, **kw)
    if status == 401 or (status < 500 and _AUTH.search(problem.message)):
        return AuthFailed(message, **kw)
    if status == 403:
        return Blocked(message, **kw)
    if status == 429:
        return RateLimited(message, retry_after=problem.retry_after, **kw)
    if status >= 500 or status in _UNAVAILABLE:
        return UpstreamUnavailable(message, retry_after=problem.retry_after, **kw)
    if 300 <= status < 400:
        return Malformed(f"{endpoint}: a redirect, which is never followed", **kw)
    if status == 410:
        return OrderExpired(message, **kw)
    if status == 404 and not (endpoint in ("rate", "pair") and _ROUTE.search(problem.message)):
        return UpstreamNotFound(message, **kw)
    return _by_shape(problem, message, kw) or _by_text(problem, message, kw) or RequestRefused(message, **kw)


def _by_shape(problem: ErrorAnswer, message: str, kw: dict[str, Any]) -> UpstreamError | None:
    """Shape B: the reason stands in `data`, and `message` says nothing."""
    if string(problem.data.get("memo")):
        return MemoRefused(message, **kw)
    if string(problem.data.get("address")):
        return AddressRefused(message, **kw)
    return None


def _by_text(problem: ErrorAnswer, message: str, kw: dict[str, Any]) -> UpstreamError | None:
    words = [] if problem.code is None or problem.code in _SAYING_NOTHING else [problem.code.replace("_", " ")]
    for text in [*words, problem.message]:
        if _MEMO.search(text):
            return MemoRefused(message, **kw)
        if _ADDRESS.search(text):
            return AddressRefused(message, **kw)
        if _SMALL.search(text):
            return AmountRefused(message, side="min", bound=bound(problem), **kw)
        if _BIG.search(text):
            return AmountRefused(message, side="max", bound=bound(problem), **kw)
        if _MODE.search(text):
            return RateModeRefused(message, **kw)
        if _ROUTE.search(text):
            return PairRefused(message, **kw)
    if problem.details.get("field") == "claimedDepositAmount":
        return AmountRefused(message, side=_side(problem), bound=bound(problem), **kw)
    return None


def _side(problem: ErrorAnswer) -> Literal["min", "max"] | None:
    value, limit = amount(problem.details.get("value")), bound(problem)
    if value is None or limit is None or value == limit:
        return None
    return "min" if value < limit else "max"


def bound(problem: ErrorAnswer) -> Decimal | None:
    """The limit an amount broke, where the answer named it (C16): expectedGeneral, else expected; looked for in
    data.details, details, data, the root and last in the message. A hint: quote again to confirm."""
    data_details, details = problem.data.get("details"), problem.body.get("details")
    for holder in (data_details, details, problem.data, problem.body):
        if isinstance(holder, dict):
            limit = amount(holder.get("expectedGeneral")) or amount(holder.get("expected"))
            if limit is not None:
                return limit
    match = _BOUND_IN_TEXT.search(problem.message)
    return amount(match[1]) if match else None


def verdict_of(problem: ErrorAnswer) -> AddressVerdict | None:
    """The verdict in an E3 answer that is no success (shape B, or words about address or memo), or None."""
    for name in _FIELDS:
        reason = string(problem.data.get(name))
        if reason is not None and problem.status < 500:
            return AddressVerdict(False, reason, name)
    error = classify(problem, "validate")
    if isinstance(error, AddressRefused | MemoRefused):
        return AddressVerdict(False, problem.message or None, "memo" if isinstance(error, MemoRefused) else "address")
    return None


# --- create ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row of the written list. `statuses`: only with one of these; `evidence`: docs/upstream.md, and its strength."""

    name: str
    statuses: frozenset[int]
    applies: Callable[[ErrorAnswer], bool]
    error: Callable[..., UpstreamError]
    evidence: str


def _says(words: str) -> Callable[[ErrorAnswer], bool]:
    return lambda problem: words.casefold() in problem.message.casefold()


def _too_small(message: str, *, limit: Decimal | None, **kw: Any) -> UpstreamError:
    return AmountRefused(message, side="min", bound=limit, **kw)


def _too_big(message: str, *, limit: Decimal | None, **kw: Any) -> UpstreamError:
    return AmountRefused(message, side="max", bound=limit, **kw)


def _plainly(error: type[UpstreamError]) -> Callable[..., UpstreamError]:
    return lambda message, *, limit, **kw: error(message, **kw)


# 409 and 402 are documented without a meaning ("valid but not completed"), 404 and 410 speak of something that is
# there or was: none of them says that no order was made.
_JUDGED = frozenset({400, 406, 422})

REFUSALS: tuple[Refusal, ...] = (
    Refusal("amount below the minimum, by code", _JUDGED, lambda p: p.code == TOO_SMALL, _too_small,
            "section 4, shape A, client code; 406 or 422 (C4)"),
    Refusal("amount below the minimum, by message", _JUDGED, _says("Amount Too Small"), _too_small,
            "section 4, shape A, client code"),
    Refusal("amount too low, v1 wording", frozenset({406}), _says("amount too low"), _too_small,
            "section 4, documented for v1"),
    Refusal("amount above the maximum", _JUDGED, _says("Amount Too Big"), _too_big,
            "section 4, client code; the code is not known"),
    Refusal("memo", _JUDGED, lambda p: string(p.data.get("memo")) is not None, _plainly(MemoRefused),
            "section 4, shape B, observed live"),
    Refusal("address", _JUDGED, lambda p: string(p.data.get("address")) is not None, _plainly(AddressRefused),
            "section 4, shape B, observed live"),
    Refusal("pair not supported", frozenset({400, 422}), _says("pair not supported"), _plainly(PairRefused),
            "section 4, documented for v1"),
    Refusal("markup without a referrer", _JUDGED, _says("markup requires referrerId key"), _plainly(RequestRefused),
            "section 3 E6 and T10, observed live"),
    Refusal("rate mode", frozenset({400, 422}), lambda p: bool(_MODE.search(p.message)), _plainly(RateModeRefused),
            "section 4, classifier rule 8, client code"),
)  # fmt: skip


def judge_create(
    status: int, body: bytes, headers: Mapping[str, str], excerpt: str | None = None, *, asked: Asked = NOTHING_ASKED
) -> OrderReply:
    """The order, if the answer to a create is a complete one; raises otherwise. `asked`: a refusal that repeats another
    amount or pair refuses another create. What an order repeats is for the caller to compare.

    NotSent: 401, 403, 429 (cause signing, connect, limit), with the classified error as `__cause__`.
    AddressRefused, MemoRefused, AmountRefused, PairRefused, RateModeRefused, RequestRefused: a row of `REFUSALS`.
    OutcomeUnknown: everything else, with as much of an order as could be read as `found` (T5, T11).
    """
    found = _order_in(body)
    kw: dict[str, Any] = {"status": status, "body": excerpt}
    if 200 <= status < 300:
        if found is not None and found.complete:
            return found
        found = found or _ids_in(body)
        raise OutcomeUnknown(f"create: {status} without a complete order", found=found, cause="malformed", **kw)
    problem = read_problem(status, body, headers)
    kw["upstream_code"] = problem.code
    # An error that carries an order is no refusal, no matter what it says; the id of anything else is no order's.
    if found is None or not _is_an_order(found):
        found = None
        if status in (401, 403, 429):
            reason = classify(problem, "create", excerpt)
            cause = {401: "signing", 403: "signing" if isinstance(reason, AuthFailed) else "connect", 429: "limit"}
            raise NotSent(reason.message, retry_after=problem.retry_after, cause=cause[status], **kw) from reason
        contradiction = asked.contradicted_by_refusal(problem.body)
        if contradiction is not None:
            raise OutcomeUnknown(f"create: {status}, about {contradiction}", cause="malformed", **kw)
        for refusal in REFUSALS:
            if status in refusal.statuses and refusal.applies(problem):
                raise refusal.error(f"create: {refusal.name}: {problem.message}"[:300], limit=bound(problem), **kw)
    found = found or _ids_in(body)
    raise OutcomeUnknown(f"create: {status}, which is no refusal we know", found=found, **kw)


def _order_in(body: bytes) -> OrderReply | None:
    try:
        return read_order(parse_json(body))
    except (ValueError, Malformed):
        return None


def _ids_in(body: bytes) -> OrderReply | None:
    """The ids in an answer that broke off, or is no JSON for another reason: enough to ask about the order. An id that was
    itself cut does not count, nor do names that other objects have too (`id`, `uuid`)."""
    ids = (quoted or digits for quoted, digits in _ID_IN_TEXT.findall(body))
    refs = tuple(dict.fromkeys(ref.decode() for ref in ids))
    return OrderReply(order_id=next((ref for ref in refs if ref.isdigit()), None), refs=refs) if refs else None


def _is_an_order(order: OrderReply) -> bool:
    # An error's own `id` or `reference` names a request, not an order.
    return order.complete or any(name in order.raw for name in ("orderId", "legacyOrderId", "orderEvents"))
