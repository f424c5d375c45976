"""Settings in, the service's parts out. The one place that knows how they fit; used by the API, workers and commands."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, urlsplit

import structlog
from redis import Redis

from swap import logs
from swap.bell import Bell
from swap.breaker import Breaker
from swap.buckets import SharedBucket
from swap.budget import CHECKS, PREVIEW, UpstreamBudget
from swap.catalog import Catalog
from swap.creates import CreateRules, Creates
from swap.doctor import Doctor
from swap.doorbell import Doorbell
from swap.errors import Blocked, ConfigurationError, RateLimited, Unavailable
from swap.feed import Feed
from swap.gate import Gate
from swap.keys import Keys
from swap.orders import Orders
from swap.orphans import Orphans
from swap.pace import Pacer
from swap.quotes import Quotes
from swap.reconcile import Reconcile
from swap.resolver import Resolver
from swap.settings import Settings
from swap.store import calls
from swap.store.database import Database
from swap.support import Support
from swap.tracking import Tracking
from swap.upstream.client import UpstreamClient
from swap.upstream.journal import Call
from swap.vault import Vault
from swap.watch import Watch
from swap.webhooks import Webhooks

log = structlog.get_logger()

# Seconds that a check of an address may wait for its turn; what is left of its time is for the answer.
_LONGEST_CHECK_WAIT = 1.0


@dataclass(frozen=True)
class Service:
    """All parts of one process."""

    settings: Settings
    database: Database
    redis: Redis
    shared_bucket: SharedBucket
    bell: Bell
    breaker: Breaker
    upstream: UpstreamClient
    catalog: Catalog
    quotes: Quotes
    gate: Gate
    orders: Orders
    resolver: Resolver
    orphans: Orphans
    pacer: Pacer
    doorbell: Doorbell
    watch: Watch
    reconcile: Reconcile
    feed: Feed
    webhooks: Webhooks
    keys: Keys
    tracking: Tracking
    support: Support
    clock: Callable[[], datetime]
    # Set once the process has been told to end: it takes no new orders any more.
    draining: threading.Event = field(default_factory=threading.Event)

    def close(self) -> None:
        self.webhooks.close()
        self.upstream.close()
        self.redis.close()
        self.database.close()


def now() -> datetime:
    return datetime.now(UTC)


def start(part: str, settings: Settings | None = None) -> Service:
    """Read the settings, set up logging for this process, and build. Raises ConfigurationError."""
    settings = complete(settings or Settings.from_env())
    logs.configure(settings.log_level, known_secrets(settings), part=part)
    logs.catch_threads()
    for name in settings.unknown:
        log.warning("settings.unknown", name=name)
    return build(settings)


def build(settings: Settings, clock: Callable[[], datetime] = now) -> Service:
    """The parts, on this clock (aware UTC)."""
    settings = complete(settings)
    assert settings.redis_url is not None
    rng = Random()  # noqa: S311 - spreads due times and retries, protects nothing
    database = Database(settings.database_url)
    vault = Vault(settings.secret_keys)
    redis = Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=1)
    bucket = SharedBucket(redis)
    bell = Bell(redis)
    budget = UpstreamBudget(redis, float(settings.upstream_rps))
    breaker, check_breaker = (Breaker(scale=float(settings.time_scale)) for _ in range(2))

    def take(lane: str, max_wait: float) -> None:
        asked = breaker
        if lane in CHECKS:
            max_wait = min(max_wait, _LONGEST_CHECK_WAIT)
            if breaker.state == "ok":
                asked = check_breaker
            elif lane == PREVIEW:
                raise Unavailable(f"The upstream is {breaker.state}.", cause="breaker")
            # Else the check of an order may be the probe: better that than a create, whose silence leaves a doubt.
        asked.before()
        try:
            budget.take(lane, max_wait)
        except RateLimited:
            asked.give_back()
            raise

    def on_call(call: Call) -> None:
        if call.endpoint == "validate":
            # Known to be firewalled on its own (UPSTREAM.md E3), which must neither stop creates nor speak for them.
            check_breaker.after(call.outcome)
            if breaker.state != "ok" and call.outcome == Blocked.code:
                breaker.give_back()
            elif breaker.state != "ok":
                breaker.after(call.outcome)
        else:
            breaker.after(call.outcome, endpoint=call.endpoint, status=call.status)
        if call.status == 429:
            budget.refused(call.retry_after)
        elif call.requests_left is not None:
            budget.left(*call.requests_left)
        keep_call(database, call)

    def client(public_key: str, secret_key: str) -> UpstreamClient:
        return UpstreamClient(
            settings.upstream_url,
            public_key,
            secret_key,
            user_agent=settings.upstream_user_agent,
            proxy=settings.upstream_proxy,
            read_timeout=settings.upstream_read_timeout,
            create_timeout=settings.upstream_create_timeout,
            on_call=on_call,
            take=take,
            clock=lambda: clock().timestamp(),
            rng=rng,
        )

    upstream = client(settings.upstream_public_key, settings.upstream_secret_key)
    old_upstreams = {public: client(public, secret) for public, secret in settings.upstream_old_keys}
    rules = CreateRules(
        upstream_key=settings.upstream_public_key,
        referrer_id=settings.upstream_referrer_id,
        markup=settings.upstream_markup,
        timeout=settings.upstream_create_timeout,
        rate_tolerance=settings.rate_tolerance,
        max_at_once=settings.max_creates,
        scale=settings.time_scale,
    )
    catalog = Catalog(database, upstream, clock, scale=settings.time_scale)
    quotes = Quotes(
        upstream,
        catalog,
        vault,
        clock,
        markup=settings.upstream_markup,
        referrer_id=settings.upstream_referrer_id,
        rate_max_age=settings.rate_max_age,
    )
    upstreams = {upstream.public_key: upstream, **old_upstreams}
    pacer = Pacer(database, budget, clock, scale=settings.time_scale)
    gate = Gate(database, upstream, vault, clock, is_away=lambda: breaker.state != "ok")
    creates = Creates(database, upstream, catalog, bell, gate, clock, rules, rng)
    resolver = Resolver(
        database,
        upstreams,
        creates,
        clock,
        terms_stand=quotes.still_stand,
        create_timeout=settings.upstream_create_timeout,
        read_timeout=settings.upstream_read_timeout,
        scale=settings.time_scale,
    )
    return Service(
        settings=settings,
        database=database,
        redis=redis,
        shared_bucket=bucket,
        bell=bell,
        breaker=breaker,
        upstream=upstream,
        catalog=catalog,
        quotes=quotes,
        gate=gate,
        orders=Orders(database, gate, catalog, quotes, creates, clock, rules),
        resolver=resolver,
        orphans=Orphans(
            database, upstreams, clock, read_timeout=settings.upstream_read_timeout, scale=settings.time_scale
        ),
        pacer=pacer,
        doorbell=Doorbell(
            database, upstreams, clock, read_timeout=settings.upstream_read_timeout, scale=settings.time_scale
        ),
        watch=Watch(
            database,
            upstream,
            catalog,
            resolver,
            pacer,
            bell,
            clock,
            rng,
            rate_tolerance=settings.rate_tolerance,
            read_timeout=settings.upstream_read_timeout,
            create_timeout=settings.upstream_create_timeout,
            scale=settings.time_scale,
        ),
        reconcile=Reconcile(
            database, upstreams, clock, read_timeout=settings.upstream_read_timeout, scale=settings.time_scale
        ),
        feed=Feed(database, bell, clock),
        webhooks=Webhooks(
            database, vault, bell, clock, rng, allow_private=settings.webhook_allow_private, scale=settings.time_scale
        ),
        keys=Keys(database, vault, clock),
        tracking=Tracking(database, vault, clock),
        support=Support(database),
        clock=clock,
    )


def doctor(service: Service) -> Doctor:
    """Its second client signs with a secret that is wrong in one bit, and leaves budget and breaker alone: what it is
    refused with says nothing about the upstream."""
    settings = service.settings
    secret = settings.upstream_secret_key
    forged = UpstreamClient(
        settings.upstream_url,
        settings.upstream_public_key,
        secret[:-1] + chr(ord(secret[-1]) ^ 1),
        user_agent=settings.upstream_user_agent,
        proxy=settings.upstream_proxy,
        read_timeout=settings.upstream_read_timeout,
        create_timeout=settings.upstream_create_timeout,
        clock=lambda: service.clock().timestamp(),
        rng=Random(),  # noqa: S311 - spreads retries, protects nothing
    )
    return Doctor(service.database, service.bell, service.catalog, service.upstream, forged, service.clock)


def keep_call(database: Database, call: Call) -> None:
    """Journal a call to the upstream: every create and every failure. A good look is kept by the watcher, if it brought
    news."""
    if call.endpoint != "create" and call.outcome == "OK":
        return
    with database.write() as session:
        kept = asdict(call)
        del kept["retry_after"], kept["requests_left"]
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
    """A secret key of this checkout, made once, readable by its owner alone."""
    path = var / "secret_keys"
    var.mkdir(parents=True, exist_ok=True)
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
