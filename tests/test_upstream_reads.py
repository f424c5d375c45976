"""Reads: retries and deadlines, walls, the classifier, the clock, and what the transport refuses to do."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from swap.errors import (
    AddressRefused,
    AmountRefused,
    AuthFailed,
    Blocked,
    ConfigurationError,
    Malformed,
    MemoRefused,
    OrderExpired,
    PairRefused,
    RateLimited,
    RateModeRefused,
    RequestRefused,
    TimedOut,
    Unreachable,
    UpstreamError,
    UpstreamNotFound,
    UpstreamUnavailable,
)
from swap.upstream import decode
from swap.upstream.clock import UpstreamClock
from swap.upstream.journal import excerpt
from swap.upstream.key_pair import KeyPair
from swap.upstream.refusals import classify, read_problem, requests_left
from swap.upstream.replies import AddressVerdict, Instrument, Pair, RateRequest
from swap.upstream.transport import Transport
from tests.scripted_upstream import (
    NOW,
    ORDER,
    RATE,
    SECRET,
    Script,
    World,
    asking,
    hang_up,
    raw,
    reply,
    reset,
    serving,
)

pytestmark = pytest.mark.server

BTC_USDT = RateRequest("BTC", "BTC", "USDT", "TRC20")

# --- retries and deadlines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [reply(500), reply(502, "<html>"), reply(503), reply(504), reply(424), reset, hang_up])
def test_a_read_is_tried_three_times_with_growing_pauses(step: Any) -> None:
    with asking(step, step, step) as (client, server, world):
        with pytest.raises(UpstreamUnavailable):
            client.orders()
        assert len(server.seen) == 3
        assert len(world.slept) == 2
        assert 0 <= world.slept[0] <= 0.5 and 0 <= world.slept[1] <= 1.0
        assert [call.attempt for call in world.calls] == [1, 2, 3]
        assert {call.outcome for call in world.calls} == {"UPSTREAM_UNAVAILABLE"}
        assert [priority for priority, _ in world.taken] == ["read"] * 3


def test_a_read_that_recovers_answers() -> None:
    with asking(reset, reply(503), reply(200, [])) as (client, _, world):
        assert client.orders() == []
        assert [call.outcome for call in world.calls][-1] == "OK"
        assert len(world.calls) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_would_not_change_is_not_asked_again(status: int) -> None:
    with asking(reply(status, {})) as (client, server, world):
        with pytest.raises(UpstreamError):
            client.orders()
        assert len(server.seen) == 1
        assert world.slept == []


def test_retry_after_is_waited_for_within_the_deadline() -> None:
    with asking(reply(429, {}, Retry_After="3"), reply(200, [])) as (client, _, world):
        client.orders()
        assert 3 <= world.slept[0] <= 3.5
    with asking(reply(429, {}, Retry_After="13")) as (client, _, world):
        with pytest.raises(RateLimited) as limited:
            client.orders()
        assert (limited.value.retry_after, world.slept) == (13.0, [])
    with asking(reply(429, {}, Retry_After="3")) as (client, _, world):
        with pytest.raises(RateLimited):
            client.orders(deadline=2)
        assert world.slept == []


def test_a_rate_limit_without_a_time_is_given_at_least_a_second() -> None:
    with asking(reply(429), reply(200, [])) as (client, _, world):
        client.orders()
        assert world.slept[0] >= 1


def test_retry_after_may_be_a_date_measured_on_the_upstreams_own_clock() -> None:
    headers = {"Retry-After": "Thu, 09 Oct 2025 08:53:27 GMT", "Date": "Thu, 09 Oct 2025 08:53:20 GMT"}
    assert read_problem(429, b"", headers).retry_after == 7
    assert read_problem(429, b"", {"Retry-After": "soon"}).retry_after is None
    assert read_problem(429, b"", {"Retry-After": "-5"}).retry_after is None
    assert read_problem(429, b"", {"Retry-After": "1e9"}).retry_after is None
    assert read_problem(429, b"", {"Retry-After": "9" * 20}).retry_after == 3600


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("2", 2), ("1760000002", 2), ("1760000002000", 2), ("1.5", 2), ("1795747000000", None), ("soon", None)],
)
def test_when_a_count_begins_anew_is_read_in_every_form_and_ignored_when_absurd(
    reset: str, seconds: float | None
) -> None:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset, "Date": "Thu, 09 Oct 2025 08:53:20 GMT"}
    assert requests_left(headers) == (0, seconds)


def test_a_spent_budget_of_ours_ends_a_read_at_once() -> None:
    def spent(priority: str, max_wait: float) -> None:
        raise RateLimited("spent", retry_after=0.1)

    with asking(take=spent) as (client, server, world):
        with pytest.raises(RateLimited):
            client.orders()
        assert (server.seen, world.slept, world.calls) == ([], [], [])


def test_a_deadline_that_is_over_sends_nothing() -> None:
    with asking() as (client, server, _):
        with pytest.raises(Unreachable):
            client.orders(deadline=0)
        assert server.seen == []


def test_a_look_is_told_to_the_journal_also_when_it_succeeds() -> None:
    with asking(reply(200, ORDER)) as (client, _, world):
        client.order("90210", "rExampleDestination", order_ref="ord_1")
        (call,) = world.calls
        assert (call.endpoint, call.outcome, call.order_ref) == ("order", "OK", "ord_1")
        assert call.request_body == "orderId=90210&destinationAddress=rExampleDestination"


# --- walls -----------------------------------------------------------------------------------------------------------


def timed(ask: Callable[[], object], error: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(error):
        ask()
    return time.monotonic() - began


@pytest.mark.parametrize(
    "pieces",
    [
        [b"H"] * 1000,
        [b"HTTP/1.1 200 OK\r\n", *[b"X-Drip: 1\r\n"] * 1000],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[b" "] * 1000],
        [b"HTTP/1.1 200 OK\r\n\r\n[]", *[b" "] * 1000],  # without a length: being cut off looks like the end
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\n \r\n"] * 1000],
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(pieces: list[bytes]) -> None:
    with asking(raw(*pieces, every=0.02), monotonic=time.monotonic) as (client, _, _):
        assert 0.25 <= timed(lambda: client.orders(deadline=0.3), TimedOut) < 1.5


def test_an_order_is_asked_for_by_its_other_ids_where_one_is_not_known_there() -> None:
    uuid = ORDER["legacyOrderId"]
    with asking(reply(404, {}), reply(200, ORDER)) as (client, server, _):
        assert client.order("90210", ORDER["destinationAddress"], also=["90210", uuid]).order_id == "90210"
        assert [seen.query["orderId"] for seen in server.seen] == ["90210", uuid]
    failing = [reply(404, {}), reply(500, {}), reply(500, {}), reply(500, {})]
    with asking(*failing) as (client, _, _), pytest.raises(UpstreamUnavailable):
        client.order("90210", ORDER["destinationAddress"], also=[uuid])
    with asking(reply(404, {}), reply(404, {})) as (client, _, _), pytest.raises(UpstreamNotFound):
        client.order("90210", ORDER["destinationAddress"], also=[uuid])


def test_a_server_that_says_nothing_is_left_at_the_read_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = World().client(
            f"http://127.0.0.1:{silent.getsockname()[1]}", read_timeout=0.2, monotonic=time.monotonic
        )
        assert 0.15 <= timed(client.orders, TimedOut) < 1.5


def test_an_answer_beyond_its_size_is_not_read_to_the_end() -> None:
    big = reply(200, b"[" + b" " * 1_100_000 + b"]")
    with asking(big, big) as (client, _, _):
        with pytest.raises(Malformed, match="bytes"):
            client.order("1", "r")
        assert client.orders() == [], "a list may be larger"


def test_a_bomb_counts_by_what_it_unpacks_to() -> None:
    packed = gzip.compress(b" " * 5_000_000)
    with asking(reply(200, packed, Content_Encoding="gzip")) as (client, _, _), pytest.raises(Malformed, match="bytes"):
        client.order("1", "r")


def test_a_dead_address_of_several_does_not_stop_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with asking(reply(200, [])) as (client, server, _):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            dead = free.getsockname()
        alive = server.server_address
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, alive)]
        lookup = socket.getaddrinfo

        def several(host: str, port: int, *rest: Any, **kw: Any) -> Any:
            return found if kw.get("type") == socket.SOCK_STREAM and not rest else lookup(host, port, *rest, **kw)

        monkeypatch.setattr(socket, "getaddrinfo", several)
        assert client.orders() == []


def test_the_time_to_connect_is_shared_out_among_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []

    def silence(address: object, share: float, *_: object) -> None:
        shares.append(share)
        raise TimeoutError("timed out")

    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{last}", 443)) for last in (1, 2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    monkeypatch.setattr("swap.infra.deadline.open_socket", silence)
    with pytest.raises(Unreachable) as unreachable:
        World().client("https://upstream.invalid").orders()
    assert unreachable.value.cause == "timeout"
    assert shares[0] == pytest.approx(2.5, abs=0.1), "two addresses, five seconds"


def test_an_idle_connection_that_died_costs_a_read_nothing() -> None:
    def answer_and_close(handler: Any) -> None:
        reply(200, [])(handler)
        handler.close_connection = True

    with asking(answer_and_close, reply(200, [])) as (client, _, world):
        client.orders()
        client.orders()
        assert len([call for call in world.calls if call.outcome != "OK"]) <= 1


def test_one_client_serves_many_threads() -> None:
    steps = [reply(200, RATE) for _ in range(64)]
    with asking(*steps) as (client, server, _):
        threads = [threading.Thread(target=lambda: [client.rate(BTC_USDT) for _ in range(8)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.seen) == 64
        assert len({seen.connection for seen in server.seen}) <= 16


# --- what the transport refuses to do --------------------------------------------------------------------------------


def test_redirects_are_not_followed() -> None:
    with serving(reply(200, [])) as other, asking(reply(307, None, Location=other.url + "/x")) as (client, server, _):
        with pytest.raises(Malformed, match="redirect"):
            client.orders()
        assert (len(server.seen), other.seen) == (1, [])


def test_proxies_and_passwords_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serving() as proxy, asking(reply(200, [])) as (client, server, _):
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert client.orders() == []
        assert proxy.seen == []
        assert "authorization" not in server.last.headers


def test_cookies_are_not_kept() -> None:
    with asking(reply(200, [], Set_Cookie="session=1; Path=/"), reply(200, [])) as (client, server, _):
        client.orders()
        client.orders()
        assert "cookie" not in server.last.headers


@pytest.mark.parametrize(
    "url",
    [
        "http://upstream.example",
        "ftp://upstream.example",
        "https://upstream.example/api/v2",
        "https://upstream.example?x=1",
        "https://someone:secret@upstream.example",
        "upstream.example",
        "",
        "https://upstream.example:99999",
    ],
)
def test_a_base_url_must_be_a_bare_https_host(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Transport(url, user_agent="x")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://upstream.example", "http://localhost:1", "http://127.0.0.1:1/", "http://[::1]:1"]
)
def test_https_and_loopback_are_fine(url: str) -> None:
    assert repr(World().client(url)) == f"UpstreamClient({url.rstrip('/')!r})"


@pytest.mark.parametrize(("public", "secret"), [("", "s"), ("p", ""), ("p\n", "s"), ("p", "geheim niß"), ("p", "a b")])
def test_keys_that_cannot_travel_in_a_header_are_refused_without_being_repeated(public: str, secret: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        KeyPair(public, secret)
    assert "geheim" not in str(refused.value)


def test_an_empty_user_agent_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="user agent"):
        Transport("https://upstream.example", user_agent=" ")


# --- the classifier --------------------------------------------------------------------------------------------------

JSON = dict[str, Any]


def error_for(status: int, body: JSON | str, endpoint: str = "rate") -> UpstreamError:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return classify(read_problem(status, content, {}), endpoint)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "", AuthFailed),
        (400, {"message": "X-Api-Signature is wrong"}, AuthFailed),
        (403, {"message": "unknown API key"}, AuthFailed),
        (403, {"message": "address not on the list"}, Blocked),
        (403, "<html>signature</html>", Blocked),
        (429, {"message": "address"}, RateLimited),
        (400, {"message": "destination tag missing"}, MemoRefused),
        (400, {"message": "memo required for this address"}, MemoRefused),
        (400, {"message": "invalid address"}, AddressRefused),
        (422, {"message": "Amount Too Small"}, AmountRefused),
        (406, {"message": "amount too low"}, AmountRefused),
        (422, {"message": "above the maximum"}, AmountRefused),
        (422, {"message": "Amount Too Big"}, AmountRefused),
        (422, {"status": "ERR_AMOUNT_TOO_BIG"}, AmountRefused),
        (422, {"message": "rateMode not available"}, RateModeRefused),
        (422, {"message": "pair not supported"}, PairRefused),
        (404, {"message": "Unknown instrument"}, PairRefused),
        (404, {"message": "Cannot GET"}, UpstreamNotFound),
        (404, "<html>pair</html>", UpstreamNotFound),
        (410, "", OrderExpired),
        (500, {"message": "address service is down"}, UpstreamUnavailable),
        (503, {"status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL"}, AmountRefused),
        (424, {"message": "network"}, UpstreamUnavailable),
        (301, "", Malformed),
        (400, {"message": "stage is wrong"}, RequestRefused),
        (402, {}, RequestRefused),
        (400, "", RequestRefused),
    ],
)
def test_the_classifier(status: int, body: JSON | str, expected: type[UpstreamError]) -> None:
    error = error_for(status, body)
    assert type(error) is expected
    assert error.status == status


@pytest.mark.parametrize(("value", "side"), [("0.1", "min"), ("9", "max"), (None, None)])
def test_an_amount_out_of_range_is_known_by_its_details_alone(value: str | None, side: str | None) -> None:
    details = {"field": "claimedDepositAmount", "value": value, "expected": "2"}
    error = error_for(422, {"status": "ERR_NEW", "message": "No", "data": {"details": details}})
    assert isinstance(error, AmountRefused)
    assert (error.side, error.bound) == (side, Decimal(2))


@pytest.mark.parametrize(
    "step",
    [
        reply(410),
        reply(400, {"status": "ERR_ORDER_EXPIRED"}),
        reply(200, {"status": "ERR_ORDER_EXPIRED", "message": "x"}),
        reply(410, {"message": "Gone"}),
    ],
)
def test_an_expired_order_is_known_by_its_status_or_its_code(step: Any) -> None:
    with asking(step) as (client, _, _), pytest.raises(OrderExpired):
        client.order("1", "r")


@pytest.mark.parametrize(
    "step",
    [
        reply(400, {"message": "Request timestamp expired"}),
        reply(401, {"message": "Session expired"}),
        reply(404, {"message": "Order has expired"}),
        reply(422, {"status": "ERR_HTTP", "message": "expired"}),
        reply(200, {"message": "Order expired"}),
        reply(200, {"status": "ERR_SIGNATURE_EXPIRED", "message": "expired"}),
    ],
)
def test_a_message_that_says_expired_is_no_expired_order(step: Any) -> None:
    with asking(step) as (client, _, _), pytest.raises(UpstreamError) as told:
        client.order("1", "r")
    assert not isinstance(told.value, OrderExpired)


def test_a_rate_with_a_status_is_an_error_though_it_came_with_200() -> None:
    with asking(reply(200, {**RATE, "status": "paused"})) as (client, _, _), pytest.raises(RequestRefused):
        client.rate(replace(BTC_USDT, amount=Decimal("0.0125")))


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (reply(200, True), AddressVerdict(True)),
        (reply(200, False), AddressVerdict(False)),
        (reply(201, {"result": True}), AddressVerdict(True)),
        (reply(200, {"valid": False, "message": "checksum"}), AddressVerdict(False, "checksum")),
        (reply(400, {"status": "ERR_HTTP", "data": {"address": "bad"}}), AddressVerdict(False, "bad", "address")),
        (reply(400, {"status": "ERR_HTTP", "data": {"memo": "bad"}}), AddressVerdict(False, "bad", "memo")),
        (reply(422, {"message": "Invalid address"}), AddressVerdict(False, "Invalid address", "address")),
    ],
)
def test_an_address_verdict_has_many_forms(step: Any, verdict: AddressVerdict) -> None:
    with asking(step) as (client, _, _):
        assert client.validate_address("BTC", "BTC", "bc1q") == verdict


def test_a_broken_validation_is_no_verdict() -> None:
    with asking(*[reply(500, {"data": {"address": "bad"}})] * 3) as (client, _, _), pytest.raises(UpstreamUnavailable):
        client.validate_address("BTC", "BTC", "bc1q")


def pair_row(number: int, **more: Any) -> JSON:
    return {
        "instrumentFromCurrencyTitle": f"C{number}",
        "instrumentFromNetworkTitle": "N",
        "instrumentToCurrencyTitle": "BTC",
        "instrumentToNetworkTitle": "BTC",
        **more,
    }


def test_pairs_are_read_page_by_page_once_each_without_the_inactive() -> None:
    nested = {
        "instrumentFrom": {"currencyTitle": "SOL", "networkTitle": "SOL"},
        "instrumentTo": {"currencyTitle": "LTC", "networkTitle": "LTC"},
        "isActive": True,
    }
    first = [pair_row(number) for number in range(500)]
    last = [pair_row(0), nested, pair_row(500, isActive=False), {"broken": 1}]
    with asking(reply(200, first), reply(200, last)) as (client, server, _):
        pairs = client.pairs()
    assert len(pairs) == 501
    assert pairs[-1] == Pair("SOL", "SOL", "LTC", "LTC", True)
    assert [seen.raw_query for seen in server.seen] == ["offset=0&limit=500", "offset=500&limit=500"]


def test_pairs_stop_where_the_upstream_ignores_the_offset() -> None:
    page = reply(200, [pair_row(number) for number in range(500)])
    with asking(page, page, page) as (client, server, _):
        assert len(client.pairs()) == 500
        assert len(server.seen) == 2


def test_pairs_give_up_after_128_pages() -> None:
    def endless(handler: Any) -> None:
        server: Script = handler.server
        server.steps.append(endless)
        offset = int(server.last.query["offset"])
        reply(200, [pair_row(offset + number) for number in range(500)])(handler)

    with asking(endless) as (client, server, _):
        assert len(client.pairs()) == 64_000
        assert len(server.seen) == 128


def read_instrument(row: JSON) -> Instrument:
    (instrument,) = decode.read_instruments([row])
    return instrument


def test_an_instrument_is_read_with_its_gaps() -> None:
    bare = read_instrument({"currencyTitle": "RON", "networkTitle": "RON", "instrumentType": "FIAT"})
    assert (bare.type, bare.name, bare.precision, bare.requires_memo) == ("fiat", "RON", 8, None)
    assert (bare.slug, bare.contract_address, bare.logo_url) == (None, None, None)
    rich = read_instrument(
        {
            "currencyTitle": "RUNE",
            "networkTitle": "RUNE",
            "precisionDecimals": "12",
            "requiresMemo": True,
            "currencyLogoLink": "javascript:alert(1)",
            "contractAddress": "",
        }
    )
    assert (rich.type, rich.precision, rich.requires_memo, rich.logo_url) == ("crypto", 12, True, None)


def test_limits_without_an_amount_make_a_rate_but_an_amount_needs_its_payout() -> None:
    limits = {"generalMinAmount": "0.0008", "depositRules": None}
    assert decode.read_rate(limits, with_amount=False).min_amount == Decimal("0.0008")
    for body in (limits, {**RATE, "amountToGet": "-1"}):
        with pytest.raises(Malformed):
            decode.read_rate(body, with_amount=True)
    with pytest.raises(Malformed):
        decode.read_rate({"hello": "world"}, with_amount=False)


def test_facts_are_read_whatever_the_order_of_the_arrays() -> None:
    body = {
        "orderId": "90210",
        "completed": True,
        "KYCFormLink": "https://kyc.example/1",
        "failedToCreate": False,
        "isPendingToCreate": True,
        "state": "created",
        "orderEvents": [
            {"kind": "WITHDRAWAL_COMPLETED", "createdAt": "2025-10-09T09:21:10.123456Z"},
            {"kind": "CREATION_END", "createdAt": None},
            {"kind": None},
            "noise",
        ],
        "deposits": [
            {"createdAt": 1760000461000, "amount": "0.0125", "confirmations": "2", "txId": "tx", "isPending": True}, None
        ],
        "withdrawals": [{"amount": "0", "txId": None}],
    }  # fmt: skip
    facts = decode.read_order(body).facts
    assert {(event.kind, event.at) for event in facts.events} == {
        ("WITHDRAWAL_COMPLETED", datetime(2025, 10, 9, 9, 21, 10, 123_000, tzinfo=UTC)),
        ("CREATION_END", datetime(1970, 1, 1, tzinfo=UTC)),
    }
    deposit = next(each for each in facts.transfers if each.direction == "deposit")
    assert (deposit.amount, deposit.tx_id, deposit.confirmations) == (Decimal("0.0125"), "tx", 2)
    assert deposit.pending and deposit.at == datetime(2025, 10, 9, 9, 1, 1, tzinfo=UTC)
    withdrawal = next(each for each in facts.transfers if each.direction == "withdrawal")
    assert (withdrawal.amount, withdrawal.tx_id, withdrawal.at) == (None, None, None)
    assert (facts.completed, facts.pending_to_create, facts.kyc_link) == (True, True, "https://kyc.example/1")


def test_a_malformed_answer_is_kept_with_its_error() -> None:
    with asking(reply(200, {"hello": "world"})) as (client, _, world):
        with pytest.raises(Malformed) as malformed:
            client.orders()
        assert (malformed.value.status, malformed.value.body) == (200, '{"hello": "world"}')
        assert world.calls[0].response_body == '{"hello": "world"}'


def test_a_listed_order_is_read_with_its_sentinels() -> None:
    with asking(
        reply(
            200,
            [
                {
                    "orderId": "7",
                    "uuid": "u-7",
                    "amountToGet": "-1",
                    "amountToWithdrawFact": "5",
                    "destinationAddress": "T",
                    "refundAddress": "",
                    "completed": True,
                    "createdAt": "2025-12-10T10:00:00.000Z",
                }
            ],
        )
    ) as (client, _, _):
        (order,) = client.orders()
    assert (order.order_id, order.refs, order.amount_to_get, order.paid_out) == ("7", ("7", "u-7"), None, Decimal(5))
    assert (order.refund_address, order.completed, order.state, order.updated_at) == (None, True, None, None)


# --- the clock -------------------------------------------------------------------------------------------------------


def dated(seconds: float) -> dict[str, str]:
    return {"Date": datetime.fromtimestamp(NOW + seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")}


def test_the_offset_is_the_median_and_applied_only_from_one_second_to_sixty() -> None:
    clock = UpstreamClock(lambda: NOW)
    assert (clock.offset_seconds, clock.alarm) == (0.0, False)
    clock.observe(dated(0), 0.0)
    assert clock.offset_seconds == 0.0, "half a second is the header's own coarseness"
    clock.observe(dated(25), 0.0)
    assert clock.offset_seconds == 0.0, "two answers are too few: one alone may be wrong by half a minute"
    for _ in range(9):
        clock.observe(dated(10), 0.0)
    assert 10 < clock.offset_seconds < 11
    assert clock.timestamp() == str(int((NOW + clock.offset_seconds) * 1000))
    assert (clock.now() - datetime.fromtimestamp(NOW, UTC)).total_seconds() == pytest.approx(clock.offset_seconds)
    clock.observe(dated(-20), 0.0)
    assert 10 < clock.offset_seconds < 11, "one odd answer moves nothing"
    for _ in range(9):
        clock.observe(dated(90), 0.0)
    assert (clock.offset_seconds, clock.alarm) == (0.0, True)


def test_answers_that_tell_nothing_about_now_do_not_move_the_clock() -> None:
    clock = UpstreamClock(lambda: NOW)
    clock.observe({**dated(30), "Age": "30"}, 0.0)
    clock.observe(dated(30), 20.0)
    clock.observe({"Date": "yesterday"}, 0.0)
    clock.observe({}, 0.0)
    assert clock.offset_seconds == 0.0


def test_signatures_carry_the_upstreams_time() -> None:
    with asking(*[reply(200, [])] * 4, clock=lambda: NOW - 30) as (client, server, _):
        for _call in range(4):
            client.orders()
        first, *_, second = (int(seen.headers["x-api-timestamp"]) for seen in server.seen)
        assert first == (NOW - 30) * 1000
        assert second == pytest.approx(NOW * 1000, abs=1500)
        assert client.offset_seconds == pytest.approx(30, abs=1.5)
        assert not client.clock_alarm
        assert abs((client.upstream_now() - datetime.fromtimestamp(NOW, UTC)).total_seconds()) < 1.5


# --- excerpts --------------------------------------------------------------------------------------------------------


def test_an_excerpt_is_text_of_at_most_four_kilobytes() -> None:
    assert excerpt(b"") is None and excerpt(None) is None
    long = excerpt("ä".encode() * 5000)
    assert long is not None and len(long.encode()) <= 4096 and set(long) == {"ä"}
    assert excerpt({"amount": Decimal("0.1"), "name": "ä"}) == '{"amount":"0.1","name":"ä"}'
    assert excerpt(b"a\x00b\xff") == "ab�"
    straddling = excerpt(b"x" * 4090 + SECRET.encode(), [SECRET])
    assert straddling is not None and "sk_" not in straddling
