"""Secrets at rest, and keys for what we sign ourselves; both derived from SWAP_SECRET_KEYS.

Each text of SWAP_SECRET_KEYS is stretched per purpose by HKDF-SHA256 (RFC 5869), so one leaked derived key opens nothing
else. The first text seals and signs, all of them unseal and verify: rotation is putting a new one in front.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from swap.errors import SwapError


class Vault:
    """Seals API secrets and webhook secrets (Fernet: AES-128-CBC with HMAC-SHA256)."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if not secret_keys:
            raise ValueError("a vault needs at least one key")
        self._secret_keys = tuple(secret_keys)
        self._fernet = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in self.keys("seal")])

    def keys(self, purpose: str) -> list[bytes]:
        """One 32-byte key per text for this purpose, the current one first."""
        return [
            HKDF(algorithm=SHA256(), length=32, salt=None, info=f"swap {purpose}".encode()).derive(text.encode())
            for text in self._secret_keys
        ]

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode("ascii")

    def unseal(self, sealed: str) -> str:
        """Raises SwapError when no key of SWAP_SECRET_KEYS opens it: a key was taken out too early."""
        try:
            return self._fernet.decrypt(sealed.encode("ascii")).decode()
        except (InvalidToken, ValueError):
            raise SwapError(
                "A stored secret cannot be opened; the SWAP_SECRET_KEYS that sealed it is missing.",
                code="SEALED_SECRET",
            ) from None

    def __repr__(self) -> str:
        return f"Vault({len(self._secret_keys)} keys)"
