"""How long a change takes from its commit to a socket, and what many open sockets cost.

    .venv/bin/python -m bench.stream

Everything on this machine: PostgreSQL where TEST_DATABASE_URL names one (a database of its own, dropped afterwards), else
SQLite; an embedded Valkey; the gateway in a process of its own, and the sockets in another, which is what a customer's
browsers are. The three share the processors, so the figures are those of the whole machine, not of the gateway alone.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import create_engine, make_url, text
from websockets.asyncio.client import connect

from swap.domain.lifecycle import Facts, Status
from swap.domain.signing import sign_request
from swap.processes.supervise import Supervisor, start_redis
from swap.settings import Settings
from swap.store import clients
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.stream.protocol import Limits
from swap.stream.server import Gateway
from swap.tables import Order, new_id
from swap.wiring import Service, build

RATE, SECONDS = 100, 10
BROADCASTS = 20


def run(counts: Sequence[int] = (1_000, 5_000)) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        supervisor = Supervisor(logs=folder)
        stack.callback(supervisor.stop)
        settings = Settings(
            database_url=_database(stack, folder),
            redis_url=start_redis(supervisor, folder),
            secret_keys=("a key for benchmarks, of at least 32 characters",),
            var=folder,
        )
        print(
            f"database: {settings.database_url.partition(':')[0]}; processors: {os.cpu_count()}; load {os.getloadavg()}"
        )
        service = stack.enter_context(closing(build(settings)))
        key = service.keys.create("bench")
        caller = service.keys.caller(key.key)
        assert caller is not None
        _measure(service, settings, "commit to socket, 100 changes/s", 1, caller.client_id, key, paced=True)
        for count in counts:
            _measure(service, settings, f"{count} sockets", count, caller.client_id, key, paced=False)


def _database(stack: ExitStack, folder: Path) -> str:
    admin_url = os.environ.get("TEST_DATABASE_URL")
    if not admin_url:
        url = f"sqlite:///{folder / 'bench.db'}"
    else:
        name = f"swap_bench_{os.getpid()}"
        admin = create_engine(make_url(admin_url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))

        def drop() -> None:
            with admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            admin.dispose()

        stack.callback(drop)
        url = admin.url.set(database=name).render_as_string(hide_password=False)
    with closing(Database(url)) as database:
        database.migrate()
    return url


def _measure(
    service: Service, settings: Settings, title: str, count: int, client_id: str, key: Any, *, paced: bool
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    gateway = context.Process(target=_gateway, args=(settings, theirs), daemon=True)
    gateway.start()
    port = ours.recv()
    empty = _memory(gateway.pid)
    here, there = context.Pipe()
    sockets = context.Process(target=_sockets, args=(port, count, key.key, key.secret, there), daemon=True)
    sockets.start()
    opened = here.recv()
    full = _memory(gateway.pid)
    order = _order(service, client_id)
    service.feed.publish()
    here.recv()  # the first event has come to everybody
    number = RATE * SECONDS if paced else BROADCASTS
    publisher = _Publisher(service)
    worked = _cpu(gateway.pid)
    committed: dict[int, float] = {}
    began = time.monotonic()
    for turn in range(number):
        with service.database.write() as session:
            moved = order_rows.move(session, order, {"user_id": str(turn)}, at=service.clock(), source="bench")
        assert moved is not None
        order = moved
        committed[order.sequence] = time.time()
        publisher.go()
        # Far enough apart for a broadcast to be over before the next one.
        pause = began + (turn + 1) / RATE - time.monotonic() if paced else max(1.0, count / 800)
        time.sleep(max(0.0, pause))
    took = time.monotonic() - began
    here.send(number)
    arrived: dict[int, list[float]] = here.recv()
    publisher.stop()
    worked = _cpu(gateway.pid) - worked
    delays = sorted(1000 * (at - committed[sequence]) for sequence, times in arrived.items() for at in times)
    last = sorted(1000 * (max(times) - committed[sequence]) for sequence, times in arrived.items())
    assert len(delays) == number * count
    print(f"{title}: {number} changes in {took:.1f} s, {len(delays)} messages")
    p99 = delays[int(len(delays) * 0.99)]
    print(f"    delay p50 {statistics.median(delays):.1f} ms, p99 {p99:.1f} ms, max {delays[-1]:.1f} ms")
    print(f"    {1e6 * worked / len(delays):.0f} us of the gateway's processor time per message")
    if count > 1:
        print(f"    until the last socket has it: p50 {statistics.median(last):.1f} ms, max {last[-1]:.1f} ms")
        print(f"    {opened:.1f} s to open them; {(full - empty) / count:.1f} kB of the gateway's memory each")
    ours.send("stop")
    gateway.join(30)
    sockets.join(30)


class _Publisher:
    """A worker's part: publishes when it is rung for."""

    def __init__(self, service: Service) -> None:
        self._service, self._queue, self._over = service, threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go(self) -> None:
        self._queue.set()

    def stop(self) -> None:
        self._over = True
        self._queue.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over:
            self._queue.wait()
            self._queue.clear()
            self._service.feed.publish()


