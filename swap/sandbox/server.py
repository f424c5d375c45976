"""Runs the sandbox as an HTTP/1.1 server on werkzeug's threaded one.

werkzeug hands the connection to the application (`environ["werkzeug.socket"]`), so a wrapper can drop it in the middle
of an answer. Its own request loop closes every connection and reads ahead into the next request; clients of the
upstream keep connections alive, so the loop is replaced here by a small one that reads each body completely first.
"""

from __future__ import annotations

import io
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, WSGIRequestHandler

from swap.sandbox import faults
from swap.sandbox.app import create_app
from swap.sandbox.connection import CONNECTION, Connection
from swap.sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    Wrapper = Callable[[WSGIApplication], WSGIApplication]

_NO_BODY = {204, 304}
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </assets/app.css>; rel=preload; as=style\r\n\r\n"


class _KeepAliveHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are one write already; without this, small answers to pipelined clients wait for a delayed ACK.
    disable_nagle_algorithm = True

    _last: bytes | None = None
    _wire: Connection

    def setup(self) -> None:
        super().setup()
        cast("_Server", self.server).connections.add(self.connection)

    def finish(self) -> None:
        cast("_Server", self.server).connections.discard(self.connection)
        # The client may be gone, or a wrapper may have closed the socket under us.
        with suppress(OSError):
            super().finish()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Quiet: a poller asks many times a second."""

    def run_wsgi(self) -> None:
        environ = self.make_environ()
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # werkzeug decodes chunks, but what follows them is not read reliably
        else:
            length = self.headers.get("Content-Length") or "0"
            if not length.isdecimal():
                self.close_connection = True  # where the next request would begin cannot be known
            environ["wsgi.input"] = io.BytesIO(self.rfile.read(int(length) if length.isdecimal() else 0))
        environ[CONNECTION] = self._wire = Connection(not self.close_connection, self._last is not None)
        status, headers = "", list[tuple[str, str]]()

        def start_response(given: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], None]:
            nonlocal status, headers
            status, headers = given, list(fields)
            return lambda _: None

        answer = self.server.app(environ, start_response)
        try:
            body = b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        self._send(status, headers, body)

    def _send(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        names = {name.lower() for name, _ in headers}
        if "content-length" not in names and int(status[:3]) not in _NO_BODY:
            headers.append(("Content-Length", str(len(body))))
        if "date" not in names:
            headers.append(("Date", self.date_time_string()))
        if self.close_connection:
            headers.append(("Connection", "close"))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        answer = f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + (b"" if self.command == "HEAD" else body)
        # What the client takes for the answer is the first that is whole.
        before = self._last or b"" if faults.SHIFTED in self._wire.faults else b""
        before += _EARLY_HINTS if faults.EARLY_HINTS in self._wire.faults else b""
        self.wfile.write(before + answer * (2 if faults.ANSWERED_TWICE in self._wire.faults else 1))
        self._last = answer


class _Server(ThreadedWSGIServer):
    """Remembers its connections: an idle keep-alive one would otherwise be answered after the server was stopped."""

    def __init__(self, host: str, port: int, app: WSGIApplication) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(host, port, app, _KeepAliveHandler)

    def stop(self) -> None:
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def make_sandbox_server(host: str, port: int, world: World, *, wrap: Wrapper | None = None) -> BaseWSGIServer:
    """A bound server that does not run yet; port 0 takes a free one. `wrap` puts WSGI middleware of one's own around the
    application and its faults: it sees the request before the world and the answer after it."""
    app = create_app(world)
    if wrap is not None:
        app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[assignment, method-assign]
    return _Server(host, port, app)


def serve(host: str, port: int, world: World, *, wrap: Wrapper | None = None) -> None:
    """Serves until SIGTERM or SIGINT, then returns. From the main thread; elsewhere signals cannot be caught."""
    server = make_sandbox_server(host, port, world, wrap=wrap)
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if not stopping.is_set():
            stopping.set()
            # shutdown() waits for the loop that this very thread runs.
            threading.Thread(target=server.shutdown, daemon=True).start()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        cast(_Server, server).stop()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def running(world: World, *, wrap: Wrapper | None = None) -> Iterator[str]:
    """The sandbox in a thread on a free loopback port; yields its base URL, such as `http://127.0.0.1:40123`."""
    server = make_sandbox_server("127.0.0.1", 0, world, wrap=wrap)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="sandbox", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        cast(_Server, server).stop()
