"""What a refused text seems to be: another network's address, a test address, a secret key, a payment link.

Runs on refusals only. Beginnings pick the few networks worth asking, and their own rules decide, so a hint is as sure
as the verdict on that network would be. A hint never contains what was typed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from types import MappingProxyType

from swap.addresses import base58, bech32
from swap.addresses.digests import sha256d
from swap.addresses.networks import NETWORKS, Network
from swap.addresses.payable import LONGEST
from swap.addresses.refusals import InvalidAddress

_PLACEHOLDERS = frozenset(
    {
        "none",
        "null",
        "nil",
        "undefined",
        "nan",
        "true",
        "false",
        "address",
        "test",
        "string",
        "[object object]",
        "n/a",
        "-",
    }
)
_DIGITS = re.compile(r"[0-9]{1,20}", re.ASCII)
_HEX_KEY = re.compile(r"(?:0x)?[0-9a-fA-F]{64}", re.ASCII)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+-]{2,24}:", re.ASCII)
_TAGGED = re.compile(r"[A-Za-z0-9]{20,}:[0-9A-Za-z]{1,20}", re.ASCII)
_NAME_ENDINGS = (
    ".eth", ".sol", ".ton", ".btc", ".crypto", ".x", ".apt", ".sui", ".near", ".chain", ".algo", ".bnb", ".arb", ".zil",
    ".ada",
)  # fmt: skip
_NAMES = frozenset({"EOSIO name", "Graphene name", "NEAR name"})
# Chains that know an Ethereum-type form of address beside the one that is paid to.
_TWO_FORMS = frozenset({"KAVA", "SEI", "INJ", "CRO", "ONE", "IOTX"})
_PHRASE_LENGTHS = frozenset({12, 13, 15, 18, 21, 24, 25})
_AROUND = "\"'`<>()[]{},.;"

# Beginnings of secrets that carry no checksum of their own here, with the length that makes them one.
_SECRET_FORM = re.compile(
    "|".join(
        (
            r"s(?:Ed)?[1-9A-HJ-NP-Za-km-z]{26,29}",  # XRP Ledger seeds
            r"S[A-Z2-7]{55}",  # Stellar seed
            r"[xyztuv]prv[1-9A-HJ-NP-Za-km-z]{100,110}",  # BIP-32
            r"(?:edsk|spsk|p2sk|edesk)[1-9A-HJ-NP-Za-km-z]{30,100}",  # Tezos
            r"EK[1-9A-HJ-NP-Za-km-z]{50}",  # Mina
            r"PVT_(?:K1|R1)_[1-9A-HJ-NP-Za-km-z]{40,60}",  # EOSIO
            r"ed25519:[1-9A-HJ-NP-Za-km-z]{80,90}",  # NEAR
            r"secret-(?:extended-key|spending-key)-main1[a-z0-9]+",  # Zcash
            r"(?:nsec|suiprivkey|addr_sk|ed25519e?_sk|root_xsk|acct_xsk)1[a-z0-9]+",
        )
    ),
    re.ASCII,
)
# Version byte of Base58Check private keys (33 or 34 bytes) across Bitcoin's relatives.
_WIF_VERSIONS = frozenset({0x80, 0xB0, 0x9E, 0xCC, 0xEF, 0x99, 0xBC, 0xD4, 0xD2, 0xC7, 0xA6})

_TEST_HRPS = frozenset(
    {
        "tb", "bcrt", "tltc", "rltc", "tdgb", "dgbrt", "tvtc", "tbtg", "tq", "qcrt", "tbnb", "addr_test", "stake_test",
        "txch", "ckt", "tzil", "tone", "utest", "uregtest", "ztestsapling", "textest",
    }
)  # fmt: skip
_NOT_PAYABLE_HRPS = frozenset(
    {
        "stake", "sp", "addr_vk", "stake_vk", "pool", "drep", "script", "asset", "nft", "col", "did", "lno", "lnurl",
        "npub", "ltcmweb", "zxviews", "zivks", "uview", "uivk",
    }
)  # fmt: skip
_COSMOS_ROLES = ("valoper", "valcons", "pub", "valoperpub", "valconspub", "contract")
_TEST_PREFIXES = ("bchtest:", "bchreg:", "ectest:", "kaspatest:", "kaspadev:", "kaspasim:", "cfxtest:", "fuji")
_TEST_VERSIONS = {
    b"\x6f": 25, b"\xc4": 25, b"\x71": 25, b"\x8c": 25, b"\x13": 25, b"\xa0": 25, b"\x1d\x25": 26, b"\x1c\xba": 26,
    b"\x20\x98": 26, b"\x20\x92": 26,
}  # fmt: skip


def _index() -> dict[str, tuple[tuple[str, Network], ...]]:
    index: dict[str, list[tuple[str, Network]]] = defaultdict(list)
    for network in NETWORKS.values():
        for start in network.starts:
            index[start[0]].append((start, network))
    return {first: tuple(entries) for first, entries in index.items()}


_BY_FIRST = _index()
# No telling beginning, but a fixed length and a checksum.
_BY_LENGTH = MappingProxyType({58: NETWORKS["ALGO"], 64: NETWORKS["ICP"], 76: NETWORKS["SC"]})
_SOLANA = NETWORKS["SOL"]
# A refusal of the checksum means that everything before it was right, so only a definite find elsewhere overrules it.
_NEARLY_RIGHT = frozenset({"bad_checksum", "mixed_case"})


def explain(code: str, address: str, refusal: InvalidAddress) -> InvalidAddress:
    """A better reason than the rule's own "not of this network", or that one."""
    secret = _secret(address)
    if secret is not None:
        return secret
    if code in _TWO_FORMS and _accepts(NETWORKS["ERC20"], address):
        start = NETWORKS[code].starts[0]
        return InvalidAddress("unsupported_form", f"Only the form that starts with {start} is paid to here.")
    other = _other_network(code, address)
    if other is not None:
        return other
    if _is_test(address):
        return InvalidAddress("testnet", "This is an address of a test network.")
    if _is_not_payable(address):
        return InvalidAddress("not_payable")
    twice = _pasted_twice(address)
    if twice is not None:
        return twice
    if refusal.reason in _NEARLY_RIGHT:
        return refusal
    if _HEX_KEY.fullmatch(address):
        return InvalidAddress("wrong_form", "64 digits are a transaction id or a secret key; never share the latter.")
    found = None if NETWORKS[code].form in _NAMES else _wrapped(address, NETWORKS[code].starts)
    if found is None and _has_solana_form(code, address):
        return InvalidAddress(refusal.reason, "It has the form of a Solana address.")
    return found or refusal


