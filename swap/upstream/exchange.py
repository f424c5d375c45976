"""Asking the upstream: leave to ask, signing, retries, deadlines and the journal. What is asked stands in `client`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception

from swap.domain.times import Timing
from swap.errors import (
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
from swap.upstream.echoes import NOTHING_ASKED, Asked
from swap.upstream.fields import parse_json, string
from swap.upstream.journal import Call, excerpt
from swap.upstream.key_pair import KeyPair
from swap.upstream.refusals import ErrorAnswer, classify, judge_create, read_problem, requests_left, retry_after
from swap.upstream.replies import OrderReply
from swap.upstream.transport import Answer, Transport

log = structlog.get_logger()

T = TypeVar("T")

Take = Callable[[str, float], None]
"""Asked for leave before every attempt: priority of the budget, longest wait in seconds. What it raises ends the call."""
OnCall = Callable[[Call], None]
"""Receives every attempt and how it ended."""

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
    """One request, before it is signed. `query`: encoded, without "?"; never of a signed request (C13). `order_ref`: which
    order it is about, for the journal. `priority`: of the budget. `asked`: what its answer may repeat. `alone`: on a
    connection of its own, for an answer that repeats nothing by which a wrong one would be known."""

    endpoint: str
    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    signed: bool = False
    max_bytes: int = SMALL
    order_ref: str | None = None
    priority: str = "read"
    asked: Asked = NOTHING_ASKED
    alone: bool = False


class _Record:
    """One attempt while it is being made. `outcome`: what the journal gets unless something better is found out."""

    def __init__(self, question: Question, attempt: int, timing: Timing, outcome: str) -> None:
        self.question, self.attempt, self.outcome = question, attempt, outcome
        self.at, self.began = timing.now(), timing.monotonic()
        self.answer: Answer | None = None
        self.secrets: tuple[str, ...] = ()


class Exchange:
    """Thread-safe. See `UpstreamClient` for the arguments."""

    def __init__(
        self, transport: Transport, keys: KeyPair, timing: Timing, take: Take | None, on_call: OnCall | None
    ) -> None:
        self.clock = UpstreamClock(lambda: timing.now().timestamp())
        self._transport, self._keys, self._timing = transport, keys, timing
        self._take, self._on_call = take, on_call
        self._monotonic, self._sleep = timing.monotonic, timing.sleep

    def until(self, deadline: float | None) -> float:
        """When a read that may take `deadline` seconds (default `read_timeout`) has to be over."""
        return self._monotonic() + (self._timing.read_timeout if deadline is None else deadline)

    def ask(
        self,
        question: Question,
        read: Callable[[Any], T],
        until: float,
        read_problem_as: Callable[[ErrorAnswer], T | None] | None = None,
    ) -> T:
        """The answer, after at most three attempts and not later than `until`.

        `read` takes the parsed body of a 200 or 201 (T14) and raises Malformed. `read_problem_as` may read an answer out
        of a refusal. Raises every UpstreamError but NotSent and OutcomeUnknown.
        """
        without_leave: list[BaseException] = []  # our own budget has waited already; asking it again is no retry

        def once(attempt: int) -> T:
            try:
                self._leave(question.priority, until - self._monotonic())
            except RetryableRead as error:
                without_leave.append(error)
                raise
            return self._attempt(question, read, until, read_problem_as, attempt)

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
        return float(named) + self._timing.rng.uniform(0, most)

    def _attempt(
        self,
        question: Question,
        read: Callable[[Any], T],
        until: float,
        read_problem_as: Callable[[ErrorAnswer], T | None] | None,
        attempt: int,
    ) -> T:
        record = _Record(question, attempt, self._timing, UpstreamError.code)
        try:
            left = min(self._timing.read_timeout, until - record.began)
            if left <= 0:
                raise Unreachable(f"{question.endpoint}: no time left to ask", cause="timeout")
            answer = self._send(record, left)
            reply = self._understand(answer, read, read_problem_as, record)
        except SwapError as error:
            if isinstance(error, Malformed):
                # It may be the answer to another question, and its connection one answer late from now on.
                self._transport.close()
            record.outcome = error.code
            self._tell(record)
            raise
        self._tell(record)
        return reply

    def _understand(
        self,
        answer: Answer,
        read: Callable[[Any], T],
        read_problem_as: Callable[[ErrorAnswer], T | None] | None,
        record: _Record,
    ) -> T:
        question, kept = record.question, excerpt(answer.body, record.secrets)
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
            self._compare(record, question.asked.contradicted_by_refusal(problem.body), kept)
            error = classify(problem, question.endpoint, kept)
            reply = read_problem_as(problem) if read_problem_as else None
            if reply is None:
                raise error
            record.outcome = error.code
            return reply
        self._compare(record, question.asked.contradicted_by(parsed), kept)
        try:
            reply = read(parsed)
        except Malformed as error:
            error.status, error.body = answer.status, kept
            raise
        record.outcome = "OK"
        return reply

    def _compare(self, record: _Record, contradiction: str | None, kept: str | None) -> None:
        if contradiction is None or record.answer is None:
            return
        question = record.question
        log.error("upstream.answer_to_another_question", endpoint=question.endpoint, about=contradiction)
        raise Malformed(
            f"{question.endpoint}: the answer is about {contradiction}", status=record.answer.status, body=kept
        )

    # --- create ------------------------------------------------------------------------------------------------------

    def create(
        self, body: bytes, asked: Asked, *, order_ref: str | None, attempt: int, deadline: float | None
    ) -> OrderReply:
        """Send one create, once. `asked`: what a refusal may repeat. Raises as `judge_create`, and NotSent or OutcomeUnknown
        when no answer came."""
        until = self._monotonic() + (self._timing.create_timeout if deadline is None else deadline)
        question = Question(
            endpoint="create",
            method="POST",
            path=_CREATE_PATH,
            body=body,
            signed=True,
            order_ref=order_ref,
            priority="create",
            asked=asked,
            alone=True,
        )
        record = _Record(question, attempt, self._timing, OutcomeUnknown.code)
        try:
            answer = self._send_create(record, until)
            kept = excerpt(answer.body, record.secrets)
            order = judge_create(answer.status, answer.body, answer.headers, kept, asked=asked)
            record.outcome = "OK"
            return order
        except SwapError as error:
            record.outcome = error.code
            raise
        except Exception as error:
            # A mistake of ours while sending or reading: the order may exist anyway.
            raise OutcomeUnknown(f"create: {type(error).__name__}, a mistake of ours") from error
        finally:
            self._tell(record)

    def _send_create(self, record: _Record, until: float) -> Answer:
        shortest = min(_SHORTEST_CREATE_SECONDS, self._timing.create_timeout / 2)
        try:
            self._leave("create", until - self._monotonic() - shortest)
        except Exception as error:
            # No matter what went wrong in our budget: nothing was sent, and saying so keeps the order out of doubt.
            after = getattr(error, "retry_after", None)
            cause = "breaker" if getattr(error, "cause", None) == "breaker" else "limit"
            raise NotSent("create: no leave of our own to ask", cause=cause, retry_after=after) from error
        left = min(self._timing.create_timeout, until - self._monotonic())
        if left < shortest:
            raise NotSent("create: too little time left to begin", cause="timeout")
        try:
            return self._send(record, left)
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

    def _send(self, record: _Record, limit: float) -> Answer:
        question, headers = record.question, {}
        if question.signed:
            headers = self._keys.sign(self.clock.timestamp(), question.body or b"")
            record.secrets = (self._keys.secret, headers["X-Api-Signature"], self._keys.public)
        if question.body is not None:
            headers["Content-Type"] = "application/json"
        answer = self._transport.send(
            question.method,
            _target(question),
            headers=headers,
            body=question.body,
            limit=limit,
            max_bytes=question.max_bytes,
            fresh=question.alone,
        )
        record.answer = answer
        self.clock.observe(answer.headers, answer.seconds)
        return answer

    def _tell(self, record: _Record) -> None:
        if self._on_call is None:
            return
        question, answer = record.question, record.answer
        secrets = record.secrets or (self._keys.secret, self._keys.public)
        call = Call(
            endpoint=question.endpoint,
            method=question.method,
            order_ref=question.order_ref,
            attempt=record.attempt,
            status=answer.status if answer else None,
            ms=round((self._monotonic() - record.began) * 1000),
            request_id=_request_id(answer) if answer else None,
            outcome=record.outcome,
            request_body=excerpt(question.body or question.query.encode(), secrets),
            response_body=excerpt(answer.body, secrets) if answer else None,
            at=record.at,
            retry_after=retry_after(answer.headers) if answer else None,
            requests_left=requests_left(answer.headers) if answer else None,
            subject=question.asked.subject,
        )
        try:
            self._on_call(call)
        except Exception:
            # An answer in hand must not be lost to its journal.
            log.exception("upstream.call_not_journalled", endpoint=question.endpoint)


_NOTHING = object()


def _target(question: Question) -> str:
    return f"{question.path}?{question.query}" if question.query else question.path


def _request_id(answer: Answer) -> str | None:
    return next((answer.headers[name][:200] for name in _REQUEST_ID_HEADERS if name in answer.headers), None) or None


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
