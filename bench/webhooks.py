"""How long webhooks take, and what a bad endpoint costs the others: `python -m bench.webhooks [rate] [failing] [hanging]`.

Real worker processes, an embedded Valkey, a receiver over HTTP; SQLite, or the empty PostgreSQL database that DATABASE_URL
names. The changes are made here, each in a transaction of its own, as watchers make them.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import quantiles

from swap.infra.webhook_http import is_private
from swap.processes.supervise import Supervisor, start_redis
from swap.settings import Settings
from swap.store import clients
from swap.store import orders as order_rows
from swap.tables import Order
from swap.wiring import Service, build
from tests.factories import order_row

REFUSED = (
    "127.0.0.1 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 100.100.100.200 168.63.129.16 192.0.0.192 "
    "0.0.0.0 192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 fc00::1 "
    "fd00:ec2::254 fe80::1 fec0::1 ff02::1 64:ff9b::7f00:1 64:ff9b:1::1 2001:db8::1 2002:7f00:1:: 3fff::1"
)


class Receiver:
    """Remembers when which event came first; paths: /good, /flaky (30 % fail), /hang."""

    def __init__(self) -> None:
        self.first: dict[tuple[str, str, int], float] = {}
        self.accepted: dict[str, list[int]] = defaultdict(list)
        lock, dice, receiver = threading.Lock(), random.Random(7), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                arrived = time.time()
                data = json.loads(self.rfile.read(int(self.headers["content-length"])))["data"]
                if self.path == "/hang":
                    time.sleep(20)
                with lock:
                    good = self.path != "/flaky" or dice.random() > 0.3
                    receiver.first.setdefault((self.path, data["order_id"], data["sequence"]), arrived)
                    if good and self.path == "/flaky":
                        receiver.accepted[data["order_id"]].append(data["sequence"])
                try:
                    self.send_response(204 if good else 500)
                    self.end_headers()
                except OSError:
                    pass

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def changes(service: Service, name: str, url: str, orders: int, per_second: float, seconds: float) -> dict[str, float]:
    """Orders of a new client, moved on at a rate. Returns commit times by order and sequence."""
    key = service.keys.create(name)
    service.endpoints.add(key.key, url, trusted=True)
    committed: dict[str, float] = {}
    made: list[Order] = []
    with service.database.write() as session:
        found = clients.live_key(session, key.key, service.clock())
        assert found is not None
        for _ in range(orders):
            made.append(order_row(found[0].client_id, next_check_at=None))
            order_rows.insert(session, made[-1])
    began = time.monotonic()
    for number in range(round(per_second * seconds)):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        order = made[number % orders]
        with service.database.write() as session:
            moved = order_rows.move(
                session, order, {"amount_to_get": order.amount * (number + 2)}, at=now(), source="bench"
            )
        assert moved is not None
        made[number % orders] = moved
        committed[f"{moved.id} {moved.sequence}"] = time.time()
        service.queue.enqueue("publish")
    return committed


def now() -> datetime:
    return datetime.now(UTC)


def wait_for(service: Service, seconds: float, *, endpoint: str | None = None) -> None:
    from sqlalchemy import func, select

    from swap.tables import OrderEvent, WebhookDelivery, WebhookEndpoint

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with service.database.read() as session:
            query = select(func.count()).select_from(WebhookDelivery).join(WebhookEndpoint)
            waiting = session.scalar(
                query.where(WebhookDelivery.status == "pending", WebhookEndpoint.url.like(f"%{endpoint or ''}"))
            )
            unpublished = session.scalar(select(func.count()).where(OrderEvent.position.is_(None)))
        if not waiting and not unpublished:
            return
        time.sleep(0.2)
    print(f"    not over after {seconds:.0f} s: {waiting} wait")


def delays(receiver: Receiver, path: str, committed: dict[str, float]) -> str:
    found = []
    for name, at in committed.items():
        order_id, sequence = name.split()
        arrived = receiver.first.get((path, order_id, int(sequence)))
        if arrived is not None:
            found.append((arrived - at) * 1000)
    cut = quantiles(found, n=100)
    return f"{len(found)} of {len(committed)}, p50 {cut[49]:.0f} ms, p99 {cut[98]:.0f} ms, max {max(found):.0f} ms"


def run() -> None:
    with tempfile.TemporaryDirectory() as folder:
        var = Path(folder)
        supervisor = Supervisor(logs=var)
        try:
            settings = Settings(
                database_url=os.environ.get("DATABASE_URL", f"sqlite:///{var / 'swap.db'}"),
                redis_url=start_redis(supervisor, var),
                secret_keys=("a key for benchmarks, of 32 characters",),
                webhook_allow_private=True,
                var=var,
            )
            settings = replace(
                settings, database_url=settings.database_url.replace("postgresql://", "postgresql+psycopg://")
            )
            _measure(settings, supervisor)
        finally:
            supervisor.stop()


def _measure(settings: Settings, supervisor: Supervisor) -> None:
    service = build(settings)
    service.database.migrate()
    environ = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": settings.database_url.replace("+psycopg", ""),
        "REDIS_URL": settings.redis_url or "",
        "SWAP_SECRET_KEYS": settings.secret_keys[0].replace(",", ""),
        "SWAP_WEBHOOK_ALLOW_PRIVATE": "1",
        "SWAP_TIME_SCALE": "300",
        # Nobody is there: the catalog stays empty, and no order here is watched.
        "UPSTREAM_URL": "http://127.0.0.1:1",
        "LOG_LEVEL": "ERROR",
    }
    service = build(replace(settings, secret_keys=(environ["SWAP_SECRET_KEYS"],)))
    supervisor.start_swap("worker-push", ["worker", "--queue", "push"], environ)
    supervisor.start_swap("scheduler", ["scheduler"], environ)
    receiver = Receiver()
    changes(service, "warm", f"{receiver.url}/warm", 10, 50, 1)
    wait_for(service, 60)  # for the processes to be there
    print("PostgreSQL" if "postgres" in settings.database_url else "SQLite", f"load {os.getloadavg()[0]:.1f}")

    for name, scenario in (("rate", rate), ("failing", failing), ("hanging", hanging)):
        if name in sys.argv[1:] or not sys.argv[1:]:
            scenario(service, receiver)
    print("  refused addresses:", *(each for each in REFUSED.split() if is_private(each)))
    service.close()


def rate(service: Service, receiver: Receiver) -> None:
    committed = changes(service, "rate", f"{receiver.url}/good", 200, 100, 20)
    wait_for(service, 60)
    print("  commit to webhook at 100 changes/s:", delays(receiver, "/good", committed))


def failing(service: Service, receiver: Receiver) -> None:
    changes(service, "flaky", f"{receiver.url}/flaky", 500, 100, 25)
    wait_for(service, 300)
    good = sum(numbers == sorted(set(numbers)) for numbers in receiver.accepted.values())
    told = sum(len(set(numbers)) for numbers in receiver.accepted.values())
    print(f"  30 % failures, 500 orders x 6 events: {told} delivered, {good} orders strictly by sequence")


def hanging(service: Service, receiver: Receiver) -> None:
    alone = changes(service, "alone", f"{receiver.url}/good", 50, 20, 10)
    wait_for(service, 60, endpoint="/good")
    print("  a good endpoint alone, 20 changes/s:", delays(receiver, "/good", alone))
    key = service.keys.create("beside")
    service.endpoints.add(key.key, f"{receiver.url}/hang", trusted=True)
    beside = changes(service, "beside", f"{receiver.url}/good", 50, 20, 30)
    wait_for(service, 60, endpoint="/good")
    print("  the same beside one that hangs:", delays(receiver, "/good", beside))


if __name__ == "__main__":
    run()
