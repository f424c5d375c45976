"""Ethereum-type accounts: `0x` and 20 bytes in hex, on every chain of the family.

The only checksum is in the case of the letters: EIP-55, with the chain's number mixed in on Rootstock (EIP-1191). Text
in one case throughout has none, so a typo cannot be found and the verdict says so. All chains share the form: nothing
here can tell Ethereum from Polygon.
"""

from __future__ import annotations

import re

from swap.addresses.digests import keccak256
from swap.addresses.payable import Payable, Rule
from swap.addresses.refusals import InvalidAddress

_HEX = re.compile(r"[0-9a-fA-F]{40}", re.ASCII)
# Below this lie the null account and the precompiled contracts of every chain; no key leads there.
_RESERVED = 0x10000
_SINKS = frozenset(
    {
        "000000000000000000000000000000000000dead",
        "dead000000000000000000000000000000000000",
        "dead000000000000000042069420694206942069",
        "deaddeaddeaddeaddeaddeaddeaddeaddeaddead",
        "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee",
        "ffffffffffffffffffffffffffffffffffffffff",
    }
)
# The two tokens users hold most, on the chains where they are most often swapped: their contract is what gets pasted by
# mistake. Completeness is not the aim, and cannot be.
_CONTRACTS = frozenset(
    {
        "dac17f958d2ee523a2206206994597c13d831ec7",  # USDT, Ethereum
        "a0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",  # USDC, Ethereum
        "55d398326f99059ff775485246999027b3197955",  # USDT, BNB Smart Chain
        "8ac76a51cc950d9822d68b83fe1ad97b32cd580d",  # USDC, BNB Smart Chain
        "c2132d05d31c914a87c6611c10748aeb04b58e8f",  # USDT, Polygon
        "3c499c542cef5e3811e1192ce70d8cc03d5c3359",  # USDC, Polygon
        "2791bca1f2de4661ed88a30c99a7a9449aa84174",  # USDC.e, Polygon
        "fd086bc7cd5c481dcc9c85ebe478a1c0b69fcbb9",  # USDT, Arbitrum
        "af88d065e77c8cc2239327c5edb3a432268e5831",  # USDC, Arbitrum
        "94b008aa00579c1307b0ef2c499ad98a8ce58e58",  # USDT, Optimism
        "0b2c639c533813f4aa9d7837caf62653d097ff85",  # USDC, Optimism
        "9702230a8ea53601f5cd2dc00fdbc13d4df4a8c7",  # USDT, Avalanche C-Chain
        "b97ef9ef8734c71904d8002f8b6bc66dd9c48a6e",  # USDC, Avalanche C-Chain
        "833589fcd6edb6e08f4c7c32d4f71b54bda02913",  # USDC, Base
    }
)


def checksummed(digits: str, chain: int | None = None) -> str:
    """40 hex digits in the case of EIP-55, or of EIP-1191 when the chain is given."""
    lower = digits.lower()
    hashed = keccak256((f"{chain}0x{lower}" if chain else lower).encode("ascii")).hex()
    return "".join(letter.upper() if nibble > "7" else letter for letter, nibble in zip(lower, hashed, strict=False))


def _read(digits: str) -> str:
    """40 hex digits, refused when they are no account; in small letters."""
    if len(digits) != 40:
        raise InvalidAddress("wrong_length")
    if not _HEX.fullmatch(digits):
        raise InvalidAddress("bad_characters")
    lower = digits.lower()
    if lower in _SINKS or int(lower, 16) < _RESERVED:
        raise InvalidAddress("burn_address")
    if lower in _CONTRACTS:
        raise InvalidAddress("token_contract")
    return lower


def _one_case(digits: str, lower: str) -> bool:
    return digits in (lower, lower.upper())


def ethereum(address: str) -> Payable:
    """`0x` and 40 hex digits; mixed case must follow EIP-55. `0X`, a missing `0x` and every prefix are refused."""
    if not address.startswith("0x"):
        raise InvalidAddress("wrong_form")
    digits = address[2:]
    lower = _read(digits)
    right = checksummed(lower)
    if digits == right:
        # An account without letters, or one that EIP-55 leaves in one case, is still right by chance only.
        return Payable("0x" + right, ("no_checksum",) if _one_case(digits, lower) else ())
    if not _one_case(digits, lower):
        raise InvalidAddress("bad_checksum")
    return Payable("0x" + right, ("no_checksum",))


def rootstock(chain: int) -> Rule:
    """As Ethereum, with the checksum of EIP-1191 for this chain; the plain one of EIP-55 is accepted too (policy).

    Common wallets show EIP-55 on every chain, and it guards against typos just as well.
    """

    def rule(address: str) -> Payable:
        if not address.startswith("0x"):
            raise InvalidAddress("wrong_form")
        digits = address[2:]
        lower = _read(digits)
        right = checksummed(lower, chain)
        if digits == right:
            return Payable("0x" + right, ("no_checksum",) if _one_case(digits, lower) else ())
        if _one_case(digits, lower):
            return Payable("0x" + right, ("no_checksum",))
        if digits == checksummed(lower):
            return Payable("0x" + right, ("foreign_checksum",))
        raise InvalidAddress("bad_checksum")

    return rule


def xdc(address: str) -> Payable:
    """XDC Network writes the same account as `xdc...` or `0x...`; the prefix is in small letters."""
    if address.startswith("xdc"):
        return ethereum("0x" + address[3:])
    return ethereum(address)
