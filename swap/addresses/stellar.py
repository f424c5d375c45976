"""Stellar: strkey accounts and muxed accounts.

SEP-23: a version byte (its lower three bits zero), the payload, CRC16-XModem little-endian, all in RFC 4648 base32
without padding, capital letters. `G` is an ed25519 key; `M` is the same key and a 64-bit id, which is what an exchange
tells its customers apart by.

An M-address is turned into account and id memo, because it is not known whether the upstream reads the packed form.
"""

from __future__ import annotations

from binascii import crc_hqx

from swap.addresses.base32 import RFC4648
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_ACCOUNT = 6 << 3
_MUXED = 12 << 3
_NOT_PAYABLE = {
    18 << 3: InvalidAddress("secret_key"),
    19 << 3: InvalidAddress("not_payable", "This is the hash of a prepared transaction."),
    23 << 3: InvalidAddress("not_payable", "This is the hash of a signing condition."),
    15 << 3: InvalidAddress("not_payable", "This is a signed payload."),
    1 << 3: InvalidAddress("not_payable", "This is a claimable balance."),
    11 << 3: InvalidAddress("not_payable", "This is a liquidity pool."),
    2 << 3: InvalidAddress("unsupported_form", "This is a contract; use a wallet that starts with G."),
}


def stellar(address: str) -> Payable:
    """`G` (56 characters) or `M` (69). Seeds, hashes, pools and contracts are refused, names (`*`) too."""
    if address[0] == "W" and len(address) >= 56:
        raise InvalidAddress("not_payable", "This names no account; use the address that starts with G or M.")
    if len(address) not in (56, 58, 69) and not 100 <= len(address) <= 165:
        raise InvalidAddress("wrong_length")
    data = RFC4648.decode(address)
    version, payload = data[0], data[1:-2]
    if crc_hqx(data[:-2], 0) != int.from_bytes(data[-2:], "little"):
        raise InvalidAddress("bad_checksum")
    if version == _ACCOUNT and len(payload) == 32:
        return _account(address, payload)
    if version == _MUXED and len(payload) == 40:
        account = _account(encode(payload[:32]), payload[:32]).normalised
        memo = str(int.from_bytes(payload[32:], "big"))
        return Payable(account, ("converted",), embedded_memo=memo, send_as=account, separate_memo="refused")
    if version in _NOT_PAYABLE:
        refusal = _NOT_PAYABLE[version]
        raise InvalidAddress(refusal.reason, refusal.hint)
    raise InvalidAddress("wrong_prefix")


def encode(key: bytes, muxed_id: int | None = None) -> str:
    """A key as `G...`, or with an id as `M...`."""
    data = bytes([_ACCOUNT]) + key
    if muxed_id is not None:
        data = bytes([_MUXED]) + key + muxed_id.to_bytes(8, "big")
    return RFC4648.encode(data + crc_hqx(data, 0).to_bytes(2, "little"))


def _account(address: str, key: bytes) -> Payable:
    if not any(key):
        raise InvalidAddress("burn_address")
    return Payable(address)
