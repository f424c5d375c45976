"""The sandbox over real HTTP, judged by docs/upstream.md."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import requests

from swap.sandbox import rates, signature
from swap.sandbox.catalog import Catalog
from swap.sandbox.deposits import deposit_place
from swap.sandbox.networks import NETWORKS
from swap.sandbox.scenarios import SCENARIOS, scenario_addresses
from swap.sandbox.server import running
from swap.sandbox.wire import decimal_of, iso, plain
from swap.sandbox.world import World

pytestmark = pytest.mark.server

PUBLIC, SECRET = "pk_test_4f0c2b7e9a", "sk_test_0d5e81c3a6f24b79"
MS, SECONDS = "1760000000000", "1760000000"
ADDRESSES = scenario_addresses()
V1_BODY = (
    b'{"instrumentFrom":{"currencyTitle":"BTC","networkTitle":"BTC"},"instrumentTo":{"currencyTitle":"USDT",'
    b'"networkTitle":"TRC20"},"destinationAddress":"TExampleDestination0000000000000001",'
    b'"refundAddress":"bc1qexamplerefund0000000000000000000001","claimedDepositAmount":"0.0125",'
    b'"rateMode":"FLOATING","referrerId":"aff_1"}'
)


class Upstream:
    """A client that signs by itself, so that the server's own signing code proves nothing to itself."""

    def __init__(self, url: str, world: World) -> None:
        self.url, self.world, self.http = url, world, requests.Session()

    def headers(self, text: bytes, *, timestamp: str | None = None) -> dict[str, str]:
        timestamp = timestamp or str(int(time.time() * 1000))
        string = timestamp.encode() + text + PUBLIC.encode()
        digest = hmac.new(SECRET.encode(), string, hashlib.sha256).digest()
        return {
            "x-api-public-key": PUBLIC,
            "x-api-timestamp": timestamp,
            "x-api-signature": base64.b64encode(digest).decode(),
        }

    def post(self, path: str, body: Any, **changed: str) -> requests.Response:
        raw = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        headers = {**self.headers(raw), "Content-Type": "application/json", **changed}
        return self.http.post(self.url + path, data=raw, headers=headers)

    def get(self, path: str, **query: str) -> requests.Response:
        return self.http.get(self.url + path, params=query)

    def create(self, destination: str | None = None, **changed: Any) -> requests.Response:
        body: dict[str, Any] = {
            "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
            "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
            "destinationAddress": destination or ADDRESSES["completes"]["TRC20"],
            "claimedDepositAmount": "0.0125",
        }
        return self.post("/api/v2/orders/public/create", {**body, **changed})

    def info(self, order: dict[str, Any]) -> requests.Response:
        return self.get(
            "/api/v2/orders/public-info", orderId=str(order["orderId"]), destinationAddress=order["destinationAddress"]
        )

    def listed(self) -> list[dict[str, Any]]:
        answer = self.http.get(self.url + "/api/v2/orders/public", headers=self.headers(b""))
        assert answer.status_code == 200
        return list(answer.json())


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    world = World(PUBLIC, SECRET)
    with running(world) as url:
        client = Upstream(url, world)
        yield client
        client.http.close()


def verdict(timestamp: str, given: str, texts: list[bytes]) -> str | None:
    headers = signature.SignatureHeaders(PUBLIC, timestamp, given)
    return signature.problem(headers, texts, public_key=PUBLIC, secret_key=SECRET, clocks=(1760000000.0,))


BTC_USDT = {
    "instrumentFromCurrencyTitle": "BTC",
    "instrumentFromNetworkTitle": "BTC",
    "instrumentToCurrencyTitle": "USDT",
    "instrumentToNetworkTitle": "TRC20",
}

# --- signatures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timestamp", "texts", "given"),
    [
        pytest.param(MS, [V1_BODY], "nqzpN/XwC6GWDgZLW18xnyg6E+D8qNLnSA6wFFeNpJg=", id="V1"),
        pytest.param(MS, [b""], "7Kp72Cg1Jt5tY10oASrd/PyityzhBblERVr99TbFhD8=", id="V2"),
        pytest.param(
            MS,
            [b"orderId=90210&destinationAddress=TExampleDestination0000000000000001"],
            "MV9cVWFtVxH2sMd6X4yGK5gfEU3lBLeX81Oo8Yqy5Ps=",
            id="V3",
        ),
        pytest.param(
            SECONDS,
            signature.body_texts(b'{"currencyTitle": "USDT", "networkTitle": "TRC20"}'),
            "RfLjABpR6LIq5irvrlJr7CeRg1rj45wi8iCbLhVM1tM=",
            id="V4",
        ),
        pytest.param(
            SECONDS,
            signature.body_texts(b'{"currencyTitle": "USDT", "networkTitle": "TRC20"}'),
            "GRiCb68gcZg7KMc9pB8AVEKu9XLkbsjlGrkoVbnmFKc=",
            id="V4!",
        ),
        pytest.param(
            MS,
            signature.body_texts('{"note":"ä"}'.encode()),
            "/Xzxd83IoQz75SBKWHgLFF2+IhWvzyhwWVrAXU4rLeI=",
            id="V5",
        ),
        pytest.param(
            MS,
            signature.body_texts(b'{"note": "\\u00e4"}'),
            "/Xzxd83IoQz75SBKWHgLFF2+IhWvzyhwWVrAXU4rLeI=",
            id="V5 sent escaped",
        ),
        pytest.param(
            MS,
            signature.body_texts(b'{"note":"\\u00e4"}'),
            "7PDiv5melJEJ1LRuoWOpwpy9+kfAbJFokc9GmIHFH2M=",
            id="V5e",
        ),
    ],
)
def test_every_published_signature_is_accepted(timestamp: str, texts: list[bytes], given: str) -> None:
    assert verdict(timestamp, given, texts) is None


