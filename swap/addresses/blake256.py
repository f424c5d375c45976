"""BLAKE-256 with 14 rounds: the hash of Decred's Base58Check, which no maintained package offers.

Source: the SHA-3 submission "SHA-3 proposal BLAKE", version 1.3, sections 2.1.1-2.1.3. Written for inputs that fit one
block (at most 55 bytes), which is all that an address needs; a longer one is refused rather than answered wrongly.
"""

from __future__ import annotations

import struct

_INITIAL = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip
_CONSTANTS = (
    0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89,
    0x452821E6, 0x38D01377, 0xBE5466CF, 0x34E90C6C, 0xC0AC29B7, 0xC97C50DD, 0x3F84D5B5, 0xB5470917,
)  # fmt: skip
_SIGMA = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
    (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
    (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
    (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
    (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
    (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
    (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
    (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
    (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
)  # fmt: skip
_COLUMNS_THEN_DIAGONALS = (
    (0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
    (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14),
)  # fmt: skip
# One flat schedule: which state words, which message words, which constants, for each of the 14 * 8 steps.
_STEPS = tuple(
    (*place, _SIGMA[turn % 10][2 * step], _SIGMA[turn % 10][2 * step + 1],
     _CONSTANTS[_SIGMA[turn % 10][2 * step + 1]], _CONSTANTS[_SIGMA[turn % 10][2 * step]])
    for turn in range(14)
    for step, place in enumerate(_COLUMNS_THEN_DIAGONALS)
)  # fmt: skip


def blake256(data: bytes) -> bytes:
    """The 32-byte digest of at most 55 bytes."""
    if len(data) > 55:
        raise ValueError("longer than one block")
    bits = 8 * len(data)
    padded = bytearray(data + b"\x80" + bytes(55 - len(data)))
    padded[55] |= 0x01
    message = struct.unpack(">16L", bytes(padded) + bits.to_bytes(8, "big"))
    v = list(_INITIAL + _CONSTANTS[:8])
    v[12] ^= bits
    v[13] ^= bits
    for a, b, c, d, first, second, for_first, for_second in _STEPS:
        va, vb, vc = v[a], v[b], v[c]
        va = (va + vb + (message[first] ^ for_first)) & 0xFFFFFFFF
        vd = v[d] ^ va
        vd = (vd << 16 | vd >> 16) & 0xFFFFFFFF
        vc = (vc + vd) & 0xFFFFFFFF
        vb ^= vc
        vb = (vb << 20 | vb >> 12) & 0xFFFFFFFF
        va = (va + vb + (message[second] ^ for_second)) & 0xFFFFFFFF
        vd ^= va
        v[d] = vd = (vd << 24 | vd >> 8) & 0xFFFFFFFF
        v[c] = vc = (vc + vd) & 0xFFFFFFFF
        vb ^= vc
        v[b] = (vb << 25 | vb >> 7) & 0xFFFFFFFF
        v[a] = va
    return struct.pack(">8L", *(_INITIAL[i] ^ v[i] ^ v[i + 8] for i in range(8)))


def blake256d(data: bytes) -> bytes:
    """BLAKE-256 twice."""
    return blake256(blake256(data))
