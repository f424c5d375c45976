"""How a create ends: an order, a refusal of the written list, NotSent, or OutcomeUnknown; never a second request."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from swap.errors import (
    AddressRefused,
    AmountRefused,
    AuthFailed,
    Blocked,
    MemoRefused,
    NotSent,
    OutcomeUnknown,
    PairRefused,
    RateLimited,
    RateModeRefused,
    RequestRefused,
    Unreachable,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnavailable,
)
from swap.upstream import decode
from swap.upstream.refusals import REFUSALS
from swap.upstream.replies import CreateRequest
from tests.scripted_upstream import (
    ORDER,
    PUBLIC,
    RATE,
    SECRET,
    World,
    asking,
    hang_up,
    raw,
    reply,
    reset,
    serving,
)

pytestmark = pytest.mark.server

CREATE = CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal("0.0125"), "rExampleDestination")


def outcome(step: Any, **options: Any) -> tuple[UpstreamError, World, int]:
    with asking(step, reply(201, ORDER), **options) as (client, server, world):
        with pytest.raises((NotSent, OutcomeUnknown, RequestRefused)) as failed:
            client.create_order(CREATE, order_ref="ord_1", attempt=2)
        return failed.value, world, len(server.seen)


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_the_body_is_the_one_of_vector_v1_byte_for_byte() -> None:
    request = CreateRequest(
        from_currency="BTC",
        from_network="BTC",
        to_currency="USDT",
        to_network="TRC20",
        amount=Decimal("0.0125"),
        destination_address="TExampleDestination0000000000000001",
        refund_address="bc1qexamplerefund0000000000000000000001",
        referrer_id="aff_1",
    )
    with asking(reply(201, ORDER), clock=lambda: 1760000000.0) as (client, server, _):
        client.create_order(request)
    assert (server.last.method, server.last.path) == ("POST", "/api/v2/orders/public/create")
    assert len(server.last.body) == 318
    assert server.last.headers["x-api-signature"] == "nqzpN/XwC6GWDgZLW18xnyg6E+D8qNLnSA6wFFeNpJg="
    assert server.last.headers["x-api-timestamp"] == "1760000000000"
    assert server.last.headers["content-type"] == "application/json"


def test_all_options_are_sent_and_absent_ones_are_left_out() -> None:
    rate = decode.read_rate(RATE, with_amount=True)
    request = CreateRequest(
        "BTC", "BTC", "XRP", "XRP", Decimal("0.0125"), "rDestination", "77", "bc1qrefund", "9", "FIXED",
        rate.claimed(), rate.network_fee, Decimal("0.30"), "aff_1",
    )  # fmt: skip
    assert request.body() == {
        "instrumentFrom": {"currencyTitle": "BTC", "networkTitle": "BTC"},
        "instrumentTo": {"currencyTitle": "XRP", "networkTitle": "XRP"},
        "destinationAddress": "rDestination",
        "destinationAddressMemo": "77",
        "refundAddress": "bc1qrefund",
        "refundAddressMemo": "9",
        "claimedDepositAmount": "0.0125",
        "rateMode": "FIXED",
        "claimedNetworkFee": "1.2",
        "referrerId": "aff_1",
        "markup": "0.3",
        "claimedPublicRate": {
            "price": "65010.5",
            "claimedAmountToReceive": "811.42",
            "updatedAt": "2025-10-09T08:53:20.000Z",
            "finalNetworkFeeAmount": "1.2",
            "platformFee_Absolute": "0.4",
            "quotes": RATE["quotes"],
        },
    }
    assert set(CREATE.body()) == {
        "instrumentFrom",
        "instrumentTo",
        "destinationAddress",
        "claimedDepositAmount",
        "rateMode",
    }


def test_a_request_that_cannot_be_signed_faithfully_is_refused_before_anything_is_sent() -> None:
    broken = CreateRequest("BTC", "BTC", "XRP", "XRP", Decimal(1), "r", claimed_rate={"price": 1.5})
    with asking(reply(201, ORDER)) as (client, server, _):
        with pytest.raises(RequestRefused) as refused:
            client.create_order(broken)
        assert refused.value.cause == "validation"
        assert server.seen == []


def test_a_create_never_rides_a_pooled_connection() -> None:
    listed = reply(200, [])
    with asking(listed, listed, reply(201, ORDER), listed, reply(201, ORDER)) as (client, server, _):
        client.orders()
        client.orders()
        client.create_order(CREATE)
        client.orders()
        client.create_order(CREATE)
    reads = {server.seen[index].connection for index in (0, 1, 3)}
    creates = {server.seen[index].connection for index in (2, 4)}
    assert len(reads) == 1, "reads keep their connection"
    assert len(creates) == 2 and not creates & reads
    assert server.seen[2].headers["connection"] == "close"


# --- an order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        ORDER,
        [ORDER],
        {"uuid": "5f0c8c6e-uuid", "depositAddress": "bc1q"},
        {"orderId": 1, "paymentLink": "https://pay.example/1"},
    ],
)
def test_an_id_and_a_place_to_pay_make_an_order(body: Any) -> None:
    with asking(reply(201, body)) as (client, _, world):
        assert client.create_order(CREATE, order_ref="ord_1").complete
        (call,) = world.calls
        assert (call.endpoint, call.outcome, call.status, call.order_ref) == ("create", "OK", 201, "ord_1")
        assert call.request_body is not None and json.loads(call.request_body) == CREATE.body()
        assert call.at == datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)
        assert world.taken[0][0] == "create"


def test_the_echo_is_read_in_full() -> None:
    with asking(reply(201, {**ORDER, "refundAddressMemo": 5, "state": "created", "status": "waiting"})) as (
        client,
        _,
        _,
    ):
        order = client.create_order(CREATE)
    assert order.refs == ("90210", ORDER["legacyOrderId"])
    assert (order.from_currency, order.from_network, order.to_currency, order.to_network) == (
        "BTC",
        "BTC",
        "XRP",
        "XRP",
    )
    assert (order.amount, order.amount_to_get, order.rate_mode) == (Decimal("0.0125"), Decimal("262.3"), "FIXED")
    assert (order.destination_address, order.destination_memo) == ("rExampleDestination", "1234567")
    assert (order.refund_address, order.refund_memo) == ("bc1qexamplerefund", "5")
    assert order.created_at == datetime(2025, 10, 9, 8, 53, 25, 120_000, tzinfo=UTC)
    assert (order.state, order.status) == ("created", "waiting")
    assert order.raw["depositAddress"]["depositAddress"] == "bc1qexampledeposit"


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "error", "side"),
    [
        (422, {"status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL"}, AmountRefused, "min"),
        (406, {"message": "amount too low"}, AmountRefused, "min"),
        (400, {"message": "Amount Too Small"}, AmountRefused, "min"),
        (422, {"message": "Amount Too Big"}, AmountRefused, "max"),
        (400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {"address": "bad"}}, AddressRefused, None),
        (400, {"status": "ERR_HTTP", "message": "Http Exception", "data": {"memo": "bad"}}, MemoRefused, None),
        (422, {"message": "pair not supported"}, PairRefused, None),
        (400, {"message": "markup requires referrerId key"}, RequestRefused, None),
        (422, {"message": "rateMode FIXED is not available"}, RateModeRefused, None),
    ],
)
def test_the_written_list_refuses(
    status: int, body: dict[str, Any], error: type[UpstreamRefused], side: str | None
) -> None:
    with asking(reply(status, body)) as (client, server, world):
        with pytest.raises(error) as refused:
            client.create_order(CREATE)
        assert getattr(refused.value, "side", None) == side
        assert refused.value.status == status
        assert len(server.seen) == len(world.calls) == 1


def test_every_row_of_the_list_names_its_evidence() -> None:
    assert len({row.name for row in REFUSALS}) == len(REFUSALS)
    for row in REFUSALS:
        assert row.evidence.startswith("section ")
        assert row.statuses <= {400, 406, 422}


# --- unknown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        reply(500, {"message": "Amount Too Small"}),
        reply(502, "<html>bad gateway</html>"),
        reply(503, None, Retry_After="1"),
        reply(504),
        reply(400, {"message": "something new"}),
        reply(400),
        reply(402, {"message": "Amount Too Small"}),
        reply(404, {"message": "pair not supported"}),
        reply(409, {"message": "Amount Too Small"}),
        reply(410, {"status": "ERR_ORDER_EXPIRED"}),
        reply(422, "<html>Amount Too Small</html>"),
        reply(200, {"status": "ERR_CLAIMED_DEPOSIT_AMOUNT_TOO_SMALL", "message": "Amount Too Small"}),
        reply(302, None, Location="/x"),
        reply(422, {"message": "Amount Too Small", "orderId": 5}),
        reply(403, {"message": "signature rejected", "orderId": 5}),
        reset,
        hang_up,
        raw(b"HTTP/1.1 201 Created\r\nContent-Length: 500\r\n\r\n{"),
        raw(b"nonsense\r\n\r\n"),
        raw(b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
    ],
)
def test_everything_else_after_sending_is_unknown_and_not_sent_again(step: Any) -> None:
    error, world, requests_seen = outcome(step)
    assert isinstance(error, OutcomeUnknown)
    assert requests_seen == 1
    (call,) = world.calls
    assert (call.outcome, call.attempt, call.order_ref) == ("UPSTREAM_OUTCOME_UNKNOWN", 2, "ord_1")
    assert world.slept == []


def test_ids_in_an_incomplete_answer_are_handed_on() -> None:
    error, _, _ = outcome(reply(201, {**ORDER, "depositAddress": None}))
    assert isinstance(error, OutcomeUnknown)
    assert error.found.refs == ("90210", ORDER["legacyOrderId"])
    assert error.cause == "malformed"


def test_an_answer_that_drips_is_cut_off_at_the_create_timeout() -> None:
    drip = raw(*[b"H"] * 1000, every=0.02)
    with asking(drip, create_timeout=0.3, monotonic=time.monotonic) as (client, _, world):
        with pytest.raises(OutcomeUnknown) as unknown:
            client.create_order(CREATE)
        assert unknown.value.cause == "timeout"
        assert 250 <= world.calls[0].ms < 2000


def test_a_mistake_of_ours_after_sending_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr("swap.upstream.exchange.judge_create", stumble)
    error, world, _ = outcome(reply(201, ORDER))
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, KeyError)
    assert world.calls[0].outcome == "UPSTREAM_OUTCOME_UNKNOWN"


# --- not sent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "cause", "reason"),
    [
        (reply(401, {"message": "no"}), "signing", AuthFailed),
        (reply(403, {"message": "signature rejected"}), "signing", AuthFailed),
        (reply(403, "<html>denied</html>"), "connect", Blocked),
        (reply(429, {"message": "slow down"}, Retry_After="7"), "limit", RateLimited),
    ],
)
def test_an_answer_from_the_door_means_not_sent(step: Any, cause: str, reason: type[Exception]) -> None:
    error, world, seen = outcome(step)
    assert isinstance(error, NotSent)
    assert (error.cause, seen) == (cause, 1)
    assert isinstance(error.__cause__, reason)
    assert error.retry_after == (7.0 if cause == "limit" else None)
    assert world.calls[0].outcome == "UPSTREAM_NOT_SENT"


def not_sent(url: str, **options: Any) -> NotSent:
    world = World()
    client = world.client(url, **options)
    with pytest.raises(NotSent) as failed:
        client.create_order(CREATE)
    assert isinstance(failed.value.__cause__, Unreachable)
    assert [(call.outcome, call.status) for call in world.calls] == [("UPSTREAM_NOT_SENT", None)]
    return failed.value


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_a_refused_connection_is_not_sent() -> None:
    error = not_sent(f"http://127.0.0.1:{closed_port()}")
    assert error.cause == "connect"
    assert "refused" in error.message.lower()


def test_a_name_that_does_not_resolve_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    assert not_sent("https://upstream.invalid").cause == "connect"


def test_a_connection_that_is_never_made_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def silence(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("swap.infra.deadline.open_socket", silence)
    assert not_sent("http://127.0.0.1:9").cause == "timeout"


def test_a_certificate_nobody_vouches_for_is_not_sent(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(reply(201, ORDER), tls=tls) as server:
        error = not_sent(server.url)
        assert error.cause == "tls"
        assert "self" in error.message
        assert server.seen == []


def test_over_tls_a_reset_after_the_request_is_unknown(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(reply(201, ORDER), reset, hang_up, tls=tls) as server:
        client = World().client(server.url)
        assert client.create_order(CREATE).complete, "the certificate is good, so this order is made"
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                client.create_order(CREATE)
        assert len(server.seen) == 3


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


def test_a_tls_handshake_that_never_ends_is_not_sent(silent_port: int) -> None:

    error = not_sent(f"https://127.0.0.1:{silent_port}", create_timeout=0.3, monotonic=time.monotonic)
    assert error.cause == "timeout"


def test_a_reset_during_the_tls_handshake_is_not_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def close_at_once() -> None:
            connection, _ = listening.accept()
            connection.close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        error = not_sent(f"https://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert error.cause in ("connect", "tls")


def test_a_proxy_that_refuses_is_not_sent() -> None:
    with serving() as proxy:
        error = not_sent("https://upstream.invalid", proxy=proxy.url)
        assert error.cause == "connect"
        assert proxy.seen == []


def test_a_spent_budget_is_not_sent_and_says_when_to_come_back() -> None:
    def spent(priority: str, max_wait: float) -> None:
        raise RateLimited("spent", retry_after=3.5)

    error, world, seen = outcome(reply(201, ORDER), take=spent)
    assert isinstance(error, NotSent)
    assert (error.cause, error.retry_after, seen) == ("limit", 3.5, 0)
    assert world.calls[0].outcome == "UPSTREAM_NOT_SENT"


def test_a_broken_budget_is_not_sent_either() -> None:
    def broken(priority: str, max_wait: float) -> None:
        raise OSError("the bucket is gone")

    error, _, seen = outcome(reply(201, ORDER), take=broken)
    assert isinstance(error, NotSent)
    assert seen == 0


def test_a_create_is_not_begun_without_time_to_hear_the_answer() -> None:
    with asking(reply(201, ORDER)) as (client, server, world):
        with pytest.raises(NotSent) as late:
            client.create_order(CREATE, deadline=1.0)
        assert late.value.cause == "timeout"
        assert server.seen == []
        assert world.taken == [("create", 0.0)]


# --- secrets and the journal -----------------------------------------------------------------------------------------


def test_what_is_kept_of_a_call_holds_no_key_and_no_signature() -> None:
    def echo(handler: Any) -> None:
        page = "<html>" + str(dict(handler.headers)) + SECRET + "x" * 9000
        reply(500, page, X_Request_Id="req-7")(handler)

    error, world, _ = outcome(echo)
    (call,) = world.calls
    assert call.request_id == "req-7"
    assert call.response_body is not None and len(call.response_body.encode()) <= 4096
    for kept in (call.response_body, call.request_body or "", str(error), error.body or "", repr(call)):
        assert SECRET not in kept
        assert PUBLIC not in kept
    assert "[redacted]" in call.response_body
    assert "X-Api-Signature': '[redacted]'" in call.response_body


def test_reprs_show_no_key() -> None:
    client = World().client("http://127.0.0.1:9")
    assert repr(client) == "UpstreamClient('http://127.0.0.1:9')"
    assert SECRET not in repr(CREATE)


def test_a_journal_that_fails_takes_no_answer_away() -> None:
    def full(_: object) -> None:
        raise OSError("disk full")

    with asking(reply(201, ORDER), on_call=full) as (client, _, _), capture_logs() as logs:
        assert client.create_order(CREATE).complete
    assert [entry["event"] for entry in logs] == ["upstream.call_not_journalled"]
    assert SECRET not in str(logs)


def test_hanging_up_ends_an_open_create_without_an_answer_and_sends_no_more() -> None:
    arrived, over = threading.Event(), threading.Event()

    def silent(handler: Any) -> None:
        arrived.set()
        over.wait(20)

    with asking(silent, reply(201, ORDER)) as (client, server, _):
        ended: list[Exception] = []

        def create() -> None:
            try:
                client.create_order(CREATE)
            except (NotSent, OutcomeUnknown) as error:
                ended.append(error)

        thread = threading.Thread(target=create)
        thread.start()
        assert arrived.wait(20)
        client.hang_up()
        thread.join(20)
        assert [type(error) for error in ended] == [OutcomeUnknown]
        with pytest.raises(NotSent):
            client.create_order(CREATE)
        with pytest.raises(UpstreamUnavailable):
            client.instruments()
        over.set()
        assert len(server.seen) == 1
