"""Cardano: Shelley addresses (CIP-19) and Byron addresses.

Shelley: Bech32 without a length limit, human-readable part `addr`, a header byte (type and network), key or script
hashes of 28 bytes. Types 0-3 pay and stake, 4-5 pay with a stake pointer, 6-7 pay only; 14-15 are stake accounts.
Byron: Base58 of CBOR [tag 24 of bytes, CRC32]; inside [root of 28 bytes, attributes, type]. The attribute 2 is the
network magic, which the main network leaves out.
"""

from __future__ import annotations

from zlib import crc32

from swap.addresses import base58, bech32
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_MAINNET = 1
_HASH = 28
_BYRON_KEY_TYPES = (0, 2)


def cardano(address: str) -> Payable:
    """`addr1...` or a Byron address (`Ae2`, `Ddz`, and longer ones with other beginnings)."""
    if address.startswith("addr1"):
        return _shelley(address)
    if address.lower().startswith("addr1"):
        raise InvalidAddress("wrong_case" if address.isupper() else "mixed_case")
    if address.startswith("stake1"):
        raise InvalidAddress("not_payable", "This is a stake address; use the one that starts with addr1.")
    if address.startswith(("addr_test1", "stake_test1")):
        raise InvalidAddress("testnet")
    return _byron(address)


def _shelley(address: str) -> Payable:
    if len(address) > 160:
        raise InvalidAddress("wrong_length")
    data = bech32.decode_bytes(address, "addr", bech32.BECH32, limit=160)
    if not data:
        raise InvalidAddress("wrong_length")
    kind, network = data[0] >> 4, data[0] & 15
    if network != _MAINNET:
        raise InvalidAddress("testnet")
    if kind > 7:
        raise InvalidAddress("not_payable")
    rest = len(data) - 1 - _HASH
    if kind in (4, 5):
        if rest < 3:
            raise InvalidAddress("wrong_length")
        _pointer(data[1 + _HASH :])
    elif rest != (_HASH if kind < 4 else 0):
        raise InvalidAddress("wrong_length")
    return Payable(address, ("script_account",) if kind & 1 else ())


def _pointer(data: bytes) -> None:
    """Three numbers (slot, transaction, certificate) in seven-bit groups, shortest form, nothing after them."""
    numbers, place = 0, 0
    while place < len(data) and numbers < 3:
        if data[place] == 0x80:
            raise InvalidAddress("wrong_form")
        start = place
        while place < len(data) and data[place] & 0x80:
            place += 1
        if place - start > 9:
            raise InvalidAddress("wrong_form")
        place += 1
        numbers += 1
    if numbers != 3 or place != len(data):
        raise InvalidAddress("wrong_length")


class _Reader:
    """As much CBOR (RFC 8949) as a Byron address uses: numbers, bytes, arrays, maps, one tag, in shortest form."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def head(self, major: int) -> int:
        first = self._take(1)[0]
        size = first & 31
        if first >> 5 != major or size > 27:
            raise InvalidAddress("wrong_form")
        if size < 24:
            return size
        width: int = 1 << (size - 24)
        number = int.from_bytes(self._take(width), "big")
        if number < (24 if width == 1 else 1 << 4 * width):
            raise InvalidAddress("wrong_form")
        return number

    def chunk(self) -> bytes:
        return self._take(self.head(2))

    def end(self) -> None:
        if self._place != len(self._data):
            raise InvalidAddress("wrong_length")

    def _take(self, count: int) -> bytes:
        piece = self._data[self._place : self._place + count]
        if len(piece) != count:
            raise InvalidAddress("wrong_length")
        self._place += count
        return piece


_ARRAY, _MAP, _TAG = 4, 5, 6


def _byron(address: str) -> Payable:
    if not 50 <= len(address) <= 200:
        raise InvalidAddress("wrong_length" if address.startswith(("Ae2", "Ddz")) else "wrong_prefix")
    outer = _Reader(base58.decode(address))
    if outer.head(_ARRAY) != 2 or outer.head(_TAG) != 24:
        raise InvalidAddress("wrong_form")
    payload = outer.chunk()
    checksum = outer.head(0)
    outer.end()
    if crc32(payload) != checksum:
        raise InvalidAddress("bad_checksum")
    inner = _Reader(payload)
    if inner.head(_ARRAY) != 3 or len(inner.chunk()) != _HASH:
        raise InvalidAddress("wrong_form")
    for _ in range(inner.head(_MAP)):
        attribute = inner.head(0)
        if attribute == 2:
            raise InvalidAddress("testnet")
        if attribute != 1:
            raise InvalidAddress("not_payable")
        inner.chunk()
    if inner.head(0) not in _BYRON_KEY_TYPES:
        raise InvalidAddress("not_payable")
    inner.end()
    return Payable(address)
