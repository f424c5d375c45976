"""Settings: the environment, read once, strictly, into one frozen value.

Every secret may also come as `NAME_FILE`, the path of a file that holds it. Secrets are taken out of the mapping they
were read from, so that nothing that copies the environment (a WSGI server, a crash reporter, a child) carries them on.
What is wrong is said without repeating the value: it may be a secret that was put under the wrong name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from swap.errors import ConfigurationError
from swap.settings import production, texts
from swap.settings.texts import is_loopback as is_loopback

SANDBOX_PUBLIC_KEY = "pk_sandbox_local"
SANDBOX_SECRET_KEY = "sk_sandbox_local"  # noqa: S105 - the sandbox's own, of no worth; production refuses it
SANDBOX_URL = "http://127.0.0.1:8090"

SECRETS = (
    "DATABASE_URL",
    "REDIS_URL",
    "UPSTREAM_SECRET_KEY",
    "UPSTREAM_OLD_KEYS",
    "UPSTREAM_PROXY",
    "SWAP_SECRET_KEYS",
)


def checkout() -> Path | None:
    """The checkout that the service runs from. None for an installed package, which has its migrations inside."""
    package = Path(__file__).resolve().parent.parent
    return None if (package / "migrations").is_dir() else package.parent


def state_folder() -> Path:
    """Where a development service keeps its database, its secret key and the address of its embedded Redis, unless it is
    given others.

    A checkout has `var` for that. An installed package never writes beside itself: it takes `swap` in the user's folder
    for state, `$XDG_STATE_HOME` or `~/.local/state` (XDG Base Directory Specification).
    """
    root = checkout()
    if root is not None:
        return root / "var"
    chosen = os.environ.get("XDG_STATE_HOME", "")
    # The specification has a relative path ignored.
    if not Path(chosen).is_absolute():
        # A user without a home gets a path that cannot be written to; Path.expanduser would raise, needed or not.
        chosen = os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path("/", chosen, "swap")


@dataclass(frozen=True)
class Settings:
    """What the operator chose. Durations in seconds, rates per second, addresses as `host:port`."""

    env: Literal["development", "production"] = "development"
    database_url: str = field(default="", repr=False)
    redis_url: str | None = field(default=None, repr=False)
    upstream_url: str = SANDBOX_URL
    upstream_public_key: str = SANDBOX_PUBLIC_KEY
    upstream_secret_key: str = field(default=SANDBOX_SECRET_KEY, repr=False)
    upstream_old_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    upstream_user_agent: str = "Mozilla/5.0 (compatible; swap-service/0.1)"
    upstream_proxy: str | None = field(default=None, repr=False)
    upstream_referrer_id: str | None = None
    upstream_markup: Decimal | None = None
    upstream_rps: Decimal = Decimal(10)
    upstream_create_timeout: float = 15.0
    upstream_read_timeout: float = 12.0
    secret_keys: tuple[str, ...] = field(default=(), repr=False)
    time_scale: Decimal = Decimal(1)
    rate_max_age: float = 120.0
    rate_tolerance: Decimal = Decimal("0.01")
    webhook_allow_private: bool = False
    allowed_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    api_bind: str = "127.0.0.1:8080"
    stream_bind: str = "127.0.0.1:8081"
    admin_bind: str = "127.0.0.1:8082"
    drain_seconds: float = 10.0
    max_creates: int = 32
    create_attempts: int = 3
    spare_limit: int = 50
    fallback_threads: int = 4
    log_level: str = "INFO"
    var: Path = field(default_factory=state_folder)
    unknown: tuple[str, ...] = ()

    @property
    def production(self) -> bool:
        return self.env == "production"

    @property
    def environment(self) -> Literal["test", "live"]:
        """What the keys of this service are made for."""
        return "live" if self.production else "test"

    def warnings(self) -> tuple[str, ...]:
        """What weakens a production service but may be meant, as sentences that repeat no value."""
        return tuple(production.warnings(self))

    @classmethod
    def from_env(cls, environ: MutableMapping[str, str] | None = None) -> Settings:
        """Read the settings and remove the secrets from `environ` (default: the process environment).

        Raises ConfigurationError that lists every mistake at once.
        """
        return _Reader(os.environ if environ is None else environ).settings()


# Every environment name, the field it fills and how it is read: `.env.example` lists the same names, a test compares.
def _names() -> dict[str, tuple[str, Callable[[str], Any]]]:
    return {
        "SWAP_ENV": ("env", texts.one_of("development", "production")),
        "DATABASE_URL": ("database_url", texts.database_url),
        "REDIS_URL": ("redis_url", texts.url("redis", "rediss", "unix")),
        "UPSTREAM_URL": ("upstream_url", texts.upstream_url),
        "UPSTREAM_PUBLIC_KEY": ("upstream_public_key", texts.header),
        "UPSTREAM_SECRET_KEY": ("upstream_secret_key", texts.plain),
        "UPSTREAM_OLD_KEYS": ("upstream_old_keys", texts.key_pairs),
        "UPSTREAM_USER_AGENT": ("upstream_user_agent", texts.header),
        "UPSTREAM_PROXY": ("upstream_proxy", texts.url("http", "https")),
        "UPSTREAM_REFERRER_ID": ("upstream_referrer_id", texts.plain),
        "UPSTREAM_MARKUP": ("upstream_markup", texts.percent),
        "UPSTREAM_RPS": ("upstream_rps", texts.decimal(above="0")),
        "UPSTREAM_CREATE_TIMEOUT": ("upstream_create_timeout", texts.create_seconds),
        "UPSTREAM_READ_TIMEOUT": ("upstream_read_timeout", texts.seconds),
        "SWAP_SECRET_KEYS": ("secret_keys", texts.secret_keys),
        "SWAP_TIME_SCALE": ("time_scale", texts.decimal(at_least="1")),
        "RATE_MAX_AGE": ("rate_max_age", texts.rate_age),
        "RATE_TOLERANCE": ("rate_tolerance", texts.tolerance),
        "SWAP_WEBHOOK_ALLOW_PRIVATE": ("webhook_allow_private", texts.flag),
        "SWAP_ALLOW_LIVE_UPSTREAM": ("", texts.flag),
        "SWAP_ALLOWED_ORIGINS": ("allowed_origins", texts.origins),
        "SWAP_TRUSTED_PROXIES": ("trusted_proxies", texts.networks),
        "SWAP_API_BIND": ("api_bind", texts.bind),
        "SWAP_STREAM_BIND": ("stream_bind", texts.bind),
        "SWAP_ADMIN_BIND": ("admin_bind", texts.bind),
        "SWAP_DRAIN_SECONDS": ("drain_seconds", texts.seconds),
        "SWAP_MAX_CREATES": ("max_creates", texts.count),
        "SWAP_CREATE_ATTEMPTS": ("create_attempts", texts.count),
        "SWAP_SPARE_LIMIT": ("spare_limit", texts.count),
        "SWAP_FALLBACK_THREADS": ("fallback_threads", texts.count),
        "LOG_LEVEL": ("log_level", texts.one_of("DEBUG", "INFO", "WARNING", "ERROR")),
    }


class _Reader:
    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self.environ = environ
        self.mistakes: list[str] = []
        self.given: set[str] = set()
        self.understood: set[str] = set()

    def settings(self) -> Settings:
        values: dict[str, Any] = {}
        names = _names()
        allow_live = False
        for name, (attribute, read) in names.items():
            text = self.text(name)
            if text is None:
                continue
            try:
                value = read(text)
            except ValueError as error:
                self.mistakes.append(f"{name} {error}")
                continue
            self.understood.add(name)
            if attribute:
                values[attribute] = value
            else:
                allow_live = value
        values["unknown"] = tuple(sorted(self.unknown(names)))
        values.setdefault("database_url", f"sqlite:///{state_folder() / 'swap.db'}")
        settings = Settings(**values)
        self.check(settings, allow_live)
        if self.mistakes:
            raise ConfigurationError(self.mistakes)
        return settings

    def text(self, name: str) -> str | None:
        """The setting's text; an empty one counts as not given, as compose files write it."""
        take = self.environ.pop if name in SECRETS else self.environ.get
        text = take(name, None)
        path = self.environ.get(f"{name}_FILE") if name in SECRETS else None
        if text or path:
            self.given.add(name)
        if not path:
            return text or None
        if text:
            self.mistakes.append(f"{name} and {name}_FILE are both given; keep one")
            return None
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            self.mistakes.append(f"{name}_FILE names a file that cannot be read")
            return None
        if not text:
            # Not "unset": a secret that was not mounted must not be replaced by a default in silence.
            self.mistakes.append(f"{name}_FILE names an empty file")
        return text or None

    def unknown(self, names: Iterable[str]) -> set[str]:
        known = set(names) | {f"{name}_FILE" for name in SECRETS}
        return {name for name in self.environ if name.startswith(("SWAP_", "UPSTREAM_")) and name not in known}

    def check(self, s: Settings, allow_live: bool) -> None:
        wrong = self.mistakes.append
        if ("UPSTREAM_PUBLIC_KEY" in self.given) != ("UPSTREAM_SECRET_KEY" in self.given):
            wrong("UPSTREAM_PUBLIC_KEY and UPSTREAM_SECRET_KEY go together; only one is given")
        if s.upstream_markup is not None and s.upstream_referrer_id is None:
            wrong("UPSTREAM_MARKUP needs UPSTREAM_REFERRER_ID: the upstream refuses orders with markup alone")
        if s.time_scale != 1 and not is_loopback(s.upstream_url):
            wrong("SWAP_TIME_SCALE other than 1 is for an upstream on this machine only")
        if s.production:
            self.mistakes += production.mistakes(s, self.given, self.understood)
        elif not is_loopback(s.upstream_url) and not allow_live:
            wrong("UPSTREAM_URL is outside this machine; development needs SWAP_ALLOW_LIVE_UPSTREAM=1 for that")


SETTING_NAMES = tuple(_names())
FIELD_NAMES = tuple(f.name for f in fields(Settings))
