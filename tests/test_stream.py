"""The stream over real sockets: who gets in, what is answered, what is pushed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import requests
from websockets.exceptions import InvalidStatus

from swap.access.keys import KeyOptions
from swap.settings import Settings
from swap.stream.protocol import Limits
from swap.wiring import Service
from tests.conftest import Clock, Shop, new_shop
from tests.factories import make_order, move
from tests.streams import Peer, Running, credentials, entered, streaming

SITE = "https://shop.example"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return replace(settings, allowed_origins=(SITE,))


@pytest.fixture
def stream(service: Service) -> Iterator[Running]:
    with streaming(service) as running:
        yield running


@pytest.fixture
def peer(stream: Running, shop: Shop, clock: Clock) -> Iterator[Peer]:
    with entered(stream.url, shop, clock) as peer:
        yield peer


def code_of(answer: dict[str, Any]) -> str:
    assert answer["type"] == "error", answer
    code: str = answer["code"]
    return code


# --- getting in ------------------------------------------------------------------------------------------------------


def test_a_signature_lets_a_key_in_and_changes_are_pushed_as_the_feed_has_them(
    service: Service, shop: Shop, peer: Peer
) -> None:
    ack = peer.ask(op="subscribe", id="s1", channels=["orders"])
    assert (ack["type"], ack["id"], ack["channels"]) == ("subscribed", "s1", ["orders"])
    order = shop.place()
    service.feed.publish()
    pushed = [peer.hear(), peer.hear()]
    assert [message["channels"] for message in pushed] == [["orders"], ["orders"]]
    page = shop.api.events(after=ack["cursor"])
    assert [message["event"] for message in pushed] == page["events"]
    assert pushed[-1]["event"]["order"]["id"] == order["id"]


def test_a_first_message_that_proves_nothing_ends_the_connection(stream: Running, shop: Shop, clock: Clock) -> None:
    good = credentials(shop, clock)
    refused: list[tuple[dict[str, Any], str]] = [
        ({**good, "signature": "0" * 64}, "SIGNATURE_INVALID"),
        ({**good, "key": "swk_unknown"}, "KEY_UNKNOWN"),
        ({**good, "timestamp": str(int(good["timestamp"]) - 60_000)}, "TIMESTAMP_OUTSIDE_WINDOW"),
        ({"op": "auth"}, "CREDENTIALS_MISSING"),
        ({"op": "auth", "token": "trk_x"}, "TOKEN_INVALID"),
        ({"op": "auth", "key": 7}, "BAD_MESSAGE"),
        ({"op": "subscribe", "channels": ["orders"]}, "NOT_AUTHENTICATED"),
        ({"op": 1}, "BAD_MESSAGE"),
    ]
    for wrong, code in refused:
        with Peer(stream.url) as stranger:
            assert code_of(stranger.ask(**wrong)) == code
            assert stranger.closed()[0] == 4401


def test_who_says_nothing_is_sent_away(service: Service) -> None:
    with streaming(service, Limits(auth_seconds=0.2)) as running, Peer(running.url) as silent:
        assert silent.closed() == (4401, "no auth in time")


def test_a_key_without_the_scope_is_told_so(service: Service, api_url: str, clock: Clock, stream: Running) -> None:
    reader = new_shop(service, api_url, clock, "reader", scopes=["catalog"])
    with entered(stream.url, reader, clock) as peer:
        answer = peer.ask(op="subscribe", channels=["orders", "instruments", "rates.BTC:BTC-XRP:XRP"])
        assert answer["details"]["channels"] == {"orders": "SCOPE_MISSING", "rates.BTC:BTC-XRP:XRP": "SCOPE_MISSING"}
        assert peer.ask(op="subscribe", channels=["instruments"])["type"] == "subscribed"
    nobody = new_shop(service, api_url, clock, "nobody", scopes=["webhooks"])
    with Peer(stream.url) as peer:
        assert code_of(peer.ask(**credentials(nobody, clock))) == "SCOPE_MISSING"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/stream", {"Origin": "https://evil.example"}, 403),
        ("/v1/stream", {"Origin": "null"}, 403),
        ("/v1/stream", {"Origin": "https://shop.example.evil.example"}, 403),
        ("/v1/stream?token=trk_x", {}, 400),
        ("/v1/other", {}, 404),
        ("/v1/stream/", {}, 404),
    ],
)
def test_who_comes_from_the_wrong_place_or_to_the_wrong_one_is_refused(
    path: str, headers: dict[str, str], status: int, stream: Running
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        Peer(stream.url.removesuffix("/v1/stream") + path, additional_headers=headers)
    assert caught.value.response.status_code == status


def test_a_browser_of_an_allowed_site_gets_in(stream: Running, shop: Shop, clock: Clock) -> None:
    order = shop.place()
    with Peer(stream.url, additional_headers={"Origin": SITE}) as peer:
        assert peer.ask(op="auth", token=order["tracking"]["token"])["order_id"] == order["id"]


def test_health_is_answered_over_plain_http(stream: Running) -> None:
    answer = requests.get(f"http://127.0.0.1:{stream.port}/healthz", timeout=30)
    assert (answer.status_code, answer.text) == (200, "alive\n")


def test_connections_are_limited_in_all_per_client_and_per_order(
    service: Service, shop: Shop, api_url: str, clock: Clock
) -> None:
    limits = Limits(sockets=5, unknown=3, per_client=2, per_order=1)
    token = shop.place()["tracking"]["token"]
    with streaming(service, limits) as running:
        first, second = entered(running.url, shop, clock), entered(running.url, shop, clock)
        with first, Peer(running.url) as third:
            with second:
                assert code_of(third.ask(**credentials(shop, clock))) == "TOO_MANY_CONNECTIONS"
                assert third.closed()[0] == 1013
            with Peer(running.url) as follower, Peer(running.url) as another:
                assert follower.ask(op="auth", token=token)["type"] == "authenticated"
                assert code_of(another.ask(op="auth", token=token)) == "TOO_MANY_CONNECTIONS"
                other = new_shop(service, api_url, clock, "other")
                with entered(running.url, other, clock), Peer(running.url), Peer(running.url):
                    with pytest.raises(InvalidStatus) as caught:
                        Peer(running.url)
                    assert caught.value.response.status_code == 503
                    assert caught.value.response.headers["Retry-After"]


def test_sockets_that_never_say_who_they_are_keep_nobody_out(service: Service, shop: Shop, clock: Clock) -> None:
    with streaming(service, Limits(unknown=3)) as running:
        silent = [Peer(running.url) for _ in range(5)]
        with entered(running.url, shop, clock) as known:
            assert known.ask(op="ping", id="1")["id"] == "1"
            assert all(peer.cut() for peer in silent[:3]), "the oldest made room"
            for peer in silent[3:]:
                assert code_of(peer.ask(op="ping")) == "NOT_AUTHENTICATED", "the youngest are still heard"


def test_a_connection_that_floods_us_with_pings_or_parts_of_messages_is_cut(
    stream: Running, shop: Shop, clock: Clock
) -> None:
    with entered(stream.url, shop, clock) as other:
        for frame in (b"\x89\x80\0\0\0\0", b"\x00\x80\0\0\0\0"):
            with Peer(stream.url) as flood:
                wire = flood.socket.socket
                with suppress(OSError):
                    wire.sendall(b"\x01\x80\0\0\0\0" * (frame[0] == 0) + frame * 1000)
                assert flood.cut()
        assert other.ask(op="ping", id="1")["id"] == "1"


def test_a_key_that_is_bound_to_networks_opens_no_stream_from_elsewhere(
    other_service: Any, api_url: str, clock: Clock
) -> None:
    parts = other_service(trusted_proxies=("127.0.0.0/8",))
    bound = new_shop(parts, api_url, clock, "bound", options=KeyOptions(allowed_from=["203.0.113.0/24"]))
    with streaming(parts) as running:
        with Peer(running.url, additional_headers={"X-Forwarded-For": "198.51.100.1"}) as elsewhere:
            assert code_of(elsewhere.ask(**credentials(bound, clock))) == "ADDRESS_NOT_ALLOWED"
            assert elsewhere.closed()[0] == 4401
        with Peer(running.url, additional_headers={"X-Forwarded-For": "203.0.113.9"}) as allowed:
            assert allowed.ask(**credentials(bound, clock))["type"] == "authenticated"
    assert parts.keys.listed()[0]["last_used_from"] == "203.0.113.9"


def test_what_opened_a_connection_opens_no_other(stream: Running, shop: Shop, clock: Clock) -> None:
    said = credentials(shop, clock)
    with Peer(stream.url) as first, Peer(stream.url) as second:
        assert first.ask(**said)["type"] == "authenticated"
        assert code_of(second.ask(**said)) == "SIGNATURE_USED"
        assert second.closed()[0] == 4401


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "7",
        "null",
        '{"op":7}',
        "{}",
        '{"op":"fly"}',
        '{"op":"ping","id":7}',
        b"\x00",
        "[" * 2000,
        '{"op":"subscribe"}',
        '{"op":"subscribe","channels":"orders"}',
        '{"op":"subscribe","channels":[]}',
        '{"op":"subscribe","channels":[7]}',
        '{"op":"subscribe","channels":["orders"],"after":7}',
        '{"op":"subscribe","channels":["instruments"],"after":"x"}',
        '{"op":"subscribe","channels":["a\\u0000"]}',
        '{"op":"unsubscribe","channels":{}}',
    ],
)
def test_what_makes_no_sense_is_answered_and_the_connection_stays(text: str | bytes, peer: Peer) -> None:
    peer.socket.send(text)
    assert code_of(peer.hear()) == "BAD_MESSAGE"
    assert peer.ask(op="ping", id="still")["id"] == "still"


def test_ping_is_answered_with_our_time(peer: Peer, clock: Clock) -> None:
    answer = peer.ask(op="ping", id="p")
    assert (answer["type"], answer["id"]) == ("pong", "p")
    assert abs(answer["time"] - clock.time() * 1000) < 60_000


def test_a_message_that_is_too_big_ends_the_connection(peer: Peer) -> None:
    peer.socket.send(json.dumps({"op": "ping", "id": "x" * 20_000}))
    assert peer.closed()[0] == 1009


def test_too_many_messages_end_the_connection(service: Service, shop: Shop, clock: Clock) -> None:
    limits = Limits(burst=5, per_second=0.001)
    with streaming(service, limits) as running, entered(running.url, shop, clock) as peer:
        for number in range(5):
            assert peer.ask(op="ping", id=str(number))["type"] == "pong"
        peer.say(op="ping")
        assert peer.closed()[0] == 4429


def test_too_many_messages_on_all_sockets_of_a_client_end_the_next_one(
    service: Service, shop: Shop, clock: Clock
) -> None:
    limits = Limits(client_burst=5, client_per_second=0.001)
    with streaming(service, limits) as running, entered(running.url, shop, clock) as peer:
        with entered(running.url, shop, clock) as other:
            for number in range(5):
                assert other.ask(op="ping", id=str(number))["type"] == "pong"
        peer.say(op="ping")
        assert peer.closed()[0] == 4429


def test_channels_that_cannot_be_are_told_all_at_once_and_none_is_subscribed_to(
    service: Service, api_url: str, clock: Clock, shop: Shop, peer: Peer
) -> None:
    theirs = new_shop(service, api_url, clock, "other").place("theirs")["id"]
    mine = shop.place()["id"]
    names = [
        *("orders", f"order.{mine}", f"order.{theirs}", "order.ord_none", "order.", "order", "nothing", "orders."),
        *("rates.BTC:BTC", "rates.BTC:BTC-NONE:X", "rates.-", "instruments.x"),
    ]
    answer = peer.ask(op="subscribe", channels=names, id="all")
    assert (code_of(answer), answer["id"]) == ("CHANNELS_REFUSED", "all")
    assert answer["details"]["channels"] == {
        f"order.{theirs}": "ORDER_NOT_FOUND",
        "order.ord_none": "ORDER_NOT_FOUND",
        **dict.fromkeys(["order.", "order", "nothing", "orders.", "instruments.x"], "CHANNEL_UNKNOWN"),
        **dict.fromkeys(["rates.BTC:BTC", "rates.BTC:BTC-NONE:X", "rates.-"], "PAIR_UNKNOWN"),
    }
    assert peer.ask(op="subscribe", channels=["orders", f"order.{mine}"])["type"] == "subscribed"
    again = peer.ask(op="subscribe", channels=["orders"])
    assert again["details"]["channels"] == {"orders": "ALREADY_SUBSCRIBED"}


def test_a_connection_has_a_limited_number_of_channels(service: Service, shop: Shop, clock: Clock) -> None:
    ids = [make_order(service.database, shop.client_id).id for _ in range(4)]
    with streaming(service, Limits(channels=3)) as running, entered(running.url, shop, clock) as peer:
        assert peer.ask(op="subscribe", channels=[f"order.{i}" for i in ids[:3]])["type"] == "subscribed"
        assert code_of(peer.ask(op="subscribe", channels=[f"order.{ids[3]}"])) == "TOO_MANY_CHANNELS"
        peer.ask(op="unsubscribe", channels=[f"order.{ids[0]}"])
        assert peer.ask(op="subscribe", channels=[f"order.{ids[3]}"])["type"] == "subscribed"


def test_an_event_of_two_channels_comes_once_and_names_both(service: Service, shop: Shop, peer: Peer) -> None:
    one, two = (make_order(service.database, shop.client_id) for _ in range(2))
    service.feed.publish()
    cursor = shop.api.events()["next"]
    peer.ask(op="subscribe", channels=["orders", f"order.{one.id}"], after=cursor)
    assert peer.hear()["type"] == "live"
    move(service.database, one, status="confirming")
    move(service.database, two, status="confirming")
    service.feed.publish()
    heard = {message["event"]["order_id"]: message["channels"] for message in (peer.hear(), peer.hear())}
    assert heard == {one.id: ["orders", f"order.{one.id}"], two.id: ["orders"]}


def test_after_unsubscribing_nothing_comes_any_more(service: Service, shop: Shop, peer: Peer) -> None:
    order = make_order(service.database, shop.client_id)
    service.feed.publish()
    peer.ask(op="subscribe", channels=["orders"], after=shop.api.events()["next"])
    assert peer.hear()["type"] == "live"
    assert peer.ask(op="unsubscribe", channels=["orders"], id="u")["type"] == "unsubscribed"
    move(service.database, order, status="confirming")
    service.feed.publish()
    back = peer.ask(op="subscribe", channels=["orders"], after=shop.api.events()["next"])
    assert back["type"] == "subscribed"
    assert peer.hear()["type"] == "live"


@pytest.mark.parametrize(("after", "code"), [("nonsense", "VALIDATION_FAILED"), ("000000000001ffffff", "CURSOR_RESET")])
def test_a_cursor_that_is_none_is_refused_and_nothing_subscribed_to(after: str, code: str, peer: Peer) -> None:
    assert code_of(peer.ask(op="subscribe", channels=["orders"], after=after)) == code
    assert peer.ask(op="subscribe", channels=["orders"])["type"] == "subscribed"


def test_heartbeats_come_and_say_how_far_everything_was_sent(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.stream.server._HEARTBEAT_SECONDS", 1)
    make_order(service.database, shop.client_id)
    service.feed.publish()
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        first = json.loads(peer.socket.recv(30))
        assert (first["type"], first["cursor"]) == ("heartbeat", None)
        peer.ask(op="subscribe", channels=["orders"])
        beat = json.loads(peer.socket.recv(30))
        assert (beat["type"], beat["cursor"]) == ("heartbeat", shop.api.events()["next"])


def test_a_heartbeat_tells_no_cursor_that_one_of_the_channels_has_not_reached(
    other_service: Any, service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or whoever resumes with it would miss something on that channel."""
    monkeypatch.setattr("swap.stream.server._HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr("swap.stream.live._POLL_SECONDS", 3600.0)
    order = make_order(service.database, shop.client_id)
    service.feed.publish()
    behind = shop.api.events()["next"]
    deaf = other_service(redis_url="redis://127.0.0.1:1")
    with streaming(deaf) as running, entered(running.url, shop, clock) as peer:
        assert peer.ask(op="subscribe", channels=[f"order.{order.id}"])["cursor"] == behind
        move(service.database, order, status="confirming")
        service.feed.publish()
        ahead = shop.api.events()["next"]
        assert peer.ask(op="subscribe", channels=["orders"], after=ahead)["cursor"] == ahead
        assert peer.hear()["type"] == "live"
        assert json.loads(peer.socket.recv(30))["cursor"] == behind
        peer.ask(op="unsubscribe", channels=[f"order.{order.id}"])
        assert json.loads(peer.socket.recv(30))["cursor"] == ahead


# --- the end of a right ----------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swap.stream.server._CHECK_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_revoked_key_closes_its_connections_and_no_others(
    service: Service, api_url: str, shop: Shop, clock: Clock
) -> None:
    other = new_shop(service, api_url, clock, "other key", client="shop")
    with (
        streaming(service) as running,
        entered(running.url, shop, clock) as revoked,
        entered(running.url, other, clock) as kept,
    ):
        service.keys.revoke(shop.key)
        assert revoked.closed()[0] == 4403
        assert kept.ask(op="ping")["type"] == "pong"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_token_that_ends_closes_its_connections(how: str, service: Service, shop: Shop, clock: Clock) -> None:
    gone, kept = shop.place("order-1"), shop.place("order-2")
    with streaming(service) as running, Peer(running.url) as first, Peer(running.url) as second:
        first.ask(op="auth", token=gone["tracking"]["token"])
        if how == "expired":
            clock.advance(61 * 86_400)
            kept = shop.api.order(kept["id"])
        else:
            service.tracking.revoke(shop.client_id, gone["id"])
        second.ask(op="auth", token=kept["tracking"]["token"])
        assert first.closed()[0] == 4403
        assert second.ask(op="ping")["type"] == "pong"


