"""What a service with customers' money must not be started with: settings that switch a protection off, each made for
development or made by mistake."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from swap.settings.texts import is_loopback

if TYPE_CHECKING:
    from swap.settings import Settings

_REQUIRED = ("DATABASE_URL", "REDIS_URL", "SWAP_SECRET_KEYS", "UPSTREAM_URL", "UPSTREAM_PUBLIC_KEY")
# A text of 32 equal letters is long and no secret.
_FEWEST_LETTERS = 8


def mistakes(s: Settings, given: Collection[str], understood: Collection[str]) -> Iterator[str]:
    """Why production refuses these settings, as sentences. `given`: the names that were set; `understood`: those whose
    text could be read, so that nothing is said twice about one mistake."""
    for name in _REQUIRED:
        if name not in given:
            yield f"{name} must be given in production"
    for name, value in (
        ("UPSTREAM_PUBLIC_KEY", s.upstream_public_key),
        ("UPSTREAM_SECRET_KEY", s.upstream_secret_key),
        ("UPSTREAM_OLD_KEYS", " ".join(part for pair in s.upstream_old_keys for part in pair)),
    ):
        if name in understood and "sandbox" in value.lower():
            yield f"{name} is the sandbox's; production needs a real one"
    if s.time_scale != 1 and is_loopback(s.upstream_url):
        yield "SWAP_TIME_SCALE other than 1 is for development: orders would be given up before their time"
    if s.webhook_allow_private:
        yield "SWAP_WEBHOOK_ALLOW_PRIVATE=1 is for development: clients could aim webhooks at our own machines"
    if s.redis_url is not None and not _closed(s.redis_url) and not is_loopback(s.redis_url):
        yield "REDIS_URL must have a password or be a unix:// socket: whoever reaches Redis can start jobs"
    if any(len(set(key)) < _FEWEST_LETTERS for key in s.secret_keys):
        yield "SWAP_SECRET_KEYS must be random: one of them has hardly any different characters"
    if "UPSTREAM_SECRET_KEY" in understood and s.upstream_secret_key in s.secret_keys:
        yield "SWAP_SECRET_KEYS must not hold the upstream's secret: each secret has one use"


def warnings(s: Settings) -> Iterator[str]:
    """What weakens these settings but may be meant, as sentences; nothing in development."""
    if not s.production:
        return
    if s.redis_url is not None and not _closed(s.redis_url):
        yield "REDIS_URL has no password: every process of this machine can start jobs"
    for name, url, careless in (
        ("REDIS_URL", s.redis_url or "", (s.redis_url or "").startswith("redis://")),
        ("DATABASE_URL", s.database_url, "sslmode=disable" in s.database_url),
    ):
        if careless and not is_loopback(url):
            yield f"{name} goes to another machine in plain text"
    if any(origin.startswith("http://") and not is_loopback(origin) for origin in s.allowed_origins):
        yield "SWAP_ALLOWED_ORIGINS names a site without https: tracking tokens can be read on the way"


def _closed(redis_url: str) -> bool:
    parts = urlsplit(redis_url)
    return parts.scheme == "unix" or bool(parts.password or parse_qs(parts.query).get("password"))
