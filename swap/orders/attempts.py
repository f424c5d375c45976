"""The upstream's answer to a create: written into its attempt in any case, and read back when the process died before
acting on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from swap.errors import Malformed, UpstreamError
from swap.store import attempts as attempt_rows
from swap.store.database import Database
from swap.tables import OrderAttempt
from swap.upstream.decode import read_order
from swap.upstream.fields import parse_json, whole
from swap.upstream.journal import excerpt
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

DATABASE_AWAY = (OperationalError, PoolTimeout)
_ANSWER_IN_HAND_SECONDS = 10.0
# An answer has about 2 kB. Of an answer beyond this only the start is kept. That cannot be read back, so the upstream is
# asked instead.
_LARGEST_ANSWER = 64 * 1024


def retry_while_database_away() -> Retrying:
    """For an answer in hand: wait up to 10 s for a database that is away or has no connection to spare."""
    return Retrying(
        retry=retry_if_exception_type(DATABASE_AWAY),
        stop=stop_after_delay(_ANSWER_IN_HAND_SECONDS),
        wait=wait_random_exponential(multiplier=0.1, max=1),
        reraise=True,
    )


def record_answer(
    database: Database,
    order_id: str,
    number: int,
    outcome: str,
    at: datetime,
    *,
    error: UpstreamError | None = None,
    reply: Any = None,
) -> None:
    """Write down the answer to attempt `number`, even when the order has ended meanwhile; retried for 10 s while the
    database is away.

    `reply`: an OrderReply, as far as one could be read. Raises what the database raised last, and logs the ids first.
    """
    order_reply = reply if isinstance(reply, OrderReply) else None
    refs = list(order_reply.refs) if order_reply else []
    values: dict[str, Any] = {
        "outcome": outcome,
        "finished_at": at,
        "refs": refs,
        "code": error.code if error else None,
        "cause": error.cause if error else None,
        "http_status": error.status if error else None,
        "answer": (error.body if error else None) or (_as_text(order_reply) if order_reply else None),
    }
    try:
        for again in retry_while_database_away():
            with again, database.write() as session:
                attempt_rows.finish_attempt(session, order_id, number, **values)
    except DATABASE_AWAY:
        log.critical("orders.answer_not_stored", order_id=order_id, attempt=number, outcome=outcome, refs=refs)
        raise


def complete_answer(attempt: OrderAttempt) -> OrderReply | None:
    """The complete answer that was written down for the attempt, read as when it came. None when there is none, or when it
    was too large to be kept whole."""
    if attempt.outcome != "done" or attempt.answer is None:
        return None
    try:
        reply = read_order(parse_json(attempt.answer.encode()))
    except (ValueError, Malformed):
        return None
    return reply if reply.complete else None


def last_complete_answer(attempts: Sequence[OrderAttempt]) -> tuple[OrderAttempt, OrderReply] | None:
    """The last attempt that was answered, and its answer, if that is complete."""
    answered = next((attempt for attempt in reversed(attempts) if attempt.outcome == "done" and attempt.answer), None)
    reply = None if answered is None else complete_answer(answered)
    return None if answered is None or reply is None else (answered, reply)


def _as_text(reply: OrderReply) -> str | None:
    # In ASCII: what no database can store (NUL, halves of surrogate pairs) is escaped, and is read back as it came.
    text = json.dumps(reply.raw, separators=(",", ":"), default=_number_as_read)
    return text if len(text) <= _LARGEST_ANSWER else excerpt(reply.raw)


def _number_as_read(value: object) -> object:
    """Decimal, the only type of a parsed answer that JSON does not know, as a number again: as text it would be another id,
    or a memo where an unreadable one stood. Only more digits than a float has become text, as which an amount reads too."""
    read = whole(value)
    if not isinstance(read, Decimal):
        return read
    return float(read) if Decimal(repr(float(read))) == read else str(read)
