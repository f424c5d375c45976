"""The answer of the validator."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from swap.addresses.memos import UNKNOWN_MEMO, MemoRule
from swap.addresses.payable import Invoice

Status = Literal["valid", "invalid", "unchecked"]

WARNINGS = MappingProxyType(
    {
        "no_checksum": "This address carries no checksum: a typo cannot be found, so show it back for confirmation.",
        "foreign_checksum": "The checksum is Ethereum's, not this network's.",
        "off_curve": "The account belongs to a program (a multisig vault, a token account), not to a key. "
        "Coins sent to a token account are lost to most wallets: ask for a yes.",
        "masterchain": "The account is on the masterchain, where ordinary wallets are not.",
        "script_account": "The account belongs to a script, not to a key.",
        "converted": "The packed address is sent as a plain account and, where it has one, a memo.",
        "payment_id_inside": "The address contains a payment id.",
        "invoice": "An invoice is paid once, before it expires, and with its own amount where it names one.",
        "form_ending": "This network is leaving this form of address; make sure that the receiving wallet still takes it.",
        "network_shut_down": "This network has been shut down; nothing can be sent on it.",
        "same_form_elsewhere": "Addresses of the currency's own network look the same; make sure of the network.",
        "memo_unusual_characters": "The memo has characters, or a length, that some senders refuse.",
        "memo_number_or_text": "A memo of digits only can be a number or a text, and these differ on the chain.",
        "memo_is_hash": "The memo is taken as a hash.",
        "memo_long_comment": "The comment is longer than some senders can write.",
        "memo_is_order": "The memo reads as a THORChain instruction and may be carried out.",
        "memo_asks_encryption": "A memo that starts with # is meant to be encrypted, which the sender may not do.",
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known offline about a destination.

    status: valid, invalid, or unchecked (no rule: only the upstream can say). reason, message, field, hint: why not.
    reason is stable (a key of refusals.MESSAGES), message and hint are sentences, field says which input is wrong. None
    of them repeats what was typed, except for an address in its modern spelling. normalised: the spelling that equal
    destinations share, for comparing; together with embedded_memo. embedded_memo: the tag, id or payment id that the
    address itself carries. send_address, send_memo: what goes to the upstream. As typed, except that a packed X- or
    M-address is taken apart; a payment id stays inside its address. warnings: codes of WARNINGS. invoice: the terms of a
    Lightning invoice, which whoever knows amount and time compares.
    """

    status: Status
    reason: str | None = None
    message: str = "The address can be paid to."
    field: Literal["address", "memo"] | None = None
    network: str | None = None
    normalised: str | None = None
    embedded_memo: str | None = None
    warnings: tuple[str, ...] = ()
    memo_rule: MemoRule = UNKNOWN_MEMO
    hint: str | None = None
    send_address: str | None = None
    send_memo: str | None = None
    invoice: Invoice | None = None

    @property
    def valid(self) -> bool | None:
        """True, False, or None for unchecked."""
        return None if self.status == "unchecked" else self.status == "valid"
