"""Amounts: Decimal in, Decimal out, never a float.

Formats: a *decimal string* is ASCII digits with at most one point, no sign, no exponent, no spaces (`0.0125`).
Everything that leaves the service is in plain notation; `str(Decimal)` may print `1E-7` (docs/upstream.md T9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

# 20 digits before the point and 18 after it cover every amount of every known coin; 60 leaves room for products.
_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_DECIMAL_STRING = re.compile(r"(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,24})?", re.ASCII)


def parse(text: object) -> Decimal:
    """A decimal string from a caller as a Decimal.

    Raises ValueError, with a sentence, for anything else: a float or an int (JSON numbers lose digits on the way), a
    sign, an exponent, leading zeros, spaces, more than 20 digits before or 24 after the point.
    """
    if not isinstance(text, str):
        raise ValueError('Send the amount as a decimal string, such as "0.0125".')
    if not _DECIMAL_STRING.fullmatch(text):
        raise ValueError('Not a decimal string: plain digits with at most one point, such as "0.0125".')
    return Decimal(text)


def plain(amount: Decimal) -> str:
    """Plain notation without an exponent and without trailing zeros after the point: `1E-7` -> `0.0000001`.

    Raises ValueError for NaN and infinities.
    """
    if not amount.is_finite():
        raise ValueError("not a finite amount")
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def decimals(amount: Decimal) -> int:
    """How many digits after the point the amount needs: 1.50 -> 1, 100 -> 0."""
    _, _, text = plain(amount).partition(".")
    return len(text)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Their sum without loss; Decimal by itself keeps 28 digits. Zero for none."""
    with localcontext(_CONTEXT):
        return sum(amounts, Decimal())


def within(actual: Decimal, expected: Decimal, tolerance: Decimal) -> bool:
    """Whether `actual` is not below `expected` by more than the relative `tolerance` (0.01 is one percent).

    More than expected is always accepted: the customer gains.
    """
    with localcontext(_CONTEXT):
        return actual >= expected * (1 - tolerance)


def keeps_promise(actual: Decimal | None, promised: Decimal | None, tolerance: Decimal, *, fixed: bool) -> bool:
    """Whether a payout is what was promised: at a fixed rate as much or more, at a floating one not less by more than the
    relative `tolerance`. What is not known on either side breaks no promise."""
    if actual is None or promised is None:
        return True
    return actual >= promised if fixed else within(actual, promised, tolerance)
