"""Bytes to the upstream and back: one attempt, one answer, and certainty about whether anything was sent.

What this file promises to the client above it:

* **Unreachable means nothing was sent.** The promise does not rest on reading exceptions (a reset is the same error
  before and after the request) but on the connection itself: it notes when the first byte of a request is about to be
  written. Every other error means that the request may have arrived.
* **The limit is a wall.** A server that drips one byte a second keeps every single `recv` within its timeout, in the
  headers as well as in the body; so a timer shuts the socket when the limit is over. Only the name lookup cannot be
  interrupted; after a late one nothing is sent any more.
* **A fresh request rides a fresh connection.** An idle pooled connection may be dead without our knowing, which would
  turn a create into an open question for no reason; and it may hold an answer that nobody asked for.
* **No answer is given for another request**, as far as a connection can tell: see `FinalResponse`. A connection on which
  bytes wait before anything was asked is left by urllib3 itself. What comes in between is for the caller to compare.

`HTTPAdapter` is used without `requests.Session`: no cookies, no redirects, no proxies or credentials out of the
environment, and unlike a session it may be shared by threads.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
import structlog
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from swap.errors import (
    ConfigurationError,
    Malformed,
    OutOfDescriptors,
    TimedOut,
    Unreachable,
    UpstreamError,
    UpstreamUnavailable,
)
from swap.infra import descriptors
from swap.infra.deadline import Deadline
from swap.infra.http_answers import FinalResponse
from swap.settings import is_loopback

log = structlog.get_logger()

_CONNECT_SECONDS = 5.0
_SAID_EVERY_SECONDS = 60.0
_POOLED = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer. `body` is decoded from its transfer and content encodings. `seconds`: until complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class _Flight(Deadline):
    """One request under way: its deadline, and whether any of it may have been sent."""

    sent = False

    def about_to_write(self, connected: socket.socket) -> None:
        """The last moment in which nothing has been sent. Raises ConnectTimeoutError when the time is over."""
        self.guard(connected)
        if self.expired and not self.sent:
            raise ConnectTimeoutError("out of time before anything was sent")
        self.sent = True


class _Current(threading.local):
    flight: _Flight | None = None


_current = _Current()


class _Connection(HTTPConnection):
    """Reports to the flight: the socket once there is one, and the first byte of a request."""

    response_class = FinalResponse
    _opening = False

    def _new_conn(self) -> socket.socket:
        flight = _current.flight
        if flight is None:
            return super()._new_conn()
        try:
            addresses = flight.look_up(self._dns_host, self.port)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"looking up {self.host} took too long") from error
        except OSError as error:
            # Not always a gaierror: the resolver may report an error of the system, with whatever number that left behind.
            raise NameResolutionError(self.host, self, socket.gaierror(error.errno, error.strerror)) from error
        try:
            # Part of the upstream's addresses may be dead (T2), so they share the time.
            connected = flight.connect(addresses, at_most=_CONNECT_SECONDS, options=self.socket_options or ())
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"connecting to {self.host} took too long") from error
        except OSError as error:
            raise NewConnectionError(self, _reason(error)) from error
        if isinstance(self.timeout, int | float):
            connected.settimeout(self.timeout)
        return connected

    def connect(self) -> None:
        self._opening = True
        try:
            super().connect()
        finally:
            self._opening = False

    def send(self, data: Any) -> None:
        # http.client opens the connection inside send; here it has to be open before, to keep the two apart. What goes
        # out while opening is the CONNECT to a proxy.
        if self.sock is None:
            self.connect()
        if _current.flight is not None and not self._opening:
            _current.flight.about_to_write(self.sock)
        super().send(data)


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


class Transport:
    """Where requests go. Thread-safe.

    Raises ConfigurationError for a base URL that is not https (http only to loopback), or carries more than a host;
    and for header values that cannot be sent.
    """

    def __init__(
        self,
        base_url: str,
        *,
        user_agent: str,
        proxy: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        mistakes = _mistakes(base_url, user_agent)
        if mistakes:
            raise ConfigurationError(mistakes)
        self.base_url = base_url.rstrip("/")
        self._headers = {
            "User-Agent": user_agent,
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
        }
        self._proxies = {"http": proxy, "https": proxy} if proxy else None
        self._monotonic = monotonic
        self._pooled = _Adapter(pool_connections=2, pool_maxsize=_POOLED)
        self._flights: set[_Flight] = set()
        self._lock = threading.Lock()
        self._said_at: float | None = None
        self.hung_up = False

    def __repr__(self) -> str:
        return f"Transport({self.base_url!r})"

    def close(self) -> None:
        """Close the idle connections. Others are made when they are needed."""
        self._pooled.close()

    def hang_up(self) -> None:
        """End every request that is under way as if its time were over, and send no more."""
        with self._lock:
            self.hung_up = True
            flights = list(self._flights)
        for flight in flights:
            flight.expire()

    @contextlib.contextmanager
    def _under_way(self, flight: _Flight) -> Iterator[None]:
        with self._lock:
            if self.hung_up:
                raise Unreachable("this process is about to end")
            self._flights.add(flight)
        try:
            # A pooled connection is back in its pool a moment before this ends; a timer that fires in between shuts it
            # for the thread that took it. Accepted: only reads are pooled, and a read is tried again.
            with flight:
                _current.flight = flight
                yield
        finally:
            _current.flight = None
            with self._lock:
                self._flights.discard(flight)

    def send(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: float,
        max_bytes: int,
        fresh: bool = False,
    ) -> Answer:
        """One attempt. `target`: path and query, encoded. `limit`: seconds in all. `fresh`: on a connection of its own.

        Returns any HTTP answer, even a redirect. Raises:
        Unreachable: nothing was sent (cause connect, timeout or tls).
        OutOfDescriptors: nothing was sent, because this process could not open a connection.
        TimedOut: no complete answer within the limit.
        UpstreamUnavailable: the connection broke; cause connect.
        Malformed: more than `max_bytes`, or an encoding that cannot be undone.
        """
        all_headers = {**self._headers, **headers}
        if fresh:
            all_headers["Connection"] = "close"
        prepared = requests.Request(method, self.base_url + target, headers=all_headers, data=body).prepare()
        adapter = _Adapter(pool_connections=1, pool_maxsize=1) if fresh else self._pooled
        flight = _Flight(limit)
        started = self._monotonic()
        try:
            with self._under_way(flight):
                response = adapter.send(
                    prepared,
                    stream=True,
                    timeout=(min(_CONNECT_SECONDS, limit), limit),
                    verify=True,
                    proxies=self._proxies,
                )
                try:
                    content = _read(response, max_bytes)
                finally:
                    response.close()
            if flight.expired:
                # A shut socket looks like the end of a body that has no length.
                raise TimedOut(f"no complete answer within {limit:.1f} s")
            return Answer(response.status_code, response.headers, content, self._monotonic() - started)
        except UpstreamError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            problem = _what_happened(error, flight, limit)
            if isinstance(problem, OutOfDescriptors):
                self._say_so()
            # From None: the original carries the signed request along.
            raise problem from None
        finally:
            if fresh:
                adapter.close()

    def _say_so(self) -> None:
        """Every call that is made meanwhile ends so; once a minute is enough."""
        now = self._monotonic()
        with self._lock:
            if self._said_at is not None and now - self._said_at < _SAID_EVERY_SECONDS:
                return
            self._said_at = now
        log.critical("process.out_of_descriptors")


def _read(response: requests.Response, max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(65_536):
        content += chunk
        if len(content) > max_bytes:
            message = f"an answer of more than {max_bytes} bytes"
            raise Malformed(message, status=response.status_code, cause="too_large")
    return bytes(content)


def _what_happened(error: Exception, flight: _Flight, limit: float) -> UpstreamError:
    chain = list(_chain(error))
    if not flight.sent:
        timeouts = (TimeoutError, requests.exceptions.Timeout, ConnectTimeoutError)
        # A name that cannot be looked up for want of a descriptor is reported as a name that nobody knows.
        unnamed = any(isinstance(link, NameResolutionError) for link in chain)
        if descriptors.used_up(chain) or (unnamed and descriptors.none_left()):
            return OutOfDescriptors("this process can open no more connections")
        # urllib3 derives NewConnectionError from its timeout, though a refused connection is none.
        refused = any(isinstance(link, NewConnectionError) for link in chain)
        if flight.expired or (any(isinstance(link, timeouts) for link in chain) and not refused):
            return Unreachable("no connection in time", cause="timeout")
        if any(isinstance(link, ssl.SSLError | requests.exceptions.SSLError) for link in chain):
            return Unreachable(f"TLS refused: {_reason(chain[-1])}", cause="tls")
        return Unreachable(f"no connection: {_reason(chain[-1])}", cause="connect")
    timed_out = (TimeoutError, requests.exceptions.Timeout, urllib3.exceptions.ReadTimeoutError)
    if flight.expired or any(isinstance(link, timed_out) for link in chain):
        return TimedOut(f"no complete answer within {limit:.1f} s")
    if any(isinstance(link, requests.exceptions.ContentDecodingError) for link in chain):
        return Malformed("an answer in an encoding that cannot be undone")
    return UpstreamUnavailable(f"the connection broke: {_reason(chain[-1])}", cause="connect")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps. requests and urllib3 keep the inner one in args, `reason` or `__cause__`."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        inner = [getattr(current, "reason", None), *current.args, current.__cause__, current.__context__]
        current = next((each for each in inner if isinstance(each, BaseException) and id(each) not in seen), None)


def _reason(error: BaseException) -> str:
    """Why, in words that hold no URL and no header."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _mistakes(base_url: str, user_agent: str) -> list[str]:
    mistakes = []
    try:
        parts = urlsplit(base_url)
        has_host = bool(parts.hostname) and parts.port != 0  # reading the port is what checks it
    except ValueError:
        return ["The upstream's URL cannot be read."]
    if not has_host or parts.scheme not in ("https", "http"):
        mistakes.append("The upstream's URL must be https://host, without a path.")
    elif parts.scheme == "http" and not is_loopback(base_url):
        mistakes.append("The upstream must be https, unless it is on this machine.")
    if parts.username or parts.password:
        mistakes.append("The upstream's URL must not carry credentials.")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        mistakes.append("The upstream's URL is a bare host; the client adds /api/v2/... itself.")
    if not user_agent.strip() or not user_agent.isascii() or not user_agent.isprintable():
        mistakes.append("The user agent must be printable ASCII: without one the upstream answers 403 (T1).")
    return mistakes