def _pasted_twice(address: str) -> InvalidAddress | None:
    half = len(address) // 2
    return (
        InvalidAddress("pasted_twice") if half > 8 and address[:half] * 2 == address and len(set(address)) > 4 else None
    )


def _wrapped(address: str, own_starts: tuple[str, ...]) -> InvalidAddress | None:
    lower = address.lower()
    if lower in _PLACEHOLDERS:
        return InvalidAddress("placeholder")
    if _DIGITS.fullmatch(address):
        return InvalidAddress("wrong_form", "This looks like a memo or tag; it belongs into its own field.")
    if _TAGGED.fullmatch(address):
        return InvalidAddress("payment_link", "Put the memo into its own field.")
    if lower.startswith("address:") or address.strip(_AROUND) != address:
        return InvalidAddress("payment_link", "Remove what is around the address.")
    if "?" in address or "://" in address or (_SCHEME.match(address) and not address.startswith(own_starts)):
        return InvalidAddress("payment_link")
    if address[0] in "$@" or "*" in address or "@" in address or lower.endswith(_NAME_ENDINGS):
        return InvalidAddress("name_not_address")
    return None


def explain_whitespace(address: str) -> tuple[str, str | None]:
    """Reason and hint for ASCII text with spaces or control characters in it."""
    words = address.split()
    if len(words) in _PHRASE_LENGTHS and all(word.isalpha() and len(word) < 12 for word in words):
        return "secret_key", None
    if not words:
        return "empty", None
    if address.strip().lower() in _PLACEHOLDERS:
        return "placeholder", None
    if len(words) == 1:
        return "whitespace", "Remove the space or line break before or after the address."
    return "whitespace", "Paste the address alone, without spaces or other words."