def _order(service: Service, client_id: str) -> Order:
    now = datetime.now(UTC)
    order_id = new_id("ord")
    row = Order(
        id=order_id, client_id=client_id, client_order_id=order_id, request={}, version=1, sequence=1,
        status=Status.AWAITING_DEPOSIT, status_changed_at=now, from_currency="BTC", from_network="BTC",
        to_currency="XRP", to_network="XRP", rate_mode="FLOATING", amount=Decimal("0.0125"), rate={},
        destination_address="rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw", order_metadata={}, upstream_key="pk",
        deposit_kind="address", deposit_address="bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", payable=True,
        facts=Facts().to_json(), token_version=0, failures=0, next_check_at=now, created_at=now, updated_at=now,
    )  # fmt: skip
    with service.database.write() as session:
        clients.client_named(session, "bench", 6000, now)
        assert order_rows.insert(session, row)
        found = order_rows.get(session, order_id)
    assert found is not None
    return found


def _memory(pid: int | None) -> float:
    """Resident, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.split("VmRSS:")[1].split()[0])


def _cpu(pid: int | None) -> float:
    """Processor time so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def _gateway(settings: Settings, pipe: Any) -> None:
    _files()

    async def serve() -> None:
        limits = replace(Limits(), per_client=100_000, client_burst=100_000, unknown=100_000, auth_seconds=120)
        with closing(build(settings)) as service:
            gateway = Gateway(service, limits)
            pipe.send(await gateway.start("127.0.0.1", 0))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            await gateway.close()

    asyncio.run(serve())


def _sockets(port: int, count: int, key: str, secret: str, pipe: Any) -> None:
    _files()
    arrived: dict[int, list[float]] = {}

    async def one(gate: asyncio.Semaphore, ready: asyncio.Queue[int], first: asyncio.Queue[int]) -> None:
        async with gate:
            opened = connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None, proxy=None, open_timeout=60)
            socket = await opened.__aenter__()
            timestamp = str(int(time.time() * 1000))
            signature = sign_request(secret, "GET", "/v1/stream", "", timestamp, b"")
            await socket.send(
                orjson.dumps({"op": "auth", "key": key, "timestamp": timestamp, "signature": signature}).decode()
            )
            await socket.recv()
            await socket.send('{"op":"subscribe","channels":["orders"]}')
            await socket.recv()
        ready.put_nowait(1)
        async for message in socket:
            at = time.time()
            content = orjson.loads(message)
            if content["type"] == "event":
                if content["event"]["sequence"] == 1:
                    first.put_nowait(1)
                else:
                    arrived.setdefault(content["event"]["sequence"], []).append(at)

    def broken(ended: asyncio.Task[None]) -> None:
        print("a socket ended:", ended.exception(), file=sys.stderr)
        os._exit(1)

    async def all_of_them() -> None:
        gate, ready, first = asyncio.Semaphore(50), asyncio.Queue[int](), asyncio.Queue[int]()
        began = time.monotonic()
        tasks = [asyncio.create_task(one(gate, ready, first)) for _ in range(count)]
        for task in tasks:
            task.add_done_callback(broken)
        for _ in range(count):
            await ready.get()
        pipe.send(time.monotonic() - began)
        for _ in range(count):
            await first.get()
        pipe.send("first")
        number = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        while sum(map(len, arrived.values())) < number * count:
            await asyncio.sleep(0.05)
        pipe.send(arrived)
        os._exit(0)

    asyncio.run(all_of_them())


if __name__ == "__main__":
    run([int(count) for count in sys.argv[1:]] or (1_000, 5_000))
