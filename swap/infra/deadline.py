"""Limits on what another server may cost: the timer that shuts a socket, the time to connect, the pause it may ask for.

The timeout of a socket bounds one `recv`. A server that sends one byte a second keeps every `recv` within its timeout and
holds a thread for hours. So a timer shuts the socket when the time for the whole exchange is over.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self

AddressInfo = tuple[Any, Any, int, str, Any]
"""One address of a host, as `socket.getaddrinfo` returns it."""
Resolve = Callable[..., list[AddressInfo]]
"""As `socket.getaddrinfo` is called and answers."""
SocketOption = tuple[int, int, int | bytes]
"""Level, name and value, as `setsockopt` takes them."""


# ASCII digits only: others pass isdigit() and are no number on the wire. Anything longer asks for ever all the same.
_NUMBER = re.compile(r"[0-9]{1,400}(?:\.[0-9]{1,20})?")
_CAN_ONLY_BE_A_TIME, _CAN_ONLY_BE_MILLISECONDS, _BEYOND_ANY_TIME = 1e9, 1e11, 1e14
_LONG_PAST = 366 * 86_400.0


class Deadline:
    """`limit` seconds from now. A context manager: on entering it the timer starts, on leaving it the timer ends.

    Shared by the thread that uses the socket and the timer's thread. `expired`: the time was over before the context was
    left. What the socket returns from then on is worthless: a shut socket looks like the end of a body without a length.
    """

    def __init__(self, limit: float) -> None:
        self.expired = False
        self._ends = time.monotonic() + limit
        self._left = False
        self._guarded: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(limit, self.expire)
        self._timer.daemon = True

    def remaining(self) -> float:
        """Seconds until the time is over. Raises TimeoutError when it is."""
        remaining = self._ends - time.monotonic()
        if self.expired or remaining <= 0:
            raise TimeoutError("out of time")
        return remaining

    def guard(self, connected: socket.socket) -> None:
        """Put a socket under the timer; the first one counts. Shuts it at once when the time is over.

        A duplicate is kept, because wrapping a socket in TLS takes its descriptor away.
        """
        with self._lock:
            if self._guarded is None:
                self._guarded = socket.socket(fileno=os.dup(connected.fileno()))
            if self.expired:
                self._shut()

    def look_up(self, host: str, port: int, resolve: Resolve | None = None) -> list[AddressInfo]:
        """The host's addresses, as `resolve` or this machine's resolver finds them. Raises what that raises (OSError), and
        TimeoutError."""
        answer: Future[list[AddressInfo]] = Future()

        def look() -> None:
            try:
                answer.set_result((resolve or socket.getaddrinfo)(host, port, type=socket.SOCK_STREAM))
            except Exception as error:
                answer.set_exception(error)

        # On a thread of its own, not in a pool: one name that hangs must not keep others waiting.
        threading.Thread(target=look, name="look-up", daemon=True).start()
        return answer.result(timeout=self.remaining())

    def connect(
        self, addresses: Sequence[AddressInfo], *, at_most: float, options: Sequence[SocketOption] = ()
    ) -> socket.socket:
        """A connection to the first of these addresses that takes one, already guarded.

        The addresses share the time, `at_most` seconds, so that the last one is tried even when those before it are
        silent. Raises the OSError of the last address tried, TimeoutError when none answered in time.
        """
        until = time.monotonic() + min(at_most, self.remaining())
        failure: OSError = TimeoutError("no address answered in time")
        for position, address in enumerate(addresses):
            share = (until - time.monotonic()) / (len(addresses) - position)
            if share <= 0:
                break
            try:
                connected = open_socket(address, share, options)
                try:
                    self.guard(connected)
                except OSError:
                    connected.close()
                    raise
                return connected
            except OSError as error:
                failure = error
        raise failure

    def expire(self) -> None:
        """End it now, as if its time were over. Has no effect once the context was left."""
        with self._lock:
            if not self._left:
                self.expired = True
                self._shut()

    def _shut(self) -> None:
        if self._guarded is not None:
            with suppress(OSError):
                self._guarded.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._left = True
            if self._guarded is not None:
                self._guarded.close()


def open_socket(address: AddressInfo, seconds: float, options: Sequence[SocketOption]) -> socket.socket:
    """A socket connected to this one address within that time, which stays its timeout. Raises OSError."""
    family, kind, protocol, _, place = address
    connected = socket.socket(family, kind, protocol)
    try:
        for option in options:
            connected.setsockopt(*option)
        connected.settimeout(seconds)
        connected.connect(place)
    except BaseException:
        connected.close()
        raise
    return connected


def retry_after(value: str, date: str, *, longest: float, now: datetime | None = None) -> float | None:
    """The pause that a header asks for, in whole seconds from 0 to `longest`; None when it asks for none that can be read.

    `value`: Retry-After or the reset of a limit. A number of seconds or a date (RFC 9110, 10.2.3), and what servers send
    besides: fractions, rounded up, and Unix times in seconds or milliseconds, known by their size. A time is measured
    against `date`, the answer's own header Date, because the server's clock may differ from ours; without one that can be
    read, against `now`, by default our clock.
    """
    value = value.strip()
    if _NUMBER.fullmatch(value):
        seconds = float(value)
        if seconds >= _BEYOND_ANY_TIME or seconds < _CAN_ONLY_BE_A_TIME:
            return min(float(math.ceil(min(seconds, longest))), longest)
        then = seconds / 1000 if seconds >= _CAN_ONLY_BE_MILLISECONDS else seconds
    else:
        try:
            then = _timestamp(value)
        except (ValueError, TypeError, OverflowError):
            return None
    try:
        sent_at = _timestamp(date)
    except (ValueError, TypeError, OverflowError):
        sent_at = (now or datetime.now(UTC)).timestamp()
    if _NUMBER.fullmatch(value) and then < sent_at - _LONG_PAST:
        # No server asks for a time that was over years ago: it is a very long pause.
        return longest
    return min(max(float(math.ceil(then - sent_at)), 0.0), longest)


def _timestamp(http_date: str) -> float:
    moment = parsedate_to_datetime(http_date)
    if moment.tzinfo is None:
        raise ValueError("no zone: it would be read in our own")
    return moment.timestamp()
