"""How a codec or a rule says no: one exception, a stable reason code, one sentence per reason.

A sentence never contains what the user typed: it may be a secret key, and it ends up in logs and tickets.
"""

from __future__ import annotations

from types import MappingProxyType

MESSAGES = MappingProxyType(
    {
        "not_text": "The address must be text.",
        "empty": "The address is empty.",
        "non_ascii": "The address contains a character that no address has: an invisible one or a look-alike letter.",
        "whitespace": "The address contains a space, a tab or a line break.",
        "too_long": "The text is far too long for an address.",
        "wrong_form": "This does not have the form of an address of this network.",
        "bad_characters": "The address contains a character that this form of address never has.",
        "wrong_length": "The address is too short or too long: some of it is missing, or something was added.",
        "bad_checksum": "The checksum does not match: at least one character is wrong.",
        "mixed_case": "Capital and small letters are mixed in a form that never mixes them.",
        "wrong_case": "This form of address is not accepted in capital letters (or in small ones).",
        "wrong_prefix": "The beginning of the address does not belong to this network.",
        "testnet": "This is an address of a test network; coins sent there are lost.",
        "secret_key": "This is a secret key or recovery phrase, not an address. Never share it; move its coins.",
        "other_network": "This is an address of another network.",
        "not_payable": "This is a valid string of the network, but nothing that can be paid to.",
        "burn_address": "Nobody holds the key of this address; coins sent there are lost.",
        "token_contract": "This is the contract of a token, not a wallet; coins sent there are lost.",
        "legacy_form": "This old form is also an address of another network, so it is not accepted.",
        "unsupported_form": "This form of address is not supported for payouts.",
        "payment_link": "This is a payment link or has extra text; only the address itself is accepted.",
        "name_not_address": "This is a name, not an address.",
        "placeholder": "This is a placeholder, not an address.",
        "pasted_twice": "The address was pasted twice.",
        "invoice_expired": "This invoice has expired, or will before the payout can be sent.",
        "invoice_amount": "This invoice is for another amount than the payout.",
        "memo_not_text": "The memo must be text that can be stored as UTF-8.",
        "memo_empty": "The memo is empty; leave it out altogether when there is none.",
        "memo_placeholder": "This is a word for no memo, not a memo.",
        "memo_not_supported": "This network has no memo, so the memo would be lost.",
        "memo_too_long": "The memo is longer than the network allows.",
        "memo_not_numeric": "This memo must be a number in plain digits 0-9.",
        "memo_leading_zero": "This memo is a number and must not start with a zero.",
        "memo_out_of_range": "This number is larger than the network allows.",
        "memo_spaces": "The memo begins or ends with a space.",
        "memo_invisible": "The memo contains an invisible character or a line break.",
        "memo_conflict": "The address already decides the memo, and the separate memo contradicts it.",
        "network_unknown": "No offline rule is known for this network; the address was not checked.",
        "network_ambiguous": "This network title means two different networks; the address was not checked.",
    }
)

# A rule says these when it only knows that the text is not its own; a look at other networks may show more.
REFINABLE = frozenset({"wrong_form", "bad_characters", "wrong_length", "bad_checksum", "wrong_prefix", "mixed_case"})


class InvalidAddress(ValueError):
    """The text is not acceptable. `reason` is a key of MESSAGES; `hint` says what to do when the rule knows it."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