def test_stopping_tells_everybody_to_come_back(service: Service, shop: Shop, clock: Clock) -> None:
    running = Running(service)
    with entered(running.url, shop, clock) as peer, Peer(running.url) as stranger:
        running.stop()
        assert peer.closed()[0] == 1012
        assert stranger.closed()[0] == 1012


def test_a_restored_database_voids_every_cursor(service: Service, shop: Shop, peer: Peer) -> None:
    make_order(service.database, shop.client_id)
    service.feed.publish()
    assert peer.ask(op="subscribe", channels=["orders"])["type"] == "subscribed"
    service.feed.new_epoch()
    assert peer.closed()[0] == 4410


def test_a_cursor_of_a_life_that_the_stream_has_not_heard_of_is_asked_to_come_again(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it has, its positions are those of the old life: whoever joined now would miss what has the same ones."""
    monkeypatch.setattr("swap.stream.live._POLL_SECONDS", 3600.0)
    monkeypatch.setattr("swap.stream.live.Live.ring", lambda _: None)
    make_order(service.database, shop.client_id)
    service.feed.publish()
    with streaming(service) as stream, entered(stream.url, shop, clock) as peer:
        service.feed.new_epoch()
        answer = peer.ask(op="subscribe", channels=["orders"], after=shop.api.events()["next"])
        assert (answer["type"], answer["code"]) == ("error", "TEMPORARILY_UNAVAILABLE")


# --- tracking tokens -------------------------------------------------------------------------------------------------


def test_the_holder_of_a_token_follows_that_order_alone_and_sees_less(
    service: Service, shop: Shop, stream: Running
) -> None:
    start = shop.api.events()["next"]
    order = shop.place("order-1", user_id="user-7", metadata={"cart": "private"})
    other = shop.place("order-2", user_id="user-7", metadata={"cart": "private"})
    service.feed.publish()
    with Peer(stream.url) as peer:
        entry = peer.ask(op="auth", token=order["tracking"]["token"])
        assert entry["expires_at"] == order["tracking"]["expires_at"]
        name = f"order.{order['id']}"
        for wrong in ("orders", f"order.{other['id']}", "order.ord_none", "instruments", "rates.BTC:BTC-XRP:XRP"):
            answer = peer.ask(op="subscribe", channels=[wrong])
            assert answer["details"]["channels"] == {wrong: "CHANNEL_NOT_ALLOWED"}
        assert peer.ask(op="subscribe", channels=[name], after=start)["type"] == "subscribed"
        heard = [peer.hear() for _ in range(3)]
        # In either order: the gateway may or may not have heard of them itself before it was asked.
        told = [message for message in heard if message["type"] == "event"]
        assert [(m["event"]["order_id"], m["event"]["sequence"]) for m in told] == [(order["id"], 1), (order["id"], 2)]
        row = service.tracking.open(order["tracking"]["token"]).order
        move(service.database, row, status="confirming")
        service.feed.publish()
        pushed = peer.hear()
        assert (pushed["channels"], pushed["event"]["sequence"]) == ([name], 3)
        for message in (*told, pushed):
            text = json.dumps(message)
            assert "metadata" not in text and "user-7" not in text and "order-1" not in text
            assert "trk_" not in text


# --- rates and instruments -------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(other_service: Any, shop: Shop) -> Service:
    """Reads rates every 10 ms, which is at every turn."""
    made: Service = other_service(time_scale=1000)
    return made


def test_one_read_of_a_rate_goes_to_everybody_who_follows_the_pair(
    hurried: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = type(hurried.upstream).rate

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(options["priority"])
        return ask(*arguments, **options)

    monkeypatch.setattr(type(hurried.upstream), "rate", counted)
    name = "rates.BTC:BTC-USDT:TRC20"
    with (
        streaming(hurried) as running,
        entered(running.url, shop, clock) as one,
        entered(running.url, shop, clock) as two,
    ):
        for peer in (one, two):
            assert peer.ask(op="subscribe", channels=[name])["type"] == "subscribed"
        heard = [peer.hear() for peer in (one, two)]
        for message in heard:
            assert (message["type"], message["channel"], message["code"]) == ("rate", name, None)
            assert message["rate"]["from"] == {"currency": "BTC", "network": "BTC"}
            assert set(message["rate"]["limits"]) == {"min", "max"}
            assert message["rate"]["price"]
        one.ask(op="unsubscribe", channels=[name])
    assert set(asked) == {"look"}


def test_two_gateways_share_the_reading_of_rates(
    service: Service, other_service: Any, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = type(service.upstream).rate

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        asked.append(1)
        return ask(self, *arguments, **options)

    monkeypatch.setattr(type(service.upstream), "rate", counted)
    name = "rates.BTC:BTC-XRP:XRP"
    with (
        streaming(service) as here,
        streaming(other_service()) as there,
        entered(here.url, shop, clock) as one,
        entered(there.url, shop, clock) as two,
    ):
        peers = (one, two)
        for peer in peers:
            peer.ask(op="subscribe", channels=[name])
        read = [peer.hear()["rate"]["read_at"] for peer in peers]
        told = set(read)
        while read[0] != read[1]:
            # Whoever came a moment after a read was told hears of the next one.
            behind = read.index(min(read))
            read[behind] = peers[behind].hear()["rate"]["read_at"]
            told.add(read[behind])
        assert len(asked) == len(told)


def test_no_client_takes_all_the_places_of_pairs(
    service: Service, shop: Shop, api_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.stream.rates._MAX_PAIRS", 4)
    pairs = list(shop.api.pairs())[:4]
    sides = [[f"{pair[side]['currency']}:{pair[side]['network']}" for side in ("from", "to")] for pair in pairs]
    names = [f"rates.{source}-{target}" for source, target in sides]
    other = new_shop(service, api_url, clock, "other")
    with streaming(service) as running, entered(running.url, shop, clock) as greedy:
        refused = greedy.ask(op="subscribe", channels=names)["details"]["channels"]
        assert refused == dict.fromkeys(names[2:], "TOO_MANY_PAIRS"), "in one message or in many"
        assert greedy.ask(op="subscribe", channels=names[:2])["type"] == "subscribed"
        assert code_of(greedy.ask(op="subscribe", channels=names[2:3])) == "CHANNELS_REFUSED"
        with entered(running.url, other, clock) as late:
            assert late.ask(op="subscribe", channels=[*names[:2], names[2]])["type"] == "subscribed"


def test_rates_are_read_without_redis_too(other_service: Any, shop: Shop, clock: Clock) -> None:
    alone = other_service(redis_url="redis://127.0.0.1:1", time_scale=1000)
    with streaming(alone) as running, entered(running.url, shop, clock) as peer:
        peer.ask(op="subscribe", channels=["rates.BTC:BTC-XRP:XRP"])
        assert peer.hear()["type"] == "rate"


def test_a_network_with_a_dash_or_a_space_in_its_name_can_be_followed(service: Service, peer: Peer) -> None:
    snapshot = service.catalog.snapshot()
    odd = [i for i in snapshot.instruments.values() if " " in i.network or "-" in i.network]
    source = snapshot.instrument("BTC", "BTC")
    assert source is not None
    names = [f"rates.BTC:BTC-{i.currency}:{i.network}" for i in odd if snapshot.has_pair(source, i)]
    assert names
    assert peer.ask(op="subscribe", channels=names)["type"] == "subscribed"


def test_a_new_catalog_is_announced(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import update

    from swap.tables import CatalogState

    monkeypatch.setattr("swap.stream.server._CATALOG_SECONDS", 0.1)
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        peer.ask(op="subscribe", channels=["instruments"])
        first = peer.hear()
        assert (first["type"], first["version"]) == ("instruments", service.catalog.snapshot().version)
        with entered(running.url, shop, clock) as late:
            late.ask(op="subscribe", channels=["instruments"])
            assert late.hear()["version"] == first["version"]
        with service.database.write() as session:
            session.execute(update(CatalogState).values(version=CatalogState.version + 1))
        assert peer.hear()["version"] == first["version"] + 1
