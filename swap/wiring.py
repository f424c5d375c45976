"""Settings in, the service's parts out. The one place that knows how they fit; used by the API, workers and commands."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import structlog
from redis import Redis

from swap.access.clients import Clients
from swap.access.keys import Keys
from swap.access.publishable import PublishableKeys
from swap.access.tracking import Tracking
from swap.domain.times import Timing, utc_now
from swap.errors import ConfigurationError
from swap.infra import logs, private_files
from swap.infra.queue import JobQueue
from swap.infra.redis_guard import RedisGuard, open_redis
from swap.infra.token_bucket import SharedBucket
from swap.infra.vault import Vault
from swap.market.catalog import Catalog
from swap.market.quotes import Quotes
from swap.ops.by_hand import ByHand
from swap.ops.doctor import Doctor
from swap.ops.heartbeats import Heartbeats
from swap.ops.housekeeping import Housekeeping
from swap.ops.linking import Linking
from swap.ops.readiness import Readiness
from swap.ops.review import Review
from swap.ops.support import Support
from swap.orders.blocked import BlockedAddresses
from swap.orders.bounds import SpareBounds, SpareLimits
from swap.orders.candidates import CandidateSearch
from swap.orders.conflicts import Conflicts
from swap.orders.create import CreateOptions, OrderCreator
from swap.orders.destination import DestinationCheck
from swap.orders.limits import OrderLimits
from swap.orders.place import OrderPlacer
from swap.orders.read import OrderReader
from swap.orders.reply_check import ReplyCheck
from swap.orders.resolve import Resolver
from swap.orders.spare_search import SpareSearch
from swap.orders.sweep import Sweeper
from swap.push.delivering import Deliverer
from swap.push.endpoints import Endpoints
from swap.push.feed import Feed
from swap.settings import Settings
from swap.store import calls
from swap.store.database import Database
from swap.upstream.access import UpstreamAccess
from swap.upstream.circuit_breaker import CircuitBreaker
from swap.upstream.client import UpstreamClient
from swap.upstream.journal import Call
from swap.upstream.key_pair import KeyPair
from swap.upstream.rate_budget import RateBudget
from swap.upstream.transport import Transport
from swap.watching.due import AT_ONCE, DueOrders
from swap.watching.list_signal import ListSignal
from swap.watching.poll import Poller
from swap.watching.reconcile import Reconciler
from swap.watching.throttle import PollThrottle
from swap.watching.unowned import UnownedOrderPoller

log = structlog.get_logger()


@dataclass(frozen=True)
class Service:
    """All parts of one process."""

    settings: Settings
    database: Database
    redis: Redis
    shared_bucket: SharedBucket
    queue: JobQueue
    upstream_access: UpstreamAccess
    upstream: UpstreamClient
    catalog: Catalog
    quotes: Quotes
    destinations: DestinationCheck
    placer: OrderPlacer
    orders: OrderReader
    resolver: Resolver
    due: DueOrders
    spares: SpareSearch
    unowned: UnownedOrderPoller
    throttle: PollThrottle
    list_signal: ListSignal
    reconcile: Reconciler
    feed: Feed
    endpoints: Endpoints
    deliverer: Deliverer
    clients: Clients
    keys: Keys
    publishable: PublishableKeys
    tracking: Tracking
    support: Support
    review: Review
    linking: Linking
    housekeeping: Housekeeping
    heartbeats: Heartbeats
    readiness: Readiness
    timing: Timing
    # Set once the process is asked to end: it takes no new orders any more.
    draining: threading.Event = field(default_factory=threading.Event)

    @property
    def clock(self) -> Callable[[], datetime]:
        """What time it is, as aware UTC."""
        return self.timing.now

    @property
    def blocked(self) -> BlockedAddresses:
        return BlockedAddresses(self.database, self.clock)

    @property
    def order_limits(self) -> OrderLimits:
        return OrderLimits(self.database, self.clock)

    def close(self) -> None:
        self.due.close()
        self.deliverer.close()
        self.upstream.close()
        self.redis.close()
        self.database.close()


def start(part: str, settings: Settings | None = None) -> Service:
    """Read the settings, set up logging for this process, and build. Raises ConfigurationError."""
    settings = complete(settings or Settings.from_env())
    logs.configure(settings.log_level, known_secrets(settings), part=part)
    logs.catch_threads()
    for name in settings.unknown:
        log.warning("settings.unknown", name=name)
    for sentence in settings.warnings():
        log.warning("settings.weak", what=sentence)
    return build(settings)


def build(
    settings: Settings, clock: Callable[[], datetime] = utc_now, sleep: Callable[[float], None] = time.sleep
) -> Service:
    """The parts, on this clock (aware UTC). `sleep` waits the seconds between two attempts of a read upstream."""
    settings = complete(settings)
    assert settings.redis_url is not None
    database, vault = Database(settings.database_url), Vault(settings.secret_keys)
    redis, guard = open_redis(settings.redis_url), RedisGuard()
    queue = JobQueue(redis, guard)
    timing = _timing(settings, clock, sleep)
    access = _access(settings, redis, guard)
    upstreams = _upstreams(settings, access, database, timing)
    upstream = upstreams[settings.upstream_public_key]
    options = _create_options(settings)
    catalog = Catalog(database, upstream, timing)
    quotes = _quotes(settings, upstream, catalog, vault, clock)
    reply_check = ReplyCheck(catalog, settings.rate_tolerance)
    destinations = DestinationCheck(database, upstream, vault, clock, is_away=lambda: access.state != "ok")
    creator = OrderCreator(database, upstream, reply_check, queue, destinations, options, timing)
    bounds = SpareBounds(SpareLimits(settings.create_attempts, settings.spare_limit), options.upstream_key, timing)
    renew = partial(quotes.renewed, tolerance=settings.rate_tolerance)
    search = CandidateSearch(database, reply_check, timing)
    resolver = Resolver(database, upstreams, search, creator, bounds, renew, timing)
    sweeper = Sweeper(database, creator, queue, timing)
    throttle = PollThrottle(database, access, timing)
    conflicts = Conflicts(database, reply_check, timing)
    poller = Poller(database, upstream, conflicts, throttle, queue, timing)
    by_hand, feed = ByHand(database, queue, timing), Feed(database, queue, clock)
    heartbeats = Heartbeats(database, clock)
    return Service(
        settings=settings,
        database=database,
        redis=redis,
        shared_bucket=SharedBucket(redis, guard),
        queue=queue,
        upstream_access=access,
        upstream=upstream,
        catalog=catalog,
        quotes=quotes,
        destinations=destinations,
        placer=OrderPlacer(database, destinations, catalog, quotes, creator, options, timing),
        orders=OrderReader(database, clock, throttle.slowdown),
        resolver=resolver,
        due=DueOrders(database, poller, resolver, sweeper, timing, max(AT_ONCE, settings.fallback_threads)),
        spares=SpareSearch(database, upstreams, timing),
        unowned=UnownedOrderPoller(database, upstream, timing),
        throttle=throttle,
        list_signal=ListSignal(database, upstreams, timing),
        reconcile=Reconciler(database, upstreams, timing),
        feed=feed,
        endpoints=Endpoints(database, vault, queue, clock, allow_private=settings.webhook_allow_private),
        deliverer=Deliverer(database, vault, timing, allow_private=settings.webhook_allow_private),
        clients=Clients(database, clock),
        keys=Keys(database, vault, clock, settings.environment),
        publishable=PublishableKeys(database, clock, settings.environment),
        tracking=Tracking(database, vault, clock),
        support=Support(database),
        review=Review(database, upstream, conflicts, by_hand, timing),
        linking=Linking(database, upstream, creator, reply_check, by_hand, timing),
        housekeeping=Housekeeping(database, feed, timing),
        heartbeats=heartbeats,
        readiness=Readiness(database, catalog, access, heartbeats, queue, clock),
        timing=timing,
    )


def doctor(service: Service) -> Doctor:
    """Its second client signs with a secret that is wrong in one bit, and leaves budget and breaker alone: what it is
    refused with says nothing about the upstream."""
    settings = service.settings
    secret = settings.upstream_secret_key
    forged = UpstreamClient(
        _transport(settings),
        KeyPair(settings.upstream_public_key, secret[:-1] + chr(ord(secret[-1]) ^ 1)),
        _timing(settings, service.clock),
    )
    return Doctor(
        service.database,
        service.queue,
        service.catalog,
        service.heartbeats,
        service.upstream,
        forged,
        service.clock,
    )


def _create_options(settings: Settings) -> CreateOptions:
    return CreateOptions(
        upstream_key=settings.upstream_public_key,
        referrer_id=settings.upstream_referrer_id,
        markup=settings.upstream_markup,
        max_at_once=settings.max_creates,
    )


def _quotes(
    settings: Settings, upstream: UpstreamClient, catalog: Catalog, vault: Vault, clock: Callable[[], datetime]
) -> Quotes:
    return Quotes(
        upstream,
        catalog,
        vault,
        clock,
        markup=settings.upstream_markup,
        referrer_id=settings.upstream_referrer_id,
        rate_max_age=settings.rate_max_age,
    )


def _access(settings: Settings, redis: Redis, guard: RedisGuard) -> UpstreamAccess:
    scale = float(settings.time_scale)
    budget = RateBudget(redis, guard, float(settings.upstream_rps))
    return UpstreamAccess(budget, CircuitBreaker(scale=scale), CircuitBreaker(scale=scale))


def _upstreams(
    settings: Settings, access: UpstreamAccess, database: Database, timing: Timing
) -> dict[str, UpstreamClient]:
    """A client for each key pair that may have made orders, by public key; the current pair first."""

    def on_call(call: Call) -> None:
        access.learn(call)
        keep_call(database, call)

    pairs = ((settings.upstream_public_key, settings.upstream_secret_key), *settings.upstream_old_keys)
    return {
        public_key: UpstreamClient(
            _transport(settings), KeyPair(public_key, secret_key), timing, take=access.take, on_call=on_call
        )
        for public_key, secret_key in pairs
    }


def _transport(settings: Settings) -> Transport:
    return Transport(settings.upstream_url, user_agent=settings.upstream_user_agent, proxy=settings.upstream_proxy)


def _timing(settings: Settings, clock: Callable[[], datetime], sleep: Callable[[float], None] = time.sleep) -> Timing:
    return Timing(
        now=clock,
        sleep=sleep,
        scale=settings.time_scale,
        read_timeout=settings.upstream_read_timeout,
        create_timeout=settings.upstream_create_timeout,
    )


def keep_call(database: Database, call: Call) -> None:
    """Journal a call to the upstream: every create and every failure. A good poll is kept by the poller, if it brought
    news."""
    if call.endpoint != "create" and call.outcome == "OK":
        return
    with database.write() as session:
        kept = asdict(call)
        del kept["retry_after"], kept["requests_left"], kept["subject"]
        calls.add_call(session, **kept)


def complete(settings: Settings) -> Settings:
    """Fill in what development may leave out: secret keys of its own, and the embedded Redis of `swap up`.

    Raises ConfigurationError when there is no Redis to be found.
    """
    changes: dict[str, object] = {}
    if not settings.secret_keys:
        changes["secret_keys"] = (_own_secret_key(settings.var),)
    if settings.redis_url is None:
        changes["redis_url"] = _embedded_redis(settings.var)
    return replace(settings, **changes) if changes else settings  # type: ignore[arg-type]


def known_secrets(settings: Settings) -> Iterable[str]:
    """Texts that must never appear in a log line."""
    yield from settings.secret_keys
    yield settings.upstream_secret_key
    yield from (secret for _, secret in settings.upstream_old_keys)
    for url in (settings.database_url, settings.redis_url or "", settings.upstream_proxy or ""):
        parts = urlsplit(url)
        userinfo = parts.netloc.rpartition("@")[0]
        if ":" in userinfo:
            yield userinfo.partition(":")[2]
        yield from parse_qs(parts.query).get("password", [])


def redis_url_file(var: Path) -> Path:
    """Where `swap up` writes the address of its embedded Redis."""
    return var / "redis.url"


def _embedded_redis(var: Path) -> str:
    try:
        return redis_url_file(var).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise ConfigurationError(
            ["REDIS_URL is not given, and no embedded Redis is running; set it, or start `swap up`"]
        ) from None


def _own_secret_key(var: Path) -> str:
    """A secret key of this installation, made once, readable by its owner alone."""
    path = var / "secret_keys"
    private_files.folder(var)
    fresh = path.with_name(f"secret_keys.{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_text(secrets.token_urlsafe(48), encoding="utf-8")
    try:
        # A link is made whole or not at all, so two processes that start together agree on one key.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text(encoding="utf-8").strip()
