"""The offline validator against published and derived vectors, and what its answers promise beyond yes and no.

A vector row: network, address, memo (optional), valid, reason, source, tier (must: the specification decides; policy: a
product choice), category.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from swap.addresses import WARNINGS, Verdict, memo_rule, network_code, validate
from swap.addresses.aliases import ALIASES
from swap.addresses.aliases import _resolve as titles_cache
from swap.addresses.hints import explain_whitespace
from swap.addresses.lightning import decode as decode_invoice
from swap.addresses.memos import MEMOS
from swap.addresses.networks import NETWORKS
from swap.addresses.refusals import MESSAGES

# Titles as the upstream's catalog writes them, where they differ from the code of the vectors.
TITLES = {
    "TRC20": ("USDT", "TRC20"),
    "ERC20": ("USDT", "ERC20"),
    "BEP20": ("USDT", "BEP20"),
    "BASE": ("ETH", "BASE"),
    "ARBITRUM": ("ETH", "ARBITRUM"),
    "OPTIMISM": ("ETH", "OPTIMISM"),
    "MATIC": ("POL", "POLYGON"),
    "AVAXC": ("AVAX", "AVAX C-Chain"),
    "DOT": ("DOT", "Asset Hub(Polkadot)"),
    "KSM": ("KSM", "KUSAMA"),
    "KAS": ("KAS", "KASPA"),
    "XEM": ("XEM", "NEM"),
    "TAO": ("TAO", "Bittensor"),
    "TIA": ("TIA", "CELESTIA"),
    "ROSE": ("ROSE", "OASIS"),
    "LN": ("BTC", "LIGHTNING"),
    "AVAXX": ("AVAX", "AVAX X-Chain"),
    "BEP2": ("BNB", "BEP2"),
    "RSK": ("RBTC", "RSK"),
    "NEO3": ("NEO", "NEO3"),
    "NANO": ("XNO", "NANO"),
}


def _rows() -> dict[str, list[dict[str, Any]]]:
    rows = defaultdict(list)
    for path in sorted((Path(__file__).parent / "vectors").glob("*addresses.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            rows[row["network"]].append(row)
    return rows


ROWS = _rows()


def titles(code: str) -> tuple[str, str]:
    return TITLES.get(code, (code, code))


def ask(row: dict[str, Any]) -> Verdict:
    return validate(*titles(row["network"]), row["address"], row.get("memo"))


def valid_rows() -> list[dict[str, Any]]:
    return [row for rows in ROWS.values() for row in rows if row["valid"]]


@pytest.mark.parametrize("code", sorted(ROWS))
def test_every_vector_is_judged_as_it_is_labelled(code: str) -> None:
    wrong = []
    for row in ROWS[code]:
        verdict = ask(row)
        if verdict.valid is not row["valid"]:
            told = f"{row['tier']} {row['category']}: {row['reason']}"
            wrong.append(f"{told} | {row['address']!r} memo={row.get('memo')!r} -> {verdict.status} {verdict.reason}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_all_94_networks_of_the_vectors_have_a_rule() -> None:
    assert len(ROWS) == 94
    assert set(ROWS) <= set(NETWORKS)


def test_every_answer_is_complete() -> None:
    for rows in ROWS.values():
        for row in rows:
            verdict = ask(row)
            assert verdict.network == row["network"]
            assert verdict.memo_rule == memo_rule(*titles(row["network"]))
            assert all(warning in WARNINGS for warning in verdict.warnings)
            if verdict.status == "valid":
                assert (verdict.reason, verdict.field, verdict.hint) == (None, None, None)
                assert verdict.normalised
                assert verdict.send_address
            else:
                assert verdict.reason is not None and verdict.reason in MESSAGES
                assert verdict.message == MESSAGES[verdict.reason]
                assert verdict.field == ("memo" if verdict.reason.startswith("memo_") else "address")
                assert verdict.normalised is verdict.send_address is verdict.send_memo is None


def test_no_answer_repeats_what_was_typed() -> None:
    for rows in ROWS.values():
        for row in rows:
            verdict = ask(row)
            if verdict.valid is False and len(row["address"]) > 11:
                assert row["address"] not in f"{verdict.message} {verdict.hint}"


def test_normalising_twice_changes_nothing() -> None:
    for row in valid_rows():
        once = ask(row).normalised
        assert once is not None
        assert validate(*titles(row["network"]), once).normalised == once, row["address"]


def test_what_is_sent_is_what_was_typed_except_for_packed_addresses() -> None:
    for row in valid_rows():
        verdict = ask(row)
        if "converted" not in verdict.warnings:
            assert (verdict.send_address, verdict.send_memo) == (row["address"], row.get("memo"))


def test_what_is_sent_is_valid_itself_and_means_the_same() -> None:
    for row in valid_rows():
        verdict = ask(row)
        assert verdict.send_address is not None
        again = validate(*titles(row["network"]), verdict.send_address, verdict.send_memo)
        assert (again.valid, again.normalised) == (True, verdict.normalised), row["address"]
        assert (again.send_address, again.send_memo) == (verdict.send_address, verdict.send_memo)


# --- titles


@pytest.mark.parametrize(
    ("currency", "network", "code"),
    [
        ("USDT", "trc20", "TRC20"),
        ("USDT", "Tron", "TRC20"),
        ("ETH", "ETH", "ERC20"),
        ("ETH", "ERC20", "ERC20"),
        ("USDT", "BSC", "BEP20"),
        ("USDT", "BNB Smart Chain", "BEP20"),
        ("USDT", "BNB", "BEP20"),
        ("AVAX", "AVAX C-Chain", "AVAXC"),
        ("USDT", "AVAX", "AVAXC"),
        ("USDC", "SPL", "SOL"),
        ("XRP", "Ripple", "XRP"),
        ("BTC", "Bitcoin", "BTC"),
        ("A", "A", "EOS"),
        ("KAVA", "KAVA", "KAVA"),
        ("INJ", "Injective", "INJ"),
        ("LYX", "LUKSO", "LYX"),
    ],
)
def test_titles_are_found_without_regard_to_case(currency: str, network: str, code: str) -> None:
    assert network_code(currency, network) == code
    assert network_code(currency.lower(), network.upper()) == code


@pytest.mark.parametrize(
    ("currency", "network", "reason"),
    [
        ("BNB", "BNB", "network_ambiguous"),
        ("bnb", "Bnb", "network_ambiguous"),
        ("AVAX", "AVAX", "network_ambiguous"),
        ("USDT", "KAVA", "network_ambiguous"),
        ("USDC", "SEI", "network_ambiguous"),
        ("USDT", "INJ", "network_ambiguous"),
        ("HYDRA", "Hydragon", "network_unknown"),
        ("LUNC", "LUNC", "network_unknown"),
        ("NEO", "NEO", "network_unknown"),
        ("BTC", "", "network_unknown"),
        ("BTC", " BTC", "network_unknown"),
        ("BTC", "B" * 100_000, "network_unknown"),
    ],
)
def test_a_title_that_leaves_a_doubt_is_unchecked_and_never_guessed(currency: str, network: str, reason: str) -> None:
    verdict = validate(currency, network, "0x52908400098527886E0F7030069857D2E4169EE7", "7")
    assert (verdict.status, verdict.valid, verdict.reason, verdict.network) == ("unchecked", None, reason, None)
    assert (verdict.send_address, verdict.send_memo) == ("0x52908400098527886E0F7030069857D2E4169EE7", "7")
    assert network_code(currency, network) is None


def test_the_tables_name_only_networks_that_exist() -> None:
    assert set(MEMOS) <= set(NETWORKS)
    assert set(ALIASES.values()) == set(NETWORKS)
    assert all(code == network.code for code, network in NETWORKS.items())


# --- memos

XRP = "rGWrZyQqhTp9Xu7G5Pkayo7bXjH4k4QYpf"
XRP_TAG_1 = "X7AcgcsBL6XDcUb289X4mJ8djcdyKaGZMhc9YTE92ehJ2Fu"
XRP_NO_TAG = "X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"
XRP_TAG_0 = "XV4rQLRRmKVbusvf1Gds5irYmVbRgC45DTp2zk2apwWJT9S"
XLM = "GA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVSGZ"
XLM_MUXED = "MA7QYNF7SOWQ3GLR2BGMZEHXAVIRZA4KVWLTJJFC7MGXUA74P7UJVAAAAAAAAAAAAAJLK"
ATOM = "cosmos1hsk6jryyqjfhp5dhc55tc9jtckygx0eph6dd02"


@pytest.mark.parametrize(
    ("memo", "reason"),
    [
        ("0", None),
        ("4294967295", None),
        ("4294967296", "memo_out_of_range"),
        ("9" * 5000, "memo_out_of_range"),
        ("00", "memo_leading_zero"),
        ("007", "memo_leading_zero"),
        ("", "memo_empty"),
        ("+1", "memo_not_numeric"),
        ("-0", "memo_not_numeric"),
        ("1_000", "memo_not_numeric"),
        ("1e3", "memo_not_numeric"),
        ("1.0", "memo_not_numeric"),
        (" 1", "memo_not_numeric"),
        ("1\n", "memo_not_numeric"),
        ("²", "memo_not_numeric"),
        ("١٢", "memo_not_numeric"),
        ("１２", "memo_not_numeric"),
    ],
)
def test_a_destination_tag_is_plain_digits_of_32_bits(memo: str, reason: str | None) -> None:
    verdict = validate("XRP", "XRP", XRP, memo)
    assert verdict.reason == reason
    assert verdict.field == (None if reason is None else "memo")
    assert verdict.send_memo == (memo if reason is None else None)


def test_tag_zero_is_a_tag_and_no_tag_is_none() -> None:
    assert validate("XRP", "XRP", XRP_TAG_0).embedded_memo == "0"
    assert validate("XRP", "XRP", XRP_TAG_0).send_memo == "0"
    assert validate("XRP", "XRP", XRP_NO_TAG).embedded_memo is None
    assert validate("XRP", "XRP", XRP_NO_TAG).send_memo is None
    assert validate("XRP", "XRP", XRP, "0").send_memo == "0"


@pytest.mark.parametrize(
    ("address", "memo", "reason"),
    [
        (XRP_TAG_1, "1", None),
        (XRP_TAG_1, "2", "memo_conflict"),
        (XRP_TAG_1, "0", "memo_conflict"),
        (XRP_TAG_1, "01", "memo_leading_zero"),
        (XRP_TAG_0, "0", None),
        (XRP_NO_TAG, "1", "memo_conflict"),
        (XRP_NO_TAG, "0", "memo_conflict"),
    ],
)
def test_a_tag_inside_the_address_and_a_separate_one_must_agree(address: str, memo: str, reason: str | None) -> None:
    assert validate("XRP", "XRP", address, memo).reason == reason


def test_a_packed_address_is_taken_apart_and_its_tag_kept() -> None:
    verdict = validate("XRP", "XRP", XRP_TAG_1)
    classic = "r9cZA1mLK5R5Am25ArfXFmqgNwjZgnfk59"
    assert (verdict.normalised, verdict.embedded_memo) == (classic, "1")
    assert (verdict.send_address, verdict.send_memo) == (classic, "1")
    muxed = validate("XLM", "XLM", XLM_MUXED)
    assert (muxed.send_address, muxed.send_memo, muxed.embedded_memo) == (XLM, "9223372036854775808", muxed.send_memo)


def test_a_muxed_address_takes_no_memo_beside_its_own() -> None:
    assert validate("XLM", "XLM", XLM_MUXED, "9223372036854775808").reason == "memo_conflict"


def test_an_integrated_address_keeps_its_payment_id_inside() -> None:
    row = next(row for row in ROWS["XMR"] if row["valid"] and len(row["address"]) == 106)
    verdict = validate("XMR", "XMR", row["address"])
    assert verdict.embedded_memo is not None
    assert len(verdict.embedded_memo) == 16
    assert (verdict.send_address, verdict.send_memo) == (row["address"], None)
    assert validate("XMR", "XMR", row["address"], verdict.embedded_memo).reason == "memo_conflict"


@pytest.mark.parametrize(
    ("memo", "reason"),
    [
        ("a" * 28, None),
        ("é" * 14, None),
        ("é" * 15, "memo_too_long"),
        ("18446744073709551615", None),
        ("ab" * 32, None),
        ("AB" * 32, None),
        ("ab" * 31, "memo_too_long"),
        ("0123", None),
        (" x", "memo_spaces"),
        ("x\u200b", "memo_invisible"),
        ("a\nb", "memo_invisible"),
        ("\ud800", "memo_not_text"),
        ("日本語", None),
    ],
)
def test_a_stellar_memo_is_text_number_or_hash(memo: str, reason: str | None) -> None:
    verdict = validate("XLM", "XLM", XLM, memo)
    assert verdict.reason == reason
    if reason is None:
        assert verdict.send_memo == memo


@pytest.mark.parametrize(("code", "limit"), [(code, rule.max_bytes) for code, rule in MEMOS.items() if rule.max_bytes])
def test_text_limits_count_bytes(code: str, limit: int) -> None:
    address = next(row["address"] for row in ROWS[code] if row["valid"] and not row["address"].startswith("M"))
    assert validate(*titles(code), address, "x" * limit).valid
    assert validate(*titles(code), address, "é" * (limit // 2)).valid
    assert validate(*titles(code), address, "x" * (limit + 1)).reason == "memo_too_long"
    assert validate(*titles(code), address, "é" * (limit // 2 + 1)).reason == "memo_too_long"


@pytest.mark.parametrize("code", sorted(set(ROWS) - set(MEMOS)))
def test_a_memo_on_a_network_without_memos_is_refused_never_dropped(code: str) -> None:
    row = next(row for row in ROWS[code] if row["valid"] and len(row["address"]) != 106)
    assert validate(*titles(code), row["address"], "12345").reason == "memo_not_supported"
    assert memo_rule(*titles(code)).kind == "none"


def test_a_missing_memo_never_makes_an_address_invalid() -> None:
    for row in valid_rows():
        assert validate(*titles(row["network"]), row["address"]).valid


def test_memo_rules_use_the_words_people_know() -> None:
    names = {"XRP": "destination tag", "XLM": "memo", "TON": "comment", "ALGO": "note", "XEM": "message"}
    for code, name in names.items():
        assert memo_rule(code, code).name == name
    assert memo_rule("XRP", "Ripple").kind == "required-by-instrument"
    assert memo_rule("BNB", "BNB").kind == "required-by-instrument"


@pytest.mark.parametrize(
    ("code", "address", "memo", "warning"),
    [
        ("ATOM", ATOM, "two words", "memo_unusual_characters"),
        ("XLM", XLM, "12345", "memo_number_or_text"),
        ("XLM", XLM, "ab" * 32, "memo_is_hash"),
        ("HIVE", "alice", "#secret", "memo_asks_encryption"),
        ("RUNE", "thor157vzvw2chydgf8g4qu2cqhlsyhq0mydutmd0p7", "=:BTC.BTC:bc1q", "memo_is_order"),
        ("TON", "EQDYW_1eScJVxtitoBRksvoV9cCYo4uKGWLVNIHB1JqRR3n0", "x" * 124, "memo_long_comment"),
    ],
)
def test_a_memo_that_may_surprise_is_flagged(code: str, address: str, memo: str, warning: str) -> None:
    verdict = validate(code, code, address, memo)
    assert verdict.valid
    assert warning in verdict.warnings


# --- refusals that explain themselves


@pytest.mark.parametrize(
    ("code", "address", "reason"),
    [
        ("BTC", "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn", "secret_key"),
        ("XRP", "sEdSoAW7S72j3xegUPDwTUdKUEfFdAj", "secret_key"),
        ("XLM", "SAB5556L5AN5KSR5WF7UOEFDCIODEWEO7H2UR4S5R62DFTQOGLKOVZDY", "secret_key"),
        ("ETH", " ".join(["abandon"] * 11 + ["about"]), "secret_key"),
        ("BTC", "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn", "testnet"),
        ("BTC", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "testnet"),
        ("TON", "kQAimL8bmMR3MwTzF_8qsG4nWAj3yid160UChACjPyrc87Mb", "testnet"),
        ("BTC", "LKxLBXw88FRJ6usK4VXkJJ581HcihrvSsa", "other_network"),
        ("TRC20", "0x52908400098527886E0F7030069857D2E4169EE7", "other_network"),
        ("DOGE", "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a", "other_network"),
        ("ETH", "alice.eth", "name_not_address"),
        ("ETH", "0x52908400098527886E0F7030069857D2E4169EE7?amount=1", "payment_link"),
        ("ETH", '"0x52908400098527886E0F7030069857D2E4169EE7"', "payment_link"),
        ("XRP", XRP + ":12345", "payment_link"),
        ("XRP", XRP * 2, "pasted_twice"),
        ("NEAR", "alice.nearalice.near", "pasted_twice"),
        ("ETH", "undefined", "placeholder"),
        ("XLM", "123456789", "wrong_form"),
        ("ETH", "0x0000000000000000000000000000000000000000", "burn_address"),
        ("ETH", "0xdAC17F958D2ee523a2206206994597C13D831ec7", "token_contract"),
        ("ETH", "0x52908400098527886E0F7030069857D2E4169eE7", "bad_checksum"),
        ("BTC", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "bad_checksum"),
        ("ETH", "\u200b0x52908400098527886E0F7030069857D2E4169EE7", "non_ascii"),
        ("ETH", " 0x52908400098527886E0F7030069857D2E4169EE7", "whitespace"),
        ("ETH", "", "empty"),
        ("ETH", "x" * 100_000, "too_long"),
    ],
)
def test_a_refusal_says_what_the_text_is(code: str, address: str, reason: str) -> None:
    verdict = validate(code, code, address)
    assert (verdict.status, verdict.reason, verdict.field) == ("invalid", reason, "address")


@pytest.mark.parametrize(
    ("code", "address", "hint"),
    [
        ("BTC", "LKxLBXw88FRJ6usK4VXkJJ581HcihrvSsa", "This is a Litecoin address."),
        ("DOT", "EJ5UJ12GShfh7EWrcNZFLiYU79oogdtXFUuDDZzk7Wb2vCe", "This is a Kusama address."),
        ("LTC", "DPyAnWi7ugw3BzwtijYyz662RatP24ojZP", "This is a Dogecoin or DigiByte or Verge or PIVX address."),
        ("LTC", "35cEYyZk8C8Z4mnsyVxMJB9ra3a8cfpRic", "modern form is MBpNrryi5JyysH4n5Nwh7pQFtkAaaVbJZr."),
        ("BCH", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "modern form is bitcoincash:"),
        ("BTC", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx", "test network"),
    ],
)
def test_a_hint_names_the_network_or_the_modern_form(code: str, address: str, hint: str) -> None:
    assert hint in (validate(code, code, address).hint or "")


@pytest.mark.parametrize(
    ("code", "address", "network"),
    [
        ("AR", "band1n49ld9s2up9hyqmalk9pp5gtfjz9nak5g6g970", "Band"),
        ("SOL", "thor1txtyft3vjwdv5a647uhfcxywrqg9a997fah59e", "THORChain"),
        ("SOL", "vtc1qmtps35re9a7fuvsxg7d6fvtduh26zmw3unfh23", "Vertcoin"),
        ("NEAR", "4cb2ca5cfcfa1d952f8cd7f0ec46c96e1023ab057b83a2c7ce236b9e71ccca0b", "Internet Computer"),
    ],
)
def test_a_network_without_checksum_does_not_take_what_another_ones_checksum_proves(
    code: str, address: str, network: str
) -> None:
    verdict = validate(code, code, address)
    assert verdict.reason == "other_network"
    assert network in (verdict.hint or "")


def test_a_recovery_phrase_is_recognised_by_its_words() -> None:
    assert explain_whitespace("one two three")[0] == "whitespace"
    assert explain_whitespace(" ".join(["zebra"] * 24))[0] == "secret_key"


def test_warnings_of_addresses() -> None:
    assert validate("ETH", "ETH", "0x52908400098527886e0f7030069857d2e4169ee7").warnings == ("no_checksum",)
    assert validate("ETH", "ETH", "0xc6d9d2cd449a754c494264e1809c50e34d64562b").warnings == ("no_checksum",)
    assert validate("ETH", "ETH", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB").warnings == ()
    assert validate("ETH", "BASE", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB").warnings == ("same_form_elsewhere",)
    assert validate("USDT", "BASE", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB").warnings == ()
    assert validate("RBTC", "RSK", "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB").warnings == ("foreign_checksum",)
    assert "off_curve" in validate("SOL", "SOL", "GEMzwDyQ3ns6KvBPXBF2m6p4FXQzfP3upvFfnwMMf4Ap").warnings
    assert "network_shut_down" in validate("BNB", "BEP2", "bnb1h8xf9htasu9aclra954dnnve8fgcda4ae7qfa8").warnings


def test_equal_destinations_have_one_normal_form() -> None:
    pairs = [
        ("ETH", "0x52908400098527886e0f7030069857d2e4169ee7", "0x52908400098527886E0F7030069857D2E4169EE7"),
        ("BTC", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
        ("BCH", "qp3wjpa3tjlj042z2wv7hahsldgwhwy0rq9sywjpyy", "bitcoincash:qp3wjpa3tjlj042z2wv7hahsldgwhwy0rq9sywjpyy"),
        ("XDC", "xdc52908400098527886E0F7030069857D2E4169EE7", "0x52908400098527886E0F7030069857D2E4169EE7"),
        ("HBAR", "0.0.123-vfmkw", "0.0.123"),
    ]
    for code, one, other in pairs:
        assert validate(code, code, one).normalised == validate(code, code, other).normalised == other


def test_an_invoice_shows_amount_and_times() -> None:
    invoice = decode_invoice(
        "lnbc1pj48ugqpp5x7s4u2h9der0r2nzh3eyvgx2gsgdd827dmd3pthefns7c42hdpfqsp55ta3wl4gz2k0e0l4hysu5td79jwn8v"
        "9d4umpxh6qwfnlz0k6uw0sdq2wpshjmm4wsxqrrsscqpj9qyysgqefg8s6euad2gjednl5k9em3ppyjepyckxckjs9ra4vjspdk3"
        "a7tzk9w56d6kp09st9avx6dnkd0naf75y3gg67959lvwpqez647qdacqpnj5pm"
    )
    assert invoice.amount_msat is None
    assert invoice.expires_at - invoice.created_at == 3600


@pytest.mark.parametrize("nothing", [None, b"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", 7, True, [], {}, object()])
def test_anything_but_text_is_invalid(nothing: Any) -> None:
    assert validate("BTC", "BTC", nothing).reason == "not_text"
    assert validate("BTC", "nowhere", nothing).reason == "not_text"
    assert validate(nothing, nothing, "x").status == "unchecked"
    assert network_code(nothing, nothing) is None
    if nothing is not None:
        assert validate("XRP", "XRP", XRP, nothing).reason == "memo_not_text"


def test_a_verdict_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        validate("XRP", "XRP", XRP).status = "invalid"  # type: ignore[misc] # it is frozen


# --- what was found by fuzzing and by reading the specifications again


@pytest.mark.parametrize(
    ("code", "address", "reason"),
    [
        ("ADA", "addr1mykd6t", "wrong_length"),  # a right checksum over nothing
        ("CSPR", "01" + "02" + "00" * 31, "not_payable"),  # y = 2 is on no point of ed25519
        ("CSPR", "02" + "02" + "00" * 31 + "05", "not_payable"),  # x = 5 is on no point of secp256k1
        ("CSPR", "01" + "00" * 32, "burn_address"),
        ("NEAR", "0" * 64, "burn_address"),
        ("AR", "A" * 43, "burn_address"),
        (
            "FIL",
            "f3yaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaby2smx7a",
            "burn_address",
        ),
    ],
)
def test_an_account_that_nobody_can_hold_is_refused(code: str, address: str, reason: str) -> None:
    assert validate(code, code, address).reason == reason


def test_a_memo_that_shows_nothing_is_refused() -> None:
    for blank in "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0":
        assert validate("ATOM", "ATOM", ATOM, "12345" + blank).reason == "memo_invisible"


def test_titles_of_any_length_are_not_kept_in_memory() -> None:
    before = titles_cache.cache_info().currsize
    assert validate("BTC" * 100, "BTC" * 100_000, XRP).reason == "network_unknown"
    assert titles_cache.cache_info().currsize == before
