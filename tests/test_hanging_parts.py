"""What hangs is treated like what is down: the wait has a bound, and then it is left alone for a moment."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress

import pytest
import requests
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError

from swap.errors import Overloaded
from swap.infra.deadline import Deadline
from swap.market import catalog
from swap.store import postgresql
from swap.store.database import Database
from swap.web import door
from swap.wiring import Service
from tests.databases import POSTGRES
from tests.servers import served
from tests.waiting import until

on_postgresql = pytest.mark.skipif(not POSTGRES, reason="a file does not hang; set TEST_DATABASE_URL")


class Relay:
    """Passes on what comes, until it hangs: then it takes connections and bytes, and passes on nothing."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect, self._open = connect, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.address: tuple[str, int] = self._listener.getsockname()
        self.connections = 0
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hang(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._open.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                far = self._connect()
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while came := source.recv(65_536):
                self._open.wait()
                sink.sendall(came)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)
    url = make_url(database_url)
    target = (url.host or "127.0.0.1", url.port or 5432)
    with closing(Relay(lambda: socket.create_connection(target))) as relay:
        yield relay


def through(relay: Relay, database_url: str) -> str:
    host, port = relay.address
    return make_url(database_url).set(host=host, port=port).render_as_string(hide_password=False)


def ask(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT 1")).scalar_one())


def seconds_of(work: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(OperationalError):
        work()
    return time.monotonic() - began


@on_postgresql
def test_a_statement_that_a_hanging_database_never_answers_ends(relay: Relay, database_url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("a file does not hang")
    with closing(Database(through(relay, database_url))) as database:
        assert ask(database) == 1
        relay.hang()
        assert 0.3 < seconds_of(lambda: ask(database)) < 20, "its connection did not answer, nor could it be made anew"
        made = relay.connections
        assert seconds_of(lambda: ask(database)) < 0.5, "refused at once: nobody waits for what is known to hang"
        assert relay.connections == made
        relay.go_on()
        until(lambda: _answers(database), 10)


def _answers(database: Database) -> bool:
    try:
        return ask(database) == 1
    except OperationalError:
        return False


@on_postgresql
def test_a_migration_may_take_its_time(relay: Relay, database_url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("a file does not hang")
    with closing(Database(through(relay, database_url))) as database, database.engine.connect() as connection:
        with postgresql.patient(connection):
            connection.execute(text("SELECT pg_sleep(0.6)"))
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT pg_sleep(0.6)"))


@on_postgresql
def test_while_the_database_hangs_readyz_says_so_within_a_second_and_the_catalog_goes_on_being_served(
    relay: Relay,
    database_url: str,
    backend: str,
    other_service: Callable[..., Service],
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if backend == "sqlite":
        pytest.skip("a file does not hang")
    monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 4.0)
    behind = other_service(database_url=through(relay, database_url))
    with served(behind) as url:
        assert requests.get(f"{url}/readyz", timeout=30).json()["parts"]["database"] == "ok"
        relay.hang()
        for _ in range(3):
            began = time.monotonic()
            answer = requests.get(f"{url}/readyz", timeout=30)
            assert time.monotonic() - began < 2
            assert (answer.status_code, answer.json()["parts"]["database"]) == (503, "away")
        monkeypatch.setattr(catalog, "_RELOAD_SECONDS", 0)
        with ThreadPoolExecutor(4) as threads:
            copies = [threads.submit(behind.catalog.snapshot) for _ in range(4)]
            served_at_once, hanging = wait(copies, timeout=1)
            assert (len(served_at_once), len(hanging)) == (3, 1)
            assert all(copy.result().instruments for copy in copies)
        relay.go_on()
        until(lambda: requests.get(f"{url}/readyz", timeout=30).json()["parts"]["database"] == "ok", 10)


def test_a_redis_that_hangs_costs_a_process_one_short_wait_in_all(
    service: Service, other_service: Callable[..., Service], redis_url: str
) -> None:
    def connect() -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(redis_url.removeprefix("unix://").partition("?")[0])
        return connected

    with closing(Relay(connect)) as relay:
        behind = other_service(redis_url=f"redis://127.0.0.1:{relay.address[1]}")
        assert behind.queue.ping()
        relay.hang()
        began = time.monotonic()
        assert not behind.queue.enqueue("publish")
        assert behind.shared_bucket.take("b", rate=1, burst=4) is None
        behind.upstream_access.take("create", 1)
        with served(behind) as url:
            assert requests.get(f"{url}/readyz", timeout=30).json()["parts"]["redis"] == "away"
        assert time.monotonic() - began < 2, "the queue, the limits, the budget and readyz know it from each other"


def test_a_request_that_no_thread_takes_in_time_is_refused_while_the_threads_still_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "LINE_SECONDS", 0.2)
    over = threading.Event()

    def hang(_: float) -> door.Answer:
        over.wait(30)
        return 200, [], b""

    async def two_come() -> door.Answer:
        lane = door._Lane("request", 1)
        first = asyncio.create_task(lane.run(hang))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await lane.run(lambda _: (200, [], b"taken after all"))
        over.set()
        return await first

    assert asyncio.run(two_come())[0] == 200


def test_a_name_server_that_hangs_costs_no_more_than_the_time_for_the_call() -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        over.wait(30)
        return []

    began = time.monotonic()
    with Deadline(0.3) as deadline, pytest.raises(TimeoutError):
        deadline.look_up("upstream.example", 443, hang)  # type: ignore[arg-type] # it never answers
    assert time.monotonic() - began < 5
    over.set()
