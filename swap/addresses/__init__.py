"""Destination addresses and memos, checked offline: `validate(currency, network, address, memo) -> Verdict`.

Pure: no input or output, no clock, no other part of the service. Nothing is repaired: what is not exactly an address is
refused, with a hint at what it seems to be. "valid" means that a payout may be sent there as far as the text can tell;
whether the account exists, or needs a memo, only the upstream and the receiver know.
"""

from __future__ import annotations

from swap.addresses.aliases import proposal
from swap.addresses.memos import MemoRule
from swap.addresses.payable import LONGEST, Invoice
from swap.addresses.refusals import MESSAGES
from swap.addresses.validator import memo_rule, network_code, validate
from swap.addresses.verdict import WARNINGS, Verdict

__all__ = [
    "LONGEST",
    "MESSAGES",
    "WARNINGS",
    "Invoice",
    "MemoRule",
    "Verdict",
    "memo_rule",
    "network_code",
    "proposal",
    "validate",
]
