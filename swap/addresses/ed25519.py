"""Whether 32 bytes are a point of the curve ed25519 (RFC 8032, section 5.1.3).

A Solana account off the curve belongs to a program and a Monero key off the curve has no owner.
"""

from __future__ import annotations

P = 2**255 - 19
_D = -121665 * pow(121666, -1, P) % P


def on_curve(key: bytes) -> bool:
    """Strict decoding: the coordinate is below the field's prime, and zero has no sign."""
    encoded = int.from_bytes(key, "little")
    y = encoded & ((1 << 255) - 1)
    if y >= P:
        return False
    square = y * y % P
    top = square - 1
    if top % P == 0:
        return encoded >> 255 == 0
    # x² = top / bottom has a root exactly when top * bottom has one; bottom is never zero on this curve.
    return pow(top * (_D * square + 1), (P - 1) // 2, P) == 1
