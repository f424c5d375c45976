"""Which channels there are, and which of them an identity may follow."""

from __future__ import annotations

from collections.abc import Collection

from swap.orders.read import OrderReader
from swap.stream.identity import Identity
from swap.stream.protocol import INSTRUMENTS, ORDERS, SocketRefused, order_ids
from swap.stream.rates import Pair, Rates
from swap.stream.threads import InThread

# Kind of channel -> the scope that a key needs for it.
_SCOPES = {ORDERS: "events:read", "order": "events:read", "rates": "quotes", INSTRUMENTS: "catalog"}


async def check(
    identity: Identity,
    names: list[str],
    followed: Collection[str],
    *,
    orders: OrderReader,
    rates: Rates,
    in_thread: InThread,
) -> dict[str, Pair]:
    """The pairs of those of the channels that are channels of rates. `followed`: what the socket follows already.

    Raises SocketRefused (CHANNELS_REFUSED) with the problem of every channel that may not be followed.
    """
    problems: dict[str, str] = {}
    for name in names:
        code = "ALREADY_SUBSCRIBED" if name in followed else _problem(name, identity)
        if code is not None:
            problems[name] = code
    asked = [order_id for order_id in order_ids(names) if f"order.{order_id}" not in problems]
    if asked and identity.order_id is None:
        owned = await in_thread(orders.owned, identity.client_id, asked)
        problems |= {f"order.{order_id}": "ORDER_NOT_FOUND" for order_id in asked if order_id not in owned}
    pairs: dict[str, Pair] = {}
    for name in names:
        if name.startswith("rates.") and name not in problems:
            pair = await rates.pair(name)
            if pair is None:
                problems[name] = "PAIR_UNKNOWN"
            elif not rates.room(pair, identity.owner, pairs.values()):
                problems[name] = "TOO_MANY_PAIRS"
            else:
                pairs[name] = pair
    if problems:
        raise SocketRefused("CHANNELS_REFUSED", "Nothing was subscribed to.", channels=problems)
    return pairs


def _problem(name: str, identity: Identity) -> str | None:
    kind, dot, rest = name.partition(".")
    if kind not in _SCOPES or bool(rest) != (kind in ("order", "rates")) or bool(dot) != bool(rest):
        return "CHANNEL_UNKNOWN"
    if identity.order_id is not None:
        return None if name == f"order.{identity.order_id}" else "CHANNEL_NOT_ALLOWED"
    return None if _SCOPES[kind] in identity.scopes else "SCOPE_MISSING"
