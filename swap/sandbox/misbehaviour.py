"""Plays faults on the wire: the middleware between the server and the sandbox's routes.

It counts requests, keeps the rate limit, asks `world.chaos` what should go wrong, and does it: before the routes (then
nothing was made) or with their answer (then what was made stays made). The routes under /sandbox pass untouched.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, NoReturn, cast

from werkzeug.wrappers import Response

from swap.sandbox import faults
from swap.sandbox.chaos import Turn
from swap.sandbox.connection import CONNECTION, Connection
from swap.sandbox.faults import Knobs, endpoint_of
from swap.sandbox.wire import dump
from swap.sandbox.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_TURN = "swap.sandbox.turn"
_ACCEPTED = "create.accept_then_"
# After these a patient caller knows its order and where to pay.
_TOLD = {None, "create.accept_then_delay", faults.DELAY_THEN_ACCEPT, faults.ACCEPT_LATE, faults.OTHER_DESTINATION}

_WAF_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>Attention Required!</title></head><body><h1>Sorry, you have been blocked</h1>"
    "<p>You are unable to access this site. The action you just performed triggered the security solution.</p>"
    "</body></html>\n"
)
_PROXY_PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


def turn_of(environ: WSGIEnvironment) -> Turn:
    """What was decided for the request, for the routes."""
    return cast(Turn, environ[_TURN])


class Misbehaviour:
    """WSGI middleware. Drops need werkzeug's server, which hands the connection to the application; elsewhere the
    ConnectionAbortedError goes up to the server that runs this."""

    def __init__(self, app: WSGIApplication, world: World) -> None:
        self._app = app
        self._world = world
        self._chaos = world.chaos
        self._lock = threading.Lock()
        # By the order's number: the looks at it that are not answered yet.
        self._looks: defaultdict[int, list[WSGIEnvironment]] = defaultdict(list)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/sandbox" or path.startswith("/sandbox/"):
            return self._app(environ, start_response)
        endpoint = endpoint_of(environ["REQUEST_METHOD"], path)
        self._world.load.count(endpoint)
        knobs, left = self._chaos.knobs, self._chaos.admit(self._world.clock_now())
        if left is not None and left < 0:
            # Takes no turn, or the clock would move the faults of all requests that follow.
            answer = _too_many(1 if knobs.limit_retry_after else None)
            answer.headers["Date"] = formatdate(self._world.now(), usegmt=True)
        else:
            answer = self._played(environ, self._chaos.begin(endpoint))
        if left is not None and knobs.limit_headers:
            answer.headers["X-RateLimit-Limit"] = str(knobs.limit_per_second)
            answer.headers["X-RateLimit-Remaining"] = str(max(0, left))
            answer.headers["X-RateLimit-Reset"] = "1"
        return answer(environ, start_response)

    def _played(self, environ: WSGIEnvironment, turn: Turn) -> Response:
        """The answer with the turn's fault in it. Raises ConnectionAbortedError where there is none."""
        environ[_TURN] = turn
        what = "" if turn.fault is None else turn.fault.partition(".")[2]
        refusal = _refusal(what, self._chaos.knobs)
        if refusal is not None:
            self._chaos.settle(turn, played=True)
            return self._dated(refusal, turn)
        if what == "drop":
            self._chaos.settle(turn, played=True)
            _hang_up(environ)
        if turn.fault == faults.DELAY_THEN_ACCEPT:
            time.sleep(self._chaos.knobs.delay_seconds)
        if turn.fault == faults.ACCEPT_LATE:
            time.sleep(self._chaos.knobs.late_seconds)
        answer = self._dated(self._answered(environ, turn), turn)
        self._wire(environ, turn)
        return answer

    def _wire(self, environ: WSGIEnvironment, turn: Turn) -> None:
        """What else the connection carries. Only our own server can play that; elsewhere it never happens."""
        connection = cast(Connection | None, environ.get(CONNECTION))
        if connection is None:
            return
        possible = [faults.EARLY_HINTS]
        if connection.is_kept:
            possible.append(faults.ANSWERED_TWICE)
            possible += [faults.SHIFTED] if connection.has_answered else []
        connection.faults = {name for name in possible if self._chaos.happens(name, turn)}
        if turn.endpoint == "create" and turn.order is not None and faults.SHIFTED in connection.faults:
            self._chaos.record(turn.order).was_answered = False

    def _answered(self, environ: WSGIEnvironment, turn: Turn) -> Response:
        answer = Response.from_app(self._app, environ, buffered=True)
        # A refused create made nothing that could be hidden, and a 404 is not worth garbling: a forced fault waits.
        is_played = turn.played if turn.fault == faults.STALE else 200 <= answer.status_code < 300
        self._chaos.settle(turn, played=is_played)
        what = turn.fault.removeprefix(_ACCEPTED).rpartition(".")[2] if turn.fault and is_played else ""
        with self._looked_at(turn, environ):
            if what == "delay":
                time.sleep(self._chaos.knobs.delay_seconds)
        if turn.endpoint == "create" and turn.order is not None and turn.fault in _TOLD and not _has_left(environ):
            self._chaos.record(turn.order).was_answered = True
        if what == "drop":
            _hang_up(environ)
        return _garbled(what, answer, self._chaos.knobs)

    @contextmanager
    def _looked_at(self, turn: Turn, environ: WSGIEnvironment) -> Iterator[None]:
        """While somebody waits for public-info about an order."""
        if turn.endpoint != "info" or turn.order is None:
            yield
            return
        looks, record = self._looks[turn.order], self._chaos.record(turn.order)
        with self._lock:
            looks.append(environ)
            record.most_at_once = max(record.most_at_once, sum(not _has_left(look) for look in looks))
        try:
            yield
        finally:
            with self._lock:
                looks.remove(environ)

    def _dated(self, answer: Response, turn: Turn) -> Response:
        """The world's time in the Date header, or a wrong one."""
        skew = 0.0
        if self._chaos.happens(faults.SKEWED_DATE, turn):
            chance = self._chaos.chance(turn, "skew")
            skew = self._chaos.knobs.skew_seconds * (chance if chance >= 0.5 else chance - 1)
        answer.headers["Date"] = formatdate(self._world.now() + skew, usegmt=True)
        return answer


