"""What the sandbox hands out: a deposit address (and memo) of its own for every order, and transaction ids.

Everything derives from the world's seed and the order's number, so a run can be repeated. Addresses are valid mainnet
forms that no wallet watches: money sent there for real would be lost, which is why every answer comes from loopback only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from swap.sandbox import codecs
from swap.sandbox.catalog import Instrument


@dataclass(frozen=True)
class DepositPlace:
    """Where the customer pays. `address` is None for a fiat source, which gets `payment_link` instead."""

    address: str | None
    memo: str | None
    payment_link: str | None = None


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(" ".join(str(part) for part in parts).encode()).digest()


def deposit_place(instrument: Instrument, seed: int, number: int) -> DepositPlace:
    """The deposit details of order `number`: address and memo are both unique to it.

    Real exchanges often share one address and tell customers apart by memo only; what the upstream does is not known.
    A memo is handed out exactly when the instrument requires one (docs/upstream.md T13).
    """
    digest = _digest("deposit", seed, number, instrument.currency, instrument.network.title)
    if instrument.is_fiat:
        return DepositPlace(None, None, f"https://pay.sandbox.invalid/{digest[:12].hex()}")
    return DepositPlace(instrument.network.form.encode(digest), _memo(instrument, digest, number))


def shared_place(instrument: Instrument, seed: int, number: int) -> DepositPlace | None:
    """One address for all orders of the instrument and a memo for each, as many exchanges do it; None where the
    instrument has no memos to tell them apart."""
    if not instrument.requires_memo:
        return None
    return replace(deposit_place(instrument, seed, number), address=deposit_place(instrument, seed, 0).address)


def _memo(instrument: Instrument, digest: bytes, number: int) -> str | None:
    if not instrument.requires_memo:
        return None
    if instrument.network.memo in ("tag", "stellar"):
        # Inside 32 bits, and unique for a month of order numbers; the address is unique anyway.
        return str(1_000_000_000 + number % 3_000_000_000)
    return f"sbx{number}{digest[:3].hex()}"


def transaction_id(instrument: Instrument, seed: int, number: int, label: str) -> str:
    """A transaction id in the chain's usual form, unique per order and label (`deposit 0`, `payout`)."""
    digest = _digest("transaction", seed, number, label, instrument.currency, instrument.network.title)
    match instrument.network.tx:
        case "0xhex":
            return "0x" + digest.hex()
        case "HEX":
            return digest.hex().upper()
        case "base58":
            return codecs.base58_encode(b"\x01" + digest + digest[:31])
        case "reference":
            return f"SBX-{digest[:8].hex().upper()}"
        case _:
            return digest.hex()