def test_a_get_signed_over_an_empty_object_is_refused() -> None:
    assert verdict(MS, "fcOpfnh1Esfzsf4kNDqOp8P8GNbYen3J3oSgmuDU1vo=", [b""]) == "signature rejected"


def test_an_ascii_escaped_signature_does_not_fit_a_raw_body() -> None:
    texts = signature.body_texts('{"note":"ä"}'.encode())
    assert verdict(MS, "7PDiv5melJEJ1LRuoWOpwpy9+kfAbJFokc9GmIHFH2M=", texts) == "signature rejected"


def test_one_flipped_bit_is_refused() -> None:
    assert verdict(MS, "7Kp72Cg1Jt5tY10oASrd/PyityzhBblERVr99TbFhD9=", [b""]) == "signature rejected"
    assert verdict(MS, "7Kp72Cg1Jt5tY10oASrd/PyityzhBblERVr99TbFhE8=", [b""]) == "signature rejected"


@pytest.mark.parametrize(
    ("seconds_off", "accepted"), [(0, True), (299, True), (-299, True), (301, False), (-301, False)]
)
def test_a_timestamp_may_be_five_minutes_off(seconds_off: int, accepted: bool) -> None:
    timestamp = str(1760000000000 + seconds_off * 1000)
    given = signature.sign(SECRET, PUBLIC, timestamp, b"")
    assert (verdict(timestamp, given, [b""]) is None) is accepted


@pytest.mark.parametrize("timestamp", ["", "17600000000", "1760000000.0", "١٧٦٠٠٠٠٠٠٠", "-176000000"])
def test_a_timestamp_is_ten_or_thirteen_digits(timestamp: str) -> None:
    assert verdict(timestamp, signature.sign(SECRET, PUBLIC, timestamp, b""), [b""]) is not None


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ('{ "b" : 1.0, "a" : null }', '{"b":1,"a":null}'),
        ('{"b":1,"2":1,"1":1}', '{"1":1,"2":1,"b":1}'),
        ('{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'),
        ("[0.1,1e21,1e-7,1.5E-7,-0,1e20,0.000001]", "[0.1,1e+21,1e-7,1.5e-7,0,100000000000000000000,0.000001]"),
        ("123456789012345678901", "123456789012345680000"),
        ('"\\u00e4\\u20ac\\/\\u0001\\n"', '"ä€/\\u0001\\n"'),
        ('"\\ud800"', '"\\ud800"'),
        ("[true,false,[],{}]", "[true,false,[],{}]"),
    ],
)
def test_the_canonical_form_is_what_javascript_would_write(sent: str, canonical: str) -> None:
    assert signature.canonical_json(sent.encode()) == canonical.encode()


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"\xff", b"[1,]"])
def test_what_is_not_json_has_no_canonical_form(body: bytes) -> None:
    assert signature.canonical_json(body) is None
    assert signature.body_texts(body) == [body]


def test_a_signed_endpoint_refuses_missing_unknown_and_wrong_signatures(upstream: Upstream) -> None:
    path, body = "/api/v2/instruments/public/one", {"currencyTitle": "BTC", "networkTitle": "BTC"}
    assert upstream.post(path, body).status_code == 201
    bare = upstream.http.post(upstream.url + path, json=body)
    unknown = upstream.post(path, body, **{"x-api-public-key": "pk_other"})
    wrong = upstream.post(path, body, **{"x-api-signature": "A" * 43 + "="})
    assert [answer.status_code for answer in (bare, unknown, wrong)] == [401, 401, 401]
    assert "signature" in bare.json()["message"]
    assert "unknown API key" in unknown.json()["message"]
    assert "signature" in wrong.json()["message"]


def test_an_unsigned_endpoint_ignores_a_signature(upstream: Upstream) -> None:
    answer = upstream.http.get(
        upstream.url + "/api/v2/instruments/public", headers={"x-api-public-key": "nobody", "x-api-signature": "bad"}
    )
    assert answer.status_code == 200


def test_the_list_with_pagination_fails_an_empty_signature_and_takes_the_raw_query(upstream: Upstream) -> None:
    url = upstream.url + "/api/v2/orders/public?offset=0&limit=10"
    assert upstream.http.get(url, headers=upstream.headers(b"")).status_code == 401
    assert upstream.http.get(url, headers=upstream.headers(b"offset=0&limit=10")).status_code == 200


def test_a_signed_query_elsewhere_may_leave_the_query_out(upstream: Upstream) -> None:
    query = "&".join(f"{name}={value}" for name, value in BTC_USDT.items())
    for text in (b"", query.encode()):
        answer = upstream.http.get(f"{upstream.url}/api/v2/pairs/one?{query}", headers=upstream.headers(text))
        assert answer.status_code == 200
        assert isinstance(answer.json()["minAmountUSDT"], float)
        assert isinstance(answer.json()["minAmount"], str)


def test_advancing_the_world_does_not_lock_out_a_client(upstream: Upstream) -> None:
    upstream.world.advance(86400)
    assert upstream.listed() == []


# --- catalog ----------------------------------------------------------------------------------------------------------


