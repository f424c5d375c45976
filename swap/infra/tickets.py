"""Signed tickets: what this service hands out, keeps no copy of, and believes when it comes back.

A ticket is text parts, an expiry and an HMAC-SHA256 over both, joined by dots. Its keys come from the vault by purpose, so a
ticket of one purpose is none of another. The current key signs, and every key of SWAP_SECRET_KEYS verifies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

from itsdangerous import BadData, Signer
from itsdangerous.encoding import base64_decode, base64_encode

from swap.infra.vault import Vault


class InvalidTicket(Exception):
    """The text is no ticket that was signed here for this purpose."""


class ExpiredTicket(InvalidTicket):
    """`expires_at`: when the ticket ended."""

    def __init__(self, expires_at: datetime) -> None:
        super().__init__()
        self.expires_at = expires_at


class SignedTickets:
    """Issues and opens the tickets of one purpose. Thread-safe."""

    def __init__(self, vault: Vault, purpose: str, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        # itsdangerous signs with the last key and verifies with all; the vault puts the current one first. The vault has
        # derived them for this purpose already, so the signer derives nothing more.
        keys = list(reversed(vault.keys(purpose)))
        self._signer = Signer(keys, sep=".", key_derivation="none", digest_method=hashlib.sha256)

    def issue(self, *parts: str, expires_at: datetime) -> str:
        """A ticket with these parts: ASCII text without dots. It expires to the millisecond."""
        if any("." in part or not part.isascii() for part in parts):
            raise ValueError("a part of a ticket is ASCII text without dots")
        return self._signer.sign(".".join((*parts, str(int(expires_at.timestamp() * 1000))))).decode("ascii")

    def open(self, ticket: str) -> tuple[list[str], datetime]:
        """The parts, and when the ticket expires. Raises InvalidTicket, of which ExpiredTicket is one."""
        mac = ticket.rpartition(".")[2]
        try:
            # The decoder takes a MAC in many spellings: padded, with other unused bits in its last character, with letters
            # that are not ASCII. Only the issued spelling counts: a ticket then has one name, and can be spent once.
            if not ticket.isascii() or base64_encode(base64_decode(mac)).decode("ascii") != mac:
                raise InvalidTicket
            *parts, expires = self._signer.unsign(ticket).decode("ascii").split(".")
        except BadData:
            raise InvalidTicket from None
        expires_at = datetime.fromtimestamp(int(expires) / 1000, UTC)
        if self._clock() >= expires_at:
            raise ExpiredTicket(expires_at)
        return parts, expires_at


def binding(*facts: str | None) -> str:
    """A hash of what a ticket is for, to be one of its parts: equal facts have equal hashes, others never."""
    return hashlib.sha256(json.dumps(facts).encode("ascii")).hexdigest()[:32]
