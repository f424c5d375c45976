"""Lightning invoices of our own, signed by a key of our own: BOLT-11 written down the other way round."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from swap.addresses import bech32
from swap.addresses.base32 import BECH32
from swap.addresses.secp256k1 import ORDER

_KEY = ec.derive_private_key(int.from_bytes(sha256(b"a key for tests").digest()) % ORDER, ec.SECP256K1())
_NODE = _KEY.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
_PAYMENT_HASH, _ROUTE_HINT, _EXPIRY, _DESCRIPTION, _SECRET, _PAYEE = 1, 3, 6, 13, 16, 19
# An hour: what an invoice without the field is good for.
HOUR = 3600


def invoice(
    created_at: datetime | None = None,
    *,
    amount: str | None = None,
    expiry: int | None = None,
    hints: int = 0,
    payment: bytes = b"",
) -> str:
    """An invoice on the main network. `amount` in BTC; `expiry` in seconds; `hints`: how many private channels lead to the
    payee; `payment` makes it another one."""
    created = int((created_at or datetime.now(UTC)).timestamp())
    data = BECH32.text(created, 7)
    data += _field(_PAYMENT_HASH, BECH32.encode(sha256(b"payment" + payment).digest()))
    data += _field(_SECRET, BECH32.encode(sha256(b"secret" + payment).digest()))
    data += _field(_DESCRIPTION, BECH32.encode(b"one swap"))
    data += _field(_PAYEE, BECH32.encode(_NODE))
    if expiry is not None:
        data += _field(_EXPIRY, BECH32.text(expiry, max(1, -(-expiry.bit_length() // 5))))
    for number in range(hints):
        fees = (1).to_bytes(4, "big") + (20).to_bytes(4, "big") + (3).to_bytes(2, "big")
        data += _field(_ROUTE_HINT, BECH32.encode(_NODE + number.to_bytes(8, "big") + fees))
    hrp = "lnbc" + ("" if amount is None else _shortest(Decimal(amount)))
    return bech32.encode(hrp, data + _signature(hrp, data), bech32.BECH32)


def _field(tag: int, text: str) -> str:
    return BECH32.text(tag << 10 | len(text), 3) + text


def _shortest(amount: Decimal) -> str:
    """As BOLT 11 asks: with the largest multiplier that needs no fraction."""
    scales = {"": 0, "m": 3, "u": 6, "n": 9, "p": 12}
    return next(f"{int(amount.scaleb(n))}{letter}" for letter, n in scales.items() if amount.scaleb(n) % 1 == 0)


def _signature(hrp: str, data: str) -> str:
    bits = 5 * len(data)
    padding = -bits % 8
    signed = hrp.encode() + (BECH32.number(data) << padding).to_bytes((bits + padding) // 8, "big")
    r, s = decode_dss_signature(_KEY.sign(signed, ec.ECDSA(hashes.SHA256())))
    return BECH32.text(r << 264 | min(s, ORDER - s) << 8, 104)
