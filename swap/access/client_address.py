"""Where a request came from: the address at the other end, or behind the proxies that are known to tell the truth."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address


def client_address(remote: str, forwarded: str, trusted: Sequence[str]) -> str:
    """`remote`: of the connection; `forwarded`: X-Forwarded-For, in which each proxy appends the address it was called from;
    `trusted`: networks of proxies of ours. The last address that is none of these: what stands before it anybody can write.
    """
    networks = [ip_network(network) for network in trusted]

    def is_proxy(address: Address | None) -> bool:
        return address is not None and any(address in network for network in networks)

    found = _read(remote)
    for text in reversed(forwarded.split(",")):
        if not is_proxy(found):
            break
        before = _read(text.strip())
        if before is None:
            break
        found = before
    return remote if found is None else str(found)


def visitor_at(address: str) -> str:
    """Whom to count an address for: of IPv6 a household or a machine has 2^64, the network /64."""
    found = _read(address)
    return str(ip_network((found, 64), strict=False)) if isinstance(found, IPv6Address) else address


def _read(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    # A socket that takes both kinds shows an IPv4 caller as ::ffff:a.b.c.d.
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found
