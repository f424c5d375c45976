"""Settings: the environment, read once, strictly, into one frozen value.

Every secret may also come as `NAME_FILE`, the path of a file that holds it. Secrets are taken out of the mapping they
were read from, so that nothing that copies the environment (a WSGI server, a crash reporter, a child) carries them on.
What is wrong is said without repeating the value: it may be a secret that was put under the wrong name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from swap.errors import ConfigurationError

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


# Seconds. POST /v1/orders answers within 30 in all; the create is its last call, after two or three shorter ones.
_LONGEST_CREATE = 25

_DIGITS = re.compile(r"[0-9]{1,5}")
_PLAIN_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12}")


def checkout() -> Path | None:
    """The checkout that the service runs from. None for an installed package, which has its migrations inside."""
    package = Path(__file__).resolve().parent
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


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


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
    api_bind: str = "127.0.0.1:8080"
    stream_bind: str = "127.0.0.1:8081"
    admin_bind: str = "127.0.0.1:8082"
    drain_seconds: float = 10.0
    max_creates: int = 32
    fallback_threads: int = 4
    log_level: str = "INFO"
    var: Path = field(default_factory=state_folder)
    unknown: tuple[str, ...] = ()

    @property
    def production(self) -> bool:
        return self.env == "production"

    @classmethod
    def from_env(cls, environ: MutableMapping[str, str] | None = None) -> Settings:
        """Read the settings and remove the secrets from `environ` (default: the process environment).

        Raises ConfigurationError that lists every mistake at once.
        """
        return _Reader(os.environ if environ is None else environ).settings()


# Every environment name, the field it fills and how it is read: `.env.example` lists the same names, a test compares.
def _names() -> dict[str, tuple[str, Callable[[str], Any]]]:
    return {
        "SWAP_ENV": ("env", _one_of("development", "production")),
        "DATABASE_URL": ("database_url", _database_url),
        "REDIS_URL": ("redis_url", _url("redis", "rediss", "unix")),
        "UPSTREAM_URL": ("upstream_url", _upstream_url),
        "UPSTREAM_PUBLIC_KEY": ("upstream_public_key", _header),
        "UPSTREAM_SECRET_KEY": ("upstream_secret_key", _text),
        "UPSTREAM_OLD_KEYS": ("upstream_old_keys", _key_pairs),
        "UPSTREAM_USER_AGENT": ("upstream_user_agent", _header),
        "UPSTREAM_PROXY": ("upstream_proxy", _url("http", "https")),
        "UPSTREAM_REFERRER_ID": ("upstream_referrer_id", _text),
        "UPSTREAM_MARKUP": ("upstream_markup", _decimal(at_least="0")),
        "UPSTREAM_RPS": ("upstream_rps", _decimal(above="0")),
        "UPSTREAM_CREATE_TIMEOUT": ("upstream_create_timeout", _create_seconds),
        "UPSTREAM_READ_TIMEOUT": ("upstream_read_timeout", _seconds),
        "SWAP_SECRET_KEYS": ("secret_keys", _secret_keys),
        "SWAP_TIME_SCALE": ("time_scale", _decimal(at_least="1")),
        "RATE_MAX_AGE": ("rate_max_age", _seconds),
        "RATE_TOLERANCE": ("rate_tolerance", _decimal(at_least="0")),
        "SWAP_WEBHOOK_ALLOW_PRIVATE": ("webhook_allow_private", _flag),
        "SWAP_ALLOW_LIVE_UPSTREAM": ("", _flag),
        "SWAP_ALLOWED_ORIGINS": ("allowed_origins", _origins),
        "SWAP_API_BIND": ("api_bind", _bind),
        "SWAP_STREAM_BIND": ("stream_bind", _bind),
        "SWAP_ADMIN_BIND": ("admin_bind", _bind),
        "SWAP_DRAIN_SECONDS": ("drain_seconds", _seconds),
        "SWAP_MAX_CREATES": ("max_creates", _count),
        "SWAP_FALLBACK_THREADS": ("fallback_threads", _count),
        "LOG_LEVEL": ("log_level", _one_of("DEBUG", "INFO", "WARNING", "ERROR")),
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
            for name in ("DATABASE_URL", "REDIS_URL", "SWAP_SECRET_KEYS", "UPSTREAM_URL", "UPSTREAM_PUBLIC_KEY"):
                if name not in self.given:
                    wrong(f"{name} must be given in production")
            for name, value in (
                ("UPSTREAM_PUBLIC_KEY", s.upstream_public_key),
                ("UPSTREAM_SECRET_KEY", s.upstream_secret_key),
            ):
                if name in self.understood and "sandbox" in value.lower():
                    wrong(f"{name} is the sandbox's; production needs a real one")
        elif not is_loopback(s.upstream_url) and not allow_live:
            wrong("UPSTREAM_URL is outside this machine; development needs SWAP_ALLOW_LIVE_UPSTREAM=1 for that")


def _text(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("holds a control character")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("is not UTF-8")
    return text


def _header(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII: it travels in a header")
    return _text(text)


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"must be one of: {', '.join(choices)}")

    return read


def _split(text: str) -> SplitResult:
    """The URL's parts. The standard library's own errors quote what they were given, password and all."""
    try:
        parts = urlsplit(_text(text))
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def _url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = _split(text)
        if parts.scheme not in schemes or "://" not in text or not (parts.hostname or parts.path):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return read


def _database_url(text: str) -> str:
    if text.startswith("sqlite:////") and text.strip("/") != "sqlite:":
        return _text(text)
    for prefix in ("postgresql://", "postgres://", "postgresql+psycopg://"):
        if text.startswith(prefix):
            # From the host on: in front of it the engine takes a password with "#" or "/" in it, which no URL may have.
            _split("postgresql://" + _text(text).removeprefix(prefix).rpartition("@")[2])
            return "postgresql+psycopg://" + text.removeprefix(prefix)
    raise ValueError("must be sqlite:///ABSOLUTE/PATH or postgresql://...")


def _upstream_url(text: str) -> str:
    parts = _split(text)
    wrong = parts.scheme not in ("http", "https") or not parts.hostname or "@" in text
    if wrong or parts.query or parts.fragment:
        raise ValueError("must be https://HOST, without a path to the API, a user or a query")
    if parts.path.strip("/"):
        raise ValueError("must be the bare host; the client adds /api/v2/...")
    if parts.scheme == "http" and not is_loopback(text):
        raise ValueError("must be https; plain http is for an upstream on this machine only")
    return text.rstrip("/")


def _decimal(*, at_least: str | None = None, above: str | None = None) -> Callable[[str], Decimal]:
    def read(text: str) -> Decimal:
        # Plain notation only: Decimal itself also takes "1e9", "1_0", "NaN" and digits of other scripts.
        if not _PLAIN_NUMBER.fullmatch(text):
            raise ValueError("must be a decimal number")
        value = Decimal(text)
        if at_least is not None and value < Decimal(at_least):
            raise ValueError(f"must be at least {at_least}")
        if above is not None and value <= Decimal(above):
            raise ValueError(f"must be above {above}")
        return value

    return read


def _seconds(text: str) -> float:
    value = float(_decimal(above="0")(text))
    if value > 86_400:
        raise ValueError("must be at most 86400 seconds")
    return value


def _create_seconds(text: str) -> float:
    value = _seconds(text)
    if value > _LONGEST_CREATE:
        raise ValueError(f"must be at most {_LONGEST_CREATE} seconds: an order is answered within 30")
    return value


def _count(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= 10_000:
        raise ValueError("must be a whole number from 1 to 10000")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def _bind(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _DIGITS.fullmatch(port) or int(port) > 65_535:
        raise ValueError("must be HOST:PORT")
    return _text(text)


def _key_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in _text(text).split(","):
        public, colon, secret = item.strip().partition(":")
        if not colon or not public or not secret:
            raise ValueError("must be PUBLIC:SECRET pairs, separated by commas")
        pairs.append((_header(public), secret))
    return tuple(pairs)


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(item.strip() for item in _text(text).split(",") if item.strip())
    for origin in origins:
        parts = _split(origin)
        # Compared as text with what a browser sends: scheme, host and a port that does not go without saying.
        if (
            parts.scheme not in ("http", "https")
            or origin != f"{parts.scheme}://{parts.netloc.lower()}"
            or "@" in origin
        ):
            raise ValueError("must be origins such as https://shop.example, separated by commas, without a path")
        if "*" in origin or not parts.hostname:
            raise ValueError("must name each origin; there is no wildcard")
    return origins


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in _text(text).split(",") if key.strip())
    if not keys or any(len(key) < 32 for key in keys):
        raise ValueError("must be a comma list of texts of at least 32 characters each")
    return keys


SETTING_NAMES = tuple(_names())
FIELD_NAMES = tuple(f.name for f in fields(Settings))
