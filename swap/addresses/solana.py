"""Solana: the base58 of exactly 32 bytes.

Source: Solana documentation, "Accounts" and "Program derived address". There is no checksum, and a shortened string can
still decode to 32 bytes. A key off the curve belongs to a program (a multisig vault, a token account's owner): accepted
with a warning (policy).
"""

from __future__ import annotations

from swap.addresses import base58
from swap.addresses.ed25519 import on_curve
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_PROGRAMS = frozenset(
    {
        "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA",
        "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb",
        "ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL",
        "Vote111111111111111111111111111111111111111",
        "Stake11111111111111111111111111111111111111",
        "Config1111111111111111111111111111111111111",
        "BPFLoader2111111111111111111111111111111111",
        "BPFLoaderUpgradeab1e11111111111111111111111",
        "ComputeBudget111111111111111111111111111111",
        "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr",
        "metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s",
    }
)
_MINTS = frozenset(
    {
        "So11111111111111111111111111111111111111112",
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB",
    }
)


def solana(address: str) -> Payable:
    """32 to 44 characters; programs, well-known mints and the incinerator are refused (policy)."""
    if not 32 <= len(address) <= 44:
        raise InvalidAddress("wrong_length")
    key = base58.decode(address)
    if len(key) != 32:
        raise InvalidAddress("wrong_length")
    if address in _MINTS:
        raise InvalidAddress("token_contract")
    if not any(key) or address in _PROGRAMS or address.startswith(("Sysvar", "1nc1nerator")):
        raise InvalidAddress("burn_address")
    return Payable(address, ("no_checksum",) if on_curve(key) else ("no_checksum", "off_curve"))
