"""A real database built by the migrations (SQLite always, PostgreSQL where TEST_DATABASE_URL names one), a real Valkey, the
sandbox upstream over HTTP, and a clock that tests move by hand. Nothing leaves the loopback (see pyproject.toml).

Servers are started once per process and change what they show; databases, Redis, the world and the service are each test's
own. Reads of the upstream that fail are tried again at once: how long the pauses are is proven in test_upstream_reads.py.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import or_, select, update

from swap.domain.times import Timing
from swap.market.catalog import Catalog
from swap.processes.supervise import Supervisor, start_redis
from swap.sandbox.app import create_app as create_sandbox
from swap.sandbox.server import running
from swap.sandbox.world import World
from swap.sdk import SwapClient
from swap.settings import Settings
from swap.store.database import Database
from swap.store.leases import LEASE
from swap.tables import Order, new_id
from swap.upstream.client import UpstreamClient
from swap.upstream.key_pair import KeyPair
from swap.upstream.transport import Transport
from swap.wiring import Service, build
from tests.databases import POSTGRES, Postgres, refresh, store_catalog
from tests.faults import Faults, Looks
from tests.receivers import Receiver, receiving
from tests.servers import SharedApi, Switch, served, served_app
from tests.signed_client import BTC_ADDRESS as BTC_ADDRESS
from tests.signed_client import XRP_ADDRESS as XRP_ADDRESS
from tests.signed_client import Calls
from tests.waiting import until

SANDBOX_KEYS = ("pk_sandbox_test", "sk_sandbox_test_6b1f")
BITCOIN, XRP = ("BTC", "BTC"), ("XRP", "XRP")


# --- which tests run, and as what ------------------------------------------------------------------------------------

# The dearest first: that is also the order in which they run, so that two processes end at the same time.
KINDS: dict[str, set[str]] = {
    "drill": set(),
    "process": set(),
    "stack": {"settings", "sandbox_url"},
    "server": {"receiver"},
    "db": {"database_url", "redis_url", "sqlite_template", "backend"},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the dearest thing that its fixtures build. Tests that start it themselves are marked by hand."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        item.add_marker(next((k for k, of in KINDS.items() if item.get_closest_marker(k) or fixtures & of), "pure"))
    items.sort(key=lambda item: next((n for n, kind in enumerate(KINDS) if item.get_closest_marker(kind)), len(KINDS)))


_IMPURE = {"socket.bind", "socket.connect", "sqlite3.connect", "subprocess.Popen", "os.fork", "os.posix_spawn"}
_running: list[pytest.Item] = []


def _keep_pure(event: str, _arguments: object) -> None:
    if event in _IMPURE and _running and _running[-1].get_closest_marker("pure"):
        pytest.fail(f"{event} in a test that no fixture marks: mark it as one of {', '.join(KINDS)}")


sys.addaudithook(_keep_pure)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        sqlite_alone = not POSTGRES or metafunc.definition.get_closest_marker("sqlite_only")
        metafunc.parametrize("backend", ["sqlite"] if sqlite_alone else ["sqlite", "postgresql"], scope="session")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    word = "PostgreSQL: run" if POSTGRES else "PostgreSQL: not run (set TEST_DATABASE_URL to run it)"
    terminalreporter.write_line(word, bold=True, green=bool(POSTGRES), red=not POSTGRES)


# --- the clock -------------------------------------------------------------------------------------------------------


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
    with closing(Database(f"sqlite:///{path}")) as database:
        database.migrate()
    return path


@pytest.fixture(scope="session")
def listed(sqlite_template: Path) -> Any:
    """What the sandbox lists, as the catalog reads it: fetched once, and stored for every test that builds a service."""
    with (
        running(World(*SANDBOX_KEYS)) as url,
        closing(UpstreamClient(Transport(url, user_agent="tests"), KeyPair(*SANDBOX_KEYS), Timing())) as upstream,
        closing(Database(f"sqlite:///{sqlite_template}")) as database,
    ):
        return Catalog(database, upstream, Timing())._fetch()


@pytest.fixture(scope="session")
def sqlite_with_catalog(sqlite_template: Path, listed: Any) -> Path:
    path = sqlite_template.with_name("with_catalog.db")
    shutil.copy(sqlite_template, path)
    with closing(Database(f"sqlite:///{path}")) as database:
        store_catalog(database, listed)
    return path


@pytest.fixture(scope="session")
def postgres(listed: Any) -> Iterator[Postgres]:
    postgres = Postgres(listed)
    yield postgres
    postgres.drop()


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database: empty, or with the catalog in it where the test builds a service."""
    with_catalog = "service" in request.fixturenames
    if backend == "sqlite":
        path = tmp_path / "swap.db"
        shutil.copy(request.getfixturevalue("sqlite_with_catalog" if with_catalog else "sqlite_template"), path)
        return f"sqlite:///{path}"
    postgres: Postgres = request.getfixturevalue("postgres")
    postgres.begin_with("with_catalog" if with_catalog else "migrated")
    return postgres.url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def twin(database_url: str) -> Iterator[Database]:
    """Another process on the same database."""
    with closing(Database(database_url)) as database:
        yield database


