"""Search terms: short texts of the client by which it finds an order again, such as a customer's e-mail address."""

from __future__ import annotations

from unicodedata import normalize

MOST = 5
LONGEST = 64
"""In characters, as they are given."""


def key(term: str) -> str:
    """What is stored to search in, and compared: without regard to case, or to an accent being a character of its own."""
    return normalize("NFC", term.casefold())