def _too_many(retry_after: int | None) -> Response:
    answer = _json({"message": "Too Many Requests"}, 429)
    if retry_after is not None:
        answer.headers["Retry-After"] = str(retry_after)
    return answer


def _refusal(what: str, knobs: Knobs) -> Response | None:
    """Answers that need no order and no route."""
    match what:
        case "error_500":
            return _json({"message": "Internal server error"}, 500)
        case "html_502":
            return Response(_PROXY_PAGE, 502, mimetype="text/html")
        case "html_403":
            return Response(_WAF_PAGE, 403, mimetype="text/html")
        case "rate_limited":
            return _too_many(knobs.retry_after_seconds)
        case "rate_limited_bare":
            return _too_many(None)
        case _:
            return None


def _garbled(what: str, answer: Response, knobs: Knobs) -> Response:
    match what:
        case "truncated":
            # The length fits the half that is sent: HTTP is in order, JSON is not.
            answer.set_data(answer.get_data()[: len(answer.get_data()) // 2])
        case "malformed":
            answer.set_data(b"order accepted, have a nice day")
        case "hello":
            answer.set_data(b'{"hello":"world"}')
        case "empty":
            answer.set_data(b"[]")
        case "no_content":
            return Response(status=204)
        case "500":
            return _refusal("error_500", knobs) or answer
        case "502":
            return _refusal("html_502", knobs) or answer
    return answer


def _json(value: object, status: int) -> Response:
    return Response(dump(value), status, mimetype="application/json")


def _connection(environ: WSGIEnvironment) -> socket.socket | None:
    return cast("socket.socket | None", environ.get("werkzeug.socket"))


def _has_left(environ: WSGIEnvironment) -> bool:
    """Whether the caller has closed the connection: nothing to read is a caller that waits, its end one that left."""
    connection = _connection(environ)
    if connection is None:
        return False
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _hang_up(environ: WSGIEnvironment) -> NoReturn:
    connection = _connection(environ)
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError
