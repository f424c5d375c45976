"""Neither gap nor duplicate: consumers that come, go, die and resume while the feed grows, at two gateways, with Redis and
without."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from swap.processes.supervise import Supervisor, start_redis
from swap.stream.protocol import Limits
from swap.wiring import Service
from tests.conftest import Clock, Shop
from tests.factories import make_order, make_orders, move, read_order
from tests.streams import PATIENCE, Running, entered, streaming


@pytest.fixture
def twin(other_service: Callable[..., Service], service: Service) -> Service:
    return other_service()


def feed_of(shop: Shop) -> list[str]:
    """The ids of all of the client's events, as the feed has them."""
    found, after = [], None
    while True:
        page = shop.api.events(after=after, limit=1000)
        found += [event["id"] for event in page["events"]]
        after = page["next"]
        if not page["has_more"]:
            return found


def change(service: Service, order_id: str, user_id: str) -> None:
    """One more public event of the order."""
    while move(service.database, read_order(service.database, order_id), user_id=user_id) is None:
        pass  # somebody else was first


class Consumer(threading.Thread):
    """Follows a channel from a cursor until it is told the last event, dying and resuming by cursor all the while."""

    def __init__(self, urls: list[str], shop: Shop, clock: Clock, channel: str, cursor: str, seed: int) -> None:
        super().__init__()
        self._urls, self._shop, self._clock, self._channel = urls, shop, clock, channel
        self._cursor, self._random = cursor, random.Random(seed)
        self.last: str | None = None
        self.ids: list[str] = []
        self.lives = 0

    def run(self) -> None:
        while not self._done():
            with contextlib.suppress(ConnectionClosed):
                self._live()
            self.lives += 1

    def _done(self) -> bool:
        return self.last is not None and bool(self.ids) and self.ids[-1] == self.last

    def _live(self) -> None:
        with entered(self._random.choice(self._urls), self._shop, self._clock) as peer:
            peer.say(op="subscribe", channels=[self._channel], after=self._cursor)
            for _ in range(self._random.choice((3, 10, 40))):
                if self._done():
                    return
                try:
                    message = peer.hear(timeout=1)
                except TimeoutError:
                    return
                assert message["type"] in ("subscribed", "event", "live"), message
                if message["type"] == "event":
                    self.ids.append(message["event"]["id"])
                    self._cursor = message["event"]["cursor"]
            if self._random.random() < 0.5:
                # Dies without a word, with whatever was under way.
                peer.socket.socket.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("seed", [1, 2])
