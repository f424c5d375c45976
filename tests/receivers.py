"""Somebody who receives webhooks: remembers what came, and answers well or badly, as told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers`: path -> status, or a function that gives one; any other path answers 204. `body` goes with each. While
    it is `willing` it answers `endpoint.verify` with the token, and remembers nothing of that."""

    url: str = ""
    got: list[Request] = field(default_factory=list)
    answers: dict[str, int | Callable[[], int]] = field(default_factory=dict)
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    willing: bool = True

    def on(self, path: str) -> list[Request]:
        return [request for request in self.got if request.path == path]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if receiver.willing and b'"endpoint.verify"' in body:
                self._say(200, json.dumps({"token": json.loads(body)["data"]["token"]}).encode())
                return
            receiver.got.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            answer = receiver.answers.get(self.path, 204)
            status = answer if isinstance(answer, int) else answer()
            self._say(status, receiver.body)

        def _say(self, status: int, body: bytes) -> None:
            with suppress(OSError):
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def speaking(say: Callable[[socket.socket, threading.Event], object]) -> Iterator[str]:
    """A server that says what it likes to whoever connects; `say` gets the connection and the end of the test."""
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def talk(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            say(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threads.append(threading.Thread(target=talk, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join()
