"""Networks whose accounts are names or numbers: EOS and WAX, Hive and Steem, NEAR, Hedera.

Sources: EOSIO `name` type, Hive `is_valid_account_name`, NEAR Nomicon "Account ID", Hedera HIP-15. Names have no
checksum: a typo may be another person's account.
"""

from __future__ import annotations

import re

from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

_EOSIO = re.compile(r"[a-z1-5.]{0,11}[a-z1-5]", re.ASCII)
_HIVE_LABEL = re.compile(r"[a-z][a-z0-9-]+[a-z0-9]", re.ASCII)
_NEAR_NAME = re.compile(r"(?:[a-z0-9]+[-_])*[a-z0-9]+(?:\.(?:[a-z0-9]+[-_])*[a-z0-9]+)*", re.ASCII)
_NEAR_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_EVM = re.compile(r"0[xs][0-9a-f]{40}", re.ASCII)
_HEDERA = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:-([a-z]{5}))?", re.ASCII)


def eosio(address: str) -> Payable:
    """1 to 12 of a-z, 1-5 and dots, not ending in a dot. Names shorter than 12 exist (they are auctioned)."""
    if len(address) > 12:
        raise InvalidAddress("not_payable" if address.startswith(("EOS", "PUB_")) else "wrong_length")
    if not _EOSIO.fullmatch(address):
        raise InvalidAddress("wrong_form")
    return Payable(address, ("no_checksum",))


def hive(address: str) -> Payable:
    """3 to 16 characters; labels of at least three between dots, a letter first, no dash at the end."""
    if not 3 <= len(address) <= 16:
        raise InvalidAddress("wrong_length")
    if not all(_HIVE_LABEL.fullmatch(label) for label in address.split(".")):
        raise InvalidAddress("wrong_form")
    return Payable(address, ("no_checksum",))


def near(address: str) -> Payable:
    """A name that ends in `.near`, or 64 small hex digits (the account of a key).

    Bare top-level names and Ethereum-type accounts exist but are refused (policy): they are mostly mistakes.
    """
    if _NEAR_KEY.fullmatch(address):
        if not address.strip("0"):
            raise InvalidAddress("burn_address")
        return Payable(address, ("no_checksum",))
    if not 2 <= len(address) <= 64:
        raise InvalidAddress("wrong_length", "A NEAR account has 2 to 64 characters.")
    if not _NEAR_NAME.fullmatch(address):
        lower = address.lower()
        if address != lower and (_NEAR_KEY.fullmatch(lower) or _NEAR_NAME.fullmatch(lower)):
            raise InvalidAddress("wrong_case", "NEAR accounts have small letters only.")
        raise InvalidAddress(
            "wrong_form", "A NEAR account is small letters and digits, with single - _ . between them."
        )
    if address.endswith(".testnet"):
        raise InvalidAddress("testnet")
    if _EVM.fullmatch(address):
        raise InvalidAddress("unsupported_form", "Ethereum-type accounts are not paid to on NEAR.")
    if not address.endswith(".near"):
        raise InvalidAddress("unsupported_form", "Use an account that ends in .near, or its 64-digit form.")
    half = address[: len(address) // 2]
    if half * 2 == address and half.endswith(".near"):
        raise InvalidAddress("pasted_twice")
    return Payable(address, ("no_checksum",))


def hip15(address: str, ledger: bytes = b"\x00") -> str:
    """The five checksum letters of `shard.realm.number` on a ledger; b"\\x00" is the main network."""
    digits = [10 if character == "." else int(character) for character in address]
    weighted = 0
    for digit in digits:
        weighted = (weighted * 31 + digit) % 26**3
    even, odd = sum(digits[0::2]) % 11, sum(digits[1::2]) % 11
    salt = 0
    for byte in ledger + bytes(6):
        salt = (salt * 31 + byte) % 26**5
    number = (((len(address) % 5) * 11 + even) * 11 + odd) * 26**3 + weighted + salt
    number = number % 26**5 * 1_000_003 % 26**5
    letters = []
    for _ in range(5):
        number, letter = divmod(number, 26)
        letters.append(chr(ord("a") + letter))
    return "".join(reversed(letters))


def hedera(address: str) -> Payable:
    """`0.0.number`, optionally with the letters of HIP-15, which differ per ledger and are compared here."""
    # HIP-583: an account may have an Ethereum-type alias, or be written in one as a long number.
    if _EVM.fullmatch(address.lower()) or _EVM.fullmatch("0x" + address.lower()):
        raise InvalidAddress("unsupported_form", "Use the account number, such as 0.0.12345.")
    if len(address) > 40:
        raise InvalidAddress("wrong_length")
    match = _HEDERA.fullmatch(address)
    if match is None:
        raise InvalidAddress("wrong_form")
    shard, realm, number, letters = match.groups()
    if shard != "0" or realm != "0" or not 0 < int(number) < 1 << 63:
        raise InvalidAddress("not_payable")
    plain = f"0.0.{number}"
    if letters is None:
        return Payable(plain, ("no_checksum",))
    if letters != hip15(plain):
        raise InvalidAddress("testnet" if letters in (hip15(plain, b"\x01"), hip15(plain, b"\x02")) else "bad_checksum")
    return Payable(plain)
