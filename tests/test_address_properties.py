"""What must hold for every address, not only for the ones somebody wrote down.

Addresses are made from random bytes by the codecs' own encoders. Examples are derandomised: a checksum of two bytes
lets one typo in 65,536 pass, which is a property of the format and no reason for a red build.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swap.addresses import (
    base58,
    bech32,
    cashaddr,
    ed25519,
    evm,
    hex_accounts,
    monero,
    names,
    own_checksums,
    ripple,
    secp256k1,
    ss58,
    stellar,
    ton,
    validate,
)
from swap.addresses.base32 import BECH32, CONFLUX, CROCKFORD, NANO, RFC4648, RFC4648_LOWER
from swap.addresses.blake256 import blake256d
from swap.addresses.digests import blake2b_256, keccak256, sha256d, sha512_256
from swap.addresses.networks import NETWORKS

quick = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
BASE58 = base58.BITCOIN.characters
LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
HEX = "0123456789abcdefABCDEF"


def _base58check(version: bytes, double_hash: Callable[[bytes], bytes] = sha256d) -> Callable[[bytes], str]:
    return lambda seed: base58.encode_check(version + seed[:20], double_hash=double_hash)


def _bech32(hrp: str, size: int, constant: int = bech32.BECH32) -> Callable[[bytes], str]:
    return lambda seed: bech32.encode_bytes(hrp, seed[:size], constant)


def _segwit(hrp: str, version: int, size: int) -> Callable[[bytes], str]:
    return lambda seed: bech32.encode_segwit(hrp, version, seed[:size])


def _cash(prefix: str, version: int, size: int) -> Callable[[bytes], str]:
    return lambda seed: cashaddr.encode(prefix, bytes([version]) + seed[:size])


def _monero(network: int) -> Callable[[bytes], str]:
    # Twice the base point of the curve, which is a valid key; the payment id varies.
    keys = (b"\x58" + b"\x66" * 31) * 2

    def make(seed: bytes) -> str:
        data = bytes([network]) + keys + (seed[:8] if network == 19 else b"")
        return monero.encode(data + keccak256(data)[:4])

    return make


def _byron(seed: bytes) -> str:
    payload = b"\x83\x58\x1c" + seed[:28] + b"\xa0\x00"
    checksum = crc32(payload)
    width = next(width for width in (1, 2, 4) if checksum < 1 << 8 * width)
    head = {1: b"\x18", 2: b"\x19", 4: b"\x1a"}[width]
    body = b"\x82\xd8\x18\x58" + bytes([len(payload)]) + payload + head + checksum.to_bytes(width, "big")
    return base58.encode(body)


def _invoice(seed: bytes) -> str:
    def field(tag: int, data: bytes) -> str:
        text = BECH32.encode(data)
        return BECH32.text(tag << 10 | len(text), 3) + text

    base_point = 0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798
    signature = BECH32.text(base_point << 264 | (int.from_bytes(seed[:31], "big") + 1) << 8, 104)
    fields = field(1, seed[:32]) + field(16, seed[:32][::-1]) + field(13, b"one coffee")
    return bech32.encode("lnbc25m", BECH32.text(1_700_000_000, 7) + fields + signature, bech32.BECH32)


def _siacoin(seed: bytes) -> str:
    return (seed[:32] + blake2b_256(seed[:32])[:6]).hex()


def _mina(seed: bytes) -> str:
    return base58.encode_check(b"\xcb\x01\x01" + seed[:31] + bytes([seed[31] & 0x3F, seed[30] & 1]))


def _nem(seed: bytes) -> str:
    data = b"\x68" + seed[:20]
    return RFC4648.encode(data + keccak256(data)[:4])


def _on_secp256k1(seed: bytes) -> bytes:
    """The first compressed key at or after the seed."""
    x = int.from_bytes(seed[:31], "big")
    while not secp256k1.on_curve(x):
        x += 1
    return b"\x02" + x.to_bytes(32, "big")


def _on_ed25519(seed: bytes) -> bytes:
    y = int.from_bytes(seed[:31], "little")
    while not ed25519.on_curve(y.to_bytes(32, "little")):
        y += 1
    return y.to_bytes(32, "little")


def _casper(kind: str) -> Callable[[bytes], str]:
    make_key = _on_ed25519 if kind == "01" else _on_secp256k1
    return lambda seed: kind + hex_accounts.casper_checksummed(make_key(seed).hex())


def _pointer(seed: bytes) -> str:
    return bech32.encode_bytes("addr", b"\x41" + seed[:28] + b"\x81\x00\x02\x03", bech32.BECH32)


def _filecoin_bls(seed: bytes) -> str:
    return own_checksums.filecoin_encode("3", seed + seed[:16])


def _hedera(seed: bytes) -> str:
    plain = f"0.0.{int.from_bytes(seed[:4], 'big') + 1}"
    return f"{plain}-{names.hip15(plain)}"


@dataclass(frozen=True)
class Form:
    """One form of address: who accepts it, how it is made, which characters its letters are mistyped as."""

    code: str
    make: Callable[[bytes], str]
    letters: str


# Version bytes of Base58Check accounts, human-readable parts of segregated witness and of accounts of 20 bytes.
VERSIONS = {
    "LTC": "30 32", "DOGE": "1e 16", "DASH": "4c 10", "BSV": "00", "BTG": "26 17", "DGB": "1e 3f", "VTC": "47 05",
    "RVN": "3c 7a", "KMD": "3c 55", "QTUM": "3a 32", "XVG": "1e 21", "FIRO": "52 07", "PIVX": "1e 0d",
    "ZEN": "2089 2096", "ZEC": "1cb8 1cbd", "TRC20": "41", "XTZ": "06a19f 06a1a1 06a1a4 06a1a6", "NEO3": "35", "ONT": "17",
}  # fmt: skip
SEGWIT = {"LTC": "ltc", "BTG": "btg", "DGB": "dgb", "VTC": "vtc", "QTUM": "qc"}
TWENTY_BYTES = {
    "ATOM": "cosmos", "OSMO": "osmo", "KAVA": "kava", "RUNE": "thor", "SEI": "sei", "TIA": "celestia", "DYDX": "dydx",
    "LUNA": "terra", "SCRT": "secret", "AXL": "axelar", "CRO": "cro", "BAND": "band", "AKT": "akash", "INJ": "inj",
    "BEP2": "bnb", "ZIL": "zil", "ONE": "one", "IOTX": "io",
}  # fmt: skip
NO_CHECKSUM = {"SOL", "APT", "SUI", "ICX", "AR", "NEAR", "EOS", "WAX", "HIVE", "STEEM"}

FORMS = {
    "BTC key": Form("BTC", _base58check(b"\x00"), BASE58),
    "BTC script": Form("BTC", _base58check(b"\x05"), BASE58),
    "BTC v0 key": Form("BTC", _segwit("bc", 0, 20), LOWER),
    "BTC v0 script": Form("BTC", _segwit("bc", 0, 32), LOWER),
    "BTC taproot": Form("BTC", _segwit("bc", 1, 32), LOWER),
    **{
        f"{code} {version}": Form(code, _base58check(bytes.fromhex(version)), BASE58)
        for code, versions in VERSIONS.items()
        for version in versions.split()
    },
    **{f"{code} v0": Form(code, _segwit(hrp, 0, 20), LOWER) for code, hrp in SEGWIT.items()},
    "DCR": Form("DCR", _base58check(b"\x07\x3f", blake256d), BASE58),
    "DCR script": Form("DCR", _base58check(b"\x07\x1a", blake256d), BASE58),
    "BCH": Form("BCH", _cash("bitcoincash", 0, 20), LOWER),
    "XEC": Form("XEC", _cash("ecash", 8, 20), LOWER),
    "KAS": Form("KAS", _cash("kaspa", 0, 32), LOWER),
    "KAS 33": Form("KAS", lambda seed: cashaddr.encode("kaspa", b"\x01\x02" + seed), LOWER),
    "CFX": Form("CFX", lambda seed: cashaddr.encode("cfx", b"\x00\x10" + seed[:19], CONFLUX), LOWER),
    # Hashed: the checksum is the letters' case, and an account of digits alone, which hypothesis loves, has none.
    "ERC20": Form("ERC20", lambda seed: "0x" + evm.checksummed(hashlib.sha256(seed).hexdigest()[:40]), HEX),
    "RSK": Form("RSK", lambda seed: "0x" + evm.checksummed(hashlib.sha256(seed).hexdigest()[:40], 30), HEX),
    "XDC": Form("XDC", lambda seed: "xdc" + evm.checksummed(hashlib.sha256(seed).hexdigest()[:40]), HEX),
    **{code: Form(code, _bech32(hrp, 20), LOWER) for code, hrp in TWENTY_BYTES.items()},
    "ROSE": Form("ROSE", _bech32("oasis", 21), LOWER),
    "EGLD": Form("EGLD", _bech32("erd", 32), LOWER),
    "XCH": Form("XCH", _bech32("xch", 32, bech32.BECH32M), LOWER),
    "AVAXX": Form("AVAXX", lambda seed: "X-" + _bech32("avax", 20)(seed), LOWER),
    "CKB": Form("CKB", lambda seed: bech32.encode_bytes("ckb", b"\x00" + seed + b"\x01", bech32.BECH32M), LOWER),
    "ADA": Form("ADA", lambda seed: bech32.encode_bytes("addr", b"\x61" + seed[:28], bech32.BECH32), LOWER),
    "ADA pay and stake": Form(
        "ADA", lambda seed: bech32.encode_bytes("addr", b"\x01" + seed[:28] + seed[4:], bech32.BECH32), LOWER
    ),
    "ADA pointer": Form("ADA", _pointer, LOWER),
    "ADA Byron": Form("ADA", _byron, BASE58),
    "DOT": Form("DOT", lambda seed: ss58.encode(0, seed), BASE58),
    "KSM": Form("KSM", lambda seed: ss58.encode(2, seed), BASE58),
    "ASTR": Form("ASTR", lambda seed: ss58.encode(5, seed), BASE58),
    "TAO": Form("TAO", lambda seed: ss58.encode(42, seed), BASE58),
    "XRP": Form("XRP", lambda seed: base58.encode_check(b"\x00" + seed[:20], base58.RIPPLE), base58.RIPPLE.characters),
    "XRP packed": Form(
        "XRP", lambda seed: ripple.pack(seed[:20], int.from_bytes(seed[20:24], "big")), base58.RIPPLE.characters
    ),
    "XLM": Form("XLM", stellar.encode, RFC4648.characters),
    "XLM muxed": Form("XLM", lambda seed: stellar.encode(seed, seed[0]), RFC4648.characters),
    "TON": Form("TON", lambda seed: ton.encode(0, seed), BASE58 + "0OIl-_"),
    "XMR": Form("XMR", _monero(18), BASE58),
    "XMR subaddress": Form("XMR", _monero(42), BASE58),
    "XMR integrated": Form("XMR", _monero(19), BASE58),
    "ALGO": Form("ALGO", lambda seed: RFC4648.encode(seed + sha512_256(seed)[-4:]), RFC4648.characters),
    "XEM": Form("XEM", _nem, RFC4648.characters),
    "NANO": Form("NANO", own_checksums.nano_encode, LOWER),
    "STX": Form("STX", lambda seed: own_checksums.stacks_encode(22, seed[:20]), CROCKFORD.characters),
    "FIL f1": Form("FIL", lambda seed: own_checksums.filecoin_encode("1", seed[:20]), RFC4648_LOWER.characters),
    "FIL f3": Form("FIL", _filecoin_bls, RFC4648_LOWER.characters),
    "FIL f4": Form("FIL", lambda seed: own_checksums.filecoin_encode("4", seed[:20]), RFC4648_LOWER.characters),
    "WAVES": Form("WAVES", lambda seed: own_checksums.waves_encode(seed[:20]), BASE58),
    "ERG": Form("ERG", lambda seed: own_checksums.ergo_encode(_on_secp256k1(seed)), BASE58),
    "AE": Form("AE", lambda seed: "ak_" + base58.encode_check(seed), BASE58),
    "MINA": Form("MINA", _mina, BASE58),
    "SC": Form("SC", _siacoin, "0123456789abcdef"),
    "ICP": Form("ICP", lambda seed: crc32(seed[:28]).to_bytes(4, "big").hex() + seed[:28].hex(), "0123456789abcdef"),
    "CSPR 01": Form("CSPR", _casper("01"), HEX),
    "CSPR 02": Form("CSPR", _casper("02"), HEX),
    "HBAR": Form("HBAR", _hedera, LOWER),
    "LN": Form("LN", _invoice, LOWER),
}

# The first byte is not zero: accounts of zeros belong to nobody and are refused.
seeds = st.builds(lambda first, rest: bytes([first]) + rest, st.integers(1, 255), st.binary(min_size=31, max_size=31))
every_form = pytest.mark.parametrize("name", sorted(FORMS))


def test_every_rule_with_a_checksum_is_among_the_forms() -> None:
    tried = {NETWORKS[form.code].rule for form in FORMS.values()}
    assert {code for code, network in NETWORKS.items() if network.rule not in tried} == NO_CHECKSUM


@every_form
@settings(quick, max_examples=10)
@given(seed=seeds)
def test_what_is_encoded_is_valid_and_its_normal_form_is_stable(name: str, seed: bytes) -> None:
    form = FORMS[name]
    verdict = validate(form.code, form.code, form.make(seed))
    assert verdict.valid, verdict
    assert verdict.normalised is not None
    assert validate(form.code, form.code, verdict.normalised).normalised == verdict.normalised


@every_form
def test_one_wrong_character_is_refused_wherever_it_is(name: str) -> None:
    form, chance = FORMS[name], random.Random(name)
    for _ in range(3):
        address = form.make(b"\x01" + chance.randbytes(31))
        for place, right in enumerate(address):
            wrong = address[:place] + chance.choice(form.letters.replace(right, "")) + address[place + 1 :]
            assert validate(form.code, form.code, wrong).valid is False, wrong


@every_form
@settings(quick, max_examples=10)
@given(seed=seeds, data=st.data())
def test_a_shortened_a_lengthened_and_a_swapped_address_are_refused(
    name: str, seed: bytes, data: st.DataObject
) -> None:
    form = FORMS[name]
    address = form.make(seed)
    place = data.draw(st.integers(0, len(address) - 2))
    swapped = address[:place] + address[place + 1] + address[place] + address[place + 2 :]
    shorter = address[: -data.draw(st.integers(1, 4))]
    longer = address + data.draw(st.sampled_from(form.letters))
    for wrong in (shorter, longer, address * 2, " " + address, address + "\n", "\ufeff" + address):
        assert validate(form.code, form.code, wrong).valid is False, wrong
    if swapped != address:
        assert validate(form.code, form.code, swapped).valid is False, swapped


texts = st.one_of(
    st.text(max_size=120),
    st.text(alphabet=BASE58, min_size=20, max_size=110),
    st.text(alphabet=HEX + "x", max_size=70).map(lambda tail: "0x" + tail),
    st.builds(
        lambda name, seed, cut, tail: FORMS[name].make(seed)[:cut] + tail,
        st.sampled_from(sorted(FORMS)),
        seeds,
        st.integers(0, 120),
        st.text(max_size=3),
    ),
)


@settings(quick, max_examples=400)
@given(code=st.sampled_from(sorted(NETWORKS)), address=texts, memo=st.none() | texts)
def test_no_text_makes_the_validator_raise(code: str, address: str, memo: str | None) -> None:
    verdict = validate(code, code, address, memo)
    assert verdict.status in ("valid", "invalid", "unchecked")
    if verdict.valid:
        assert address.isascii()
        assert verdict.send_memo in (memo, verdict.embedded_memo)


@settings(quick, max_examples=30)
@given(address=texts)
def test_every_network_answers_every_text(address: str) -> None:
    for code in NETWORKS:
        validate(code, code, address)


@settings(quick, max_examples=100)
@given(currency=st.text(max_size=80), network=st.text(max_size=80), address=st.text(max_size=40))
def test_no_title_makes_the_validator_raise(currency: str, network: str, address: str) -> None:
    validate(currency, network, address)


@settings(quick, max_examples=150)
@given(data=st.binary(max_size=80))
def test_what_is_encoded_decodes_to_the_same(data: bytes) -> None:
    for digits in (base58.BITCOIN, base58.RIPPLE):
        assert base58.decode(base58.encode(data, digits), digits) == data
        assert base58.decode_check(base58.encode_check(data, digits), digits) == data
    for alphabet in (RFC4648, RFC4648_LOWER, BECH32, CONFLUX, NANO, CROCKFORD):
        assert alphabet.decode(alphabet.encode(data)) == data
    assert monero.decode(monero.encode(data)) == data
    for constant in (bech32.BECH32, bech32.BECH32M):
        assert bech32.decode_bytes(bech32.encode_bytes("tag", data, constant), "tag", constant, 200) == data
    if data:
        assert cashaddr.decode("tag", cashaddr.encode("tag", data).removeprefix("tag:")) == data


@settings(quick, max_examples=100)
@given(number=st.integers(0, 2**32 - 1), seed=seeds)
def test_a_packed_tag_comes_out_as_it_went_in(number: int, seed: bytes) -> None:
    packed = ripple.pack(seed[:20], number)
    assert validate("XRP", "XRP", packed).embedded_memo == str(number)
    assert validate("XRP", "XRP", packed, str(number)).valid
    assert validate("XRP", "XRP", packed, str(number ^ 1)).reason == "memo_conflict"


@settings(quick, max_examples=100)
@given(memo=st.text(max_size=60))
def test_an_accepted_memo_is_sent_unchanged(memo: str) -> None:
    for code, address in (
        ("XLM", "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"),
        ("STX", "SP2J6ZY48GV1EZ5V2V5RB9MP66SW86PYKKNRV9EJ7"),
    ):
        verdict = validate(code, code, address, memo)
        if verdict.valid:
            assert verdict.send_memo == memo
            assert memo.strip() == memo
            assert len(memo.encode()) <= 34
        else:
            assert verdict.field == "memo"


@settings(quick, max_examples=200)
@given(
    text=st.text(max_size=12) | st.from_regex(r"[+-]?[ 0]?[0-9_]{1,12}\n?", fullmatch=True),
)
def test_an_accepted_tag_is_the_plain_spelling_of_a_number(text: str) -> None:
    if validate("XRP", "XRP", "rGWrZyQqhTp9Xu7G5Pkayo7bXjH4k4QYpf", text).valid:
        assert str(int(text)) == text
        assert 0 <= int(text) < 2**32
