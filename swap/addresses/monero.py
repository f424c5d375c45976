"""Monero: standard, sub- and integrated addresses.

Source: Monero documentation "Standard address", "Subaddress", "Integrated address", and the CryptoNote base58: blocks
of eight bytes become eleven characters, the last block fewer, so the text is not one big number. Content: a network
byte, two ed25519 points, an optional 8-byte payment id, four bytes of Keccak-256.

An integrated address cannot be taken apart for sending: its payment id travels inside, and is reported only to be
shown.
"""

from __future__ import annotations

from swap.addresses import base58
from swap.addresses.digests import keccak256
from swap.addresses.ed25519 import on_curve
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_STANDARD, _INTEGRATED, _SUBADDRESS = 18, 19, 42
_TEST = frozenset({53, 54, 63, 24, 25, 36})
_BLOCK_BYTES, _BLOCK_CHARACTERS = 8, 11
# Characters of a block -> bytes it holds; the lengths left out cannot occur.
_BYTES_IN = {2: 1, 3: 2, 5: 3, 6: 4, 7: 5, 9: 6, 10: 7, 11: 8}
_CHARACTERS_FOR = {size: length for length, size in _BYTES_IN.items()}


def decode(text: str) -> bytes:
    """CryptoNote base58: block by block, each of a fixed width."""
    blocks = []
    values = text.encode("ascii", "replace").translate(base58.BITCOIN.values)
    if b"\xff" in values:
        raise InvalidAddress("bad_characters")
    for place in range(0, len(values), _BLOCK_CHARACTERS):
        block = values[place : place + _BLOCK_CHARACTERS]
        size = _BYTES_IN.get(len(block))
        number = 0
        for value in block:
            number = number * 58 + value
        if size is None or number >> 8 * size:
            raise InvalidAddress("bad_checksum")
        blocks.append(number.to_bytes(size, "big"))
    return b"".join(blocks)


def encode(data: bytes) -> str:
    """Bytes in CryptoNote base58."""
    blocks = []
    for place in range(0, len(data), _BLOCK_BYTES):
        block = data[place : place + _BLOCK_BYTES]
        text = base58.encode(block).lstrip("1")
        blocks.append(text.rjust(_CHARACTERS_FOR[len(block)], "1"))
    return "".join(blocks)


def monero(address: str) -> Payable:
    """`4` (95 characters, or 106 integrated) and `8` (95)."""
    if len(address) not in (95, 106):
        raise InvalidAddress("wrong_length")
    data = decode(address)
    if keccak256(data[:-4])[:4] != data[-4:]:
        raise InvalidAddress("bad_checksum")
    network = data[0]
    if network in _TEST:
        raise InvalidAddress("testnet")
    if network not in ((_INTEGRATED,) if len(address) == 106 else (_STANDARD, _SUBADDRESS)):
        raise InvalidAddress("wrong_prefix")
    if not on_curve(data[1:33]) or not on_curve(data[33:65]):
        raise InvalidAddress("not_payable", "The keys inside this address are not valid keys.")
    if network == _INTEGRATED:
        return Payable(address, ("payment_id_inside",), embedded_memo=data[65:73].hex(), separate_memo="refused")
    return Payable(address)
