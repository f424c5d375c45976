"""The sandbox misbehaving, over real HTTP: every fault by name, the dice, the books, and what integrators are given."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from swap.sandbox.bending import UNKNOWN_KINDS
from swap.sandbox.chaos import Chaos
from swap.sandbox.faults import FAULTS, GROUPS, KNOBS, LIMIT_EXCEEDED, PROFILES, Knobs, endpoint_of
from swap.sandbox.fixture import SwapSandbox
from swap.sandbox.load import KEPT_SECONDS, Load
from swap.sandbox.networks import NETWORKS
from swap.sandbox.scenarios import scenario_addresses
from swap.sandbox.server import running
from swap.sandbox.world import World
from tests.waiting import until

pytestmark = pytest.mark.server

pytest_plugins = ["swap.sandbox.fixture"]

ADDRESSES = scenario_addresses()
XRP = {"currencyTitle": "XRP", "networkTitle": "XRP"}
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "sandbox.md"
CREATE = "/api/v2/orders/public/create"


class Caller:
    """Signs by itself, and opens a connection for every call."""

    def __init__(self, sandbox: SwapSandbox) -> None:
        self.sandbox = sandbox

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 5) -> requests.Response:
        raw = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
        timestamp = str(int(time.time() * 1000))
        string = timestamp.encode() + raw + self.sandbox.public_key.encode()
        signature = hmac.new(self.sandbox.secret_key.encode(), string, hashlib.sha256).digest()
        headers = {
            "X-Api-Public-Key": self.sandbox.public_key,
            "X-Api-Timestamp": timestamp,
            "X-Api-Signature": base64.b64encode(signature).decode(),
        }
        return requests.request(method, self.sandbox.base_url + path, data=raw, headers=headers, timeout=timeout)

    def create(self, destination: str = ADDRESSES["completes"]["TRC20"], *, timeout: float = 5, **changed: Any) -> Any:
        body = {
            "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
            "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
            "destinationAddress": destination,
            "claimedDepositAmount": "0.0125",
        }
        return self.call("POST", CREATE, {**body, **changed}, timeout=timeout)

    def info(self, order_id: object, destination: str = ADDRESSES["completes"]["TRC20"]) -> requests.Response:
        return self.call("GET", f"/api/v2/orders/public-info?orderId={order_id}&destinationAddress={destination}")

    def events(self, order_id: object) -> list[dict[str, str]]:
        return list(self.info(order_id).json()["orderEvents"])

    def listed(self) -> list[dict[str, Any]]:
        return list(self.call("GET", "/api/v2/orders/public").json())

    def put(self, **changes: Any) -> requests.Response:
        return requests.put(self.sandbox.base_url + "/sandbox/faults", json=changes, timeout=5)

    def get(self, path: str) -> Any:
        return requests.get(self.sandbox.base_url + path, timeout=5).json()


@pytest.fixture
def caller(swap_sandbox: SwapSandbox) -> Caller:
    return Caller(swap_sandbox)


@contextmanager
def calling(**options: Any) -> Iterator[Caller]:
    world = World("pk", "sk", **options)
    with running(world) as url:
        yield Caller(SwapSandbox(url, "pk", "sk", world))


@pytest.fixture(scope="module")
def shared() -> Iterator[Caller]:
    """For tests that leave nothing behind but counts."""
    with calling() as caller:
        yield caller


def is_json(answer: requests.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


# --- creates ----------------------------------------------------------------------------------------------------------

NOTHING_MADE = {
    "create.drop": None,
    "create.error_500": (500, "application/json", None),
    "create.html_502": (502, "text/html; charset=utf-8", None),
    "create.html_403": (403, "text/html; charset=utf-8", None),
    "create.rate_limited": (429, "application/json", "3"),
    "create.rate_limited_bare": (429, "application/json", None),
}
ORDER_MADE = {
    "create.accept_then_drop": None,
    "create.accept_then_500": (500, "application/json", True),
    "create.accept_then_502": (502, "text/html; charset=utf-8", False),
    "create.accept_then_truncated": (201, "application/json", False),
    "create.accept_then_malformed": (201, "application/json", False),
    "create.accept_then_hello": (201, "application/json", True),
}


@pytest.mark.parametrize("fault", NOTHING_MADE)
def test_a_create_that_fails_before_it_is_accepted_leaves_nothing(
    caller: Caller, swap_sandbox: SwapSandbox, fault: str
) -> None:
    caller.put(retry_after_seconds=3)
    swap_sandbox.fail_next(fault)
    expected = NOTHING_MADE[fault]
    if expected is None:
        with pytest.raises(requests.ConnectionError):
            caller.create()
    else:
        answer = caller.create()
        assert (answer.status_code, answer.headers["Content-Type"], answer.headers.get("Retry-After")) == expected
        assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 3
    assert swap_sandbox.truth() == []
    assert swap_sandbox.fired(fault) == 1
    assert caller.create().status_code == 201


@pytest.mark.parametrize("fault", ORDER_MADE)
def test_an_accepted_create_exists_whatever_its_caller_was_told(
    caller: Caller, swap_sandbox: SwapSandbox, fault: str
) -> None:
    swap_sandbox.fail_next(fault)
    expected = ORDER_MADE[fault]
    if expected is None:
        with pytest.raises(requests.ConnectionError):
            caller.create(refundAddress=ADDRESSES["completes"]["BTC"])
    else:
        answer = caller.create(refundAddress=ADDRESSES["completes"]["BTC"])
        assert (answer.status_code, answer.headers["Content-Type"], is_json(answer)) == expected
        assert "depositAddress" not in answer.text or not is_json(answer)
    (order,) = swap_sandbox.truth()
    assert (order["createFault"], order["wasAnswered"]) == (fault, False)
    assert order["faults"] == {fault: 1}
    assert order["refundAddress"] == ADDRESSES["completes"]["BTC"]
    assert order["depositAddress"]["depositAddress"].startswith("bc1q")
    assert [row["orderId"] for row in caller.listed()] == [order["orderId"]]
    assert caller.get("/sandbox/faults")["orders"] == {str(order["orderId"]): {fault: 1}}
    assert caller.create().status_code == 201
    assert [row["wasAnswered"] for row in swap_sandbox.truth()] == [False, True]


def test_hello_is_json_without_an_order(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("create.accept_then_hello")
    assert caller.create().json() == {"hello": "world"}


def test_accept_then_delay_makes_the_order_at_once_and_answers_late(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    caller.put(delay_seconds=0.15)
    swap_sandbox.fail_next("create.accept_then_delay", 2)
    with pytest.raises(requests.ReadTimeout):
        caller.create(timeout=0.05)
    until(swap_sandbox.truth)
    (order,) = swap_sandbox.truth()
    assert (order["createFault"], order["wasAnswered"]) == ("create.accept_then_delay", False)
    assert caller.create().status_code == 201  # who waits is answered
    until(lambda: [row["wasAnswered"] for row in swap_sandbox.truth()] == [False, True])


def test_delay_then_accept_makes_the_order_when_the_caller_may_be_gone(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    caller.put(delay_seconds=0.3)
    swap_sandbox.fail_next("create.delay_then_accept")
    with pytest.raises(requests.ReadTimeout):
        caller.create(timeout=0.05)
    assert swap_sandbox.truth() == []
    until(swap_sandbox.truth)
    (order,) = swap_sandbox.truth()
    assert (order["createFault"], order["wasAnswered"]) == ("create.delay_then_accept", False)


def test_a_delay_is_longer_than_any_usual_timeout_by_default() -> None:
    assert Knobs().delay_seconds > 15


def test_a_create_without_a_deposit_address(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("create.accept_then_no_deposit")
    assert caller.create().json()["depositAddress"] is None
    (order,) = swap_sandbox.truth()
    assert order["wasAnswered"] is False
    assert order["depositAddress"]["depositAddress"]


def test_an_echo_with_another_destination_is_valid_counted_and_not_the_truth(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    swap_sandbox.fail_next("create.accept_then_other_destination")
    asked = ADDRESSES["completes"]["TRC20"]
    echoed = caller.create().json()["destinationAddress"]
    assert echoed != asked
    instrument = swap_sandbox.world.catalog.instrument("USDT", "TRC20")
    assert instrument is not None
    assert instrument.network.address_problem(echoed) is None
    (order,) = swap_sandbox.truth()
    assert (order["requestedDestination"], order["destinationAddress"]) == (asked, asked)
    assert (order["echoedDestination"], order["wasAnswered"]) == (echoed, True)
    assert swap_sandbox.fired("create.accept_then_other_destination") == 1
    assert caller.info(order["orderId"]).json()["destinationAddress"] == asked


def test_a_refused_create_does_not_spend_the_fault_of_an_accepted_one(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    swap_sandbox.fail_next("create.accept_then_500")
    assert caller.create(claimedDepositAmount="0.00001").status_code == 422
    assert swap_sandbox.fired("create.accept_then_500") == 0
    assert caller.create().status_code == 500
    assert swap_sandbox.fired("create.accept_then_500") == 1


# --- reads ------------------------------------------------------------------------------------------------------------

RATE = (
    "/api/v2/rates/public/one?instrumentFromCurrencyTitle=BTC&instrumentFromNetworkTitle=BTC"
    "&instrumentToCurrencyTitle=USDT&instrumentToNetworkTitle=TRC20"
)
READ_FAULTS = [
    name for name in FAULTS if name.partition(".")[0] in ("list", "info", "rate", "catalog", "address")
]  # fmt: skip
# Good answers that are too old.
AGED = ("info.stale", "list.behind")


def read(caller: Caller, endpoint: str, order_id: object) -> requests.Response:
    match endpoint:
        case "list":
            return caller.call("GET", "/api/v2/orders/public")
        case "info":
            return caller.info(order_id)
        case "rate":
            return caller.call("GET", RATE)
        case "catalog":
            return caller.call("GET", "/api/v2/instruments/public")
        case _:
            body = {"currencyTitle": "USDT", "networkTitle": "TRC20", "address": ADDRESSES["completes"]["TRC20"]}
            return caller.call("POST", "/api/v2/instruments/public/validate-address", body)


@pytest.mark.parametrize("fault", [name for name in READ_FAULTS if name not in AGED])
def test_every_read_fails_in_every_way_it_can(shared: Caller, fault: str) -> None:
    caller, swap_sandbox, (endpoint, _, what) = shared, shared.sandbox, fault.partition(".")
    order_id = caller.create().json()["orderId"]
    good = read(caller, endpoint, order_id)
    caller.put(delay_seconds=0.05)
    swap_sandbox.fail_next(fault)
    if what == "drop":
        with pytest.raises(requests.ConnectionError):
            read(caller, endpoint, order_id)
    else:
        answer = read(caller, endpoint, order_id)
        bodies: dict[str, tuple[int, bool]] = {
            "error_500": (500, answer.headers["Content-Type"] == "application/json"),
            "html_502": (502, "502 Bad Gateway" in answer.text),
            "html_403": (403, "blocked" in answer.text and answer.headers["Content-Type"].startswith("text/html")),
            "rate_limited": (429, answer.headers.get("Retry-After") == "1"),
            "rate_limited_bare": (429, "Retry-After" not in answer.headers),
            # Not compared with the good answer: a rate moves between two reads.
            "truncated": (good.status_code, not is_json(answer) and answer.text[:1] == good.text[:1]),
            "malformed": (good.status_code, not is_json(answer)),
            "hello": (good.status_code, answer.text == '{"hello":"world"}'),
            "delay": (good.status_code, is_json(answer) and answer.elapsed.total_seconds() >= 0.05),
            "no_content": (204, answer.content == b""),
            "empty": (200, answer.text == "[]"),
        }
        assert (answer.status_code, True) == bodies[what]
    assert swap_sandbox.fired(fault) == 1
    assert read(caller, endpoint, order_id).status_code == good.status_code


def test_a_stale_read_answers_an_older_state_and_waits_until_there_is_one(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.fail_next("info.stale")
    assert len(caller.events(order_id)) == 1
    assert swap_sandbox.fired("info.stale") == 0
    swap_sandbox.advance(61)
    assert len(caller.events(order_id)) == 1
    assert len(caller.events(order_id)) == 2
    swap_sandbox.advance(300)
    swap_sandbox.fail_next("info.stale", 8)
    stale = [caller.info(order_id).json() for _ in range(8)]
    assert {len(answer["orderEvents"]) for answer in stale} <= {2, 3, 4}
    assert not any(answer["completed"] for answer in stale)
    assert caller.info(order_id).json()["completed"] is True
    assert swap_sandbox.truth()[0]["faults"] == {"info.stale": 9}


def test_a_stale_read_forgets_that_an_order_expired(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    destination = ADDRESSES["expires"]["TRC20"]
    order_id = caller.create(destination).json()["orderId"]
    swap_sandbox.advance(901)
    swap_sandbox.fail_next("info.stale")
    assert [caller.info(order_id, destination).status_code for _ in range(2)] == [200, 410]


# --- what holds for an order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["id.string", "id.uuid"])
def test_create_answers_one_form_of_the_id_the_list_another_and_info_takes_any(
    caller: Caller, swap_sandbox: SwapSandbox, fault: str
) -> None:
    swap_sandbox.fail_next(fault)
    answer = caller.create()
    (order,) = swap_sandbox.truth()
    number, guid = order["ids"]
    assert answer.json()["orderId"] == order["answeredId"] == (number if fault == "id.string" else guid)
    assert (number in answer.text) is (fault == "id.string")
    assert order["idForm"] == fault.removeprefix("id.")
    assert order["traits"] == [fault]
    (row,) = caller.listed()
    assert row["orderId"] == int(number)
    assert guid not in json.dumps(row)
    for any_id in (number, guid):
        info = caller.info(any_id).json()
        assert (info["orderId"], info["legacyOrderId"]) == (int(number), guid)
    assert isinstance(caller.create().json()["orderId"], int)


def test_info_may_repeat_only_the_id_it_was_asked_with(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("order.info_one_id")
    caller.create()
    number, guid = swap_sandbox.truth()[0]["ids"]
    by_number, by_guid = caller.info(number).json(), caller.info(guid).json()
    assert (by_number["orderId"], guid in json.dumps(by_number)) == (int(number), False)
    assert (by_guid["orderId"], number in json.dumps(by_guid)) == (guid, False)


def test_info_may_leave_out_the_deposit_details(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("order.bare_info")
    order = caller.create(refundAddress=ADDRESSES["completes"]["BTC"]).json()
    info = caller.info(order["orderId"])
    assert order["depositAddress"]["depositAddress"] not in info.text
    missing = {"depositAddress", "destinationAddressMemo", "refundAddress", "refundAddressMemo"}
    assert missing & info.json().keys() == set()
    assert missing <= caller.info(caller.create().json()["orderId"]).json().keys()


@pytest.mark.parametrize(("memo", "answered"), [("1234567", 1234567), ("0", 0), ("007", "007"), ("a text", "a text")])
def test_memos_may_be_numbers_where_nothing_is_lost(
    caller: Caller, swap_sandbox: SwapSandbox, memo: str, answered: object
) -> None:
    swap_sandbox.fail_next("order.numeric_memo")
    destination = NETWORKS["TON"].form.encode(hashlib.sha256(b"anybody").digest())
    target = {"currencyTitle": "USDT", "networkTitle": "TON"}
    order = caller.create(destination, instrumentTo=target, destinationAddressMemo=memo).json()
    info = caller.info(order["orderId"], destination).json()
    assert order["destinationAddressMemo"] == info["destinationAddressMemo"] == answered
    assert type(order["destinationAddressMemo"]) is type(answered)
    assert swap_sandbox.truth()[0]["destinationAddressMemo"] == memo
    assert swap_sandbox.fired("order.numeric_memo") == isinstance(answered, int)


def test_the_memo_of_a_deposit_may_be_a_number(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("order.numeric_memo")
    order = caller.create(instrumentFrom=XRP, claimedDepositAmount="100").json()
    assert isinstance(order["depositAddress"]["depositAddressMemo"], int)
    info = caller.info(order["orderId"]).json()
    assert info["depositAddress"] == order["depositAddress"]


def test_the_list_may_notice_an_order_late(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("order.listed_late")
    order = caller.create().json()
    assert caller.listed() == []
    assert caller.info(order["orderId"]).status_code == 200
    truth = swap_sandbox.truth()[0]
    lag = datetime.fromisoformat(truth["listedAt"]) - datetime.fromisoformat(truth["createdAt"])
    assert 0 < lag.total_seconds() <= 10
    swap_sandbox.advance(10)
    assert [row["orderId"] for row in caller.listed()] == [order["orderId"]]


# --- how events are listed --------------------------------------------------------------------------------------------


def test_events_may_come_twice_oldest_first_or_in_no_order(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.advance(400)
    good = caller.events(order_id)
    swap_sandbox.fail_next("events.duplicated")
    assert caller.events(order_id) == [event for event in good for _ in range(2)]
    swap_sandbox.fail_next("events.oldest_first")
    assert caller.events(order_id) == good[::-1]
    swap_sandbox.fail_next("events.shuffled")
    shuffled = caller.events(order_id)
    assert shuffled != good
    assert sorted(shuffled, key=lambda event: event["createdAt"], reverse=True) == good
    assert caller.events(order_id) == good


def test_an_unknown_event_is_the_newest_and_the_same_every_time(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.fail_next("events.unknown_kind", 2)
    seen = [caller.events(order_id) for _ in range(3)]
    assert seen[0] == seen[1]
    assert seen[0][0]["kind"] in UNKNOWN_KINDS
    assert seen[0][0]["createdAt"] > seen[0][1]["createdAt"]
    assert seen[0][1:] == seen[2]


def test_no_unknown_kind_holds_a_word_that_clients_guess_by() -> None:
    words = (
        "refund|expire|overdue|fail|error|reject|cancel|hold|frozen|verif|kyc|aml|send|withdraw|payout|exchang|trade|convert"
        "|process|received|confirm|created|new|wait|await|deposit|pending|complet"
    )
    assert [kind for kind in UNKNOWN_KINDS if re.search(words, kind, re.IGNORECASE)] == []


def test_events_in_order_need_more_than_one_event(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.fail_next("events.oldest_first")
    caller.events(order_id)
    assert swap_sandbox.fired("events.oldest_first") == 0
    swap_sandbox.advance(61)
    assert caller.events(order_id)[0]["kind"] == "CREATION_END"


def test_an_answer_nobody_can_read_does_not_spend_a_fault_of_its_events(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.fail_next("events.unknown_kind")
    swap_sandbox.fail_next("info.truncated")
    assert not is_json(caller.info(order_id))
    assert swap_sandbox.fired("events.unknown_kind") == 0
    assert caller.events(order_id)[0]["kind"] in UNKNOWN_KINDS


def test_the_date_header_may_be_wrong(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    caller.put(skew_seconds=1000)
    swap_sandbox.fail_next("any.skewed_date", 2)
    for _ in range(2):
        sent = parsedate_to_datetime(caller.call("GET", RATE).headers["Date"]).timestamp()
        assert 490 < abs(sent - time.time()) < 1010
    assert abs(parsedate_to_datetime(caller.call("GET", RATE).headers["Date"]).timestamp() - time.time()) < 3


# --- what lasts longer than anybody waits -----------------------------------------------------------------------------


def test_a_create_may_be_accepted_when_its_caller_has_long_asked_again(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    assert Knobs().late_seconds > 2 * Knobs().delay_seconds
    caller.put(late_seconds=0.3)
    swap_sandbox.fail_next("create.accept_late")
    with pytest.raises(requests.ReadTimeout):
        caller.create(timeout=0.05)
    assert swap_sandbox.truth() == []
    again = caller.create().json()["orderId"]
    until(lambda: len(swap_sandbox.truth()) == 2)
    first, second = swap_sandbox.truth()
    assert (first["orderId"], first["createFault"]) == (again, None)
    assert (second["createFault"], second["wasAnswered"]) == ("create.accept_late", False)


def test_a_list_may_be_a_minute_behind(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    old = caller.create().json()["orderId"]
    swap_sandbox.advance(50)
    swap_sandbox.fail_next("list.behind")
    assert caller.listed() == []
    swap_sandbox.advance(320)
    caller.create()
    swap_sandbox.fail_next("list.behind")
    (row,) = caller.listed()
    assert (row["orderId"], row["completed"]) == (old, False)
    assert [row["completed"] for row in caller.listed()] == [False, True]
    assert swap_sandbox.fired("list.behind") == 2


def test_stale_looks_may_alternate_with_fresh_ones(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("order.alternating")
    order_id, other = (caller.create().json()["orderId"] for _ in range(2))
    swap_sandbox.advance(370)
    assert [caller.info(order_id).json()["completed"] for _ in range(6)] == [True, False] * 3
    assert {caller.info(other).json()["completed"] for _ in range(4)} == {True}
    assert swap_sandbox.truth()[0]["traits"] == ["order.alternating"]


def test_who_looks_at_once_is_counted_and_who_has_left_is_not(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    order_id = caller.create().json()["orderId"]

    def at_once() -> int:
        return int(swap_sandbox.truth()[0]["looksAtOnce"])

    assert (at_once(), caller.info(order_id).status_code, caller.info(order_id).status_code) == (0, 200, 200)
    assert at_once() == 1
    caller.put(delay_seconds=0.4)
    path = f"/api/v2/orders/public-info?orderId={order_id}&destinationAddress={ADDRESSES['completes']['TRC20']}"
    swap_sandbox.fail_next("info.delay", 2)
    for _ in range(2):
        with pytest.raises(requests.ReadTimeout):
            caller.call("GET", path, timeout=0.05)
    assert at_once() == 1
    swap_sandbox.fail_next("info.delay", 2)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: caller.info(order_id), range(2)))
    assert at_once() == 2


# --- deposits ---------------------------------------------------------------------------------------------------------


def deposits_over_time(caller: Caller, fault: str, *moments: float) -> list[list[dict[str, Any]]]:
    """What public-info lists at the moments, in seconds after the order was made, whose deposit comes at 60."""
    caller.sandbox.fail_next(fault)
    order_id, passed, told = caller.create().json()["orderId"], 0.0, []
    for moment in moments:
        caller.sandbox.advance(moment - passed)
        passed = moment
        told.append(list(caller.info(order_id).json()["deposits"]))
    return told


def test_a_pending_deposit_may_be_replaced(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    (first,), (second,), (settled,) = deposits_over_time(caller, "deposits.replaced", 100, 130, 190)
    assert first["txId"] != second["txId"] == settled["txId"]
    assert first["createdAt"] < second["createdAt"] == settled["createdAt"]
    assert (first["confirmations"], first["isPending"], second["isPending"]) == (0, True, True)
    assert (settled["isPending"], settled["amount"]) == (False, first["amount"])
    assert [row["txId"] for row in swap_sandbox.truth()[0]["deposits"]] == [settled["txId"]]


def test_the_time_of_a_deposit_may_move(caller: Caller) -> None:
    (pending,), (settled,) = deposits_over_time(caller, "deposits.redated", 100, 190)
    assert pending["txId"] == settled["txId"]
    moved = datetime.fromisoformat(settled["createdAt"]) - datetime.fromisoformat(pending["createdAt"])
    assert moved.total_seconds() == pytest.approx(120, abs=0.01)


def test_a_deposit_may_be_listed_twice(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    ((first, second),) = deposits_over_time(caller, "deposits.doubled", 190)
    assert first == second
    assert len(swap_sandbox.truth()[0]["deposits"]) == 1


def test_one_of_two_deposits_may_be_sent_back(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    destination = ADDRESSES["second_deposit"]["TRC20"]
    swap_sandbox.fail_next("deposits.partly_refunded")
    caller.create()  # has one deposit, so the fault waits
    order_id = caller.create(destination).json()["orderId"]
    swap_sandbox.advance(600)
    told = caller.info(order_id, destination).json()
    assert [event["kind"] for event in told["orderEvents"]][:3] == [
        *("REFUND_COMPLETED", "REFUND_REQUESTED", "WITHDRAWAL_COMPLETED"),
    ]
    assert (told["completed"], told["status"], len(told["deposits"]), len(told["withdrawals"])) == (
        *(True, "completed"),
        *(2, 1),
    )


# --- where orders are paid --------------------------------------------------------------------------------------------

PAYS_XRP: dict[str, Any] = {
    "instrumentFrom": {"currencyTitle": "XRP", "networkTitle": "XRP"},
    "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
    "claimedDepositAmount": "500",
}


def places(swap_sandbox: SwapSandbox) -> list[tuple[str, str | None]]:
    rows = [row["depositAddress"] for row in swap_sandbox.truth()]
    return [(row["depositAddress"], row["depositAddressMemo"]) for row in rows]


def test_a_deposit_address_may_be_that_of_an_earlier_order_with_the_refund_address(
    caller: Caller, swap_sandbox: SwapSandbox
) -> None:
    refund, other = ADDRESSES["completes"]["BTC"], ADDRESSES["refunded"]["BTC"]
    swap_sandbox.fail_next("place.per_refund")
    for address in (refund, other, refund, refund):
        caller.create(refundAddress=address)
    first, second, third, fourth = places(swap_sandbox)
    assert first == third
    assert len({first, second, fourth}) == 3
    assert swap_sandbox.truth()[2]["traits"] == ["place.per_refund"]


def test_a_deposit_address_may_be_that_of_an_expired_order(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    caller.create(ADDRESSES["expires"]["TRC20"])
    swap_sandbox.fail_next("place.after_expiry")
    caller.create()
    swap_sandbox.advance(901)
    caller.create()
    caller.create()
    expired, before, after, later = places(swap_sandbox)
    assert expired == after
    assert len({expired, before, later}) == 3


def test_orders_may_share_an_address_and_differ_by_memo(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("place.shared_memo", 2)
    caller.create()  # pays BTC, which has no memos, so the fault waits
    for _ in range(3):
        caller.create(**PAYS_XRP)
    _, first, second, own = places(swap_sandbox)
    assert first[0] == second[0] != own[0]
    assert first[1] != second[1]


# --- the wire ---------------------------------------------------------------------------------------------------------


@contextmanager
def connected(caller: Caller) -> Iterator[Any]:
    """A client that sends what it is told on one connection, and says what comes back in which order."""
    host, port = caller.sandbox.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        stream = connection.makefile("rb")

        def answer() -> tuple[int, bytes]:
            status = int(stream.readline().split()[1])
            headers = {}
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b": ")
                headers[name.lower()] = value
            return status, stream.read(int(headers.get(b"content-length", b"0")))

        def ask(path: str, *, answers: int = 1) -> list[tuple[int, bytes]]:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: sandbox\r\n\r\n".encode())
            return [answer() for _ in range(answers)]

        yield ask


def rate_of(amount: str) -> str:
    return f"{RATE}&claimedDepositAmount={amount}"


def test_an_interim_answer_may_come_before_the_answer(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("wire.early_hints")
    with connected(caller) as ask:
        (hints, answer) = ask(RATE, answers=2)
        assert (hints, answer[0]) == ((103, b""), 200)
        assert ask(RATE)[0][0] == 200


def test_an_answer_may_come_twice_on_a_kept_connection(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    order_id = caller.create().json()["orderId"]
    swap_sandbox.fail_next("wire.doubled")
    info = f"/api/v2/orders/public-info?orderId={order_id}&destinationAddress={ADDRESSES['completes']['TRC20']}"
    with connected(caller) as ask:
        first, again = ask(info, answers=2)
        assert first == again
        # Who did not notice takes what is left over for the answer to the next question.
        (following,) = ask("/api/v2/instruments/public")
        assert following[1][:1] == b"["


def test_from_one_answer_on_all_may_be_one_late(caller: Caller, swap_sandbox: SwapSandbox) -> None:
    swap_sandbox.fail_next("wire.shifted")
    with connected(caller) as ask:
        first, second, third = (ask(rate_of(amount))[0][1] for amount in ("0.02", "0.03", "0.04"))
        assert second == first  # a fresh connection has nothing to be late with
        assert json.loads(third) != json.loads(first)
        assert json.loads(ask(rate_of("0.05"))[0][1]) != json.loads(third)
    assert swap_sandbox.fired("wire.shifted") == 1


def test_a_shifted_answer_did_not_tell_its_caller_about_the_order(swap_sandbox: SwapSandbox) -> None:
    caller = Caller(swap_sandbox)
    body = {
        "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "instrumentTo": {"currencyTitle": "USDT", "networkTitle": "TRC20"},
        "destinationAddress": ADDRESSES["completes"]["TRC20"],
        "claimedDepositAmount": "0.0125",
    }
    url = caller.sandbox.base_url + "/api/v1/orders/public/create"
    with requests.Session() as session:
        first = session.post(url, json=body, timeout=5).json()
        swap_sandbox.fail_next("wire.shifted")
        assert session.post(url, json=body, timeout=5).json() == first
    assert [row["wasAnswered"] for row in swap_sandbox.truth()] == [True, False]


def test_new_faults_moved_no_throw_of_the_old_ones() -> None:
    """What a seed gives is promised: a run of last month repeats."""
    chaos = Chaos("chaos", seed=1)
    thrown = [chaos._drawn("create", index)[0] for index in range(1, 4001)]
    old = {name: weight for name, weight in PROFILES["chaos"].items() if name in GROUPS["create"]}
    assert sum(old.values()) == pytest.approx(0.36)
    assert hashlib.sha256(repr(thrown).encode()).hexdigest()[:16] == "7f780f48ceb8b310"
    seen = [chaos._drawn("info", index)[0] for index in range(1, 4001)]
    assert hashlib.sha256(repr(seen).encode()).hexdigest()[:16] == "5ccb596157d47df5"


def test_every_fault_has_a_test_here() -> None:
    text = Path(__file__).read_text()
    assert [name for name in FAULTS if name not in READ_FAULTS and f'"{name}"' not in text] == []


# --- the dice ---------------------------------------------------------------------------------------------------------


def outcomes(seed: int, *, looks: int = 1) -> tuple[list[object], list[object]]:
    """What 60 creates in a row, each followed by looks at the newest order, get under the chaos profile."""

    def told(call: Any) -> object:
        try:
            answer = call()
        except requests.RequestException as error:
            return type(error).__name__
        return answer.status_code, is_json(answer), len(answer.json()) if is_json(answer) else None

    creates, seen = list[object](), list[object]()
    # Seconds of waiting are not what this is about.
    chaos = Chaos("chaos", seed=seed, knobs=Knobs(delay_seconds=0.001, late_seconds=0.001))
    with calling(seed=seed, chaos=chaos) as caller:
        for _ in range(60):
            creates.append(told(caller.create))
            seen.extend(told(lambda: caller.info("")) for _ in range(looks))
            caller.sandbox.advance(100)
        creates.append([(row["createFault"], row["traits"], row["wasAnswered"]) for row in caller.sandbox.truth()])
    return creates, seen


def test_the_same_seed_and_sequence_give_the_same_faults_and_looks_do_not_move_creates() -> None:
    first = outcomes(7)
    assert outcomes(7) == first
    assert outcomes(7, looks=0)[0] == first[0]
    assert outcomes(8, looks=0)[0] != first[0]
    assert len({str(result) for result in first[0]}) > 4
    assert len({str(result) for result in first[1]}) > 2


@pytest.mark.parametrize("group", GROUPS)
def test_faults_happen_as_often_as_their_weights_say(group: str) -> None:
    chaos, seen, throws = Chaos("chaos", seed=1), Counter[str | None](), 8_000
    for place in range(throws):
        seen[chaos._drawn(group, place)[0]] += 1
    for name in GROUPS[group]:
        weight = FAULTS[name].weight
        assert abs(seen[name] / throws - weight) <= 4 * (weight * (1 - weight) / throws) ** 0.5, name


def test_the_default_profile_is_what_integrators_were_promised() -> None:
    chaos = PROFILES["chaos"]
    assert (chaos["create.accept_then_drop"], chaos["create.accept_then_500"]) == (0.08, 0.05)
    assert (chaos["create.accept_then_truncated"], chaos["create.drop"], chaos["create.html_403"]) == (0.05, 0.04, 0.02)
    for read_, share in (
        ("create", 0.36),
        ("list", 0.1),
        ("info", 0.1),
        ("rate", 0.04),
        ("catalog", 0.04),
        ("address", 0.04),
    ):
        assert sum(chaos[name] for name in GROUPS[read_]) == pytest.approx(share)
    assert set(PROFILES["clean"].values()) == {0.0}


def test_many_callers_at_once_agree_with_the_books() -> None:
    # This caller takes an interim answer for the answer.
    chaos = Chaos("chaos", seed=5, knobs=Knobs(delay_seconds=0.01, late_seconds=0.02), weights={"wire.early_hints": 0})
    with calling(seed=5, chaos=chaos) as caller:

        def place(_: int) -> bool:
            try:
                answer = caller.create()
                return answer.status_code == 201 and bool(answer.json()["depositAddress"])
            except (requests.RequestException, ValueError, KeyError):
                return False

        with ThreadPoolExecutor(8) as pool:
            told = sum(pool.map(place, range(200)))
        truth, report = caller.sandbox.truth(), caller.get("/sandbox/faults")
        assert told == sum(row["wasAnswered"] for row in truth)
        assert report["requests"]["create"] == 200
        lost = sum(report["fired"][name] for name in NOTHING_MADE)
        assert len(truth) == 200 - lost
        made = Counter(row["createFault"] for row in truth if row["createFault"])
        assert made == {
            name: count
            for name, count in report["fired"].items()
            if count and name.startswith("create.") and name not in NOTHING_MADE
        }
        assert caller.get("/sandbox/load")["total"] == 200


# --- the control API --------------------------------------------------------------------------------------------------


def test_faults_are_weighted_switched_and_forced_over_http(caller: Caller) -> None:
    clean = caller.get("/sandbox/faults")
    assert (clean["profile"], set(clean["weights"].values()), clean["forced"]) == ("clean", {0.0}, {})
    assert clean["weights"].keys() | {LIMIT_EXCEEDED} == clean["fired"].keys()
    assert caller.put(**{"create.error_500": 1, "delay_seconds": 0.5}).json()["knobs"]["delay_seconds"] == 0.5
    assert caller.create().status_code == 500
    assert caller.put(**{"create.error_500": 0}).status_code == 200
    url = caller.sandbox.base_url + "/sandbox/faults/next"
    forced = requests.post(url, json={"fault": "create.html_403", "count": 2}, timeout=5).json()["forced"]
    assert forced == {"create.html_403": 2}
    requests.post(url, json={"fault": "create.error_500"}, timeout=5)
    assert [caller.create().status_code for _ in range(4)] == [403, 403, 500, 201]
    changed = caller.put(profile="chaos", **{"create.drop": 0}).json()
    assert changed["profile"] == "chaos"
    assert changed["weights"] == {**PROFILES["chaos"], "create.drop": 0}
    assert changed["fired"]["create.error_500"] == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"create.nonsense": 0.1},
        {"create.drop": -0.1},
        {"create.drop": 1.1},
        {"create.drop": "0.1"},
        {"create.drop": True},
        {"create.drop": 0.6, "create.html_403": 0.6},
        {"profile": "wild"},
        {"profile": []},
        {"delay_seconds": -1},
        {"delay_seconds": None},
        {"limit_per_second": 1.5},
        {"limit_headers": 1},
        {"any.skewed_date": 0.2, "skew_seconds": 1e9},
    ],
)
def test_a_wrong_change_changes_nothing(shared: Caller, changes: dict[str, Any]) -> None:
    before = shared.get("/sandbox/faults")
    answer = shared.put(**{"id.uuid": 0.5, **changes})
    assert (answer.status_code, list(answer.json())) == (400, ["message"])
    assert shared.get("/sandbox/faults") == before


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"fault":"nonsense"}', '{"fault":"create.drop","count":0}', '{"fault":"create.drop","count":true}',
     '{"fault":"create.drop","count":1e9}', '{"fault":"create.drop","count":1000000}', '{"fault":"create.drop","n":1}'],
)  # fmt: skip
def test_a_wrong_next_fault_is_refused(shared: Caller, body: str) -> None:
    answer = requests.post(shared.sandbox.base_url + "/sandbox/faults/next", data=body, timeout=5)
    assert (answer.status_code, list(answer.json())) == (400, ["message"])
    assert shared.get("/sandbox/faults")["forced"] == {}


@pytest.mark.parametrize("body", [b"NaN", b'{"create.drop":NaN}', b'{"delay_seconds":Infinity}', b"{"])
def test_what_is_no_number_is_no_weight(shared: Caller, body: bytes) -> None:
    assert requests.put(shared.sandbox.base_url + "/sandbox/faults", data=body, timeout=5).status_code == 400


def test_the_control_routes_never_fail() -> None:
    weights = {
        "create.drop": 1,
        "list.drop": 1,
        "info.drop": 1,
        "rate.drop": 1,
        "catalog.drop": 1,
        "any.skewed_date": 1,
    }
    with calling(chaos=Chaos(weights=weights, knobs=Knobs(limit_per_second=1))) as caller:
        with pytest.raises(requests.ConnectionError):
            caller.create()
        for path in ("health", "scenarios", "orders", "faults", "load"):
            answer = requests.get(f"{caller.sandbox.base_url}/sandbox/{path}", timeout=5)
            assert answer.status_code == 200
            assert abs(parsedate_to_datetime(answer.headers["Date"]).timestamp() - time.time()) < 3


def test_python_refuses_what_the_routes_refuse(swap_sandbox: SwapSandbox) -> None:
    with pytest.raises(ValueError, match="is not a fault"):
        swap_sandbox.fail_next("create.explode")
    with pytest.raises(ValueError, match="profile"):
        Chaos("wild")
    with pytest.raises(ValueError, match="more than 1"):
        swap_sandbox.set_faults({"id.string": 0.6, "id.uuid": 0.6})


# --- rate limit and load ----------------------------------------------------------------------------------------------


def test_more_than_the_allowed_requests_in_one_second_get_429() -> None:
    now = [1760000000.5]
    with calling(clock=lambda: now[0]) as caller:
        caller.put(limit_per_second=3)
        assert [caller.call("GET", RATE).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        last = caller.call("GET", RATE)
        assert (last.headers["Retry-After"], "X-RateLimit-Limit" in last.headers) == ("1", False)
        now[0] += 1
        caller.put(limit_retry_after=False, limit_headers=True)
        answers = [caller.call("GET", RATE) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
        assert "Retry-After" not in answers[-1].headers
        assert caller.get("/sandbox/faults")["fired"][LIMIT_EXCEEDED] == 4
        assert caller.get("/sandbox/faults")["requests"] == {"rate": 6}
        caller.put(limit_per_second=0)
        assert caller.call("GET", RATE).status_code == 200


def test_the_load_is_counted_per_second_and_endpoint() -> None:
    now = [1760000000.9]
    with calling(clock=lambda: now[0]) as caller:
        for path in (RATE, RATE, "/api/v2/instruments/public", "/nowhere"):
            caller.call("GET", path)
        now[0] += 0.2
        caller.sandbox.advance(10_000)
        caller.call("GET", RATE)
        load = caller.get("/sandbox/load")
        assert load == caller.get("/sandbox/load")
        assert load == {
            "seconds": [
                {"second": 1760000000, "total": 4, "endpoints": {"rate": 2, "catalog": 1, "other": 1}},
                {"second": 1760000001, "total": 1, "endpoints": {"rate": 1}},
            ],
            "peak": 4,
            "total": 5,
        }
        now[0] += KEPT_SECONDS - 1
        assert [row["second"] for row in caller.get("/sandbox/load")["seconds"]] == [1760000001]


def test_the_load_counter_keeps_two_hours_and_no_more() -> None:
    now = [0.0]
    load = Load(lambda: now[0])
    for second in range(10_000):
        now[0] = second
        load.count("info")
    assert len(load._seconds) == KEPT_SECONDS == 7200
    assert load.report()["seconds"][0]["second"] == 2800


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/api/v1/orders/public/create", "create"),
        ("GET", "/api/v2/orders/public/create", "other"),
        ("GET", "/api/v2/orders", "list"),
        ("GET", "/api/v2/orders/public", "list"),
        ("GET", "/api/v2/orders/info", "info"),
        ("GET", "/api/v1/orders/public-info", "info"),
        ("POST", "/api/v2/rates/public/one", "rate"),
        ("POST", "/api/v2/instruments/validate-address", "address"),
        ("POST", "/api/v2/instruments/public/one", "catalog"),
        ("GET", "/api/v2/pairs/one", "catalog"),
        ("GET", "/api/v3/orders", "other"),
    ],
)
def test_requests_are_sorted_into_endpoints(method: str, path: str, endpoint: str) -> None:
    assert endpoint_of(method, path) == endpoint


# --- what integrators are given ---------------------------------------------------------------------------------------


@pytest.fixture
def swap_sandbox_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(getattr(request, "param", {}))


@pytest.mark.parametrize("swap_sandbox_options", [{"speed": 100.0, "seed": 4}], indirect=True)
def test_the_fixture_gives_a_world_of_the_tests_own(swap_sandbox: SwapSandbox) -> None:
    assert (swap_sandbox.world.speed, swap_sandbox.world.chaos.seed) == (100.0, 4)
    assert requests.get(swap_sandbox.base_url + "/sandbox/health", timeout=5).json()["seed"] == 4
    order = Caller(swap_sandbox).create().json()
    swap_sandbox.advance(4)
    (truth,) = swap_sandbox.truth(order["destinationAddress"])
    assert (truth["completed"], truth["wasAnswered"], truth["createFault"]) == (True, True, None)
    assert swap_sandbox.truth("elsewhere") == []
    swap_sandbox.set_faults({"profile": "chaos"})
    assert swap_sandbox.world.chaos.profile == "chaos"


def test_the_example_of_the_document_runs(tmp_path: Path) -> None:
    example = re.search(r"```python\n(# test_checkout\.py\n.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "test_checkout.py").write_text(example[1])
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-c", "none.ini"]
    (tmp_path / "none.ini").write_text("[pytest]\n")
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_document_lists_every_fault_with_its_weight_and_every_knob() -> None:
    text = DOCUMENT.read_text()
    for name, fault in FAULTS.items():
        if name in READ_FAULTS and name not in AGED:
            continue
        assert f"| `{name}` | {fault.weight:.1%} | {fault.meaning} |" in text
    whats = dict.fromkeys(name.partition(".")[2] for name in READ_FAULTS if name not in AGED)
    for what in whats:
        rows = [FAULTS.get(f"{endpoint}.{what}") for endpoint in ("list", "info", "rate", "catalog", "address")]
        cells = " | ".join("" if fault is None else f"{fault.weight:.2%}" for fault in rows)
        meaning = next(fault.meaning for fault in rows if fault is not None)
        assert f"| `{what}` | {cells} | {meaning} |" in text
    for name in KNOBS:
        default = getattr(Knobs(), name)
        assert f"| `{name}` | {json.dumps(default)} |" in text
