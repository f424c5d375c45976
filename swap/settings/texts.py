"""The texts of the environment, read strictly: each reader takes a text and raises ValueError, which says what is wrong
with it and never repeats it."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

# Seconds. POST /v1/orders answers within 30 in all; the create is its last call, after two or three shorter ones.
_LONGEST_CREATE = 25
# A rate that is older is no promise any more, and an order that promises a tenth less is not the one that was quoted.
_OLDEST_RATE = 3600
_LARGEST_TOLERANCE = Decimal("0.1")

_DIGITS = re.compile(r"[0-9]{1,5}")
_LABEL, _NUMBER = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"), re.compile(r"[0-9]+|0x[0-9a-f]*")
_WELL_KNOWN = {"http": 80, "https": 443}
_PLAIN_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?|\.[0-9]{1,12}")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def plain(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("holds a control character")
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("is not UTF-8")
    return text


def header(text: str) -> str:
    if not text.isascii():
        raise ValueError("must be ASCII: it travels in a header")
    return plain(text)


def one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        raise ValueError(f"must be one of: {', '.join(choices)}")

    return read


def split(text: str) -> SplitResult:
    """The URL's parts. The standard library's own errors quote what they were given, password and all."""
    try:
        parts = urlsplit(plain(text))
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    return parts


def url(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = split(text)
        if parts.scheme not in schemes or "://" not in text or not (parts.hostname or parts.path):
            raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return text

    return read


def database_url(text: str) -> str:
    if text.startswith("sqlite:////") and text.strip("/") != "sqlite:":
        return plain(text)
    for prefix in ("postgresql://", "postgres://", "postgresql+psycopg://"):
        if text.startswith(prefix):
            # From the host on: in front of it the engine takes a password with "#" or "/" in it, which no URL may have.
            split("postgresql://" + plain(text).removeprefix(prefix).rpartition("@")[2])
            return "postgresql+psycopg://" + text.removeprefix(prefix)
    raise ValueError("must be sqlite:///ABSOLUTE/PATH or postgresql://...")


def upstream_url(text: str) -> str:
    parts = split(text)
    wrong = parts.scheme not in ("http", "https") or not parts.hostname or "@" in text
    if wrong or parts.query or parts.fragment:
        raise ValueError("must be https://HOST, without a path to the API, a user or a query")
    if parts.path.strip("/"):
        raise ValueError("must be the bare host; the client adds /api/v2/...")
    if parts.scheme == "http" and not is_loopback(text):
        raise ValueError("must be https; plain http is for an upstream on this machine only")
    return text.rstrip("/")


def decimal(*, at_least: str | None = None, above: str | None = None) -> Callable[[str], Decimal]:
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


def seconds(text: str) -> float:
    value = float(decimal(above="0")(text))
    if value > 86_400:
        raise ValueError("must be at most 86400 seconds")
    return value


def rate_age(text: str) -> float:
    value = seconds(text)
    if value > _OLDEST_RATE:
        raise ValueError(f"must be at most {_OLDEST_RATE} seconds: an older rate is no promise any more")
    return value


def tolerance(text: str) -> Decimal:
    value = decimal(at_least="0")(text)
    if value > _LARGEST_TOLERANCE:
        raise ValueError(f"must be at most {_LARGEST_TOLERANCE}: it is a fraction, and one percent is 0.01")
    return value


def percent(text: str) -> Decimal:
    value = decimal(at_least="0")(text)
    if value >= 100:
        raise ValueError("must be below 100 percent: nothing would be paid out")
    return value


def create_seconds(text: str) -> float:
    value = seconds(text)
    if value > _LONGEST_CREATE:
        raise ValueError(f"must be at most {_LONGEST_CREATE} seconds: an order is answered within 30")
    return value


def count(text: str) -> int:
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= 10_000:
        raise ValueError("must be a whole number from 1 to 10000")
    return int(text)


def flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


def bind(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _DIGITS.fullmatch(port) or int(port) > 65_535:
        raise ValueError("must be HOST:PORT")
    return plain(text)


def key_pairs(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for item in plain(text).split(","):
        public, colon, secret = item.strip().partition(":")
        if not colon or not public or not secret:
            raise ValueError("must be PUBLIC:SECRET pairs, separated by commas")
        pairs.append((header(public), secret))
    return tuple(pairs)


def networks(text: str) -> tuple[str, ...]:
    found = []
    for part in text.split(","):
        try:
            found.append(str(ip_network(part.strip())))
        except ValueError:
            raise ValueError("is a comma list of networks such as 10.0.0.0/8 or 2001:db8::/32") from None
    return tuple(found)


def origin(text: str) -> str:
    """An origin in the one spelling in which browsers send it (RFC 6454, section 6.2), since it is compared as text:
    `https://host`, or `https://host:8443` with a port that does not go without saying."""
    parts = split(text)
    host = parts.hostname or ""
    if "*" in text:
        raise ValueError("must name each origin; there is no wildcard")
    if parts.scheme not in ("http", "https") or not _is_host(host):
        raise ValueError("must be an origin such as https://shop.example; names beyond ASCII are written xn--...")
    port = "" if parts.port in (None, _WELL_KNOWN[parts.scheme]) else f":{parts.port}"
    if text != f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}":
        raise ValueError(
            "must be written as browsers send it: in lower case, no path, no port 80 of http or 443 of https"
        )
    return text


def _is_host(host: str) -> bool:
    """Whether a browser writes the host so. The URL standard takes one that ends in a number for an IPv4 address."""
    labels = host.split(".")
    if ":" in host or _NUMBER.fullmatch(labels[-1]):
        try:
            return "%" not in host and ip_address(host).compressed == host
        except ValueError:
            return False
    return all(_LABEL.fullmatch(label) for label in labels)


def origins(text: str) -> tuple[str, ...]:
    return tuple(origin(item.strip()) for item in plain(text).split(",") if item.strip())


def secret_keys(text: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in plain(text).split(",") if key.strip())
    if not keys or any(len(key) < 32 for key in keys):
        raise ValueError("must be a comma list of texts of at least 32 characters each")
    return keys
