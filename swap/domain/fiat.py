"""Fiat destinations: bank accounts, checked by their check digits, and card numbers, which are always refused.

IBAN: ISO 13616 with the registry's length and form per country, by python-stdnum, and check digits from 02 to 98 alone.
The printed form with spaces is accepted, the electronic one is sent. National account numbers are checked where the
library knows their check digits. Every other account is *unchecked*. How the upstream pays fiat is not known
(docs/upstream.md section 8), so even a valid account needs the upstream's yes.

A card number must not get into our database or into any log or journal (PCI DSS requirement 3: stored account data must be
protected). Pure: no input or output, and no answer repeats what was typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType, ModuleType

from stdnum import iban, luhn
from stdnum.ar import cbu
from stdnum.cz import bankaccount as czech
from stdnum.exceptions import InvalidChecksum, InvalidComponent, ValidationError
from stdnum.no import kontonr
from stdnum.nz import bankaccount as new_zealand

from swap.addresses import Verdict

CARD_NUMBER = "card_number"
MESSAGES = MappingProxyType(
    {
        CARD_NUMBER: "This is a card number. Cards are not accepted; card numbers are neither kept nor passed on.",
        "empty": "The account is empty.",
        "wrong_form": "This contains characters that no account number has.",
        "iban_checksum": "The IBAN's check digits do not match: a character is wrong, missing or too many.",
        "iban_country": "No country's IBAN begins like this.",
        "iban_form": "The IBAN does not have the length or the form of its country.",
        "account_checksum": "The account number's check digit does not match: at least one digit is wrong.",
        "account_unknown": "No rule is known for this form of account; it was not checked.",
    }
)

_IBAN_LIKE = re.compile(r"[A-Za-z]{2}[0-9]{2}[0-9A-Za-z ]{1,40}", re.ASCII)
_DIGIT_GROUPS = re.compile(r"[0-9]+(?: [0-9]+)*", re.ASCII)
_SEPARATORS = re.compile(r"[\s\u00ad\u200b\u2010-\u2015\u2212-]+")
# What people put around an IBAN; the electronic form is what follows, without its separators.
_IBAN_LABEL = re.compile(r"IBAN[:.]?", re.IGNORECASE)
_IBAN_HINT = "Give the IBAN alone: without the word IBAN, without dashes, with no spaces or ordinary ones."


@dataclass(frozen=True)
class _National:
    """`form` is tight enough that no card number has it."""

    form: re.Pattern[str]
    rule: ModuleType


_NATIONAL = MappingProxyType(
    {
        "NOK": _National(re.compile(r"[0-9]{4}[. ]?[0-9]{2}[. ]?[0-9]{5}", re.ASCII), kontonr),
        "CZK": _National(re.compile(r"(?:[0-9]{1,6}-)?[0-9]{2,10}/[0-9]{4}", re.ASCII), czech),
        "NZD": _National(re.compile(r"[0-9]{2}-[0-9]{3,4}-[0-9]{7}-[0-9]{2,3}", re.ASCII), new_zealand),
        "ARS": _National(re.compile(r"[0-9]{22}", re.ASCII), cbu),
    }
)


_UNCHECKED = Verdict("unchecked", "account_unknown", MESSAGES["account_unknown"])


def is_card_number(text: str) -> bool:
    """Whether the text is a card number: 12 to 19 digits with a right Luhn digit (ISO/IEC 7812), however they are
    separated by spaces and dashes. One in ten other numbers of that length is taken for one."""
    digits = _SEPARATORS.sub("", text)
    return 12 <= len(digits) <= 19 and digits.isascii() and digits.isdigit() and bool(luhn.is_valid(digits))


def holds_card_number(text: str) -> bool:
    """As `is_card_number`, even with other words or groups of digits around it ("4111 1111 1111 1111 12/29")."""
    if is_card_number(text):
        return True
    for run in _DIGIT_GROUPS.findall(_SEPARATORS.sub(" ", text)):
        groups = run.split(" ")
        for start in range(len(groups)):
            joined = ""
            for group in groups[start:]:
                joined += group
                if len(joined) > 19:
                    break
                if is_card_number(joined):
                    return True
    return False


def validate(currency: str, account: str, memo: str | None = None) -> Verdict:
    """Whether money in this currency may be paid to the account. `send_address` is the account without its spaces.

    A memo (a payment reference) goes through unread, unless it holds a card number.
    """
    verdict = _account(currency.upper(), account)
    if verdict.status == "invalid":
        return verdict
    if memo is not None and holds_card_number(memo):
        return Verdict("invalid", CARD_NUMBER, MESSAGES[CARD_NUMBER], "memo")
    return replace(verdict, send_address=verdict.send_address or account, send_memo=memo)


def _account(currency: str, account: str) -> Verdict:
    national = _NATIONAL.get(currency)
    if national is not None and national.form.fullmatch(account):
        try:
            national.rule.validate(account)
        except InvalidChecksum:
            return _invalid("account_checksum")
        except ValidationError:
            return _UNCHECKED  # the bank is missing in the library's list, which may be out of date
        return _valid(national.rule.compact(account), account.replace(" ", ""))
    if _IBAN_LIKE.fullmatch(account):
        reason = _iban_problem(account)
        electronic = account.replace(" ", "").upper()
        return _valid(electronic, electronic) if reason is None else _invalid(reason)
    decorated = _decorated_iban(account)
    if decorated is not None and decorated.reason == "wrong_form":
        return decorated  # its check digits hold, so no group of its digits is a card number
    if holds_card_number(account):
        return _invalid(CARD_NUMBER)
    if decorated is not None:
        return decorated
    if not account.strip():
        return _invalid("empty")
    if not account.isprintable():
        return _invalid("wrong_form")
    return _UNCHECKED


def _iban_problem(text: str) -> str | None:
    try:
        # Without the national rules: they know banks only by lists, and refuse Belgium's own example.
        electronic = iban.validate(text, check_country=False)
    except InvalidChecksum:
        return "iban_checksum"
    except InvalidComponent:
        return "iban_country"
    except ValidationError:
        return "iban_form"
    # ISO 7064 makes check digits as 98 minus a remainder, so never 00, 01 or 99; their sums come out right all the same.
    return None if 2 <= int(electronic[2:4]) <= 98 else "iban_checksum"


def _decorated_iban(account: str) -> Verdict | None:
    """The refusal of an IBAN with a label or separators that are not taken, or None where the text hides no IBAN."""
    bare = _IBAN_LABEL.sub("", _SEPARATORS.sub("", account), count=1)
    if not _IBAN_LIKE.fullmatch(bare):
        return None
    reason = _iban_problem(bare)
    return None if reason == "iban_country" else _invalid(reason or "wrong_form", _IBAN_HINT)


def _valid(normalised: str, sent: str) -> Verdict:
    return Verdict("valid", message="The account can be paid to.", normalised=normalised, send_address=sent)


def _invalid(reason: str, hint: str | None = None) -> Verdict:
    return Verdict("invalid", reason, MESSAGES[reason], "address", hint=hint)
