"""One POST to an address that somebody else chose: a wall on its time, no redirects, no way into our own network.

Nothing here follows a redirect, keeps a connection or a cookie, or reads a proxy out of the environment. Every address
the host's name stands for is judged before it is connected to, and the one that was judged is the one connected to: a
name that is public when it is registered may point at our own machines when it is used.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from urllib.parse import urlsplit

from requests.models import PreparedRequest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

_CONNECT_SECONDS = 5.0
_EXCERPT = 500


class PrivateTarget(OSError):
    """The host's name stands for an address that is not public."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it. `status`: the HTTP status, or None without an answer. `excerpt`: the first 500 bytes of the body
    as text. `error`: why there was no answer, one word; None when there was one."""

    status: int | None
    excerpt: str | None
    error: str | None


def post(url: str, body: bytes, headers: Mapping[str, str], *, limit: float, allow_private: bool) -> Sent:
    """Send, and read the start of the answer, within `limit` seconds in all.

    The limit is a wall, also for a server that sends one byte a second: a timer shuts the socket. Only the name lookup
    cannot be interrupted. An answer counts once its status and headers are there, whatever becomes of its body.
    """
    with _Wall(limit) as wall:
        try:
            return _post(canonical(url), body, headers, wall, allow_private)
        except (OSError, http.client.HTTPException, ValueError) as error:
            timed_out = wall.over or isinstance(error, TimeoutError)
            return Sent(None, None, "TimedOut" if timed_out else type(error).__name__)


def canonical(url: str) -> str:
    """The URL as it is sent: host in ASCII, path and query quoted. Raises ValueError for what is no URL."""
    if urlsplit(url).port == 0:
        raise ValueError("there is no port 0")
    prepared = PreparedRequest()
    prepared.prepare_url(url, None)
    assert prepared.url is not None
    return prepared.url


def is_private(address: str) -> bool:
    """Whether an IP address leads anywhere but to the public internet. Raises ValueError when it is none."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        inside = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inside is not None:
            found = inside
    return not found.is_global or found.is_multicast


class _Wall:
    """Shuts what it guards when the time is over. It holds a duplicate: wrapping a socket in TLS takes its descriptor."""

    def __init__(self, limit: float) -> None:
        self.over = False
        self._ends = time.monotonic() + limit
        self._lock = threading.Lock()
        self._guarded: socket.socket | None = None
        self._timer = threading.Timer(limit, self._fall)
        self._timer.daemon = True

    def left(self) -> float:
        """Seconds until it falls. Raises TimeoutError when it has."""
        left = self._ends - time.monotonic()
        if self.over or left <= 0:
            raise TimeoutError("out of time")
        return left

    def guard(self, connected: socket.socket) -> None:
        with self._lock:
            self._guarded = socket.socket(fileno=os.dup(connected.fileno()))
            if self.over:
                self._shut()

    def _fall(self) -> None:
        with self._lock:
            self.over = True
            self._shut()

    def _shut(self) -> None:
        if self._guarded is not None:
            with suppress(OSError):
                self._guarded.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Wall:
        self._timer.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            if self._guarded is not None:
                self._guarded.close()
                self._guarded = None


def _post(url: str, body: bytes, headers: Mapping[str, str], wall: _Wall, allow_private: bool) -> Sent:
    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    connection = http.client.HTTPConnection(parts.hostname, port)
    # The Host header leaves out the port that goes without saying.
    connection.default_port = 443 if secure else 80
    plain = _connected(parts.hostname, port, wall, allow_private)
    try:
        connection.sock = _tls().wrap_socket(plain, server_hostname=parts.hostname) if secure else plain
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {**headers, "Connection": "close"})
        with connection.getresponse() as answer:
            # A shut socket looks like the end of headers that have none.
            wall.left()
            return Sent(answer.status, _start(answer), None)
    finally:
        connection.close()
        plain.close()


def _connected(host: str, port: int, wall: _Wall, allow_private: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not allow_private and any(is_private(str(address[0])) for *_, address in found):
        raise PrivateTarget("this address is not public")
    until = time.monotonic() + min(_CONNECT_SECONDS, wall.left())
    refused: OSError = TimeoutError("no address answered in time")
    for position, (family, kind, protocol, _, address) in enumerate(found):
        share = (until - time.monotonic()) / (len(found) - position)
        if share <= 0:
            break
        trial = socket.socket(family, kind, protocol)
        try:
            trial.settimeout(share)
            trial.connect(address)
            trial.settimeout(wall.left())
            wall.guard(trial)
            return trial
        except OSError as error:
            trial.close()
            refused = error
    raise refused


def _start(answer: http.client.HTTPResponse) -> str:
    """The start of the body, as far as it comes."""
    start = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while len(start) < _EXCERPT and (more := answer.read1(_EXCERPT - len(start))):
            start += more
    return start.decode("utf-8", "replace").replace("\x00", "")  # PostgreSQL takes no NUL in text


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
