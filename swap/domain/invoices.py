"""The terms of a Lightning invoice that is to be paid: it can be paid once, until it expires, and with its own amount.

BOLT-11: "A reader MUST NOT pay after expiry", and of an invoice with an amount nothing else can be paid. A payout that comes
too late, or with another amount, does not arrive, whatever the customer has deposited. Pure: the caller brings the clock.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from swap.addresses import Invoice

# From here until the payout is sent: the customer pays, the deposit is confirmed, the swap is made. Bitcoin's two
# confirmations alone take twenty minutes; and a usual invoice is good for an hour, so asking for more would refuse it.
PAYOUT_NEEDS = timedelta(minutes=30)

_COIN_IN_MSAT = Decimal(10) ** 11
_SATOSHI = Decimal("0.00000001")


def is_in_time(invoice: Invoice, now: datetime) -> bool:
    """Whether a swap that is ordered now can still pay the invoice."""
    return (now + PAYOUT_NEEDS).timestamp() <= invoice.expires_at


def amount_of(invoice: Invoice) -> Decimal | None:
    """The invoice's amount in BTC; None when the payer chooses."""
    return None if invoice.amount_msat is None else invoice.amount_msat / _COIN_IN_MSAT


def takes(invoice: Invoice, amount: Decimal) -> bool:
    """Whether a payout of this amount, in BTC, pays the invoice. Less than a satoshi may be cut off, as wallets do."""
    asked = amount_of(invoice)
    return asked is None or Decimal(0) <= amount - asked < _SATOSHI
