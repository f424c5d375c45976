"""HTTP servers for tests: the API on a port of its own, and servers that are started once and change what they show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
from werkzeug.serving import make_server

from swap.web import create_app, serve
from swap.wiring import Service

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@contextmanager
def served(service: Service) -> Iterator[str]:
    """The API of these parts, as an address."""
    with served_app(create_app(service)) as url:
        yield url


@contextmanager
def served_app(app: Wsgi) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Switch:
    """A WSGI application that stands for another one, which can be exchanged while its server runs."""

    app: Wsgi

    def __init__(self) -> None:
        self._running = 0
        self._changed = threading.Condition()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._changed:
            self._running += 1
        try:
            return self.app(environ, start_response)
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def wait_until_idle(self) -> None:
        """Returns when no request runs any more."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._running, timeout=30), "a request that does not end"


class SharedApi:
    """One API for the tests of a process. Each test has it answer from parts of its own."""

    def __init__(self) -> None:
        self.switch = Switch()
        self._app: flask.Flask | None = None

    def answer_from(self, service: Service) -> None:
        if self._app is None:
            self._app = create_app(service)
            self.switch.app = self._app
        else:
            serve(self._app, service)
