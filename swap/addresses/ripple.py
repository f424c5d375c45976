"""XRP Ledger: classic accounts and X-addresses.

Classic: Base58Check in Ripple's alphabet, version 0x00 and a 20-byte account (xrpl.org "Addresses"). X-address
(XLS-5d): 0x05 0x44, the account, one flag byte, eight tag bytes, little-endian. Flag 0 says "no tag" and the tag bytes
are zero; flag 1 is a 32-bit tag and the upper four bytes are zero; flag 2 (64-bit tags) is reserved.

An X-address is turned into account and tag, because it is not known whether the upstream reads the packed form.
"""

from __future__ import annotations

from swap.addresses import base58
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_PACKED = b"\x05\x44"
_PACKED_TEST = b"\x04\x93"
# xrpl.org, "Special addresses": zero, one, the name reservation, the result of a NaN; and the genesis account, whose
# secret is public.
_BLACK_HOLES = frozenset(
    {
        "rrrrrrrrrrrrrrrrrrrrrhoLvTp",
        "rrrrrrrrrrrrrrrrrrrrBZbvji",
        "rrrrrrrrrrrrrrrrrNAMEtxvNvQ",
        "rrrrrrrrrrrrrrrrrrrn5RM1rHd",
        "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh",
    }
)


def ripple(address: str) -> Payable:
    """`r...` or `X...`; seeds (`s`, `sEd`), node keys (`n`) and test addresses (`T`) are refused."""
    if address[0] == "r":
        return _classic(address)
    if address[0] in "XT":
        return _packed(address)
    raise InvalidAddress("wrong_prefix")


def pack(account: bytes, tag: int | None) -> str:
    """Account and tag as an X-address."""
    body = bytes([tag is not None]) + (tag or 0).to_bytes(8, "little")
    return base58.encode_check(_PACKED + account + body, base58.RIPPLE)


def _classic(address: str) -> Payable:
    if not 25 <= len(address) <= 35:
        raise InvalidAddress("wrong_length")
    payload = base58.decode_check(address, base58.RIPPLE)
    if len(payload) != 21:
        raise InvalidAddress("wrong_length")
    if payload[0] != 0:
        raise InvalidAddress("wrong_prefix")
    if address in _BLACK_HOLES:
        raise InvalidAddress("burn_address")
    return Payable(address)


def _packed(address: str) -> Payable:
    if len(address) != 47:
        raise InvalidAddress("wrong_length")
    payload = base58.decode_check(address, base58.RIPPLE)
    if len(payload) != 31:
        raise InvalidAddress("wrong_length")
    if payload[:2] == _PACKED_TEST:
        raise InvalidAddress("testnet")
    if payload[:2] != _PACKED:
        raise InvalidAddress("wrong_prefix")
    account, flag, tag = payload[2:22], payload[22], int.from_bytes(payload[23:], "little")
    classic = _classic(base58.encode_check(b"\x00" + account, base58.RIPPLE)).normalised
    if flag == 0 and tag == 0:
        return Payable(classic, ("converted",), send_as=classic, separate_memo="refused")
    if flag != 1 or tag > 0xFFFFFFFF:
        raise InvalidAddress("not_payable", "The part of the address that holds the tag is not one a ledger knows.")
    return Payable(classic, ("converted",), embedded_memo=str(tag), send_as=classic, separate_memo="same")
