"""Everything that can go wrong, as types. None of them knows HTTP; `swap.web.problems` maps them to statuses.

    SwapError                     code, message, cause
    ├── ConfigurationError        settings that cannot be used; lists every mistake at once
    ├── UpstreamError             what the v2 upstream did to a call of ours (docs/upstream.md section 4)
    │   ├── RetryableRead         the client may try a read again, within its budget
    │   │   ├── RateLimited       429; retry_after in seconds when the answer named it
    │   │   ├── UpstreamUnavailable  424, 500, 502, 503, 504
    │   │   ├── Unreachable       no connection, or TLS refused: certainly not sent
    │   │   │   └── OutOfDescriptors  this process could open no connection: says nothing about the upstream
    │   │   └── TimedOut          connected, but no complete answer in time
    │   ├── UpstreamRefused       understood and refused; trying the same again is pointless
    │   │   ├── AddressRefused    the destination (or refund) address
    │   │   ├── MemoRefused       the memo or tag
    │   │   ├── AmountRefused     too small or too big; bound as a Decimal when the answer named it
    │   │   ├── PairRefused       route, instrument, currency or network
    │   │   ├── RateModeRefused   FIXED or FLOATING not available
    │   │   ├── InvoiceExpired    refused by us in the upstream's place: the invoice ran out while the order waited
    │   │   └── RequestRefused    refused for another reason
    │   ├── UpstreamNotFound      404
    │   ├── OrderExpired          410 or ERR_ORDER_EXPIRED
    │   ├── AuthFailed            401, or a text that names signature or key
    │   ├── Blocked               403 without such a text: IP list or web application firewall
    │   ├── Malformed             a 2xx that is not what the protocol promises
    │   ├── NotSent               create only: certainly never reached order creation
    │   └── OutcomeUnknown        create only: an order may exist; never retried blindly
    └── ServiceError              what our callers receive; `retry` says what to do next
        ├── InvalidRequest        every field problem at once
        │   ├── BadJson           the body is no strict JSON object
        │   └── CursorGone        the feed cannot go on from this cursor
        ├── NotFound              no such order, instrument, pair, endpoint
        ├── Conflict              the request contradicts something already stored
        ├── OrderRefused          the upstream refused the order; the row is kept as `failed`
        ├── TryAgainLater         nothing was lost; try the same request after retry_after
        │   └── Overloaded        no thread was free in time
        ├── BodyTooLarge, BodyTooSlow
        ├── NotAuthenticated      the request does not prove who sent it
        ├── NotAllowed            the key lacks a scope
        └── TooManyRequests       the key's budget is spent

A `cause` is one of: validation, signing, connect, timeout, tls, malformed, too_large, business, limit, breaker,
descriptors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Retry = Literal["same_request", "new_request", "never"]


class SwapError(Exception):
    """Root. `code` is stable and upper case, `message` a sentence for people, free of secrets."""

    code = "INTERNAL"
    cause = "business"

    def __init__(self, message: str = "", *, code: str | None = None, cause: str | None = None) -> None:
        super().__init__(message or type(self).__name__)
        self.message = message or type(self).__name__
        if code is not None:
            self.code = code
        if cause is not None:
            self.cause = cause


class ConfigurationError(SwapError):
    """`mistakes`: one sentence per setting that cannot be used; values of secrets are never repeated."""

    code = "CONFIGURATION"
    cause = "validation"

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


# --- the upstream ---------------------------------------------------------------------------------------------------


class UpstreamError(SwapError):
    """`status`: HTTP status or None when there was no answer. `upstream_code`: the string in the body's `status`.
    `body`: the start of the answer as text, redacted, for the journal; never shown to a caller."""

    code = "UPSTREAM_ERROR"

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        upstream_code: str | None = None,
        body: str | None = None,
        cause: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code, cause=cause)
        self.status = status
        self.upstream_code = upstream_code
        self.body = body


class RetryableRead(UpstreamError):
    pass


class RateLimited(RetryableRead):
    code = "UPSTREAM_RATE_LIMITED"
    cause = "limit"

    def __init__(self, message: str = "", *, retry_after: float | None = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        self.retry_after = retry_after


class UpstreamUnavailable(RetryableRead):
    code = "UPSTREAM_UNAVAILABLE"

    def __init__(self, message: str = "", *, retry_after: float | None = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        self.retry_after = retry_after


class Unreachable(RetryableRead):
    code = "UPSTREAM_UNREACHABLE"
    cause = "connect"


class OutOfDescriptors(Unreachable):
    """Our own fault: every file this process, or this machine, may have open is open."""

    code = "OUT_OF_DESCRIPTORS"
    cause = "descriptors"


class TimedOut(RetryableRead):
    code = "UPSTREAM_TIMEOUT"
    cause = "timeout"


class UpstreamRefused(UpstreamError):
    code = "UPSTREAM_REFUSED"


class AddressRefused(UpstreamRefused):
    code = "ADDRESS_REFUSED"


class MemoRefused(UpstreamRefused):
    code = "MEMO_REFUSED"


class AmountRefused(UpstreamRefused):
    """`side` is "min", "max" or None; `bound` the limit in the deposit currency, where the answer named one."""

    code = "AMOUNT_REFUSED"

    def __init__(
        self, message: str = "", *, side: Literal["min", "max"] | None = None, bound: Decimal | None = None, **kw: Any
    ) -> None:
        super().__init__(message, **kw)
        self.side = side
        self.bound = bound
        if side == "min":
            self.code = "AMOUNT_BELOW_MINIMUM"
        elif side == "max":
            self.code = "AMOUNT_ABOVE_MAXIMUM"


class PairRefused(UpstreamRefused):
    code = "PAIR_REFUSED"


class RateModeRefused(UpstreamRefused):
    code = "RATE_MODE_UNAVAILABLE"


class InvoiceExpired(UpstreamRefused):
    code = "INVOICE_EXPIRED"


class RequestRefused(UpstreamRefused):
    pass


class UpstreamNotFound(UpstreamError):
    code = "UPSTREAM_NOT_FOUND"


class OrderExpired(UpstreamError):
    code = "UPSTREAM_ORDER_EXPIRED"


class AuthFailed(UpstreamError):
    code = "UPSTREAM_AUTH_FAILED"
    cause = "signing"


class Blocked(UpstreamError):
    code = "UPSTREAM_BLOCKED"


class Malformed(UpstreamError):
    """`found`: what could be read anyway, such as the ids in a create answer without a deposit address."""

    code = "UPSTREAM_MALFORMED"
    cause = "malformed"

    def __init__(self, message: str = "", *, found: Any = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        self.found = found


class NotSent(UpstreamError):
    """`__cause__` is the error that says why. `retry_after` in seconds, where known."""

    code = "UPSTREAM_NOT_SENT"

    def __init__(self, message: str = "", *, retry_after: float | None = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        self.retry_after = retry_after


class OutcomeUnknown(UpstreamError):
    """`found`: an OrderReply as far as it could be read (ids without a deposit address, say), or None."""

    code = "UPSTREAM_OUTCOME_UNKNOWN"

    def __init__(self, message: str = "", *, found: Any = None, **kw: Any) -> None:
        super().__init__(message, **kw)
        self.found = found


# --- our callers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field of a request. `code` is stable and upper case, `message` a sentence for people.

    `details`: what a program can use besides, in the form of JSON: reason, hint, min, max, max_decimals, step, limit, used,
    try_again_at.
    """

    code: str
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, **self.details}


