"""The door in front of the application: reads each request whole, in the event loop, and only then takes a thread for it.

A body that trickles, or never ends, costs its connection for BODY_SECONDS and no thread. Threads are kept in lanes, so that
what waits for the upstream never stands before what does not: creates, questions (quotes, checks of addresses), the rest;
and health, that nothing stands before.
Each lane has a line of bounded length and time; what finds it full, or waits too long, is told to come again.

granian calls this by its own protocol, RSGI: its WSGI side takes a thread before it reads a body.
"""

from __future__ import annotations

import asyncio
import io
import signal
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from swap.errors import BodyTooLarge, BodyTooSlow, Overloaded, ServiceError
from swap.web import cors, problems, reply
from swap.web.body import MAX_BODY_BYTES, WAITED
from swap.web.refusals import Refusals

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

BODY_SECONDS = 5.0
"""From the end of a request's headers until its body has come."""
LINE_SECONDS = 5.0
"""How long a request may wait for a thread."""
PAUSE_SECONDS = 0.5
"""For how long an answer that says when to come again is held back, without a thread. Who comes at once all the same, and
from many connections, would otherwise have the service do nothing but refuse."""
_LINE_PER_THREAD = 8
_CREATE, _QUESTIONS = "/v1/orders", ("/v1/quotes", "/v1/addresses/validate")
_HEALTH = ("/healthz", "/readyz")

Answer = tuple[int, list[tuple[str, str]], bytes]


class _Lane:
    """Threads for one kind of requests, and a line before them."""

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads * (1 + _LINE_PER_THREAD)
        self._inside = 0

    async def run(self, work: Callable[[float], Answer]) -> Answer:
        """`work` is given how many seconds it waited. Raises Overloaded where the line is full or does not move."""
        if self._inside >= self._most:
            raise Overloaded
        came = time.monotonic()

        def take() -> Answer:
            waited = time.monotonic() - came
            if waited > LINE_SECONDS:
                raise Overloaded
            return work(waited)

        taken = self._pool.submit(take)
        answer = asyncio.wrap_future(taken)
        self._inside += 1
        try:
            await asyncio.wait({answer}, timeout=LINE_SECONDS)
            # Succeeds only where no thread has taken it.
            if taken.cancel():
                raise Overloaded
            return await answer
        finally:
            self._inside -= 1


class Door:
    """What granian serves. `drain` is called on SIGUSR1; `environment`: live or test; `may_read`: whether pages of an origin
    may read what is refused here, asked in the event loop."""

    def __init__(
        self,
        application: WSGIApplication,
        max_creates: int,
        environment: str,
        drain: Callable[[], None],
        may_read: Callable[[str], bool] = lambda _page: False,
    ) -> None:
        self._application, self._environment, self._drain = application, environment, drain
        self._may_read = may_read
        self._refusals = Refusals()
        # Twice the creates: those that find no room wait a tenth of a second before they are refused.
        self._creates = _Lane("create", 2 * max_creates)
        self._questions = _Lane("question", 32)
        self._others = _Lane("request", 32)
        # Whoever watches this process learns how it is while all others wait.
        self._health = _Lane("health", 2)

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_signal_handler(signal.SIGUSR1, self._drain)

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        try:
            body = await _body(scope, protocol)
            status, headers, content = await self._lane(scope).run(
                lambda waited: _call(self._application, _environ(scope, body, waited))
            )
        except ServiceError as error:
            request_id = uuid.uuid4().hex
            refused = reply.mark(problems.service_error(error, request_id), request_id, self._environment)
            # A refusal tells nothing of anybody, so it need not be known which route it would have been.
            refused.vary.add("Origin")
            page = scope.headers.get("origin")
            if page is not None and self._may_read(page):
                cors.let_read(refused, page)
            status, headers, content = refused.status_code, refused.headers.to_wsgi_list(), refused.get_data()
            route = scope.path if scope.path in (_CREATE, *_QUESTIONS) else None
            key = problems.key_in(scope.headers)
            self._refusals.note(error.code, status, key=key, method=scope.method, route=route)
        if status in (429, 503) and any(name == "Retry-After" for name, _ in headers):
            await asyncio.sleep(PAUSE_SECONDS)
        protocol.response_bytes(status, headers, content)

    def _lane(self, scope: Any) -> _Lane:
        if scope.method == "POST":
            if scope.path == _CREATE:
                return self._creates
            if scope.path in _QUESTIONS:
                return self._questions
        return self._health if scope.path in _HEALTH else self._others


async def _body(scope: Any, protocol: Any) -> bytes:
    """Raises BodyTooLarge, BodyTooSlow."""
    headers = scope.headers
    told = headers.get("content-length")
    if told is None and "transfer-encoding" not in headers:
        return b""
    if told is not None and int(told) > MAX_BODY_BYTES:
        raise BodyTooLarge
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in protocol:
                content += chunk
                if len(content) > MAX_BODY_BYTES:
                    raise BodyTooLarge
    except TimeoutError:
        raise BodyTooSlow from None
    return bytes(content)


def _environ(scope: Any, body: bytes, waited: float) -> dict[str, Any]:
    """The request in the form of PEP 3333."""
    host, _, port = scope.server.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": _latin(scope.path),
        "QUERY_STRING": _latin(scope.query_string),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        WAITED: waited,
    }
    for name, value in scope.headers.items():
        # "X_API_Key" would become the same as "X-API-Key", and what a proxy in front takes out could come in by that name.
        if "_" not in name:
            key = "HTTP_" + name.upper().replace("-", "_")
            environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ["CONTENT_LENGTH"] = str(len(body))
    environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE", "")
    environ.pop("HTTP_CONTENT_LENGTH", None)
    return environ


def _latin(text: str) -> str:
    """PEP 3333 has bytes as text, one character for each."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _call(application: WSGIApplication, environ: dict[str, Any]) -> Answer:
    begun: list[tuple[int, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:
        begun.append((int(status[:3]), headers))
        return lambda _: None

    content = application(environ, start_response)
    try:
        body = b"".join(content)
    finally:
        if (close := getattr(content, "close", None)) is not None:
            close()
    return *begun[-1], body
