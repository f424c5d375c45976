"""Memos: the second half of a destination on networks where many customers share one address.

One table says per network what the field is called, what it may hold, and where the limit comes from. A memo is text
and stays text, unchanged: 0 is a tag, "007" is not 7, and limits of text are counted in UTF-8 bytes because chains
count those. Whether a memo is *required* is not decided here: the instrument and the receiving service decide.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from swap.addresses.refusals import InvalidAddress

# none: a memo is refused. optional: rarely asked for. required-by-instrument: exchanges usually need one there; ask for
# it whenever the instrument says so.
MemoKind = Literal["none", "optional", "required-by-instrument"]
MemoType = Literal["none", "text", "uint32", "uint64", "stellar"]

_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
# What upstreams of the kind usually let through (Binance `memoRegex`, Alchemy Pay's table).
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,120}", re.ASCII)
# THORChain executes such a memo when it reaches a vault; https://docs.thorchain.org "Transaction Memos".
_THORCHAIN_ORDER = re.compile(r"(=<?|=>|\+|-|%|~|\$[+-]?|[a-z]{1,12}[+-]?):.*", re.ASCII | re.IGNORECASE | re.DOTALL)
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Letters, marks and symbols by category that nevertheless show nothing (Default_Ignorable_Code_Point, and Braille's blank).
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_LIMITS = MappingProxyType({"uint32": 2**32, "uint64": 2**64})
# One TON cell holds this much text next to the comment's own header; a longer comment needs a wallet that chains cells.
_ONE_TON_CELL = 123


@dataclass(frozen=True, slots=True)
class MemoRule:
    """`name` is the word people know the field by, `description` a sentence with type and limit."""

    name: str
    kind: MemoKind
    type: MemoType
    description: str
    max_bytes: int | None = None


def _text(name: str, kind: MemoKind, limit: int) -> MemoRule:
    return MemoRule(
        name, kind, "text", f"Text of at most {limit} bytes (letters with accents count two or more).", limit
    )


def _number(name: str, kind: MemoKind, bits: Literal["uint32", "uint64"]) -> MemoRule:
    return MemoRule(name, kind, bits, f"A whole number from 0 to {_LIMITS[bits] - 1}, digits only, no leading zero.")


NO_MEMO = MemoRule("memo", "none", "none", "This network has no memo.")
# Of a network without a rule nothing is known; the instrument decides, and the memo goes through unread.
UNKNOWN_MEMO = MemoRule("memo", "required-by-instrument", "text", "Not known for this network.")

_USUAL: MemoKind = "required-by-instrument"
_COSMOS = _text("memo", _USUAL, 256)  # Cosmos SDK default of `MaxMemoCharacters`, a chain parameter
_EOSIO = _text("memo", _USUAL, 256)  # `eosio.token` transfer
_GRAPHENE = _text("memo", _USUAL, 2047)  # Hive and Steem: "memo is too large" from 2,048 on

MEMOS = MappingProxyType(
    {
        "XRP": _number("destination tag", _USUAL, "uint32"),  # XRPL `DestinationTag`
        "XLM": MemoRule(
            "memo",
            _USUAL,
            "stellar",
            "Text of at most 28 bytes, or a number up to 2^64-1, or a hash of 64 hex digits.",
            28,
        ),
        "TON": _text("comment", _USUAL, 1024),
        "ATOM": _text("memo", _USUAL, 512),  # cosmoshub genesis
        **dict.fromkeys(
            ("OSMO", "KAVA", "RUNE", "SEI", "TIA", "DYDX", "LUNA", "INJ", "SCRT", "AXL", "CRO", "BAND", "AKT"), _COSMOS
        ),
        "EOS": _EOSIO,
        "WAX": _EOSIO,
        "HBAR": _text("memo", _USUAL, 100),  # Hedera transaction memo
        "STX": _text("memo", _USUAL, 34),  # SIP-005 token transfer
        "ALGO": _text("note", "optional", 1024),  # Algorand `note`
        "XEM": _text("message", _USUAL, 1024),  # NIS message payload
        "BEP2": _text("memo", _USUAL, 128),
        "HIVE": _GRAPHENE,
        "STEEM": _GRAPHENE,
        "ICP": _number("memo", "optional", "uint64"),  # ICP ledger `Memo`
        "CSPR": _number("transfer id", "optional", "uint64"),  # native transfer `id`
        "MINA": _text("memo", "optional", 32),  # signed command memo
    }
)


# What programs print for "no memo". No receiver is told apart by such a word.
_NO_MEMO_WORDS = frozenset({"null", "none", "undefined", "nil", "nan", "n/a", "[object object]"})


def check_written(memo: str) -> None:
    """What no memo of any network is: nothing, or a word for nothing. Raises InvalidAddress."""
    if not memo:
        raise InvalidAddress("memo_empty")
    if memo.strip().lower() in _NO_MEMO_WORDS:
        raise InvalidAddress("memo_placeholder", "Leave the memo out altogether when there is none.")


def check(code: str, rule: MemoRule, memo: str) -> tuple[str, ...]:
    """Warnings about an acceptable memo. Raises InvalidAddress for one that the network would not carry as it is."""
    check_written(memo)
    if rule.type == "none":
        raise InvalidAddress("memo_not_supported")
    if rule.type in _LIMITS:
        _check_number(memo, _LIMITS[rule.type])
        return ()
    if rule.type == "stellar" and _HASH.fullmatch(memo):
        return ("memo_is_hash",)
    size = _check_text(memo, rule.max_bytes)
    warnings = [] if _PLAIN.fullmatch(memo) else ["memo_unusual_characters"]
    if rule.type == "stellar" and _DIGITS.fullmatch(memo):
        warnings.append("memo_number_or_text")
    elif code == "TON" and size > _ONE_TON_CELL:
        warnings.append("memo_long_comment")
    elif code == "RUNE" and _THORCHAIN_ORDER.fullmatch(memo):
        warnings.append("memo_is_order")
    elif rule is _GRAPHENE and memo.startswith("#"):
        warnings.append("memo_asks_encryption")
    return tuple(warnings)


def _check_number(memo: str, limit: int) -> None:
    # Not str.isdigit() or int(): both take digits of other scripts, and int() signs, spaces and underscores as well.
    # The first 21 characters decide, however long the rest is.
    if not _DIGITS.fullmatch(memo[:21]):
        raise InvalidAddress("memo_not_numeric")
    if memo[0] == "0" and len(memo) > 1:
        raise InvalidAddress("memo_leading_zero")
    if len(memo) > 20 or int(memo) >= limit:
        raise InvalidAddress("memo_out_of_range")


def _check_text(memo: str, limit: int | None) -> int:
    if limit is not None and len(memo) > limit:
        raise InvalidAddress("memo_too_long")
    if not (memo.isascii() and memo.isprintable()):
        try:
            size = len(memo.encode("utf-8"))
        except UnicodeEncodeError:
            raise InvalidAddress("memo_not_text") from None
        if limit is not None and size > limit:
            raise InvalidAddress("memo_too_long")
    else:
        size = len(memo)
    if memo != memo.strip():
        raise InvalidAddress("memo_spaces")
    if not memo.isascii() or not memo.isprintable():
        for character in memo:
            if character in _BLANK or unicodedata.category(character) in _UNSEEN:
                raise InvalidAddress("memo_invisible")
    return size