class Problems(dict[str, list[FieldProblem]]):
    """The problems of one request, by dotted field name such as `from.network`."""

    def add(self, name: str, problem: FieldProblem) -> None:
        self.setdefault(name, []).append(problem)

    def collect(self, name: str, outcome: T | FieldProblem) -> T | None:
        """The outcome; None when it is a problem, which is then one of this field."""
        if isinstance(outcome, FieldProblem):
            self.add(name, outcome)
            return None
        return outcome


class ServiceError(SwapError):
    """`details` goes to the caller as it stands; `retry` says what to do with the request."""

    code = "REQUEST_FAILED"
    retry: Retry = "never"

    def __init__(
        self, message: str = "", *, code: str | None = None, retry: Retry | None = None, **details: Any
    ) -> None:
        super().__init__(message, code=code)
        if retry is not None:
            self.retry = retry
        self.details = {**details, "retry": self.retry}


class InvalidRequest(ServiceError):
    """`fields`: every problem that could be found, by dotted field name. `details` has them in the form of JSON."""

    code = "VALIDATION_FAILED"
    retry: Retry = "new_request"

    def __init__(self, fields: Mapping[str, list[FieldProblem]], message: str = "", *, code: str | None = None) -> None:
        message = message or f"The request has problems in: {', '.join(sorted(fields))}."
        rendered = {name: [problem.to_json() for problem in problems] for name, problems in fields.items()}
        super().__init__(message, code=code, fields=rendered)
        self.fields = fields

    @staticmethod
    def on(name: str, code: str, message: str, **details: Any) -> InvalidRequest:
        """A refusal for one problem of one field."""
        return InvalidRequest({name: [FieldProblem(code, message, details)]})


class BadJson(InvalidRequest):
    code = "BAD_JSON"

    def __init__(self, message: str) -> None:
        super().__init__({"body": [FieldProblem(self.code, message)]}, message)


class CursorGone(InvalidRequest):
    """`code` is CURSOR_RESET or CURSOR_EXPIRED, of the field `after`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__({"after": [FieldProblem(code, message)]}, code=code)


class NotFound(ServiceError):
    code = "NOT_FOUND"


class Conflict(ServiceError):
    code = "CONFLICT"


class OrderRefused(ServiceError):
    code = "ORDER_REFUSED"
    retry: Retry = "new_request"


class TryAgainLater(ServiceError):
    """`retry_after` in whole seconds."""

    code = "TEMPORARILY_UNAVAILABLE"
    retry: Retry = "same_request"

    def __init__(self, message: str = "", *, retry_after: int = 5, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after


class Overloaded(TryAgainLater):
    """Refused before anything was read or begun."""

    code = "OVERLOADED"

    def __init__(self) -> None:
        super().__init__("The service has more requests than it can take up now.", retry_after=1)


class BodyTooLarge(ServiceError):
    code = "BODY_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("The body is larger than any request needs.")


class BodyTooSlow(ServiceError):
    code = "BODY_TOO_SLOW"
    retry = "same_request"

    def __init__(self) -> None:
        super().__init__("The body did not come in time after its headers.")


class NotAuthenticated(ServiceError):
    code = "NOT_AUTHENTICATED"


class NotAllowed(ServiceError):
    code = "SCOPE_MISSING"


class TooManyRequests(ServiceError):
    code = "TOO_MANY_REQUESTS"
    retry: Retry = "same_request"

    def __init__(self, message: str = "", *, retry_after: int = 1, **details: Any) -> None:
        super().__init__(message, **details)
        self.retry_after = retry_after
