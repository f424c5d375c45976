"""The webhook receiver of the drill: verifies every body, remembers what it verified, and is not always well."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from drill.processes import free_port

# Of an event's first arrival. The later ones are taken, so that a run ends within its time.
_REFUSED, _DROPPED, _SLOW = 0.06, 0.02, 0.04
_SLOW_SECONDS = (0.5, 2.5)


@dataclass(frozen=True)
class Arrival:
    """One verified body. `answered` is the status, 0 where the connection was cut instead; `until` when that was done."""

    endpoint: str
    event_id: str
    order_id: str
    sequence: int
    body: dict[str, Any]
    at: float
    until: float
    answered: int

    @property
    def taken(self) -> bool:
        return 200 <= self.answered < 300


@dataclass
class Endpoint:
    """Where a client hears. `secret` once it is known."""

    name: str
    client: int
    url: str
    id: str = ""
    secret: str = ""
    seen: set[str] = field(default_factory=set)


class Receiver:
    """A server in a thread. `log`: one line of JSON per arrival, verified or not."""

    def __init__(self, seed: object, log: Path, *, unwell: bool) -> None:
        self._seed, self._log, self._unwell = seed, log.open("a", encoding="utf-8"), unwell
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.unverified: list[str] = []
        self._taken: dict[tuple[str, str], set[int]] = {}
        self.port = free_port()
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    def endpoint(self, client: int) -> Endpoint:
        name = f"{client}-{len(self.endpoints)}"
        made = self.endpoints[name] = Endpoint(name, client, f"http://127.0.0.1:{self.port}/hook/{name}")
        return made

    def arrivals(self) -> list[Arrival]:
        with self._lock:
            return list(self._arrivals)

    def taken(self, endpoint: str, order_id: str) -> int:
        """How many different events of the order this endpoint has taken."""
        with self._lock:
            return len(self._taken.get((endpoint, order_id), ()))

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        self._log.close()

    # --- one arrival -------------------------------------------------------------------------------------------------

    def received(self, name: str, body: bytes, headers: dict[str, str]) -> int:
        """What to answer; 0 to cut the connection."""
        at = time.time()
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            return 404
        try:
            Webhook(endpoint.secret).verify(body, headers)
            content = json.loads(body)
            data = content["data"]
            told = (str(data["event_id"]), str(data["order_id"]), int(data["sequence"]))
            if headers.get("webhook-id") != told[0]:
                raise ValueError("webhook-id is not the event's")
        except (WebhookVerificationError, ValueError, KeyError, TypeError) as error:
            with self._lock:
                self.unverified.append(f"{name} {headers.get('webhook-id')}: {type(error).__name__} {error}")
            return 401
        answer = self._mood(endpoint, told[0])
        with self._lock:
            arrival = Arrival(name, *told, content, at, time.time(), answer)
            self._arrivals.append(arrival)
            if arrival.taken:
                self._taken.setdefault((name, told[1]), set()).add(told[2])
            self._log.write(json.dumps({**vars(arrival)}) + "\n")
            self._log.flush()
        return answer

    def _mood(self, endpoint: Endpoint, event_id: str) -> int:
        with self._lock:
            first = event_id not in endpoint.seen
            endpoint.seen.add(event_id)
        if not first or not self._unwell:
            return 204
        dice = Random(f"{self._seed} {endpoint.name} {event_id}")  # noqa: S311 - protects nothing
        chance = dice.random()
        if chance < _REFUSED:
            return 500
        if chance < _REFUSED + _DROPPED:
            return 0
        if chance < _REFUSED + _DROPPED + _SLOW:
            time.sleep(dice.uniform(*_SLOW_SECONDS))
        return 204


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender that was killed in the middle is what the drill is about."""


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = receiver.received(self.path.rpartition("/")[2], body, headers)
            if answer == 0:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(answer)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
