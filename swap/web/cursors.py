"""Cursors of pages that are read from the database by key: what the last row of a page was sorted by.

They are not signed. A cursor grants nothing, since each page shows only what its caller may see anyway; and a signed one
would become void whenever a key leaves SWAP_SECRET_KEYS, in the middle of a caller's walk through the pages.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import TypeVar

import orjson

from swap.errors import InvalidRequest

T = TypeVar("T")


def encode(*parts: str) -> str:
    return urlsafe_b64encode(orjson.dumps(parts)).decode("ascii")


def decode(cursor: str | None, parse: Callable[[list[str]], T]) -> T | None:
    """What `parse` makes of the parts that were encoded; None without a cursor.

    Raises InvalidRequest (CURSOR_MALFORMED) when that raises ValueError, and for every text that `encode` does not return:
    the decoder skips what it does not know, and PostgreSQL takes no NUL.
    """
    if cursor is None:
        return None
    try:
        parts = orjson.loads(urlsafe_b64decode(cursor))
        if isinstance(parts, list) and all(isinstance(part, str) and "\0" not in part for part in parts):
            position = parse(parts)
            if encode(*parts) == cursor:
                return position
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.on("after", "CURSOR_MALFORMED", "This is no cursor of ours.")
