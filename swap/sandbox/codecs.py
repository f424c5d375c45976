"""Encodings that addresses are made of: base58, bech32, CashAddr, base32 checksums, SS58, Ed25519 points.

Written for the sandbox alone. The service has its own codecs; a mistake shared by both would hide itself, so nothing is
imported from there. All functions are pure; decoders answer None for anything that is not exactly the encoding.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from Crypto.Hash import keccak

BITCOIN_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
RIPPLE_ALPHABET = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
BECH32_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_CONSTANT = 1
BECH32M_CONSTANT = 0x2BC830A3


def keccak256(data: bytes) -> bytes:
    """Keccak-256 as Ethereum, Monero and NEM use it: the padding from before SHA-3 was standardised."""
    return bytes(keccak.new(digest_bits=256, data=data).digest())


def sha256d(data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


# --- base58 -----------------------------------------------------------------------------------------------------------


def base58_encode(data: bytes, alphabet: str = BITCOIN_ALPHABET) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return alphabet[0] * (len(data) - len(data.lstrip(b"\0"))) + text


def base58_decode(text: str, alphabet: str = BITCOIN_ALPHABET) -> bytes | None:
    number = 0
    for character in text:
        digit = alphabet.find(character)
        if digit < 0:
            return None
        number = number * 58 + digit
    zeros = len(text) - len(text.lstrip(alphabet[0]))
    return b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")


def base58check_encode(payload: bytes, alphabet: str = BITCOIN_ALPHABET) -> str:
    """`payload` includes the version byte or bytes; the checksum is the first 4 bytes of a double SHA-256."""
    return base58_encode(payload + sha256d(payload)[:4], alphabet)


def base58check_decode(text: str, alphabet: str = BITCOIN_ALPHABET) -> bytes | None:
    data = base58_decode(text, alphabet)
    if data is None or len(data) < 5 or sha256d(data[:-4])[:4] != data[-4:]:
        return None
    return data[:-4]


# Monero cuts the bytes into blocks of 8 and gives each a fixed width, so that the length of the text never varies.
_MONERO_WIDTHS = (0, 2, 3, 5, 6, 7, 9, 10, 11)


def monero_base58_encode(data: bytes) -> str:
    blocks = [data[start : start + 8] for start in range(0, len(data), 8)]
    return "".join(
        base58_encode(block.lstrip(b"\0")).rjust(_MONERO_WIDTHS[len(block)], BITCOIN_ALPHABET[0]) for block in blocks
    )


def monero_base58_decode(text: str) -> bytes | None:
    data = b""
    for start in range(0, len(text), 11):
        block = text[start : start + 11]
        if len(block) not in _MONERO_WIDTHS:
            return None
        size = _MONERO_WIDTHS.index(len(block))
        number = int.from_bytes(base58_decode(block) or b"", "big")
        if number >> (8 * size):
            return None
        data += number.to_bytes(size, "big")
    return data if monero_base58_encode(data) == text else None


# --- bech32 and CashAddr ----------------------------------------------------------------------------------------------


def regroup(data: bytes | list[int], source: int, target: int, *, pad: bool) -> list[int] | None:
    """Regroup bits, 8 to 5 and back. Without padding, left-over bits must be zero and fewer than `source`."""
    accumulator = bits = 0
    groups = []
    for value in data:
        accumulator = (accumulator << source) | value
        bits += source
        while bits >= target:
            bits -= target
            groups.append((accumulator >> bits) & ((1 << target) - 1))
    rest = accumulator & ((1 << bits) - 1)
    if pad:
        return [*groups, rest << (target - bits)] if bits else groups
    return None if bits >= source or rest else groups


def _bech32_polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expanded(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def bech32_encode(prefix: str, words: list[int], constant: int = BECH32_CONSTANT) -> str:
    """`words` are 5-bit groups. No limit of 90 characters: Cardano goes beyond it."""
    remainder = _bech32_polymod([*_expanded(prefix), *words, 0, 0, 0, 0, 0, 0]) ^ constant
    checksum = [(remainder >> 5 * (5 - index)) & 31 for index in range(6)]
    return prefix + "1" + "".join(BECH32_ALPHABET[word] for word in [*words, *checksum])


def bech32_decode(text: str) -> tuple[str, list[int], int] | None:
    """(prefix, words without the checksum, constant). Lower or upper case, never mixed."""
    if text not in (text.lower(), text.upper()):
        return None
    prefix, separator, rest = text.lower().rpartition("1")
    words = [BECH32_ALPHABET.find(character) for character in rest]
    if not separator or not prefix or len(words) < 6 or -1 in words:
        return None
    return prefix, words[:-6], _bech32_polymod(_expanded(prefix) + words)


def bech32_bytes(text: str, prefix: str) -> bytes | None:
    """The bytes under a plain bech32 text with this lower-case prefix."""
    decoded = bech32_decode(text)
    if decoded is None or decoded[0] != prefix or decoded[2] != BECH32_CONSTANT or text != text.lower():
        return None
    data = regroup(decoded[1], 5, 8, pad=False)
    return None if data is None else bytes(data)


def bech32_from_bytes(prefix: str, data: bytes) -> str:
    return bech32_encode(prefix, regroup(data, 8, 5, pad=True) or [])


def _cashaddr_polymod(values: list[int]) -> int:
    checksum = 1
    generators = (0x98F2BC8E61, 0x79B76D99E2, 0xF33E5FB3C4, 0xAE2EABE2A8, 0x1E4F43E470)
    for value in values:
        top = checksum >> 35
        checksum = (checksum & 0x07FFFFFFFF) << 5 ^ value
        for bit, generator in enumerate(generators):
            if top >> bit & 1:
                checksum ^= generator
    return checksum ^ 1


def cashaddr_encode(prefix: str, data: bytes) -> str:
    """`data` starts with the version byte. Answers with the prefix."""
    words = regroup(data, 8, 5, pad=True) or []
    remainder = _cashaddr_polymod([*(ord(c) & 31 for c in prefix), 0, *words, *([0] * 8)])
    checksum = [(remainder >> 5 * (7 - index)) & 31 for index in range(8)]
    return prefix + ":" + "".join(BECH32_ALPHABET[word] for word in words + checksum)


def cashaddr_decode(prefix: str, text: str) -> bytes | None:
    """`text` without the prefix, lower case; the bytes include the version byte."""
    words = [BECH32_ALPHABET.find(character) for character in text]
    if len(words) < 8 or -1 in words or _cashaddr_polymod([*(ord(c) & 31 for c in prefix), 0, *words]):
        return None
    data = regroup(words[:-8], 5, 8, pad=False)
    return None if data is None else bytes(data)


# --- single checksums -------------------------------------------------------------------------------------------------


def crc16_xmodem(data: bytes) -> int:
    """Polynomial 0x1021, start 0: Stellar (written little-endian) and TON (big-endian)."""
    checksum = 0
    for byte in data:
        checksum ^= byte << 8
        for _ in range(8):
            checksum = (checksum << 1) ^ (0x1021 if checksum & 0x8000 else 0)
            checksum &= 0xFFFF
    return checksum


def eip55(address: bytes) -> str:
    """An EVM address of 20 bytes in mixed-case checksum form."""
    digits = address.hex()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(d.upper() if int(h, 16) > 7 else d for d, h in zip(digits, digest, strict=False))


def ss58_encode(prefix: int, key: bytes) -> str:
    """`prefix` below 64, one byte; `key` of 32 bytes."""
    payload = bytes([prefix]) + key
    return base58_encode(payload + hashlib.blake2b(b"SS58PRE" + payload).digest()[:2])


# --- Ed25519 ----------------------------------------------------------------------------------------------------------

_P = 2**255 - 19
_D = -121665 * pow(121666, _P - 2, _P) % _P
_Point = tuple[int, int, int, int]


def _recover_x(y: int, sign: int) -> int | None:
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    return _P - x if x & 1 != sign else x


def _add(one: _Point, two: _Point) -> _Point:
    a = (one[1] - one[0]) * (two[1] - two[0]) % _P
    b = (one[1] + one[0]) * (two[1] + two[0]) % _P
    c = 2 * one[3] * two[3] * _D % _P
    d = 2 * one[2] * two[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


@lru_cache(maxsize=1)
def _base_point() -> _Point:
    y = 4 * pow(5, _P - 2, _P) % _P
    x = _recover_x(y, 0)
    assert x is not None
    return x, y, 1, x * y % _P


def ed25519_public(seed: bytes) -> bytes:
    """A public key: the base point times the seed. A real point on the curve, which is all that an address needs;
    there is no spendable key for it in the sense of any wallet format."""
    scalar, point, power = int.from_bytes(seed[:31], "little") | 1, (0, 1, 1, 0), _base_point()
    while scalar:
        if scalar & 1:
            point = _add(point, power)
        power = _add(power, power)
        scalar >>= 1
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def on_ed25519(key: bytes) -> bool:
    """Whether 32 bytes are a point of the curve."""
    number = int.from_bytes(key, "little")
    return len(key) == 32 and _recover_x(number & (1 << 255) - 1, number >> 255) is not None