# --- Redis, the upstream and receivers of webhooks -------------------------------------------------------------------


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
def faults() -> Faults:
    """What goes wrong between the world and the service: nothing, until the test puts it in."""
    return Faults()


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture(scope="session")
def sandbox_server() -> Iterator[tuple[str, Switch]]:
    switch = Switch()
    with running(World(*SANDBOX_KEYS), wrap=lambda _app: switch) as url:
        yield url, switch


@pytest.fixture
def sandbox_url(sandbox_server: tuple[str, Switch], world: World, faults: Faults, looks: Looks) -> str:
    url, switch = sandbox_server
    switch.app = faults.wrap(looks.wrap(create_sandbox(world)))
    return url


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


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


def _no_pause(_seconds: float) -> None:
    pass


@pytest.fixture
def service(settings: Settings, clock: Clock, listed: Any) -> Iterator[Service]:
    """All parts, with the catalog loaded."""
    with closing(build(settings, clock, _no_pause)) as service:
        refresh(service.catalog, listed)
        yield service


@pytest.fixture
def other_service(settings: Settings, clock: Clock) -> Iterator[Callable[..., Service]]:
    """Another process' parts on the same database, with other settings."""
    with ExitStack() as services:
        yield lambda **changed: services.enter_context(closing(build(replace(settings, **changed), clock, _no_pause)))


@pytest.fixture(scope="session")
def shared_api() -> Iterator[tuple[str, SharedApi]]:
    api = SharedApi()
    with served_app(api.switch) as url:
        yield url, api


@pytest.fixture
def api_url(service: Service, shared_api: tuple[str, SharedApi]) -> Iterator[str]:
    url, api = shared_api
    api.answer_from(service)
    yield url
    api.switch.wait_until_idle()


@pytest.fixture
def api_of() -> Iterator[Callable[[Service], str]]:
    """The API of another service."""
    with ExitStack() as servers:
        yield lambda service: servers.enter_context(served(service))


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


def new_shop(service: Service, api_url: str, clock: Clock, name: str, **options: Any) -> Shop:
    made = service.keys.create(name, **options)
    caller = service.keys.caller(made.key)
    assert caller is not None
    return Shop(caller.client_id, made.key, made.secret, SwapClient(api_url, made.key, made.secret, clock=clock.time))


@pytest.fixture
def shop(service: Service, api_url: str, clock: Clock) -> Shop:
    return new_shop(service, api_url, clock, "shop", weight_per_minute=60_000)


@pytest.fixture
def calls(shop: Shop, api_url: str, clock: Clock) -> Calls:
    return Calls(shop, api_url, clock)


@contextmanager
def alive(service: Service, part: str, *queues: str) -> Iterator[None]:
    """A process of that part which shows that it lives, and does nothing else."""
    pulse = service.heartbeats.start(part, queues)
    name = f"{part} {queues[0]}" if queues else part
    until(lambda: service.heartbeats.alive(name))
    yield
    pulse.stop()


def claimed(service: Service, order_id: str) -> Order | None:
    """The order with a lease on it, whenever it is due; None when it is no longer watched, or another has its lease."""
    now, token = service.clock(), new_id("lease")
    free = or_(Order.leased_until.is_(None), Order.leased_until <= now)
    with service.database.write() as session:
        claim = update(Order).where(Order.id == order_id, Order.next_check_at.is_not(None), free)
        session.execute(claim.values(leased_until=now + LEASE, lease_token=token))
        return session.scalars(select(Order).where(Order.id == order_id, Order.lease_token == token)).one_or_none()


def look(service: Service, order_id: str) -> None:
    """Have one order looked at now, whenever it is due."""
    order = claimed(service, order_id)
    if order is not None:
        service.due.run(order)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
