"""One POST to an address that a customer chose: a limit on its time, no redirects, no way into our own network.

Nothing here follows a redirect, keeps a connection or a cookie, or reads a proxy out of the environment. Every address
the host's name stands for is judged before it is connected to, and the one that was judged is the one connected to: a
name that is public when it is registered may point at our own machines when it is used.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from requests.models import PreparedRequest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from swap.infra.deadline import Deadline, Resolve, retry_after
from swap.infra.http_answers import FinalResponse

_CONNECT_SECONDS = 5.0
_EXCERPT = 500
_LONGEST_PAUSE = 86_400.0

# What the standard library takes for public, or older versions of it do, and is not (IANA's special-purpose registries).
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",  # the host of every Azure machine, to which the address is public for other machines
            "192.0.0.0/24",  # protocol assignments; 192.0.0.192 was Oracle's metadata service
            "192.88.99.0/24",  # relays into 6to4
            "3fff::/20",  # documentation
        ),
    )
)
# A gateway translates these back to the IPv4 address in their last 32 bits (RFC 6052).
_TRANSLATED = IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = IPv6Network("::/96")

# Ends of names that the public DNS will never know (RFC 6761, RFC 6762, RFC 7686, RFC 9476, and what ICANN left private);
# home.arpa is RFC 8375's.
_NEVER_PUBLIC = {"alt", "example", "internal", "invalid", "local", "localhost", "onion", "test"}

# RFC 1123, 2.1, and the underscore, which no host name has and resolvers take all the same.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class PrivateTarget(OSError):
    """The host's name stands for an address that is not public."""


class NotHttps(ValueError):
    """Plain http, where only https is allowed."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of it. `status`: the HTTP status, or None without an answer. `excerpt`: the first 500 bytes of the body
    as text. `error`: why there was no answer, one word; None when there was one. `retry_after`: the pause in seconds that
    the answer asked for, at most a day."""

    status: int | None
    excerpt: str | None
    error: str | None
    retry_after: float | None = None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    limit: float,
    allow_private: bool,
    resolve: Resolve | None = None,
) -> Sent:
    """Send, and read the start of the answer, within `limit` seconds in all. The name is looked up once, by `resolve`
    (default: the system's), and nothing but what that answered is connected to.

    Unless `allow_private`, nothing is sent over plain http or to an address that is not public.

    The limit holds even for a server that sends one byte a second: a timer shuts the socket. A name lookup cannot be
    interrupted; one that takes longer is left to itself. An answer counts once its status and headers are there, even
    when its body never comes.
    """
    with Deadline(limit) as deadline:
        try:
            return _post(canonical(url), body, headers, deadline, allow_private, resolve)
        except (OSError, http.client.HTTPException, ValueError) as error:
            timed_out = deadline.expired or isinstance(error, TimeoutError)
            return Sent(None, None, "TimedOut" if timed_out else type(error).__name__)


def canonical(url: str) -> str:
    """The URL as it is sent: host in ASCII, path and query quoted. Raises ValueError for what is no URL."""
    if urlsplit(url).port == 0:
        raise ValueError("there is no port 0")
    prepared = PreparedRequest()
    prepared.prepare_url(url, None)
    assert prepared.url is not None
    return prepared.url


def is_private(address: str) -> bool:
    """Whether this IP address may lead anywhere but to the public internet. Raises ValueError for what is no IP address.

    True for loopback, private, link-local, multicast, reserved and unspecified addresses, for cloud metadata services, and
    for IPv6 forms of any of these.
    """
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        inside = _inside(ip)
        if inside is not None:
            ip = inside
        elif ip.is_site_local:
            return True
    if any(ip in network for network in _NOT_PUBLIC):
        return True
    return not ip.is_global or ip.is_multicast or ip.is_reserved


def _inside(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that this one stands for."""
    if address in _TRANSLATED or address in _IPV4_COMPATIBLE:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def refusal(url: str, *, allow_private: bool) -> str | None:
    """Why nothing would ever be sent to this URL, as a sentence; None when something may be.

    What its name stands for is judged when it is used: it may change.
    """
    if any(each.isspace() or not each.isprintable() for each in url):
        # It would be sent as %20, or as what nobody sees, to a path that nobody meant.
        return "A URL has no blanks, and no characters that nobody sees."
    try:
        parts = urlsplit(canonical(url))
    except ValueError:
        return "This is no URL."
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc or parts.fragment:
        return "An endpoint is an https URL without user, password or fragment."
    try:
        private = is_private(host)
    except ValueError:
        # "2130706433" and "0x7f.1" are spellings of 127.0.0.1; no public name ends in a number.
        if not _may_exist(host):
            return "No host can have such a name."
        private = not _may_be_public(host)
    if not allow_private and (parts.scheme != "https" or private):
        return "An endpoint must be https and public; SWAP_WEBHOOK_ALLOW_PRIVATE=1 allows others for development."
    return None


def _may_exist(name: str) -> bool:
    """Whether any DNS, ours included, can know such a name."""
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.lower().split("."))


def _may_be_public(name: str) -> bool:
    """Whether a host name that may exist can stand for anything in the public DNS."""
    labels = name.lower().split(".")
    ends_well = labels[-1] not in _NEVER_PUBLIC and labels[-2:] != ["home", "arpa"] and not labels[-1][0].isdigit()
    return len(labels) > 1 and ends_well


def _post(
    url: str, body: bytes, headers: Mapping[str, str], deadline: Deadline, allow_private: bool, resolve: Resolve | None
) -> Sent:
    parts = urlsplit(url)
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    if not secure and not allow_private:
        raise NotHttps("only https is allowed")
    port = parts.port or (443 if secure else 80)
    connection = http.client.HTTPConnection(parts.hostname, port)
    connection.response_class = FinalResponse
    # The Host header leaves out the port that is the scheme's own.
    connection.default_port = 443 if secure else 80
    addresses = deadline.look_up(parts.hostname, port, resolve)
    if not allow_private and any(is_private(str(address[0])) for *_, address in addresses):
        raise PrivateTarget("this address is not public")
    plain = deadline.connect(addresses, at_most=_CONNECT_SECONDS)
    try:
        plain.settimeout(deadline.remaining())
        connection.sock = _tls().wrap_socket(plain, server_hostname=parts.hostname) if secure else plain
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body, {**headers, "Connection": "close"})
        with connection.getresponse() as answer:
            # A shut socket looks like the end of headers that have none.
            deadline.remaining()
            return Sent(answer.status, _start(answer), None, _pause(answer))
    finally:
        connection.close()
        plain.close()


def _start(answer: http.client.HTTPResponse) -> str:
    """The start of the body, as far as it comes."""
    start = b""
    with suppress(OSError, http.client.HTTPException, ValueError):
        while len(start) < _EXCERPT and (more := answer.read1(_EXCERPT - len(start))):
            start += more
    return start.decode("utf-8", "replace").replace("\x00", "")  # PostgreSQL takes no NUL in text


def _pause(answer: http.client.HTTPResponse) -> float | None:
    value, date = answer.getheader("Retry-After") or "", answer.getheader("Date") or ""
    return retry_after(value, date, longest=_LONGEST_PAUSE)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)
