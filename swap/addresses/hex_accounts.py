"""Accounts written in hex (or base64url): Aptos, Sui, ICON, Internet Computer, Casper, Siacoin, Arweave.

Sources: AIP-40 (Aptos), Sui documentation "Object IDs", ICON documentation "EOA address", Internet Computer "Ledger
account identifiers", CEP-57 and casper-types `checksummed_hex`, Sia `types.UnlockHash`, Arweave HTTP API.
Aptos, Sui, ICON and Arweave have no checksum at all.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from zlib import crc32

from swap.addresses.digests import blake2b_256
from swap.addresses.ed25519 import on_curve
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress
from swap.addresses.secp256k1 import compressed

_HEX = re.compile(r"[0-9a-fA-F]*", re.ASCII)
_LOWER_HEX = re.compile(r"[0-9a-f]*", re.ASCII)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# The framework, its objects and the token standards live at small numbers; no key leads there.
_RESERVED = 0x10000


def _lower(digits: str, length: int) -> None:
    if len(digits) != length:
        raise InvalidAddress("wrong_length")
    if not _HEX.fullmatch(digits):
        raise InvalidAddress("bad_characters")
    if not _LOWER_HEX.fullmatch(digits):
        raise InvalidAddress("wrong_case")


def move(address: str) -> Payable:
    """`0x` and 64 hex digits (Aptos, Sui). Short forms such as `0x1` and 20-byte Ethereum accounts are refused."""
    if not address.startswith("0x"):
        raise InvalidAddress("wrong_form")
    digits = address[2:]
    if len(digits) != 64:
        # 40 digits are an Ethereum account; any other shorter number may have lost its leading zeros, as some wallets write
        # it (AIP-40).
        if 0 < len(digits) < 64 and len(digits) != 40 and _HEX.fullmatch(digits):
            raise InvalidAddress("unsupported_form", "Use the full address: 0x and 64 digits, leading zeros included.")
        raise InvalidAddress("wrong_length")
    if not _HEX.fullmatch(digits):
        raise InvalidAddress("bad_characters")
    if int(digits, 16) < _RESERVED:
        raise InvalidAddress("burn_address")
    return Payable(address.lower(), ("no_checksum",))


def icon(address: str) -> Payable:
    """`hx` and 40 small hex digits; `cx` contracts are refused (policy)."""
    if address.startswith("cx"):
        raise InvalidAddress("unsupported_form", "This is a contract, not a wallet.")
    if not address.startswith("hx"):
        raise InvalidAddress("wrong_prefix")
    _lower(address[2:], 40)
    if not int(address[2:], 16):
        raise InvalidAddress("burn_address")
    return Payable(address, ("no_checksum",))


_PRINCIPAL = re.compile(r"([a-z2-7]{5}-){1,12}[a-z2-7]{1,5}", re.ASCII)
# ICRC-1, textual encoding: the principal, a checksum, and the subaccount without its leading zeros.
_ICRC1 = re.compile(_PRINCIPAL.pattern + r"-[a-z2-7]{7}\.[0-9a-f]{1,64}", re.ASCII)


def internet_computer(address: str) -> Payable:
    """Account identifier: 64 hex digits, the first four bytes a CRC32. Principals are refused (policy)."""
    if _PRINCIPAL.fullmatch(address) or _ICRC1.fullmatch(address):
        raise InvalidAddress("unsupported_form", "This is a principal; use the account identifier, 64 digits.")
    _lower(address, 64)
    data = bytes.fromhex(address)
    if crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise InvalidAddress("bad_checksum")
    return Payable(address)


def casper(address: str) -> Payable:
    """Public key: `01` and 32 bytes (ed25519), `02` and 33 (secp256k1).

    The checksum is in the case of the letters and exists only when the case is mixed: bits of BLAKE2b-256 over the key
    without its algorithm byte, lowest bit first, one per letter. (The text of CEP-57 says otherwise; this is what nodes
    do.) A key off its curve is refused, as nodes do; that also finds half the typos in text without checksum.
    """
    kind, digits = address[:2], address[2:]
    if kind not in ("01", "02"):
        raise InvalidAddress("unsupported_form" if address.startswith("account-hash-") else "wrong_prefix")
    if len(digits) != (64 if kind == "01" else 66):
        raise InvalidAddress("wrong_length")
    if not _HEX.fullmatch(digits):
        raise InvalidAddress("bad_characters")
    key = bytes.fromhex(digits)
    if not any(key):
        raise InvalidAddress("burn_address")
    if not (on_curve(key) if kind == "01" else compressed(key)):
        raise InvalidAddress("not_payable", "The key inside this address is not a valid key.")
    right = casper_checksummed(digits)
    one_case = digits in (digits.lower(), digits.upper())
    if digits != right and not one_case:
        raise InvalidAddress("bad_checksum")
    return Payable(kind + right, ("no_checksum",) if one_case else ())


def casper_checksummed(digits: str) -> str:
    """Hex digits in the case that carries the checksum."""
    lower = digits.lower()
    bits = int.from_bytes(blake2b_256(bytes.fromhex(lower)), "little")
    letters = []
    for letter in lower:
        if letter > "9":
            letters.append(letter.upper() if bits & 1 else letter)
            bits >>= 1
        else:
            letters.append(letter)
    return "".join(letters)


def siacoin(address: str) -> Payable:
    """76 small hex digits: 32 bytes and six of their BLAKE2b-256."""
    _lower(address, 76)
    data = bytes.fromhex(address)
    if blake2b(data[:32], digest_size=32).digest()[:6] != data[32:]:
        raise InvalidAddress("bad_checksum")
    if not any(data[:32]):
        raise InvalidAddress("burn_address")
    return Payable(address)


# 43 characters hold two bits more than 32 bytes; these are the last characters whose two bits are zero.
_FULL_BYTES = frozenset("AEIMQUYcgkosw048")


def arweave(address: str) -> Payable:
    """43 characters of base64url without padding, which is 32 bytes with nothing left over."""
    if len(address) != 43:
        raise InvalidAddress("wrong_length")
    if not _BASE64URL.fullmatch(address):
        raise InvalidAddress("bad_characters")
    if address[-1] not in _FULL_BYTES:
        raise InvalidAddress("bad_checksum")
    if not address.strip("A"):
        raise InvalidAddress("burn_address")
    return Payable(address, ("no_checksum",))