def test_the_catalog_lists_instruments_of_many_networks_and_fiat(upstream: Upstream) -> None:
    rows = upstream.get("/api/v2/instruments/public").json()
    assert rows == upstream.get("/api/v1/instruments/public").json()
    by_key = {(row["currencyTitle"], row["networkTitle"]): row for row in rows}
    assert len(by_key) == len(rows) >= 30
    assert len({row["slug"] for row in rows}) == len(rows)
    assert by_key["XRP", "XRP"]["requiresMemo"] is True
    assert by_key["USDT", "TRC20"]["slug"] == "usdttrc20"
    assert by_key["BTC", "BTC"]["contractAddress"] == ""
    assert by_key["AVAX", "AVAX C-Chain"]["instrumentType"] == "crypto"
    assert {row["currencyTitle"] for row in rows if row["instrumentType"] == "fiat"} == {"EUR", "USD", "RON", "BGN"}


def test_the_large_catalog_has_200_instruments_40_fiat_and_20000_directed_pairs() -> None:
    with running(World(PUBLIC, SECRET, large=True)) as url:
        rows = requests.get(f"{url}/api/v2/instruments/public", timeout=10).json()
        assert len({(row["currencyTitle"], row["networkTitle"]) for row in rows}) == len(rows) == 200
        assert sum(row["instrumentType"] == "fiat" for row in rows) == 40
        pairs, pages = 0, 0
        while page := requests.get(f"{url}/api/v2/pairs/public?offset={pairs}&limit=500", timeout=10).json():
            pairs, pages = pairs + len(page), pages + 1
        assert (pairs, pages) == (20_000, 40)
    catalog = Catalog(large=True)
    assert len({(pair.source.key, pair.target.key) for pair in catalog.pairs}) == 20_000


@pytest.mark.parametrize("large", [False, True])
def test_every_crypto_instrument_hands_out_unique_valid_deposit_addresses(large: bool) -> None:
    for instrument in Catalog(large=large).instruments:
        places = [deposit_place(instrument, 7, number) for number in (90210, 90211)]
        if instrument.is_fiat:
            assert all(place.address is None and place.payment_link for place in places)
            continue
        addresses = [place.address or "" for place in places]
        assert len(set(addresses)) == 2
        assert [instrument.network.address_problem(address) for address in addresses] == [None, None]
        assert all((place.memo is not None) is instrument.requires_memo for place in places)
        assert all(place.memo is None or instrument.network.memo_problem(place.memo) is None for place in places)


def test_pairs_come_in_pages_flat_and_nested_and_some_are_inactive(upstream: Upstream) -> None:
    catalog = upstream.world.catalog
    first = upstream.get("/api/v2/pairs/public").json()
    assert len(first) == 500
    assert {"instrumentFrom" in row for row in first} == {True, False}
    second = upstream.get("/api/v2/pairs/public", offset="500", limit="2000").json()
    assert len(first) + len(second) == len(catalog.pairs)
    assert any(row.get("isActive") is False for row in first + second)
    assert len(catalog.pairs) < len(catalog.instruments) * (len(catalog.instruments) - 1)
    xlm = upstream.get(
        "/api/v2/pairs/public", instrumentFromCurrencyTitle="XLM", instrumentFromNetworkTitle="XLM"
    ).json()
    assert len(xlm) == sum(pair.source.currency == "XLM" for pair in catalog.pairs)
    assert upstream.get("/api/v2/pairs/public", offset="-1").status_code == 400


def test_v1_pairs_carry_the_details_of_each_side(upstream: Upstream) -> None:
    rows = upstream.get("/api/v1/pairs/public").json()
    assert len(rows) == len(upstream.world.catalog.pairs)
    assert isinstance(rows[0]["instrumentTo"]["reservesAmount"], str)
    assert {row["isActive"] for row in rows} == {True, False}


def test_an_unknown_instrument_is_answered_with_a_message(upstream: Upstream) -> None:
    answer = upstream.post("/api/v2/instruments/public/one", {"currencyTitle": "BTC", "networkTitle": "Nowhere"})
    assert (answer.status_code, answer.json()) == (404, {"message": "Instrument not found"})


# --- addresses --------------------------------------------------------------------------------------------------------

VALIDATE = ("/api/v1/instruments/public/validate-address", "/api/v2/instruments/public/validate-address")
VALIDATE_PRIVATE = "/api/v2/instruments/validate-address"


def test_each_address_check_answers_in_its_own_shape(upstream: Upstream) -> None:
    good = {"currencyTitle": "USDT", "networkTitle": "TRC20", "address": ADDRESSES["completes"]["TRC20"]}
    bad = {**good, "address": ADDRESSES["completes"]["ERC20"]}
    v1, v2 = VALIDATE
    assert [upstream.post(v1, body).json() for body in (good, bad)] == [True, False]
    assert upstream.post(v2, good).json() == {"result": True}
    refusal = upstream.post(v2, bad)
    assert refusal.status_code == 400
    assert refusal.json()["status"] == "ERR_HTTP"
    assert "TRC20" in refusal.json()["data"]["address"]
    assert upstream.post(VALIDATE_PRIVATE, good).json()["valid"] is True
    assert upstream.post(VALIDATE_PRIVATE, bad).json()["valid"] is False


