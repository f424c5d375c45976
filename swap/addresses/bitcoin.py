"""Base58Check accounts and segregated witness: Bitcoin, its relatives, and chains that borrowed the format.

A Base58Check payload is one to three version bytes and a hash; the version decides network and kind. Sources: each
reference client's chainparams.cpp (`base58Prefixes`, `bech32_hrp`), BIP-13, BIP-173, BIP-350; Tron protocol
documentation "account address format"; Tezos `base58.ml`; NEO3 `AddressVersion`; Ontology SDK.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from swap.addresses import base58, bech32
from swap.addresses.digests import sha256d
from swap.addresses.payable import Payable, Rule
from swap.addresses.refusals import InvalidAddress

_HASH = 20
_TRON = b"\x41"
_TRON_HEX = re.compile(r"41[0-9a-fA-F]{40}", re.ASCII)
# A hash of zeros has no known preimage. The named ones are the well-known sinks whose text was chosen, not derived.
_NOBODY = bytes(_HASH)
_SINKS = frozenset(
    {
        "1BitcoinEaterAddressDontSendf59kuE",
        "1CounterpartyXXXXXXXXXXXXXXXUWLpVr",
        "DDogepartyxxxxxxxxxxxxxxxxxxw1dfzr",
        "tz1burnburnburnburnburnburnburjAYjjX",
    }
)


def account(
    *versions: bytes,
    sizes: range = range(26, 36),
    elsewhere: dict[bytes, Callable[[bytes], InvalidAddress]] | None = None,
    contracts: frozenset[str] = frozenset(),
    double_hash: Callable[[bytes], bytes] = sha256d,
) -> Rule:
    """A rule for version bytes and a 20-byte hash.

    `elsewhere` names versions that decode but must not be paid, and says why: it gets the hash. `contracts` are
    accounts of well-known tokens, which users paste instead of their own.
    """
    width = len(versions[0])
    refused = elsewhere or {}

    def rule(address: str) -> Payable:
        if len(address) not in sizes:
            raise InvalidAddress("wrong_length")
        data = base58.decode(address)
        payload = data[:-4]
        version, body = payload[:width], payload[width:]
        # Version first: hashing is the dear part, and what another network owns is for the hint to find out.
        if version not in versions and version not in refused:
            raise InvalidAddress("wrong_prefix")
        if len(body) != _HASH:
            raise InvalidAddress("wrong_length")
        if double_hash(payload)[:4] != data[-4:]:
            raise InvalidAddress("bad_checksum")
        if version in refused:
            raise refused[version](body)
        if body == _NOBODY or address in _SINKS:
            raise InvalidAddress("burn_address")
        if address in contracts:
            raise InvalidAddress("token_contract")
        return Payable(address)

    return rule


def with_segwit(legacy: Rule, hrp: str, *, taproot: bool = False) -> Rule:
    """A rule for `hrp1...` beside the Base58Check forms of `legacy`.

    Taproot only where it is known to be active: on another chain a version 1 output is anyone's to spend. Later
    versions, and version 1 programs that are not 32 bytes (pay-to-anchor), have no owner today and are refused.
    """
    start = hrp + "1"

    def rule(address: str) -> Payable:
        if address[: len(start)].lower() != start:
            return legacy(address)
        version, program = bech32.decode_segwit(address, hrp)
        if version > 1 or (version == 1 and not (taproot and len(program) == 32)):
            raise InvalidAddress("unsupported_form", "This witness version is not in use on the network yet.")
        if program in (_NOBODY, bytes(32)):
            raise InvalidAddress("burn_address")
        return Payable(address.lower())

    return rule


def same_as_bitcoin_script(version: bytes, name: str) -> dict[bytes, Callable[[bytes], InvalidAddress]]:
    """Refuses the old `3...` form (version 5) and shows the modern spelling of the same hash."""

    def refuse(body: bytes) -> InvalidAddress:
        modern = base58.encode_check(version + body)
        return InvalidAddress(
            "legacy_form",
            f"The same text is a Bitcoin address. If it is really yours on {name}, its modern form is {modern}.",
        )

    return {b"\x05": refuse}


def no_pay_to_script() -> dict[bytes, Callable[[bytes], InvalidAddress]]:
    """Bitcoin SV removed pay-to-script-hash in 2020: what is sent to `3...` cannot be spent."""
    return {
        b"\x05": lambda _body: InvalidAddress(
            "not_payable", "Bitcoin SV has no addresses that start with 3; this may be a Bitcoin address."
        )
    }


def tezos(address: str) -> Payable:
    """`tz1` ed25519, `tz2` secp256k1, `tz3` P-256, `tz4` BLS accounts; `KT1` contracts are refused (policy)."""
    if len(address) != 36:
        raise InvalidAddress("wrong_length")
    return _TEZOS(address)


_TEZOS = account(
    b"\x06\xa1\x9f",
    b"\x06\xa1\xa1",
    b"\x06\xa1\xa4",
    b"\x06\xa1\xa6",
    sizes=range(36, 37),
    elsewhere={b"\x02\x5a\x79": lambda _body: InvalidAddress("unsupported_form", "This is a contract, not a wallet.")},
)


def zcash(address: str) -> Payable:
    """Transparent `t1` and `t3` (ZIP 173 calls them p2pkh and p2sh); the upstream pays nothing else.

    Unified (ZIP 316) and Sapling forms are recognised by their checksum only, to say what to do instead.
    """
    for start, constant in (("u1", bech32.BECH32M), ("zs1", bech32.BECH32), ("tex1", bech32.BECH32M)):
        if address.startswith(start) and len(address) <= 1000:
            hrp, _, found = bech32.decode(address, 1000)
            if hrp + "1" == start and found == constant:
                raise InvalidAddress(
                    "unsupported_form", "Use the transparent address of the same wallet; it starts with t1."
                )
    return _TRANSPARENT(address)


_TRANSPARENT = account(b"\x1c\xb8", b"\x1c\xbd", sizes=range(35, 36))


def tron(contracts: frozenset[str]) -> Rule:
    """`T...`: version 0x41 and 20 bytes. The same account in hex, as nodes write it, is refused with its Base58 form."""
    rule = account(_TRON, contracts=contracts)

    def either(address: str) -> Payable:
        if _TRON_HEX.fullmatch(address):
            modern = base58.encode_check(bytes.fromhex(address))
            raise InvalidAddress("unsupported_form", f"This is Tron's hexadecimal form; wallets show it as {modern}.")
        return rule(address)

    return either
