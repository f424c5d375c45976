"""The upstream's ways of saying no, as exceptions that carry the answer (docs/upstream.md section 4, shapes A, B, C)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from swap.sandbox.wire import plain


class Refusal(Exception):
    """An answer that is not a success: HTTP status and JSON body."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("message", ""))
        self.status = status
        self.body = body


def amount_refused(amount: Decimal, bound: Decimal, *, too_small: bool) -> Refusal:
    """Shape A. The too-big code is UNKNOWN upstream; ours follows the pattern of the known one, and the message holds
    the vendor's phrase."""
    size = "Small" if too_small else "Big"
    details = {
        "field": "claimedDepositAmount",
        "value": plain(amount),
        "expected": plain(bound),
        "expectedGeneral": plain(bound),
    }
    return Refusal(
        422,
        {
            "status": f"ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_{size.upper()}",
            "message": f"Amount Too {size}",
            "data": {"localizedMessage": f"Amount too {size.lower()}", "details": details},
        },
    )


def order_expired() -> Refusal:
    """Shape A without details (docs/upstream.md E8)."""
    return Refusal(410, {"status": "ERR_ORDER_EXPIRED", "message": "Order expired", "data": {}})


def field_refused(field: str, reason: str) -> Refusal:
    """Shape B; `field` is `address` or `memo`."""
    return Refusal(400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {field: reason}})


def refused(status: int, message: str) -> Refusal:
    """Shape C."""
    return Refusal(status, {"message": message})
