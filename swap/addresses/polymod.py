"""The checksum of Bech32 (BIP-173) and CashAddr: one BCH code over words of five bits, in two widths."""

from __future__ import annotations

from collections.abc import Callable

Polymod = Callable[[int, bytes], int]


def polymod(generator: tuple[int, int, int, int, int], length: int) -> Polymod:
    """A function from the checksum's state, 1 in the beginning, and more words to its next state.

    `generator`: what bits 0 to 4 of the word that is shifted out feed back. `length`: of the checksum, in words.
    """
    shift = 5 * (length - 1)
    mask = (1 << shift) - 1
    feedback = [0] * 32
    for bit, value in enumerate(generator):
        for top in range(32):
            if top >> bit & 1:
                feedback[top] ^= value

    def advance(check: int, words: bytes) -> int:
        for word in words:
            check = (check & mask) << 5 ^ word ^ feedback[check >> shift]
        return check

    return advance
