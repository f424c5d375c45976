"""A misbehaving upstream: WSGI middleware around the sandbox that answers in its place, or spoils what it answered."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
App = Callable[..., Iterable[bytes]]
Fault = Callable[[Environ, App], tuple[str, list[tuple[str, str]], bytes]]

HTML_403 = b"<html><head><title>403 Forbidden</title></head><body>Attention required</body></html>"


class Faults:
    """`faults["create"] = ...` spoils every create until it is taken out again. Endpoints: create, validate, rate,
    instruments, pairs, order, orders. `seen` counts the requests that arrived, `sent` keeps the bodies of the creates."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self.seen: dict[str, int] = defaultdict(int)
        self.sent: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __setitem__(self, endpoint: str, fault: Fault) -> None:
        self._faults[endpoint] = fault

    def __delitem__(self, endpoint: str) -> None:
        del self._faults[endpoint]

    def wrap(self, app: App) -> App:
        def wrapped(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            endpoint = _endpoint(environ["PATH_INFO"])
            with self._lock:
                self.seen[endpoint] += 1
                if endpoint == "create":
                    self.sent.append(json.loads(environ["wsgi.input"].getvalue()))
            fault = self._faults.get(endpoint)
            if fault is None:
                return app(environ, start_response)
            status, headers, body = fault(environ, app)
            start_response(status, headers)
            return [body]

        return wrapped


class Looks:
    """What stands between the world and the service on public-info alone. `edit` changes the answer's JSON; `answer`
    replaces it (status, type, body); `hold` is waited for before answering."""

    def __init__(self) -> None:
        self.edit: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        self.answer: tuple[str, str, bytes] | None = None
        self.hold: threading.Event | None = None
        self.asked: list[str] = []

    def wrap(self, app: App) -> App:
        def wrapped(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
            if not environ["PATH_INFO"].endswith("/public-info"):
                return app(environ, start_response)
            self.asked.append(environ["QUERY_STRING"])
            if self.hold is not None:
                self.hold.wait(5)
            if self.answer is not None:
                status, type_, body = self.answer
                start_response(status, [("Content-Type", type_)])
                return [body]
            if self.edit is None:
                return app(environ, start_response)
            given, _, body = _ask(environ, app)
            if given.startswith("200"):
                body = json.dumps(self.edit(json.loads(body))).encode()
            start_response(given, [("Content-Type", "application/json")])
            return [body]

        return wrapped


def _endpoint(path: str) -> str:
    ends = {
        "/create": "create",
        "/validate-address": "validate",
        "/rates/public/one": "rate",
        "/instruments/public": "instruments",
        "/pairs/public": "pairs",
        "/public-info": "order",
        "/orders/public": "orders",
    }
    return next((name for end, name in ends.items() if path.endswith(end)), path)


def answering(status: int, body: object = b"", **headers: str) -> Fault:
    """Answers itself; the sandbox never hears of the request. `body`: bytes as they are, text as HTML, else JSON."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "application/json" if not isinstance(body, bytes | str) else "text/html"

    def fault(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
        fields = [("Content-Type", kind), *((name.replace("_", "-"), value) for name, value in headers.items())]
        return f"{status} X", fields, content

    return fault


def spoiling(change: Callable[[Any], Any], status: int | None = None) -> Fault:
    """The sandbox does what was asked; its answer is changed in place, or replaced by what `change` returns."""

    def fault(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
        given, headers, body = _ask(environ, app)
        content = json.loads(body)
        if given.startswith("2"):
            replaced = change(content)
            content = content if replaced is None else replaced
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        kept = [(name, value) for name, value in headers if name.lower() != "content-length"]
        return f"{status} X" if status else given, kept, raw

    return fault


def knowing_no(order_id: object) -> Fault:
    """Public-info knows no order by this form of id; by every other one it answers as ever."""

    def fault(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
        if f"orderId={order_id}&" in environ["QUERY_STRING"]:
            return "404 Not Found", [("Content-Type", "application/json")], b'{"message":"order not found"}'
        return _ask(environ, app)

    return fault


def cutting(keep: float = 0.5) -> Fault:
    """The sandbox does what was asked, and half of its answer arrives."""

    def fault(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
        given, headers, body = _ask(environ, app)
        return given, [h for h in headers if h[0].lower() != "content-length"], body[: int(len(body) * keep)]

    return fault


def dropping(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
    """The sandbox does what was asked, and the connection ends without an answer."""
    given, headers, body = _ask(environ, app)
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return given, headers, body


class Holding:
    """The sandbox does what was asked, and the answer waits until it is let go. `arrived` is set by the first request."""

    def __init__(self, *, before: bool = False) -> None:
        self._before = before
        self.arrived, self._go = threading.Event(), threading.Event()

    def let_go(self) -> None:
        self._go.set()

    def __call__(self, environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
        answer = None if self._before else _ask(environ, app)
        self.arrived.set()
        self._go.wait(20)
        return answer or _ask(environ, app)


def _ask(environ: Environ, app: App) -> tuple[str, list[tuple[str, str]], bytes]:
    told: list[Any] = []
    body = b"".join(app(environ, lambda status, headers, exc_info=None: told.extend([status, headers])))
    return told[0], list(told[1]), body
