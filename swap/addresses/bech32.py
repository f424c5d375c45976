"""Bech32 (BIP-173) and Bech32m (BIP-350), and the segregated witness rules on top of them (BIP-141, BIP-341).

`hrp` + "1" + words of five bits + six words of checksum. The two differ only in the constant that the checksum ends in;
which one is right depends on what is inside, so the decoder tells and the caller compares. Case may be all small or all
capital, never mixed; 90 characters is the limit of BIP-173, which Cardano, Nervos and Lightning lift.
"""

from __future__ import annotations

from functools import lru_cache

from swap.addresses.base32 import BECH32 as ALPHABET
from swap.addresses.polymod import polymod
from swap.addresses.refusals import InvalidAddress

BECH32 = 1
BECH32M = 0x2BC830A3

_polymod = polymod((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3), length=6)


@lru_cache(maxsize=512)
def _after_hrp(hrp: str) -> int:
    """The checksum's state once the human-readable part has gone in; the same few parts come again and again."""
    high = bytes(ord(character) >> 5 for character in hrp)
    low = bytes(ord(character) & 31 for character in hrp)
    return _polymod(1, high + b"\x00" + low)


def decode(text: str, limit: int = 90) -> tuple[str, str, int]:
    """(hrp, data characters without the checksum, constant), all in small letters.

    Refuses mixed case, characters outside the alphabet, and a checksum that ends in neither constant.
    """
    if len(text) > limit:
        raise InvalidAddress("wrong_length")
    lower = text.lower()
    if text not in (lower, text.upper()):
        raise InvalidAddress("mixed_case")
    hrp, separator, data = lower.rpartition("1")
    if not separator or not hrp or len(data) < 6:
        raise InvalidAddress("wrong_form")
    words = ALPHABET.words(data)
    if min(hrp) < "!" or not hrp.isascii() or len(hrp) > 83:
        raise InvalidAddress("bad_characters")
    constant = _polymod(_after_hrp(hrp), words)
    if constant not in (BECH32, BECH32M):
        raise InvalidAddress("bad_checksum")
    return hrp, data[:-6], constant


def encode(hrp: str, data: str, constant: int) -> str:
    """Data characters with the checksum that ends in `constant`."""
    check = _polymod(_after_hrp(hrp), ALPHABET.words(data) + bytes(6)) ^ constant
    return f"{hrp}1{data}{ALPHABET.text(check, 6)}"


def decode_bytes(text: str, hrp: str, constant: int, limit: int = 90) -> bytes:
    """The bytes of a string with this human-readable part and this constant."""
    own_hrp, data, own_constant = decode(text, limit)
    if own_hrp != hrp:
        raise InvalidAddress("wrong_prefix")
    if own_constant != constant:
        raise InvalidAddress("bad_checksum")
    return ALPHABET.decode(data)


def encode_bytes(hrp: str, data: bytes, constant: int) -> str:
    """Bytes as Bech32 or Bech32m."""
    return encode(hrp, ALPHABET.encode(data), constant)


def decode_segwit(text: str, hrp: str) -> tuple[int, bytes]:
    """(witness version, program) by BIP-350: version 0 is Bech32 with 20 or 32 bytes, every later one Bech32m."""
    own_hrp, data, constant = decode(text)
    if own_hrp != hrp:
        raise InvalidAddress("wrong_prefix")
    if not data:
        raise InvalidAddress("wrong_length")
    version = ALPHABET.characters.index(data[0])
    if constant != (BECH32 if version == 0 else BECH32M):
        raise InvalidAddress("bad_checksum")
    program = ALPHABET.decode(data[1:])
    if version > 16 or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise InvalidAddress("wrong_form")
    return version, program


def encode_segwit(hrp: str, version: int, program: bytes) -> str:
    """A witness program as an address."""
    data = ALPHABET.characters[version] + ALPHABET.encode(program)
    return encode(hrp, data, BECH32 if version == 0 else BECH32M)