def test_a_bad_memo_is_named_memo(upstream: Upstream) -> None:
    body = {"currencyTitle": "XRP", "networkTitle": "XRP", "address": ADDRESSES["completes"]["XRP"], "memo": "abc"}
    answer = upstream.post(VALIDATE[1], body)
    assert answer.status_code == 400
    assert list(answer.json()["data"]) == ["memo"]
    assert upstream.post(VALIDATE[1], {**body, "memo": "4294967295"}).status_code == 201


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_a_mistyped_cut_or_foreign_address_is_refused(network: str) -> None:
    rules = NETWORKS[network]
    address = rules.form.encode(hashlib.sha256(network.encode()).digest())
    assert rules.address_problem(address) is None
    # Solana has no checksum: cut by one character, an address may still be 32 bytes.
    cut = address[:-1] if network not in ("SOL", "SPL") else address[:-4]
    for broken in (cut, address + "1", " " + address, address + "\n", "", "ä" + address):
        assert rules.address_problem(broken) is not None, broken
    if network not in ("SOL", "SPL"):  # no checksum there
        position = len(address) // 2
        for letter in "qpzr" if "1" in address[:12] or ":" in address or network == "BCH" else "3456":
            mistyped = address[:position] + letter + address[position + 1 :]
            # Hex in one case has no checksum; a changed digit of mixed-case hex all but always breaks the case pattern.
            if mistyped != address and not mistyped.startswith("0x"):
                assert rules.address_problem(mistyped) is not None, mistyped
    foreign = "bc1qef34eu9rnvmgsx7pjym0zky8dernfkcu3qc75p" if network != "BTC" else ADDRESSES["completes"]["LTC"]
    assert rules.address_problem(foreign) is not None


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("BTC", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("BTC", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
        ("BTC", "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"),
        ("ERC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
        ("BCH", "bitcoincash:qpm2qsznhks23z7629mms6s4cwef74vcwvy22gdx6a"),
        ("XRP", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"),
        ("XMR", "4" + "4AFFq5kSiGBoZ4NMDwYtN18obc8AemS33DBLWs3H7otXft3XjrpDtQGv7SqSsaBYBb98uNbr2VBBEt7f2wfn3RVGQBEP3A"),
        ("ADA", "Ae2tdPwUPEYzs5BRbGcoS3DXvK8mwgggmESz4HqUwMyaS9eNksZGz1LMS9v"),
    ],
)
def test_well_known_addresses_are_accepted(network: str, address: str) -> None:
    assert NETWORKS[network].address_problem(address) is None


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("ERC20", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed"),
        ("BTC", "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"),
        ("BTC", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd"),
        ("BCH", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
        ("XRP", "X7AcgcsBL6XDcUb289X4mJ8djcdyKaGZMhc9YTE92ehJ2Fu"),
        ("ADA", "stake1uyehkck0lajq8gr28t9uxnuvgcqrc6070x3k9r8048z8y5gh6ffgw"),
    ],
)
def test_wrong_case_testnets_and_other_kinds_are_refused(network: str, address: str) -> None:
    assert NETWORKS[network].address_problem(address) is not None


# --- rates ------------------------------------------------------------------------------------------------------------


def test_the_documented_markup_example_comes_out() -> None:
    result = rates.markup_applied(Decimal("49549.728053855135"), Decimal("0.3"))
    assert abs(result - Decimal("49401.07886969357")) < Decimal("1e-11")


def test_a_rate_follows_price_fee_and_markup(upstream: Upstream) -> None:
    query = {**BTC_USDT, "claimedDepositAmount": "0.0125", "claimedDepositAmountCurrency": "BTC", "markup": "0.3"}
    rate = upstream.get("/api/v2/rates/public/one", **query).json()
    expected = (Decimal("0.0125") * Decimal(rate["price"]) - Decimal(rate["finalNetworkFeeAmount"])) * Decimal("0.997")
    assert abs(Decimal(rate["amountToGet"]) - expected) < Decimal("1e-11")
    assert (rate["amountToGive"], rate["amountToGiveCurrencyTitle"]) == ("0.0125", "BTC")
    assert rate["rateMode"] == "FLOATING"
    assert rate["updatedAt"].endswith("Z")
    assert "reversePrice" in upstream.get("/api/v1/rates/public/one", **query, exchangeType="crypto").json()


def test_an_amount_may_name_the_target_side(upstream: Upstream) -> None:
    query = {**BTC_USDT, "claimedDepositAmount": "10000", "claimedDepositAmountCurrency": "USDT"}
    rate = upstream.get("/api/v2/rates/public/one", **query).json()
    assert (rate["amountToGive"], rate["amountToGiveCurrencyTitle"], rate["amountToGet"]) == ("10000", "USDT", "10000")
    back = {**BTC_USDT, "claimedDepositAmount": rate["claimedDepositAmount"]}
    assert abs(Decimal(upstream.get("/api/v2/rates/public/one", **back).json()["amountToGet"]) - 10000) < 5


def test_without_an_amount_only_limits_are_told_and_they_are_the_bounds_refused_at(upstream: Upstream) -> None:
    limits = upstream.get("/api/v2/rates/public/one", **BTC_USDT).json()
    low, high = Decimal(limits["generalMinAmount"]), Decimal(limits["generalMaxAmount"])
    assert limits["depositRules"] == {"minAmount": plain(low), "maxAmount": "0"}
    for amount, status in ((low, 200), (high, 200), (low * Decimal("0.99"), 422), (high * Decimal("1.01"), 422)):
        answer = upstream.get("/api/v2/rates/public/one", **BTC_USDT, claimedDepositAmount=plain(amount))
        assert answer.status_code == status
    assert "Amount Too Big" in answer.json()["message"]
    small = upstream.get("/api/v2/rates/public/one", **BTC_USDT, claimedDepositAmount="0.00001").json()
    assert small["status"] == "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL"
    assert small["data"]["details"]["expected"] == small["data"]["details"]["expectedGeneral"] == plain(low)


def test_a_fixed_quote_may_come_back_floating(upstream: Upstream) -> None:
    fixed = upstream.get("/api/v2/rates/public/one", **BTC_USDT, rateMode="fixed").json()
    assert (fixed["rateMode"], fixed["enableFixedRate"]) == ("FIXED", True)
    downgraded = upstream.get("/api/v2/rates/public/one", **{**BTC_USDT, "instrumentFromCurrencyTitle": "XMR",
                              "instrumentFromNetworkTitle": "XMR"}, rateMode="FIXED").json()  # fmt: skip
    assert (downgraded["rateMode"], downgraded["enableFixedRate"]) == ("FLOATING", False)


def test_rates_refresh_every_few_seconds_and_hold_still_between() -> None:
    now = [1760000001.0]
    world = World(PUBLIC, SECRET, clock=lambda: now[0])
    with running(world) as url:
        seen = []
        for seconds in (0, 2, 5):
            now[0] = 1760000001.0 + seconds
            answer = requests.get(f"{url}/api/v2/rates/public/one", params=BTC_USDT, timeout=10)
            assert answer.headers["Date"].endswith(f"08:53:2{1 + seconds} GMT")
            seen.append((answer.json()["updatedAt"], answer.json()["price"]))
    assert seen[0] == seen[1] != seen[2]
    assert seen[0][0] == "2025-10-09T08:53:20.000Z"


@pytest.mark.parametrize(
    ("mode", "age", "is_kept"),
    [("FIXED", 60, True), ("FIXED", 901, False), ("FIXED", -10, False), ("FLOATING", 60, False)],
)
def test_a_fixed_rate_that_is_claimed_within_its_time_is_kept(mode: str, age: int, is_kept: bool) -> None:
    now = [1760000001.0]
    world = World(PUBLIC, SECRET, clock=lambda: now[0])
    with running(world) as url:
        query = {**BTC_USDT, "claimedDepositAmount": "0.0125", "rateMode": mode}
        rate = requests.get(f"{url}/api/v2/rates/public/one", params=query, timeout=10).json()
        now[0] += age
        claimed = {
            "claimedAmountToReceive": rate["amountToGet"],
            "price": rate["price"],
            "updatedAt": rate["updatedAt"],
        }
        body = {
            "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
            "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
            "destinationAddress": ADDRESSES["completes"]["TRC20"],
            "claimedDepositAmount": "0.0125",
            "rateMode": mode,
            "claimedPublicRate": claimed,
        }
        order = requests.post(f"{url}/api/v1/orders/public/create", json=body, timeout=10)  # needs no signature
        assert order.status_code == 201, order.text
        assert (order.json()["amountToGet"] == rate["amountToGet"]) is is_kept


def test_an_unsupported_pair_and_missing_titles_are_refused(upstream: Upstream) -> None:
    same = {**BTC_USDT, "instrumentToCurrencyTitle": "BTC", "instrumentToNetworkTitle": "BTC"}
    answer = upstream.get("/api/v2/rates/public/one", **same)
    assert (answer.status_code, answer.json()) == (422, {"message": "pair not supported"})
    assert upstream.get("/api/v2/rates/public/one").status_code == 400
    assert upstream.get("/api/v2/rates/public/one", **BTC_USDT, claimedDepositAmount="1E-7").status_code == 400
    assert upstream.get("/api/v1/rates/public/one", **BTC_USDT).status_code == 400


def test_every_limit_leaves_something_to_pay_out() -> None:
    catalog, market = Catalog(large=True), rates.Market(3)
    for pair in catalog.pairs[::37]:
        bounds = rates.limits(pair)
        assert 0 < bounds.minimum < bounds.maximum
        assert market.quote(pair, now=0, amount=bounds.minimum).amount_to_get > 0, pair


# --- orders -----------------------------------------------------------------------------------------------------------


def test_an_order_is_created_listed_without_its_guid_and_found_by_either_id(upstream: Upstream) -> None:
    answer = upstream.create(refundAddress=ADDRESSES["completes"]["BTC"])
    order = answer.json()
    assert answer.status_code == 201
    assert isinstance(order["orderId"], int)
    assert order["depositAddress"]["depositAddress"].startswith("bc1q")
    assert [event["kind"] for event in order["orderEvents"]] == ["CREATION_END"]
    (row,) = upstream.listed()
    assert row["orderId"] == order["orderId"]
    assert order["legacyOrderId"] not in json.dumps(row)
    assert (row["amountToGet"], row["amountToWithdrawFact"], row["state"]) == ("-1", "0", "created")
    destination = order["destinationAddress"]
    for query in ({"orderId": order["legacyOrderId"]}, {"orderId": str(order["orderId"])}, {}):
        info = upstream.get("/api/v1/orders/public-info", destinationAddress=destination, **query)
        assert info.json()["orderId"] == order["orderId"]
    assert upstream.get("/api/v2/orders/info", orderId=str(order["orderId"])).json()["completed"] is False
    wrong = upstream.get("/api/v2/orders/public-info", orderId=str(order["orderId"]), destinationAddress="elsewhere")
    assert wrong.status_code == 404
    assert upstream.get("/api/v2/orders/public-info", orderId=str(order["orderId"])).status_code == 400


def test_the_same_request_twice_makes_two_orders(upstream: Upstream) -> None:
    one, two = upstream.create().json(), upstream.create().json()
    assert one["orderId"] < two["orderId"]
    assert one["depositAddress"]["depositAddress"] != two["depositAddress"]["depositAddress"]
    assert [row["orderId"] for row in upstream.listed()] == [two["orderId"], one["orderId"]]
    query = "order=asc&offset=0&limit=1"
    page = upstream.http.get(f"{upstream.url}/api/v2/orders?{query}", headers=upstream.headers(query.encode()))
    assert [row["orderId"] for row in page.json()] == [one["orderId"]]


def test_v1_create_needs_no_signature(upstream: Upstream) -> None:
    body = {
        "instrumentFrom": {"currencyTitle": "EUR", "networkTitle": "EUR"},
        "instrumentTo": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "destinationAddress": ADDRESSES["completes"]["BTC"],
        "claimedDepositAmount": 250.5,
    }
    order = upstream.http.post(upstream.url + "/api/v1/orders/public/create", json=body).json()
    assert order["claimedDepositAmount"] == "250.5"
    assert order["depositAddress"]["depositAddress"] is None
    assert order["depositAddress"]["paymentLink"].startswith("https://")


XRP = {"currencyTitle": "XRP", "networkTitle": "XRP"}


@pytest.mark.parametrize(
    ("changed", "status", "told"),
    [
        ({"markup": "0"}, 400, "markup requires referrerId key"),
        ({"markup": "0.3"}, 400, "markup requires referrerId key"),
        ({"claimedDepositAmount": "0.00001"}, 422, "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL"),
        ({"claimedDepositAmount": "1000"}, 422, "Amount Too Big"),
        ({"claimedDepositAmount": "-1"}, 400, "claimedDepositAmount"),
        ({"claimedDepositAmount": None}, 400, "claimedDepositAmount"),
        ({"destinationAddress": "bc1qef34eu9rnvmgsx7pjym0zky8dernfkcu3qc75p"}, 400, '"data":{"address"'),
        ({"destinationAddress": None}, 400, "destinationAddress"),
        ({"destinationAddressMemo": "1"}, 400, '"data":{"memo"'),
        ({"refundAddress": "nowhere"}, 400, '"data":{"address"'),
        ({"instrumentTo": XRP, "destinationAddress": ADDRESSES["completes"]["XRP"], "destinationAddressMemo": "abc"}, 400,
         '"data":{"memo"'),
        ({"instrumentTo": {"currencyTitle": "usdt", "networkTitle": "TRC20"}}, 422, "pair not supported"),
        ({"instrumentTo": None}, 400, "instrumentTo"),
        ({"rateMode": "SOMETIMES"}, 400, "rateMode"),
        ({"claimedPublicRate": {"price": "1", "claimedAmountToReceive": "1", "updatedAt": 1760000000000}}, 400, "updatedAt"),
        ({"instrumentFrom": {"currencyTitle": "XMR", "networkTitle": "XMR"}, "rateMode": "FIXED"}, 422, "rate mode"),
    ],
)  # fmt: skip
def test_a_wrong_order_is_refused_and_leaves_nothing(
    upstream: Upstream, changed: dict[str, Any], status: int, told: str
) -> None:
    answer = upstream.create(**changed)
    assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert upstream.listed() == []


def test_a_markup_with_a_referrer_lowers_the_payout(upstream: Upstream) -> None:
    amounts = [
        Decimal(upstream.create(rateMode="FIXED", **changed).json()["amountToGet"])
        for changed in ({}, {"markup": "50", "referrerId": "aff_1"})
    ]
    assert Decimal("0.49") < amounts[1] / amounts[0] < Decimal("0.51")


def test_a_memo_may_be_an_integer_and_is_kept_as_text(upstream: Upstream) -> None:
    order = upstream.create(ADDRESSES["completes"]["XRP"], instrumentTo=XRP, destinationAddressMemo=0).json()
    assert order["destinationAddressMemo"] == "0"


def test_a_memo_may_be_left_out_where_one_is_usual(upstream: Upstream) -> None:
    order = upstream.create(ADDRESSES["completes"]["XRP"], instrumentTo=XRP).json()
    assert order["destinationAddressMemo"] is None


def test_a_memo_source_gets_a_deposit_memo(upstream: Upstream) -> None:
    order = upstream.create(instrumentFrom=XRP, claimedDepositAmount="100").json()
    assert order["depositAddress"]["depositAddress"].startswith("r")
    assert int(order["depositAddress"]["depositAddressMemo"]) < 2**32


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"claimedDepositAmount":1e999999999}', b'"\\ud800"'])
def test_a_body_that_is_no_order_is_refused_in_shape_c(upstream: Upstream, body: bytes) -> None:
    answer = upstream.http.post(upstream.url + "/api/v1/orders/public/create", data=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["message"]


def test_an_unknown_path_is_answered_in_json(upstream: Upstream) -> None:
    answer = upstream.get("/api/v2/orders/public/set-email")
    assert (answer.status_code, answer.json()) == (404, {"message": "Cannot GET /api/v2/orders/public/set-email"})


# --- scenarios --------------------------------------------------------------------------------------------------------


def walk(upstream: Upstream, name: str, *moments: int) -> list[dict[str, Any]]:
    """What public-info says at these seconds after creation; a refusal is {"refused": status, ...body}."""
    order, at, answers = upstream.create(ADDRESSES[name]["TRC20"]).json(), 0, []
    for moment in moments:
        upstream.world.advance(moment - at)
        at = moment
        answer = upstream.info(order)
        body = answer.json()
        answers.append(body if answer.status_code == 200 else {"refused": answer.status_code, **body})
    return answers


def kinds(info: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in info["orderEvents"]]


def test_completes_walks_through_every_event_newest_first(upstream: Upstream) -> None:
    steps = walk(upstream, "completes", 30, 61, 121, 181, 301, 361)
    assert [kinds(step)[0] for step in steps] == [
        "CREATION_END",
        "INCOMING_FUNDS_DETECTED",
        "INCOMING_FUNDS_DETECTED",
        "DEPOSIT_REGISTERED",
        "FUNDS_WITHDRAWAL_START",
        "WITHDRAWAL_COMPLETED",
    ]
    assert [step["completed"] for step in steps] == [False] * 5 + [True]
    assert [step["status"] for step in steps] == ["waiting"] * 3 + ["confirmed"] * 2 + ["completed"]
    seen = [step["deposits"][0] for step in steps[1:]]
    assert [(deposit["confirmations"], deposit["isPending"]) for deposit in seen] == [
        (0, True), (1, True), (2, False), (2, False), (2, False)
    ]  # fmt: skip
    last = steps[-1]
    assert len({deposit["txId"] for deposit in seen}) == 1
    assert (len(last["deposits"][0]["txId"]), len(last["withdrawals"][0]["txId"])) == (64, 64)
    assert last["withdrawals"][0]["amount"] == last["amountToGet"]
    assert [event["createdAt"] for event in last["orderEvents"]] == sorted(
        (event["createdAt"] for event in last["orderEvents"]), reverse=True
    )
    (row,) = upstream.listed()
    assert (row["completed"], row["state"], row["amountToWithdrawFact"]) == (True, "completed", last["amountToGet"])
    assert row["updatedAt"] == last["orderEvents"][0]["createdAt"]


def test_refunded_ends_with_a_refund_and_no_payout(upstream: Upstream) -> None:
    requested, done = walk(upstream, "refunded", 301, 361)
    assert kinds(requested)[0] == "REFUND_REQUESTED"
    assert kinds(done)[0] == "REFUND_COMPLETED"
    assert (done["completed"], done["withdrawals"], done["status"]) == (False, [], "refunded")
    assert upstream.listed()[0]["state"] == "refunded"


def test_a_hold_shows_a_link_and_is_released(upstream: Upstream) -> None:
    held, released, done = walk(upstream, "hold_then_completes", 181, 481, 601)
    assert kinds(held)[0] == "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER"
    assert held["KYCFormLink"].startswith("https://")
    assert (kinds(released)[0], released["KYCFormLink"]) == ("DEPOSIT_REGISTERED", None)
    assert done["completed"] is True


def test_a_hold_may_end_in_a_refund(upstream: Upstream) -> None:
    held, done = walk(upstream, "hold_then_refunded", 181, 601)
    assert kinds(held)[0] == "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER"
    assert kinds(done)[:2] == ["REFUND_COMPLETED", "REFUND_REQUESTED"]
    assert done["completed"] is False


def test_an_order_without_a_deposit_expires_after_fifteen_minutes(upstream: Upstream) -> None:
    before, after = walk(upstream, "expires", 895, 901)
    assert before["deposits"] == []
    assert (after["refused"], after["status"]) == (410, "ERR_ORDER_EXPIRED")
    assert upstream.listed()[0]["state"] == "expired"


def test_a_late_deposit_revives_an_expired_order(upstream: Upstream) -> None:
    expired, revived, done = walk(upstream, "late_deposit", 901, 1801, 2101)
    assert expired["refused"] == 410
    assert kinds(revived)[0] == "INCOMING_FUNDS_DETECTED"
    assert done["completed"] is True


def test_a_wrong_amount_is_paid_out_in_proportion(upstream: Upstream) -> None:
    (done,) = walk(upstream, "wrong_amount", 361)
    assert done["claimedDepositAmount"] == "0.0125"
    assert done["deposits"][0]["amount"] == "0.01"
    assert abs(Decimal(done["withdrawals"][0]["amount"]) - Decimal(done["amountToGet"]) * Decimal("0.8")) < Decimal(
        "1e-11"
    )


def test_a_second_deposit_is_listed_after_the_payout(upstream: Upstream) -> None:
    first, both = walk(upstream, "second_deposit", 310, 450)
    assert (len(first["deposits"]), len(both["deposits"]), len(both["withdrawals"])) == (1, 2, 1)
    assert len({deposit["txId"] for deposit in both["deposits"]}) == 2
    assert both["completed"] is True


def test_a_step_happens_exactly_at_its_time_and_speed_divides_it() -> None:
    now = [1760000000.0]
    world = World(PUBLIC, SECRET, speed=60, clock=lambda: now[0])
    with running(world) as url:
        client = Upstream(url, world)
        body = json.dumps({
            "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
            "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
            "destinationAddress": ADDRESSES["completes"]["TRC20"],
            "claimedDepositAmount": "0.0125",
        })  # fmt: skip
        order = client.http.post(url + "/api/v1/orders/public/create", data=body).json()
        now[0] += 5.999
        assert client.info(order).json()["completed"] is False
        now[0] += 0.001
        done = client.info(order).json()
        assert done["completed"] is True
        assert done["orderEvents"][0]["createdAt"] == iso(1760000006)
        assert client.info(order).json() == done
        client.http.close()


def test_a_scenario_is_known_by_its_address_in_any_valid_spelling() -> None:
    payload = hashlib.sha256(b"swap sandbox scenario refunded").digest()[:20]
    assert ADDRESSES["refunded"]["ERC20"].lower() == "0x" + payload.hex()
    assert set(ADDRESSES) == set(SCENARIOS)
    for name, addresses in ADDRESSES.items():
        for network, address in addresses.items():
            assert NETWORKS[network].address_problem(address) is None, (name, network)
    from swap.sandbox.scenarios import scenario_for

    assert scenario_for(ADDRESSES["refunded"]["ERC20"].lower()).name == "refunded"
    assert scenario_for(ADDRESSES["refunded"]["LTC"].upper()).name == "refunded"
    assert scenario_for("rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh").name == "completes"


def test_seed_and_clock_repeat_ids_and_addresses_and_a_restart_repeats_none() -> None:
    def first_order(seed: int, began: float = 1760000000.0) -> dict[str, Any]:
        world = World(PUBLIC, SECRET, seed=seed, clock=lambda: began)
        with running(world) as url:
            body = {
                "instrumentFrom": {"currencyTitle": "LTC", "networkTitle": "LTC"},
                "instrumentTo": {"currencyTitle": "BTC", "networkTitle": "BTC"},
                "destinationAddress": ADDRESSES["completes"]["BTC"],
                "claimedDepositAmount": "2",
            }
            answer: dict[str, Any] = requests.post(f"{url}/api/v1/orders/public/create", json=body, timeout=10).json()
            return answer

    assert first_order(1) == first_order(1)
    assert first_order(1)["depositAddress"] != first_order(2)["depositAddress"]
    restarted = first_order(1, 1760000001.0)
    for name in ("orderId", "legacyOrderId", "depositAddress"):
        assert first_order(1)[name] != restarted[name]


# --- control, server --------------------------------------------------------------------------------------------------


def test_the_truth_tells_what_the_public_answers_leave_out(upstream: Upstream) -> None:
    upstream.create(ADDRESSES["expires"]["TRC20"], refundAddress=ADDRESSES["completes"]["BTC"])
    moved = upstream.http.post(upstream.url + "/sandbox/advance", json={"seconds": 1000})
    assert moved.status_code == 200
    (truth,) = upstream.get("/sandbox/orders").json()
    assert (truth["scenario"], truth["expired"]) == ("expires", True)
    assert truth["refundAddress"] == ADDRESSES["completes"]["BTC"]
    assert truth["depositAddress"]["depositAddress"].startswith("bc1q")
    assert upstream.get("/sandbox/health").json()["orders"] == 1
    named = {row["name"]: row["addresses"] for row in upstream.get("/sandbox/scenarios").json()}
    assert named == ADDRESSES


@pytest.mark.parametrize("body", ["{}", "[]", '{"seconds":-1}', '{"seconds":"5"}', '{"seconds":NaN}', "x"])
def test_time_is_only_moved_by_a_positive_number(upstream: Upstream, body: str) -> None:
    assert upstream.http.post(upstream.url + "/sandbox/advance", data=body).status_code == 400


def test_a_connection_is_kept_alive_over_errors_and_unread_bodies(upstream: Upstream) -> None:
    host, _, port = upstream.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        stream = connection.makefile("rb")
        for path in ("/nowhere", "/api/v2/instruments/public", "/sandbox/advance"):
            request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345"
            connection.sendall(request.encode())
            assert stream.readline().startswith(b"HTTP/1.1 4")
            headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
            assert "Connection" not in headers
            assert "Date" in headers
            stream.read(int(headers["Content-Length"]))
        stream.close()


def test_a_stopped_sandbox_answers_on_no_kept_connection() -> None:
    with running(World(PUBLIC, SECRET)) as url:
        session = requests.Session()
        assert session.get(url + "/sandbox/health", timeout=5).status_code == 200
    with pytest.raises(requests.ConnectionError):
        session.get(url + "/sandbox/health", timeout=5)
    session.close()


def test_a_wrapper_can_drop_a_connection_after_the_order_was_accepted() -> None:
    def dropping(app: Any) -> Any:
        def wrapped(environ: Any, start_response: Any) -> Any:
            answer = app(environ, start_response)
            if environ["PATH_INFO"].endswith("/create"):
                answer.close()
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionAbortedError
            return answer

        return wrapped

    world = World(PUBLIC, SECRET)
    with running(world, wrap=dropping) as url:
        client = Upstream(url, world)
        with pytest.raises(requests.ConnectionError):
            client.create()
        assert len(client.listed()) == 1
        client.http.close()


def test_serve_ends_cleanly_on_sigterm() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "from swap.sandbox.server import serve; from swap.sandbox.world import World; "
        f"serve('127.0.0.1', {port}, World('p', 's'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                requests.get(f"http://127.0.0.1:{port}/sandbox/health", timeout=5)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, "never came up"
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, b"")
    finally:
        process.kill()
        process.communicate()


def test_orders_made_at_once_get_different_numbers(upstream: Upstream) -> None:
    from concurrent.futures import ThreadPoolExecutor

    raw = json.dumps({
        "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
        "destinationAddress": ADDRESSES["completes"]["TRC20"],
        "claimedDepositAmount": "0.0125",
    })  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda _: requests.post(f"{upstream.url}/api/v1/orders/public/create", data=raw, timeout=10), range(40)
            )
        )
    assert len({answer.json()["orderId"] for answer in answers}) == 40
    numbers = [row["orderId"] for row in upstream.listed()]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize(
    ("value", "amount"),
    [("0.10", Decimal("0.10")), (5, Decimal(5)), (Decimal("1E-7"), Decimal("0.0000001")), ("1E-7", None), ("-1", None),
     (True, None), ("", None), (None, None), ("１", None), (Decimal("1e999999999"), None)],
)  # fmt: skip
def test_amounts_are_read_strictly(value: object, amount: Decimal | None) -> None:
    assert decimal_of(value) == amount


def test_the_sandbox_shares_no_code_with_what_it_judges() -> None:
    code = (
        "import sys, swap.sandbox.server; "
        "print([m for m in sys.modules if m.startswith('swap.') and not m.startswith('swap.sandbox')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.strip() == "[]"


def test_a_pair_is_a_direction() -> None:
    catalog = Catalog()
    one_way = [pair for pair in catalog.pairs if pair.is_active and catalog.pair(pair.target, pair.source) is None]
    assert one_way
