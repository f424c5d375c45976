"""What is said on a socket: operations in, messages out, codes for errors and for the end; docs/stream.md has samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import orjson

from swap.errors import ServiceError
from swap.store.events import event_view
from swap.store.serializers import tracked_view
from swap.tables import OrderEvent

PATH = "/v1/stream"
ORDERS = "orders"
INSTRUMENTS = "instruments"
_MAX_ID = 64


class Close(IntEnum):
    """Why we end a connection. All but NOT_AUTHENTICATED, CREDENTIALS_ENDED and CURSORS_VOID: come back and resume."""

    RESTARTING = 1012
    TRY_LATER = 1013
    NOT_AUTHENTICATED = 4401
    CREDENTIALS_ENDED = 4403
    TOO_SLOW = 4408
    CURSORS_VOID = 4410
    TOO_MANY_MESSAGES = 4429


@dataclass(frozen=True)
class Limits:
    """`sockets`: open at once in this process; `unknown`: of these, not yet authenticated; `per_client`, `per_order`: of
    one client's keys, with tokens of one order. `channels`: on one socket. `burst`, `per_second`: messages a socket may
    send; `client_burst`, `client_per_second`: all of one client, or with tokens of one order, together; `frame_burst`,
    `frames_per_second`: frames of any kind, pings and parts of messages too, from the first on. `buffer`: bytes of
    ours that a socket may leave unread; `kernel_buffer`: and the kernel beneath it. `stalls`: for how many heartbeats in a
    row nothing of it may be read. `close_seconds`: for a closing handshake."""

    sockets: int = 10_000
    unknown: int = 2_000
    per_client: int = 500
    per_order: int = 20
    channels: int = 100
    burst: int = 60
    per_second: float = 10
    client_burst: int = 2_000
    client_per_second: float = 200
    frame_burst: int = 300
    frames_per_second: float = 30
    buffer: int = 256 * 1024
    kernel_buffer: int = 128 * 1024
    message: int = 16 * 1024
    auth_seconds: float = 10.0
    send_seconds: float = 30.0
    close_seconds: float = 5.0
    stalls: int = 3


class SocketRefused(Exception):
    """An operation is answered with an error; the socket stays."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(code)
        self.code, self.message, self.details = code, message, details


@dataclass(slots=True)
class Entry:
    """An event of the feed, encoded once for however many sockets: in full, and as the holder of a token may see it."""

    position: int
    client_id: str
    order_id: str
    full: orjson.Fragment
    reduced: orjson.Fragment
    _messages: dict[tuple[tuple[str, ...], bool], bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, event: OrderEvent, epoch: str) -> Entry:
        view = event_view(event, epoch)
        reduced = {**view, "order": tracked_view(view["order"])}
        return cls(
            position=event.position or 0,
            client_id=event.client_id,
            order_id=event.order_id,
            full=orjson.Fragment(orjson.dumps(view)),
            reduced=orjson.Fragment(orjson.dumps(reduced)),
        )

    def names(self) -> tuple[str, str]:
        """The channels it can travel on."""
        return ORDERS, f"order.{self.order_id}"

    def message(self, channels: tuple[str, ...], *, reduced: bool) -> bytes:
        text = self._messages.get((channels, reduced))
        if text is None:
            text = message("event", channels=channels, event=self.reduced if reduced else self.full)
            self._messages[channels, reduced] = text
        return text


def message(type: str, **content: Any) -> bytes:
    return orjson.dumps({"type": type, **content})


def read(text: str | bytes) -> dict[str, Any]:
    """The operation in a message. Raises SocketRefused (BAD_MESSAGE)."""
    try:
        if isinstance(text, bytes):
            raise ValueError
        content = orjson.loads(text)
    except ValueError:
        raise SocketRefused("BAD_MESSAGE", "A message is one JSON object, as text.") from None
    if not isinstance(content, dict) or not isinstance(content.get("op"), str):
        raise SocketRefused("BAD_MESSAGE", 'A message is one JSON object with "op".')
    request_id = content.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > _MAX_ID):
        raise SocketRefused("BAD_MESSAGE", f'"id" is text of at most {_MAX_ID} characters.')
    return content


def channels_of(content: dict[str, Any]) -> list[str]:
    """The channels an operation names, once each. Raises SocketRefused (BAD_MESSAGE)."""
    names = content.get("channels")
    if not isinstance(names, list) or not 1 <= len(names) <= 100 or not all(_is_name(name) for name in names):
        raise SocketRefused("BAD_MESSAGE", '"channels" is a list of 1 to 100 names.')
    return list(dict.fromkeys(names))


def field_of(content: dict[str, Any], name: str, *, longest: int = 256) -> str:
    """A text of the operation; missing is empty. Raises SocketRefused (BAD_MESSAGE)."""
    value = content.get(name, "")
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise SocketRefused("BAD_MESSAGE", f'"{name}" is printable text of at most {longest} characters.')
    return value


def refusal(error: SocketRefused | ServiceError, request_id: str | None) -> bytes:
    return message("error", id=request_id, code=error.code, message=error.message, details=error.details)


def order_ids(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.removeprefix("order.") for name in names if name.startswith("order."))


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable()
