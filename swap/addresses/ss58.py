"""SS58 accounts of the Substrate family: Polkadot, Kusama, Astar, Bittensor.

Source: Polkadot documentation "SS58 address format" and its registry. Base58 of a network prefix (one byte below 64), a
32-byte account and the first two bytes of BLAKE2b-512("SS58PRE" + both). Two bytes of checksum let one typo in 65,536
pass. The prefix 42 is Bittensor's and also the generic one.
"""

from __future__ import annotations

from hashlib import blake2b

from swap.addresses import base58
from swap.addresses.payable import Payable, Rule
from swap.addresses.refusals import InvalidAddress


def _checksum(data: bytes) -> bytes:
    return blake2b(b"SS58PRE" + data).digest()[:2]


def encode(prefix: int, account: bytes) -> str:
    """A 32-byte account under a one-byte prefix."""
    data = bytes([prefix]) + account
    return base58.encode(data + _checksum(data))


def substrate(prefix: int) -> Rule:
    """A rule for one network of the registry."""

    def rule(address: str) -> Payable:
        if not 36 <= len(address) <= 48:
            raise InvalidAddress("wrong_length")
        data = base58.decode(address)
        if len(data) != 35:
            raise InvalidAddress("wrong_length")
        if _checksum(data[:-2]) != data[-2:]:
            raise InvalidAddress("bad_checksum")
        if data[0] != prefix:
            raise InvalidAddress("wrong_prefix", "The address belongs to another network of the Polkadot family.")
        if not any(data[1:-2]):
            raise InvalidAddress("burn_address")
        return Payable(address)

    return rule
