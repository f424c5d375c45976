"""A real database built by the migrations (SQLite always, PostgreSQL where TEST_DATABASE_URL names one), a real Valkey, the
sandbox upstream over HTTP, and a clock that tests move by hand. Nothing leaves the loopback (see pyproject.toml)."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import create_engine, make_url, text
from werkzeug.serving import make_server

from swap.processes.supervise import Supervisor, start_redis
from swap.sandbox.server import running
from swap.sandbox.world import World
from swap.sdk import SwapClient
from swap.settings import Settings
from swap.store.database import Database
from swap.tables import Row
from swap.web import create_app
from swap.wiring import Service, build

SANDBOX_KEYS = ("pk_sandbox_test", "sk_sandbox_test_6b1f")
POSTGRES = os.environ.get("TEST_DATABASE_URL")
BITCOIN, XRP = ("BTC", "BTC"), ("XRP", "XRP")
XRP_ADDRESS = "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw"
BTC_ADDRESS = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    word = "PostgreSQL: run" if POSTGRES else "PostgreSQL: not run (set TEST_DATABASE_URL to run it)"
    terminalreporter.write_line(word, bold=True, green=bool(POSTGRES), red=not POSTGRES)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", ["sqlite", *(["postgresql"] if POSTGRES else [])], scope="session")


# Files whose tests start programs of the service themselves, without a fixture that would say so.
_PROCESSES = {
    "test_processes",
    "test_worker",
    "test_wsgi",
    "test_migrations",
    "test_listen",
    "test_attempts",
    "test_drill",
    "test_wheel",
}
# And those that serve HTTP or a sandbox without one.
_SERVERS = {"test_sandbox", "test_sandbox_chaos", "test_sandbox_vendor_sdk", "test_recipes", "test_webhook_http"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the most expensive thing that its fixtures build."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        module = item.path.stem
        if module in _PROCESSES:
            kind = "process"
        elif module in _SERVERS or fixtures & {"service", "other_service", "settings", "sandbox_url"}:
            kind = "stack"
        else:
            kind = "db" if fixtures & {"database", "database_url", "backend", "redis", "redis_url"} else "pure"
        item.add_marker(kind)


class Clock:
    """The real time, plus whatever a test has put on top of it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(self.time(), UTC)

    def time(self) -> float:
        return time.time() + self.ahead

    def advance(self, seconds: float | timedelta) -> None:
        self.ahead += seconds.total_seconds() if isinstance(seconds, timedelta) else seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- databases -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of its own for this process, dropped afterwards. It must answer, or the run is worth nothing."""
    assert POSTGRES is not None
    admin_url = make_url(POSTGRES).set(drivername="postgresql+psycopg")
    name = f"swap_test_{os.getpid()}"
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = admin_url.set(database=name).render_as_string(hide_password=False)
    database = Database(url)
    database.migrate()
    database.close()
    yield url
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty, migrated database."""
    if backend == "sqlite":
        path = tmp_path / "swap.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("postgres_url")
    engine = create_engine(url)
    keep = {"catalog_state", "feed_head", "watching"}
    with engine.begin() as connection:
        # DELETE: on tables with a handful of rows it is ten times faster than TRUNCATE.
        for table in reversed(Row.metadata.sorted_tables):
            if table.name not in keep:
                connection.execute(table.delete())
        connection.execute(text("UPDATE feed_head SET position = 0, floor = 0"))
        connection.execute(
            text(
                "UPDATE watching SET moving = 1, fresh = 1, aged = 1, planned = 0, list_state = 'learning',"
                " list_reason = NULL, list_until = NULL, list_began_at = NULL, counted = 0, announced = 0"
            )
        )
        connection.execute(text("UPDATE catalog_state SET version = 0, failures = 0, fetched_at = NULL"))
    engine.dispose()
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


# --- Redis and the upstream ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("valkey")
    supervisor = Supervisor(logs=folder)
    yield start_redis(supervisor, folder)
    supervisor.stop()


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def world(clock: Clock) -> World:
    """The sandbox's truth; moves with the test's clock."""
    return World(*SANDBOX_KEYS, clock=clock.time)


@pytest.fixture
def sandbox_url(world: World) -> Iterator[str]:
    with running(world) as url:
        yield url


# --- the service -----------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(database_url: str, redis: Redis, redis_url: str, sandbox_url: str, tmp_path: Path) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        upstream_url=sandbox_url,
        upstream_public_key=SANDBOX_KEYS[0],
        upstream_secret_key=SANDBOX_KEYS[1],
        upstream_rps=Decimal(1000),
        secret_keys=("a key for tests, of at least 32 characters",),
        webhook_allow_private=True,
        var=tmp_path,
    )


@pytest.fixture
def service(settings: Settings, clock: Clock) -> Iterator[Service]:
    """All parts, with the catalog loaded."""
    with closing(build(settings, clock)) as service:
        assert service.catalog.refresh()
        yield service


def serve(service: Service) -> tuple[str, Callable[[], None]]:
    """The API on a free loopback port, and how to stop it."""
    server = make_server("127.0.0.1", 0, create_app(service), threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return f"http://127.0.0.1:{server.server_port}", stop


@pytest.fixture
def api_url(service: Service) -> Iterator[str]:
    url, stop = serve(service)
    yield url
    stop()


@dataclass(frozen=True)
class Shop:
    """A product backend: its key and a client that signs with it."""

    client_id: str
    key: str
    secret: str
    api: SwapClient

    def place(self, client_order_id: str = "order-1", **changed: Any) -> dict[str, Any]:
        """A good BTC to XRP order, unless changed; one attempt, no waiting."""
        request: dict[str, Any] = {
            "source": BITCOIN,
            "target": XRP,
            "amount": "0.0125",
            "destination_address": XRP_ADDRESS,
            "destination_memo": "1234567",
            "refund_address": BTC_ADDRESS,
            "attempts": 1,
            **changed,
        }
        return self.api.place_order(client_order_id=client_order_id, **request)


@pytest.fixture
def shop(service: Service, api_url: str, clock: Clock) -> Shop:
    return new_shop(service, api_url, clock, "shop")


def new_shop(service: Service, api_url: str, clock: Clock, name: str, **options: Any) -> Shop:
    made = service.keys.create(name, **options)
    caller = service.keys.caller(made.key)
    assert caller is not None
    return Shop(caller.client_id, made.key, made.secret, SwapClient(api_url, made.key, made.secret, clock=clock.time))


def look(service: Service, order_id: str) -> None:
    """Have one order looked at now, whenever it is due."""
    service.due.run(order_id)


@pytest.fixture
def other_service(settings: Settings, clock: Clock) -> Iterator[Callable[..., Service]]:
    """Another process' parts on the same database, with other settings."""
    made: list[Service] = []

    def make(**changed: Any) -> Service:
        made.append(build(replace(settings, **changed), clock))
        return made[-1]

    yield make
    for service in made:
        service.close()