def test_consumers_that_die_and_resume_while_the_feed_grows_miss_nothing_and_see_nothing_twice(
    service: Service, twin: Service, shop: Shop, clock: Clock, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.stream.live._KEPT", 20 * seed)  # so that resuming needs memory and database both
    monkeypatch.setattr("swap.stream.sockets._PAGE", 7)
    monkeypatch.setattr("swap.stream.sockets._AT_ONCE", 3)
    ids = make_orders(service.database, 5, shop.client_id)
    service.feed.publish()
    start = shop.api.events(limit=2)["next"]
    writing = threading.Event()

    def write(number: int) -> None:
        for turn in range(40):
            change((service, twin)[number % 2], ids[(number + turn) % 5], f"{number}.{turn}")

    def publish(publisher: Service) -> None:
        while not writing.wait(0.005):
            publisher.feed.publish()

    with streaming(service) as here, streaming(twin) as there:
        urls = [here.url, there.url]
        everything = [Consumer(urls, shop, clock, "orders", start, seed * 100 + n) for n in range(3)]
        single = Consumer(urls, shop, clock, f"order.{ids[3]}", start, seed * 100 + 9)
        publishers = [threading.Thread(target=publish, args=(s,)) for s in (service, twin)]
        writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for thread in (*publishers, *everything, single, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        writing.set()
        for thread in publishers:
            thread.join()
        service.feed.publish()
        change(service, ids[3], "the last")
        service.feed.publish()
        expected = feed_of(shop)
        for consumer in (*everything, single):
            consumer.last = expected[-1]
        for consumer in (*everything, single):
            consumer.join(90)
            assert not consumer.is_alive()
    assert len(expected) == 5 + 3 * 40 + 1
    for consumer in everything:
        assert consumer.ids == expected[2:]
        assert consumer.lives > 1
    assert single.ids == [e["id"] for e in shop.api.order_events(ids[3]) if e["id"] in expected[2:]]


def test_a_long_absence_is_made_up_for_out_of_the_database(service: Service, shop: Shop, clock: Clock) -> None:
    start = shop.api.events()["next"]
    make_orders(service.database, 250, shop.client_id)
    service.feed.publish()
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        peer.say(op="subscribe", channels=["orders"], after=start)
        heard = peer.until("live")
        assert [m["event"]["id"] for m in heard[1:-1]] == feed_of(shop)
        assert heard[-1]["cursor"] == heard[-2]["event"]["cursor"]


def test_a_channel_is_live_at_once_where_nothing_was_missed(service: Service, shop: Shop, clock: Clock) -> None:
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        ack = peer.ask(op="subscribe", channels=["orders"], after=shop.api.events()["next"])
        assert (ack["type"], peer.hear()["type"]) == ("subscribed", "live")
        make_order(service.database, shop.client_id)
        service.feed.publish()
        assert peer.hear()["event"]["sequence"] == 1


# --- slow readers ----------------------------------------------------------------------------------------------------


def test_a_slow_reader_is_sent_away_with_a_code_delays_nobody_and_can_resume(
    service: Service, shop: Shop, clock: Clock
) -> None:
    count = 300
    limits = Limits(buffer=32_000, kernel_buffer=8_000, close_seconds=60.0)  # it will read at last, if late
    with (
        streaming(service, limits) as running,
        entered(running.url, shop, clock) as quick,
        contextlib.ExitStack() as slow_one,
    ):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect(("127.0.0.1", running.port))
        slow = slow_one.enter_context(entered(running.url, shop, clock, sock=raw, max_queue=1))
        for peer in (slow, quick):
            ack = peer.ask(op="subscribe", channels=["orders"])
        heard: list[dict[str, Any]] = []
        for _ in range(count // 5):
            # By the handful, so that the quick one is never behind by more than that, however busy the machine is.
            make_orders(service.database, 5, shop.client_id, order_metadata={"ballast": "x" * 3_000})
            service.feed.publish()
            heard += [quick.hear() for _ in range(5)]
        expected = feed_of(shop)
        assert [m["event"]["id"] for m in heard] == expected
        cursor, seen = ack["cursor"], []
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                message = slow.hear()
                seen.append(message["event"]["id"])
                cursor = message["event"]["cursor"]
        assert ended.value.rcvd is not None
        assert ended.value.rcvd.code == 4408
        assert seen == expected[: len(seen)]
        assert len(seen) < count
        with entered(running.url, shop, clock) as again:
            again.say(op="subscribe", channels=["orders"], after=cursor)
            rest = [m["event"]["id"] for m in again.until("live")[1:-1]]
        assert seen + rest == expected


def test_a_reader_that_stalls_in_its_replay_is_sent_away(service: Service, shop: Shop, clock: Clock) -> None:
    start = shop.api.events()["next"]
    make_orders(service.database, 300, shop.client_id, order_metadata={"ballast": "x" * 3_000})
    service.feed.publish()
    limits = Limits(buffer=32_000, kernel_buffer=8_000, send_seconds=0.5)
    with streaming(service, limits) as running, contextlib.ExitStack() as stack:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect(("127.0.0.1", running.port))
        stalled = stack.enter_context(entered(running.url, shop, clock, sock=raw, max_queue=1, close_timeout=0.5))
        stalled.say(op="subscribe", channels=["orders"], after=start)
        gone = threading.Event()

        async def open_sockets() -> int:
            return len(running.gateway._open)

        for _ in range(int(PATIENCE * 10)):
            if running.call(open_sockets) == 0:
                break
            gone.wait(0.1)
        assert running.call(open_sockets) == 0


# --- Redis -----------------------------------------------------------------------------------------------------------


class OwnRedis:
    """A Redis that a test may stop and start again, at the same place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._supervisor = Supervisor(logs=folder)
        self.url = start_redis(self._supervisor, folder)

    def stop(self) -> None:
        self._supervisor.stop()

    def start(self) -> None:
        self._supervisor = Supervisor(logs=self._folder)
        assert start_redis(self._supervisor, self._folder) == self.url


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    folder = tmp_path / "r"
    folder.mkdir()
    redis = OwnRedis(folder)
    yield redis
    redis.stop()


def test_nothing_is_lost_or_doubled_when_redis_goes_away_and_comes_back(
    other_service: Callable[..., Service], shop: Shop, clock: Clock, own_redis: OwnRedis
) -> None:
    service = other_service(redis_url=own_redis.url)
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        peer.ask(op="subscribe", channels=["orders"])
        heard: list[str] = []

        def some_more() -> None:
            make_orders(service.database, 5, shop.client_id)
            service.feed.publish()
            heard.extend(peer.hear()["event"]["id"] for _ in range(5))

        some_more()
        own_redis.stop()
        some_more()
        own_redis.start()
        some_more()
        assert heard == feed_of(shop)


def test_a_notice_makes_the_stream_read_without_waiting_for_its_turn(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.stream.live._POLL_SECONDS", 3600.0)
    with streaming(service) as running, entered(running.url, shop, clock) as peer:
        peer.ask(op="subscribe", channels=["orders"])
        subscribed(service)
        make_order(service.database, shop.client_id)
        service.feed.publish()
        assert peer.hear()["type"] == "event"


def subscribed(service: Service) -> None:
    """Wait until a gateway listens on Redis."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE * 20)):
        if service.redis.pubsub_numsub("swap:feed")[0][1]:
            return
        waiting.wait(0.05)
    raise AssertionError("nobody listens")


def test_a_gateway_starts_where_the_database_is_away_and_serves_when_it_is_back(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    away = [True]
    head = type(service.feed).head

    def broken(self: Any) -> Any:
        if away[0]:
            away[0] = False
            raise OperationalError("SELECT", None, OSError("away"))
        return head(self)

    monkeypatch.setattr(type(service.feed), "head", broken)
    running = Running(service)
    try:
        with entered(running.url, shop, clock) as peer:
            assert peer.ask(op="subscribe", channels=["orders"])["type"] == "subscribed"
    finally:
        running.stop()
