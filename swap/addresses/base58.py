"""Base58 and Base58Check.

Base58: a big number in 58 digits, one leading zero digit per leading zero byte; a string has exactly one decoding, and
bytes exactly one string, so nothing needs to be re-encoded for comparison. Source: the Bitcoin reference client
(base58.cpp) and draft-msporny-base58; Ripple's digits: xrpl.org, "base58 encodings".
Base58Check: payload followed by the first four bytes of a double hash of it; BLAKE-256 instead of SHA-256 on Decred.
"""

from __future__ import annotations

from collections.abc import Callable

from swap.addresses.digests import sha256d
from swap.addresses.refusals import InvalidAddress

_NO_DIGIT = 255


class Digits:
    """One ordering of the 58 digits, with a byte table for fast reading."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.zero = characters[0]
        table = bytearray([_NO_DIGIT]) * 256
        for value, character in enumerate(characters):
            table[ord(character)] = value
        self.values = bytes(table)


BITCOIN = Digits("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
RIPPLE = Digits("rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz")


def decode(text: str, digits: Digits = BITCOIN) -> bytes:
    """The bytes behind a Base58 string. The caller limits the length: the work grows with its square."""
    values = text.encode("ascii", "replace").translate(digits.values)
    if b"\xff" in values:
        raise InvalidAddress("bad_characters")
    number = 0
    for value in values:
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip(digits.zero))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def encode(data: bytes, digits: Digits = BITCOIN) -> str:
    """Bytes as Base58."""
    number = int.from_bytes(data, "big")
    characters = []
    while number:
        number, value = divmod(number, 58)
        characters.append(digits.characters[value])
    zeros = len(data) - len(data.lstrip(b"\x00"))
    return digits.zero * zeros + "".join(reversed(characters))


def decode_check(text: str, digits: Digits = BITCOIN, double_hash: Callable[[bytes], bytes] = sha256d) -> bytes:
    """The payload (version bytes included) of a Base58Check string."""
    data = decode(text, digits)
    payload, checksum = data[:-4], data[-4:]
    if len(checksum) < 4:
        raise InvalidAddress("wrong_length")
    if double_hash(payload)[:4] != checksum:
        raise InvalidAddress("bad_checksum")
    return payload


def encode_check(payload: bytes, digits: Digits = BITCOIN, double_hash: Callable[[bytes], bytes] = sha256d) -> str:
    """A payload (version bytes included) as Base58Check."""
    return encode(payload + double_hash(payload)[:4], digits)