def explain_unclean(address: str) -> str:
    """Hint for text with a character outside ASCII."""
    odd = next(character for character in address if not character.isascii())
    if unicodedata.category(odd) in ("Cf", "Cc", "Zs", "Zl", "Zp"):
        return "An invisible character came along when copying; copy the address again."
    return "One letter only looks like the right one; copy the address from its source."


def _secret(address: str) -> InvalidAddress | None:
    if _SECRET_FORM.fullmatch(address):
        return InvalidAddress("secret_key")
    if len(address) not in (51, 52, 87, 88):
        return None
    try:
        data = base58.decode(address)
    except InvalidAddress:
        return None
    if len(data) == 64:
        return InvalidAddress("secret_key", "Or, on Solana, the id of a transaction; neither can be paid to.")
    return InvalidAddress("secret_key") if len(data) in (37, 38) and data[0] in _WIF_VERSIONS else None


def _candidates(address: str) -> Iterator[Network]:
    # All capitals are legal in the forms that end up in QR codes, and nowhere else.
    for text in (address, address.lower()) if address.isupper() else (address,):
        for start, network in _BY_FIRST.get(text[0], ()):
            if text.startswith(start):
                yield network
    network_by_length = _BY_LENGTH.get(len(address))
    if network_by_length is not None:
        yield network_by_length


def _accepts(network: Network, address: str) -> bool:
    try:
        network.rule(address)
    except InvalidAddress as refusal:
        return refusal.reason in ("burn_address", "token_contract")
    return True


def _other_network(code: str, address: str) -> InvalidAddress | None:
    """The networks that would take the address; those with one rule for many are named by what they share."""
    tried = {NETWORKS[code].rule}
    networks = []
    for network in _candidates(address):
        if network.rule not in tried:
            tried.add(network.rule)
            if _accepts(network, address):
                networks.append(network)
    if not networks:
        return None
    if networks[0].form == NETWORKS["ERC20"].form:
        return InvalidAddress("other_network", "This is an address of Ethereum or a network of its kind.")
    names = " or ".join(network.name for network in networks)
    return InvalidAddress("other_network", f"This is {'an' if names[0] in 'AEIOaeioX' else 'a'} {names} address.")


def certainly_elsewhere(code: str, address: str) -> InvalidAddress | None:
    """Another network that takes the address by its checksum, for text that `code` took without one.

    Some Bech32 strings happen to be 43 characters of base64url, or base58 of 32 bytes; a checksum that holds is no
    accident.
    """
    own = NETWORKS[code].rule
    for network in _candidates(address):
        if network.rule is not own:
            try:
                payable = network.rule(address)
            except InvalidAddress:
                continue
            if "no_checksum" not in payable.warnings:
                return _other_network(code, address)
    return None


def _has_solana_form(code: str, address: str) -> bool:
    return code != _SOLANA.code and 43 <= len(address) <= 44 and _accepts(_SOLANA, address)


def _is_test(address: str) -> bool:
    lower = address.lower()
    if lower.startswith(_TEST_PREFIXES) or lower.startswith(("lntb", "lnbcrt", "lntbs")):
        return True
    if _hrp(lower) in _TEST_HRPS:
        return True
    if not 26 <= len(address) <= 36:
        return False
    try:
        data = base58.decode(address)
    except InvalidAddress:
        return False
    size = _TEST_VERSIONS.get(data[:1]) or _TEST_VERSIONS.get(data[:2])
    return size == len(data) and sha256d(data[:-4])[:4] == data[-4:]


def _is_not_payable(address: str) -> bool:
    hrp = _hrp(address.lower())
    if hrp not in _NOT_PAYABLE_HRPS and not hrp.endswith(_COSMOS_ROLES):
        return False
    try:
        bech32.decode(address, LONGEST)
    except InvalidAddress:
        return False
    return True


def _hrp(lower: str) -> str:
    """What stands before the last 1, which is the human-readable part if the text is Bech32 at all."""
    return lower.rpartition("1")[0]
