"""Accounts that are a fixed number of bytes in Bech32 or Bech32m: the Cosmos family, and others that use the form.

Sources: Cosmos SDK "Bech32 on Cosmos", MultiversX, Harmony, Zilliqa ZIP-1, IoTeX, Oasis, Avalanche (`X-` and a chain
name in front), Chia (Bech32m, puzzle hash), Nervos RFC 21. All capitals would be legal Bech32 but are refused outside
Bitcoin (policy): other software rarely reads them.
"""

from __future__ import annotations

from swap.addresses import bech32
from swap.addresses.payable import Payable, Rule
from swap.addresses.refusals import InvalidAddress


def account(hrp: str, size: int = 20, constant: int = bech32.BECH32, warnings: tuple[str, ...] = ()) -> Rule:
    """A rule for `hrp1...` with exactly `size` bytes.

    A Cosmos account of 32 bytes is a contract or module: accepted by the chain, refused here (policy).
    """

    def rule(address: str) -> Payable:
        if not address.startswith(hrp + "1"):
            raise InvalidAddress(_other_beginning(address, hrp))
        data = bech32.decode_bytes(address, hrp, constant)
        if len(data) != size:
            if size == 20 and len(data) == 32:
                raise InvalidAddress("not_payable", "This is a contract, not a wallet.")
            raise InvalidAddress("wrong_length")
        if not any(data):
            raise InvalidAddress("burn_address")
        return Payable(address, warnings)

    return rule


def _other_beginning(address: str, hrp: str) -> str:
    if address.lower().startswith(hrp + "1"):
        return "wrong_case" if address.isupper() else "mixed_case"
    if address.startswith((hrp + "valoper", hrp + "valcons", hrp + "pub")):
        return "not_payable"
    return "wrong_prefix"


def chain_prefixed(chain: str, hrp: str) -> Rule:
    """Avalanche writes the chain in front: `X-avax1...`."""
    inner = account(hrp)
    head = chain + "-"

    def rule(address: str) -> Payable:
        if not address.startswith(head):
            raise InvalidAddress("wrong_prefix")
        inner(address[len(head) :])
        return Payable(address)

    return rule


# The lock script of ordinary wallets; its argument is the 20-byte hash of a key.
_CKB_DEFAULT_LOCK = bytes.fromhex("9bd7e06f3ecf4be0f2fcd2188b23f1b9fcc88e5d4b65a8637b17723bbda3cce8")


def nervos(address: str) -> Payable:
    """CKB's full format (RFC 21): 0x00, code hash, hash type, arguments, Bech32m. The older formats are deprecated."""
    if not address.startswith("ckb1"):
        raise InvalidAddress(_other_beginning(address, "ckb"))
    if not address.islower():
        raise InvalidAddress("mixed_case")
    data = bech32.decode_bytes(address, "ckb", bech32.BECH32M, limit=512)
    if len(data) < 34 or data[0] != 0 or data[33] not in (0, 1, 2, 4):
        raise InvalidAddress("not_payable")
    if data[1:33] == _CKB_DEFAULT_LOCK and data[33] == 1 and len(data) != 54:
        raise InvalidAddress("wrong_length")
    return Payable(address)
