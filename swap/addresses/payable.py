"""What a network's rule answers when an address may be paid to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

# The one limit of an address's length, in characters, here, in requests and in answers. Far above any address in use: an
# invoice with ten route hints has about 1,200. Below what PostgreSQL can index (2,704 bytes), so that whatever is called
# valid can be stored and found.
LONGEST = 2048

# allowed: the memo is a field of its own. same: the address carries it, repeating it is harmless, another one is not.
# refused: the address already decides (a muxed account, "no tag", an integrated address), any separate memo
# contradicts.
SeparateMemo = Literal["allowed", "same", "refused"]


class Invoice(NamedTuple):
    """What a Lightning invoice asks for. amount_msat is None when the payer chooses; times are seconds since 1970."""

    amount_msat: int | None
    created_at: int
    expires_at: int


class Payable(NamedTuple):
    """An accepted address.

    normalised: the one spelling that equal destinations share, for comparing and for finding duplicates. An X- or
    M-address becomes the plain account: compare it together with `embedded_memo`.
    send_as: what goes to the upstream when that differs from what was typed; None means as typed.
    invoice: the terms, where the text is a Lightning invoice.
    """

    normalised: str
    warnings: tuple[str, ...] = ()
    embedded_memo: str | None = None
    send_as: str | None = None
    separate_memo: SeparateMemo = "allowed"
    invoice: Invoice | None = None


Rule = Callable[[str], Payable]
"""Takes non-empty ASCII text without whitespace, answers Payable or raises InvalidAddress; nothing else."""
