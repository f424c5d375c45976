"""CashAddr: prefix ":" payload, a 40-bit checksum over both.

Source: the Bitcoin Cash specification "CashAddr", also used by eCash, Kaspa (rusty-kaspa, `addresses`) and Conflux
(CIP-37, with an alphabet of its own). The payload begins with a version byte; on Bitcoin Cash and eCash its upper bits
are the type and its lower three the size of the hash.
"""

from __future__ import annotations

from functools import lru_cache

from swap.addresses.base32 import BECH32, Alphabet
from swap.addresses.polymod import polymod
from swap.addresses.refusals import InvalidAddress

_polymod = polymod((0x98F2BC8E61, 0x79B76D99E2, 0xF33E5FB3C4, 0xAE2EABE2A8, 0x1E4F43E470), length=8)


@lru_cache(maxsize=64)
def _after_prefix(prefix: str) -> int:
    return _polymod(1, bytes(ord(character) & 31 for character in prefix) + b"\x00")


def decode(prefix: str, payload: str, alphabet: Alphabet = BECH32) -> bytes:
    """Version byte and hash behind the payload of this prefix, both in small letters."""
    words = alphabet.words(payload)
    if len(words) <= 8:
        raise InvalidAddress("wrong_length")
    if _polymod(_after_prefix(prefix), words) != 1:
        raise InvalidAddress("bad_checksum")
    return alphabet.decode(payload[:-8])


def encode(prefix: str, data: bytes, alphabet: Alphabet = BECH32) -> str:
    """Version byte and hash as `prefix:payload`."""
    payload = alphabet.encode(data)
    check = _polymod(_after_prefix(prefix), alphabet.words(payload) + bytes(8)) ^ 1
    return f"{prefix}:{payload}{alphabet.text(check, 8)}"
