"""Lightning invoices: BOLT-11.

Bech32 without a length limit; the human-readable part is `lnbc` and an optional amount; the data are a 35-bit
timestamp, tagged fields, and 104 words of signature. Only the form is checked: there is no clock here. Whoever pays
compares the amount with the order and `expires_at` with the time the payout needs (swap.domain.invoices).
"""

from __future__ import annotations

import re

from swap.addresses import bech32
from swap.addresses.base32 import BECH32
from swap.addresses.payable import LONGEST, Invoice, Payable
from swap.addresses.refusals import InvalidAddress
from swap.addresses.secp256k1 import ORDER, on_curve

_MAIN = re.compile(r"lnbc(?:([1-9][0-9]{0,14})([munp])?)?", re.ASCII)
_TEST = re.compile(r"ln(?:bcrt|tbs|tb|sb)(?:[0-9]+[munp]?)?", re.ASCII)
# Picobitcoin per unit; one millisatoshi is ten of them.
_PICO = {None: 10**12, "m": 10**9, "u": 10**6, "n": 10**3, "p": 1}
_TIMESTAMP, _SIGNATURE, _HASH, _KEY = 7, 104, 52, 53
_PAYMENT_HASH, _SECRET, _DESCRIPTION, _DESCRIPTION_HASH, _EXPIRY, _FEATURES, _NODE = 1, 16, 13, 23, 6, 5, 19
_ONE_HOUR = 3600
# BOLT-9, context 9: what may be *required* of us (even bits). An unknown even bit means the invoice cannot be paid.
_KNOWN_FEATURES = frozenset({8, 14, 16, 24, 36, 48, 56})


def lightning(address: str) -> Payable:
    """A main network invoice, all in small letters or all in capitals."""
    return Payable(address.lower(), ("invoice",), invoice=decode(address))


def decode(text: str) -> Invoice:
    """The invoice's amount and times. Raises InvalidAddress when it is no well-formed main network invoice."""
    if len(text) > LONGEST:
        raise InvalidAddress("too_long")
    lower = text.lower()
    if lower.startswith(("lnurl1", "lno1", "lni1", "lnr1")):
        raise InvalidAddress("unsupported_form", "Only BOLT-11 invoices (they start with lnbc) can be paid.")
    hrp, data, constant = bech32.decode(text, LONGEST)
    match = _MAIN.fullmatch(hrp)
    if match is None:
        raise InvalidAddress(
            "testnet" if _TEST.fullmatch(hrp) else "wrong_form" if hrp.startswith("lnbc") else "wrong_prefix"
        )
    if constant != bech32.BECH32:
        raise InvalidAddress("bad_checksum")
    words = BECH32.words(data)
    if len(words) < _TIMESTAMP + _SIGNATURE:
        raise InvalidAddress("wrong_length")
    created = _number(words[:_TIMESTAMP])
    expiry, names_node = _fields(words[_TIMESTAMP:-_SIGNATURE])
    _check_signature(words[-_SIGNATURE:], low_only=names_node)
    return Invoice(_amount(match), created, created + expiry)


def _amount(match: re.Match[str]) -> int | None:
    digits, multiplier = match.groups()
    if digits is None:
        return None
    pico = int(digits) * _PICO[multiplier]
    if pico % 10:
        raise InvalidAddress("wrong_form", "The amount of this invoice is finer than Lightning can pay.")
    return pico // 10


def _number(words: bytes) -> int:
    number = 0
    for word in words:
        number = number << 5 | word
    return number


def _fields(words: bytes) -> tuple[int, bool]:
    """The expiry in seconds, and whether the payee's key is named.

    Exactly one payment hash, one secret, and one description or its hash. Fields of an unexpected length are skipped:
    BOLT-11's examples do, whereas its text fails them, and a skipped field pays nobody else.
    """
    seen: dict[int, int] = {}
    expiry = None
    place = 0
    while place < len(words):
        if place + 3 > len(words):
            raise InvalidAddress("wrong_form")
        tag, length = words[place], words[place + 1] << 5 | words[place + 2]
        value = words[place + 3 : place + 3 + length]
        if len(value) != length:
            raise InvalidAddress("wrong_form")
        place += 3 + length
        if length != (_KEY if tag == _NODE else _HASH) and tag in (_PAYMENT_HASH, _SECRET, _DESCRIPTION_HASH, _NODE):
            continue
        seen[tag] = seen.get(tag, 0) + 1
        if tag == _EXPIRY and expiry is None:
            expiry = _number(value)
        elif tag == _FEATURES:
            _check_features(_number(value))
    descriptions = seen.get(_DESCRIPTION, 0) + seen.get(_DESCRIPTION_HASH, 0)
    if seen.get(_PAYMENT_HASH) != 1 or seen.get(_SECRET) != 1 or descriptions != 1:
        raise InvalidAddress("not_payable", "The invoice lacks a field that a payment needs, or has one twice.")
    return _ONE_HOUR if expiry is None else expiry, _NODE in seen


def _check_features(bits: int) -> None:
    for bit in range(0, bits.bit_length(), 2):
        if bits >> bit & 1 and bit not in _KNOWN_FEATURES:
            raise InvalidAddress("unsupported_form", "This invoice demands a feature that is not known.")


def _check_signature(words: bytes, *, low_only: bool) -> None:
    """Whether some public key can be recovered; which one is the payee's matter.

    When the payee's key is named, only the lower of the two equal signatures counts. Recovery needs a point whose x is
    r, or r plus the group's order: that x must be on the curve.
    """
    number = _number(words)
    recovery, s, r = number & 0xFF, number >> 8 & (1 << 256) - 1, number >> 264
    x = r + (ORDER if recovery & 2 else 0)
    if low_only and s > ORDER // 2:
        raise InvalidAddress("bad_checksum")
    if recovery > 3 or not 0 < r < ORDER or not 0 < s < ORDER or not on_curve(x):
        raise InvalidAddress("bad_checksum")
