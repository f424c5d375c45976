"""Asking the upstream: leave to ask, signing, retries, deadlines and the journal. What is asked stands in `client`."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception

from swap.domain.signing import sign_v2
from swap.errors import (
    AuthFailed,
    Malformed,
    NotSent,
    OutcomeUnknown,
    RateLimited,
    RetryableRead,
    SwapError,
    Unreachable,
    UpstreamError,
    UpstreamUnavailable,
)
from swap.upstream.clock import UpstreamClock
from swap.upstream.fields import parse_json, string
from swap.upstream.journal import Call, excerpt
from swap.upstream.refusals import ErrorAnswer, classify, judge_create, read_problem, requests_left, retry_after
from swap.upstream.replies import OrderReply
from swap.upstream.transport import Answer, Transport

log = logging.getLogger(__name__)

T = TypeVar("T")

SMALL, LARGE = 1_000_000, 32_000_000
"""The most bytes an answer may have: for one thing, and for a whole catalog or list."""

_CREATE_PATH = "/api/v2/orders/public/create"
_ATTEMPTS = 3
_BACKOFF_SECONDS = 0.25
_LONGEST_BACKOFF_SECONDS = 4.0
_RATE_LIMITED_SECONDS = 1.0
# A create that is begun with less time than this would mostly end as an open question.
_SHORTEST_CREATE_SECONDS = 2.0
_REQUEST_ID_HEADERS = ("X-Request-Id", "X-Correlation-Id", "CF-Ray")


@dataclass(frozen=True, slots=True)
class Question:
    """One read. `query`: encoded, without "?". `order_ref`: which order it is about, for the journal. `priority`: of
    the budget."""

    endpoint: str
    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    signed: bool = False
    max_bytes: int = SMALL
    order_ref: str | None = None
    priority: str = "read"


class _Record:
    """A call while it is being made; `outcome` is what is told when nothing else was found out."""

    def __init__(self, at: float, began: float, outcome: str) -> None:
        self.at, self.began, self.outcome = at, began, outcome
        self.answer: Answer | None = None
        self.secrets: tuple[str, ...] = ()


class Exchange:
    """Thread-safe. See `UpstreamClient` for the arguments."""

    def __init__(
        self,
        transport: Transport,
        public_key: str,
        secret_key: str,
        *,
        read_timeout: float,
        create_timeout: float,
        on_call: Callable[[Call], None] | None,
        take: Callable[[str, float], None] | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], None],
        rng: random.Random,
        signed_reads: bool,
    ) -> None:
        self.clock = UpstreamClock(clock)
        self._transport = transport
        self._public_key, self._secret_key = public_key, secret_key
        self._read_timeout, self._create_timeout = read_timeout, create_timeout
        self._on_call, self._take = on_call, take
        self._wall, self._monotonic, self._sleep, self._rng = clock, monotonic, sleep, rng
        self._signed_reads = signed_reads
        # C13: which form the server wants is learned from its first refusal. The query first: an empty text was seen
        # to fail once a query is there.
        self._query_is_signed = True

    def until(self, deadline: float | None) -> float:
        """When a read that may take `deadline` seconds (default `read_timeout`) has to be over."""
        return self._monotonic() + (self._read_timeout if deadline is None else deadline)

    def ask(
        self,
        question: Question,
        read: Callable[[Any], T],
        until: float,
        read_problem_as: Callable[[ErrorAnswer], T | None] | None = None,
    ) -> T:
        """The answer, after at most three attempts and not later than `until`.

        `read` takes the parsed body of a 200 or 201 (T14) and raises Malformed. `read_problem_as` may find an answer in
        a refusal. Raises every UpstreamError but NotSent and OutcomeUnknown.
        """
        first = self._query_is_signed
        try:
            return self._persist(question, read, until, read_problem_as, first)
        except AuthFailed:
            if not (question.query and self._signs(question)):
                raise
            reply = self._persist(question, read, until, read_problem_as, not first)
            self._query_is_signed = not first
            return reply

    def _persist(
        self,
        question: Question,
        read: Callable[[Any], T],
        until: float,
        read_problem_as: Callable[[ErrorAnswer], T | None] | None,
        query_is_signed: bool,
    ) -> T:
        without_leave: list[BaseException] = []  # our own budget has waited already; asking it again is no retry

        def once(attempt: int) -> T:
            try:
                self._leave(question.priority, until - self._monotonic())
            except RetryableRead as error:
                without_leave.append(error)
                raise
            return self._attempt(question, read, until, read_problem_as, query_is_signed, attempt)

        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, RetryableRead) and error not in without_leave),
            wait=self._pause,
            stop=lambda state: state.attempt_number >= _ATTEMPTS or state.upcoming_sleep >= until - self._monotonic(),
            sleep=self._sleep,
            reraise=True,
        )
        for attempt in retrying:
            with attempt:
                return once(attempt.retry_state.attempt_number)
        raise AssertionError("tenacity ends by an answer or by an error")

    def _pause(self, state: RetryCallState) -> float:
        """Full jitter, on top of what the upstream asked for."""
        error = state.outcome.exception() if state.outcome else None
        named = getattr(error, "retry_after", None)
        if named is None:
            named = _RATE_LIMITED_SECONDS if isinstance(error, RateLimited) else 0.0
        most = min(_LONGEST_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2**state.attempt_number)
        return float(named) + self._rng.uniform(0, most)

    def _attempt(
        self,
        question: Question,
        read: Callable[[Any], T],
        until: float,
        read_problem_as: Callable[[ErrorAnswer], T | None] | None,
        query_is_signed: bool,
        attempt: int,
    ) -> T:
        record = _Record(self._wall(), self._monotonic(), UpstreamError.code)
        try:
            left = min(self._read_timeout, until - record.began)
            if left <= 0:
                raise Unreachable(f"{question.endpoint}: no time left to ask", cause="timeout")
            headers = {}
            if self._signs(question):
                signed = question.body or (question.query.encode() if query_is_signed else b"")
                headers = self._signature(signed, record)
            answer = self._send(record, question.method, _target(question), headers, question.body, left, question)
            reply = self._understand(question, answer, read, read_problem_as, record)
        except SwapError as error:
            record.outcome = error.code
            self._tell(question.endpoint, question.method, question.order_ref, attempt, record, _asked(question))
            raise
        self._tell(question.endpoint, question.method, question.order_ref, attempt, record, _asked(question))
        return reply

    def _signs(self, question: Question) -> bool:
        return question.signed or self._signed_reads

    def _understand(
        self,
        question: Question,
        answer: Answer,
        read: Callable[[Any], T],
        read_problem_as: Callable[[ErrorAnswer], T | None] | None,
        record: _Record,
    ) -> T:
        kept = excerpt(answer.body, record.secrets)
        parsed: Any = None
        if 200 <= answer.status < 300:
            try:
                parsed = parse_json(answer.body)
            except ValueError:
                parsed = _NOTHING
            if answer.status not in (200, 201) or parsed is _NOTHING:
                raise Malformed(
                    f"{question.endpoint}: {answer.status} without usable JSON", status=answer.status, body=kept
                )
        if answer.status not in (200, 201) or _is_a_problem(question, parsed):
            problem = read_problem(answer.status, answer.body, answer.headers)
            error = classify(problem, question.endpoint, kept)
            found = read_problem_as(problem) if read_problem_as else None
            if found is None:
                raise error
            record.outcome = error.code
            return found
        try:
            reply = read(parsed)
        except Malformed as error:
            error.status, error.body = answer.status, kept
            raise
        record.outcome = "OK"
        return reply

    # --- create ------------------------------------------------------------------------------------------------------

    def create(self, body: bytes, *, order_ref: str | None, attempt: int, deadline: float | None) -> OrderReply:
        """Send one create, once. Raises as `judge_create`, and NotSent or OutcomeUnknown when no answer came."""
        until = self._monotonic() + (self._create_timeout if deadline is None else deadline)
        record = _Record(self._wall(), self._monotonic(), OutcomeUnknown.code)
        try:
            answer = self._send_create(body, until, record)
            order = judge_create(answer.status, answer.body, answer.headers, excerpt(answer.body, record.secrets))
            record.outcome = "OK"
            return order
        except SwapError as error:
            record.outcome = error.code
            raise
        except Exception as error:
            # A mistake of ours while sending or reading: the order may exist all the same.
            raise OutcomeUnknown(f"create: {type(error).__name__}, a mistake of ours") from error
        finally:
            self._tell("create", "POST", order_ref, attempt, record, body)

    def _send_create(self, body: bytes, until: float, record: _Record) -> Answer:
        shortest = min(_SHORTEST_CREATE_SECONDS, self._create_timeout / 2)
        try:
            self._leave("create", until - self._monotonic() - shortest)
        except Exception as error:
            # Whatever went wrong in our budget: nothing was sent, and saying so keeps the order out of doubt.
            after = getattr(error, "retry_after", None)
            cause = "breaker" if getattr(error, "cause", None) == "breaker" else "limit"
            raise NotSent("create: no leave of our own to ask", cause=cause, retry_after=after) from error
        left = min(self._create_timeout, until - self._monotonic())
        if left < shortest:
            raise NotSent("create: too little time left to begin", cause="timeout")
        headers = self._signature(body, record)
        try:
            return self._send(record, "POST", _CREATE_PATH, headers, body, left, None)
        except Unreachable as error:
            raise NotSent(f"create: {error.message}", cause=error.cause) from error
        except UpstreamError as error:
            raise OutcomeUnknown(f"create: {error.message}", cause=error.cause, status=error.status) from error

    # --- both --------------------------------------------------------------------------------------------------------

    def _leave(self, priority: str, max_wait: float) -> None:
        if self._transport.hung_up:
            raise UpstreamUnavailable("this process is about to end", cause="breaker")
        if self._take is not None:
            self._take(priority, max(0.0, max_wait))

    def _signature(self, signed: bytes, record: _Record) -> dict[str, str]:
        headers = sign_v2(self._public_key, self._secret_key, self.clock.timestamp(), signed)
        record.secrets = (self._secret_key, headers["X-Api-Signature"], self._public_key)
        return headers

    def _send(
        self,
        record: _Record,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | None,
        limit: float,
        question: Question | None,
    ) -> Answer:
        """`question` None: a create, which never rides a connection that was used before."""
        if body is not None:
            headers["Content-Type"] = "application/json"
        answer = self._transport.send(
            method,
            target,
            headers=headers,
            body=body,
            limit=limit,
            max_bytes=question.max_bytes if question else SMALL,
            fresh=question is None,
        )
        record.answer = answer
        self.clock.observe(answer.headers, answer.seconds)
        return answer

    def _tell(
        self, endpoint: str, method: str, order_ref: str | None, attempt: int, record: _Record, asked: bytes | None
    ) -> None:
        if self._on_call is None:
            return
        answer = record.answer
        request_id = (
            next((answer.headers[name] for name in _REQUEST_ID_HEADERS if name in answer.headers), None)
            if answer
            else None
        )
        secrets = record.secrets or (self._secret_key, self._public_key)
        call = Call(
            endpoint=endpoint,
            method=method,
            order_ref=order_ref,
            attempt=attempt,
            status=answer.status if answer else None,
            ms=round((self._monotonic() - record.began) * 1000),
            request_id=request_id[:200] if request_id else None,
            outcome=record.outcome,
            request_body=excerpt(asked, secrets),
            response_body=excerpt(answer.body, secrets) if answer else None,
            at=datetime.fromtimestamp(record.at, UTC),
            retry_after=retry_after(answer.headers) if answer else None,
            requests_left=requests_left(answer.headers) if answer else None,
        )
        try:
            self._on_call(call)
        except Exception:
            # An answer in hand must not be lost to its journal.
            log.exception("the journal refused a call to %s", endpoint)


_NOTHING = object()


def _target(question: Question) -> str:
    return f"{question.path}?{question.query}" if question.query else question.path


def _asked(question: Question) -> bytes:
    return question.body or question.query.encode()


def _is_a_problem(question: Question, parsed: Any) -> bool:
    """A success that says it is none: an ERR_ code in `status`; on a rate any status at all, which no rate has (section
    3, E5); on an order a bare message that it has expired (section 3, E8)."""
    if not isinstance(parsed, dict):
        return False
    status = parsed.get("status")
    if (string(status) or "").upper().startswith("ERR_"):
        return True
    if question.endpoint == "order":
        return "orderId" not in parsed and "expired" in (string(parsed.get("message")) or "").lower()
    return question.endpoint == "rate" and status is not None
