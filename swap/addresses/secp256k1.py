"""Whether a number is the x coordinate of a point of the curve secp256k1 (SEC 2, section 2.4.1).

A compressed key whose x is on no point has no owner, and nodes that read the key refuse it.
"""

from __future__ import annotations

P = 2**256 - 2**32 - 977
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


def on_curve(x: int) -> bool:
    """x is in the field, and x³ + 7 is a square there; it is never zero on this curve."""
    return x < P and pow(x**3 + 7, (P - 1) // 2, P) == 1


def compressed(key: bytes) -> bool:
    """Whether 33 bytes are a compressed key: 2 or 3 for the sign of y, then x."""
    return len(key) == 33 and key[0] in (2, 3) and on_curve(int.from_bytes(key[1:], "big"))
