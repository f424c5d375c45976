"""Networks that use CashAddr: Bitcoin Cash, eCash, Kaspa, Conflux.

Sources: Bitcoin Cash specification "CashAddr" and CHIP-2022-02-CashTokens (token-aware types), eCash "cashaddr",
rusty-kaspa `crypto/addresses`, Conflux CIP-37.
"""

from __future__ import annotations

from swap.addresses import base58, cashaddr
from swap.addresses.base32 import CONFLUX
from swap.addresses.payable import Payable, Rule
from swap.addresses.refusals import InvalidAddress


def bitcoin_cash(prefix: str, name: str) -> Rule:
    """`prefix:q...` pay-to-key and `prefix:p...` pay-to-script with 20-byte hashes, the prefix optional.

    The prefix is part of the checksum, so leaving it out confuses nothing. All capitals are allowed (they make smaller
    QR codes). The old `1...` and `3...` forms are refused, with the modern spelling of the same hash as the hint.
    """
    head = prefix + ":"

    def rule(address: str) -> Payable:
        if len(address) > len(head) + 112:
            raise InvalidAddress("wrong_length")
        lower = address.lower()
        if ":" not in lower:
            if address[0] in "13" and len(address) < 36:
                raise _legacy(address, prefix, name)
            payload = lower
        elif lower.startswith(head):
            payload = lower[len(head) :]
        else:
            raise InvalidAddress("wrong_prefix")
        if address not in (lower, address.upper()):
            raise InvalidAddress("mixed_case")
        data = cashaddr.decode(prefix, payload)
        version, body = data[0], data[1:]
        if version in (0x0B, 0x10, 0x13, 0x18, 0x1B) and len(body) in (20, 32):
            raise InvalidAddress("unsupported_form", "Token-aware addresses and long script hashes are not paid to.")
        if version not in (0x00, 0x08):
            raise InvalidAddress("not_payable")
        if len(body) != 20:
            raise InvalidAddress("wrong_length")
        return Payable(head + payload)

    return rule


def _legacy(address: str, prefix: str, name: str) -> InvalidAddress:
    try:
        payload = base58.decode_check(address)
    except InvalidAddress as refusal:
        return refusal
    if len(payload) != 21 or payload[0] not in (0, 5):
        return InvalidAddress("wrong_prefix")
    modern = cashaddr.encode(prefix, bytes([8 if payload[0] else 0]) + payload[1:])
    return InvalidAddress(
        "legacy_form",
        f"The same text is a Bitcoin address. If it is really yours on {name}, its modern form is {modern}.",
    )


# Version byte -> size: Schnorr public key, ECDSA public key, script hash.
_KASPA_SIZES = {0: 32, 1: 33, 8: 32}


def kaspa(address: str) -> Payable:
    """`kaspa:` and a public key or script hash, small letters; nodes demand the prefix."""
    if len(address) > 80:
        raise InvalidAddress("wrong_length")
    prefix, colon, payload = address.partition(":")
    if not colon or prefix != "kaspa":
        raise InvalidAddress("wrong_case" if prefix.lower() == "kaspa" else "wrong_prefix")
    if not payload.islower():
        raise InvalidAddress("mixed_case")
    data = cashaddr.decode("kaspa", payload)
    size = _KASPA_SIZES.get(data[0])
    if size is None:
        raise InvalidAddress("not_payable")
    if len(data) != 1 + size:
        raise InvalidAddress("wrong_length")
    return Payable(address)


def conflux(address: str) -> Payable:
    """`cfx:` and a user account (first half-byte 1), short form, small letters.

    Contracts and built-in accounts are not wallets; the long `CFX:TYPE.USER:` form is refused (policy).
    """
    if not address.startswith("cfx:"):
        raise InvalidAddress("wrong_case" if address.lower().startswith("cfx:") else "wrong_prefix")
    if address.count(":") > 1:
        raise InvalidAddress("unsupported_form", "Use the short form, without the type in the middle.")
    payload = address[4:]
    if len(payload) != 42:
        raise InvalidAddress("wrong_length")
    data = cashaddr.decode("cfx", payload, CONFLUX)
    if data[0] != 0 or len(data) != 21:
        raise InvalidAddress("not_payable")
    if data[1] >> 4 != 1:
        raise InvalidAddress("not_payable", "This is a contract account; use the address of a wallet.")
    return Payable(address)
