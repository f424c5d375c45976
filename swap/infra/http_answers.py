"""Which HTTP answer belongs to which request: what `http.client` leaves open.

On a connection answers are told apart by their order alone (RFC 9112, 9.3). One answer too many, or one taken for
the answer too soon, and everybody who comes after gets the answer to somebody else's question.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from contextlib import suppress
from typing import Any

_INTERIM = range(100, 200)
_SWITCHING_PROTOCOLS = 101
# More than any server has hints. The deadline ends a server that sends them slowly for ever, this one that is quick.
_MOST_INTERIM = 16
_PLAIN_SUCCESS = (200, 201)


class FinalResponse(http.client.HTTPResponse):
    """The final answer to a request: interim ones (1xx) are skipped, expected or not (RFC 9110, 15.2).

    Its connection can be used again only after a 200 or 201 with nothing behind it. After anything else the socket is
    shut, so that whoever takes the connection finds it dead and opens another: more bytes are an answer that nobody
    asked for, and a 408 may be about the time in which nothing was asked.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _LastReader(self.fp.detach(), sock)
        self.fp = self._reader

    def begin(self) -> None:
        super().begin()
        for _ in range(_MOST_INTERIM):
            if self.status not in _INTERIM or self.status == _SWITCHING_PROTOCOLS:
                break
            # As if nothing had come yet: `begin` does nothing where there are headers.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()
        if self.status in _INTERIM:
            raise http.client.HTTPException("no final answer")
        self._reader.reusable = self.status in _PLAIN_SUCCESS


class _LastReader(io.BufferedReader):
    """Reads one answer. Closed behind it, it shuts the socket unless it is `reusable` and nothing more has come."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__(raw)
        self._sock, self.reusable = sock, False

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError, ValueError):
                if not self.reusable or self._more():
                    self._sock.shutdown(socket.SHUT_RDWR)
        super().close()

    def _more(self) -> bool:
        """Whether bytes wait: here, inside TLS, or in the system."""
        patience = self._sock.gettimeout()
        self._sock.settimeout(0)
        try:
            return bool(self.peek(1))
        except BlockingIOError:
            return False
        except OSError as error:
            # What TLS says instead; anything else is a connection that is broken already.
            return not isinstance(error, ssl.SSLWantReadError)
        finally:
            self._sock.settimeout(patience)
