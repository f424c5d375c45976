"""The upstream's answer to a create, in its attempt: written down whatever it was, and read back when we died before
acting on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from swap.errors import Malformed, UpstreamError
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import OrderAttempt
from swap.upstream.decode import read_order
from swap.upstream.fields import parse_json
from swap.upstream.journal import excerpt
from swap.upstream.replies import OrderReply

log = structlog.get_logger()

DATABASE_AWAY = (OperationalError, PoolTimeout)
_ANSWER_IN_HAND_SECONDS = 10.0
# Creates answer about 2 kB. Beyond this only the start is kept, which cannot be read back: then the upstream is asked.
_LARGEST_ANSWER = 64 * 1024


def retry_while_database_away() -> Retrying:
    """For an answer in hand: the database being away, or having no connection to spare, is waited out for 10 s."""
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
    """Write the answer to attempt `number`, whatever became of the order; insist for 10 s while the database is away.

    `reply`: an OrderReply, as far as one could be read. Raises what the database raised last, having logged the ids.
    """
    told = reply if isinstance(reply, OrderReply) else None
    refs = list(told.refs) if told else []
    values: dict[str, Any] = {
        "outcome": outcome,
        "finished_at": at,
        "refs": refs,
        "code": error.code if error else None,
        "cause": error.cause if error else None,
        "http_status": error.status if error else None,
        "answer": (error.body if error else None) or (_whole(told) if told else None),
    }
    try:
        for again in retry_while_database_away():
            with again, database.write() as session:
                order_rows.finish_attempt(session, order_id, number, **values)
    except DATABASE_AWAY:
        log.critical("orders.answer_not_stored", order_id=order_id, attempt=number, outcome=outcome, refs=refs)
        raise


def last_complete_answer(attempts: Sequence[OrderAttempt]) -> tuple[OrderAttempt, OrderReply] | None:
    """The last attempt whose complete answer was written down, and that answer, as it was read when it came. None when
    there is none, or it was too large to be kept whole."""
    for attempt in reversed(attempts):
        if attempt.outcome != "done" or attempt.answer is None:
            continue
        try:
            reply = read_order(parse_json(attempt.answer.encode()))
        except (ValueError, Malformed):
            return None
        return (attempt, reply) if reply.complete else None
    return None


def _whole(reply: OrderReply) -> str | None:
    # In ASCII: what no database can store (NUL, halves of surrogate pairs) is escaped, and read back as it was told.
    # Decimal is the only type of a parsed answer that JSON does not know, and amounts are read from text as well.
    text = json.dumps(reply.raw, separators=(",", ":"), default=str)
    return text if len(text) <= _LARGEST_ANSWER else excerpt(reply.raw)
