"""`swap keys`, `clients`, `addresses` and `audit`: who may call, how much, where nothing is sent, and who decided so."""

from __future__ import annotations

import getpass
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import click

from swap.access.clients import Bound
from swap.access.keys import DEFAULT_WEIGHT, KeyOptions, NewKey
from swap.domain import money
from swap.tools.command_line import fail, open_service, show

_WEIGHT = click.IntRange(1, 1_000_000)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"([0-9]{1,5})([mhd])")


def _decided(command: Any) -> Any:
    """The options of what is written down with a name and a reason."""
    for option in (
        click.option("--by", help="Who wants it; default: who is logged in."),
        click.option("--reason", help="Why; both are kept in the audit."),
        click.option("--json", "as_json", is_flag=True),
    ):
        command = option(command)
    return command


def actor(by: str | None) -> str:
    """Who does it, for the audit: `by`, or who is logged in."""
    return by or f"{getpass.getuser()} (shell)"


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text} is no duration such as 90m, 24h or 30d.")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _bound(text: str) -> Decimal | None:
    if text == "none":
        return None
    try:
        return money.parse(text)
    except ValueError as error:
        raise click.BadParameter(f"{text}: {error}") from None


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _shown(made: NewKey) -> dict[str, Any]:
    return {
        "key": made.key,
        "secret": made.secret,
        "client": made.client,
        "name": made.name,
        "scopes": list(made.scopes),
    }


@click.group()
def keys() -> None:
    """API keys of product backends, and those of their web pages."""


@keys.command("create")
@click.option("--name", required=True)
@click.option("--client", help="The client that owns the key; default: named like the key.")
@click.option("--scopes", default="", help="Comma list; default: all but support and admin.")
@click.option("--weight-per-minute", type=_WEIGHT, help="Of the client; 6000 for a new one.")
@click.option("--expires-in", help="90m, 24h or 30d; default: never.")
@click.option("--allowed-from", default="", help="Comma list of networks (CIDR); default: anywhere.")
@_decided
def create_key(
    name: str,
    client: str | None,
    scopes: str,
    weight_per_minute: int | None,
    expires_in: str | None,
    allowed_from: str,
    **decided: Any,
) -> None:
    """Make a key. Its secret is shown now and never again."""
    expires_at = None if expires_in is None else datetime.now(UTC) + _duration(expires_in)
    made = open_service().keys.create(
        name,
        client=client,
        weight_per_minute=weight_per_minute,
        options=KeyOptions(_names(scopes), expires_at, _names(allowed_from)),
        by=actor(decided["by"]),
        reason=decided["reason"],
    )
    show(_shown(made), decided["as_json"])


@keys.command("create-publishable")
@click.option("--name", required=True)
@click.option("--client", required=True, help="The client that owns the key, by its name or id.")
@click.option("--origin", "origins", multiple=True, required=True, help="Of the pages, such as https://shop.example.")
@click.option("--weight-per-minute", type=_WEIGHT, default=DEFAULT_WEIGHT, help="Of all its pages; default: 6000.")
@click.option("--expires-in", help="90m, 24h or 30d; default: never.")
@_decided
def create_publishable_key(
    name: str, client: str, origins: tuple[str, ...], weight_per_minute: int, expires_in: str | None, **decided: Any
) -> None:
    """Make a key that may stand in web pages of these origins: it has no secret (docs/browsers.md)."""
    made = open_service().publishable.create(
        name,
        client,
        origins,
        weight_per_minute=weight_per_minute,
        expires_at=None if expires_in is None else datetime.now(UTC) + _duration(expires_in),
        by=actor(decided["by"]),
        reason=decided["reason"],
    )
    show(made, decided["as_json"])


@keys.command("origins")
@click.argument("key")
@click.option("--origin", "origins", multiple=True, required=True, help="Of the pages, such as https://shop.example.")
@_decided
def move_key(key: str, origins: tuple[str, ...], by: str | None, reason: str | None, as_json: bool) -> None:
    """Let a publishable key be used from these origins and no others, within a second."""
    open_service().publishable.move(key, origins, by=actor(by), reason=reason)
    show({"key": key, "origins": list(origins)}, as_json)


@keys.command("limits")
@click.argument("key")
@click.option("--weight-per-minute", type=_WEIGHT, required=True)
@_decided
def limit_key(key: str, weight_per_minute: int, by: str | None, reason: str | None, as_json: bool) -> None:
    """Set what all pages with a publishable key may spend together per minute."""
    open_service().publishable.limit(key, weight_per_minute, by=actor(by), reason=reason)
    show({"key": key, "weight_per_minute": weight_per_minute}, as_json)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_keys(as_json: bool) -> None:
    """Every key: whose, what for, until when, when and from where it was used last. No secrets."""
    show({"keys": open_service().keys.listed()}, as_json)


@keys.command("rotate")
@click.argument("key")
@click.option("--overlap", default="24h", help="For how long the old key goes on working: 90m, 24h, 30d.")
@_decided
def rotate_key(key: str, overlap: str, by: str | None, reason: str | None, as_json: bool) -> None:
    """Make a key like this one; the old one expires after the overlap. The secret is shown now and never again."""
    made = open_service().keys.rotate(key, _duration(overlap), by=actor(by), reason=reason)
    show(_shown(made), as_json)


@keys.command("expire")
@click.argument("key")
@click.option("--in", "after", required=True, help="90m, 24h or 30d from now.")
@_decided
def expire_key(key: str, after: str, by: str | None, reason: str | None, as_json: bool) -> None:
    """Let a key work for so long and no longer."""
    at = datetime.now(UTC) + _duration(after)
    open_service().keys.expire(key, at, by=actor(by), reason=reason)
    show({"key": key, "expires_at": at.isoformat(timespec="seconds")}, as_json)


@keys.command("revoke")
@click.argument("key")
@_decided
def revoke_key(key: str, by: str | None, reason: str | None, as_json: bool) -> None:
    """Take a key out of use; processes that have seen it forget it within a second."""
    if not open_service().keys.revoke(key, by=actor(by), reason=reason):
        fail(f"KEY_UNKNOWN: There is no live key {key}.")
    if as_json:
        show({"key": key, "revoked": True}, as_json)


@click.group()
def clients() -> None:
    """Clients: the owners of keys, orders, endpoints and limits."""


@clients.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_clients(as_json: bool) -> None:
    """Every client, with what it may spend per minute, how much it may order, and how many of its keys are good."""
    show({"clients": open_service().clients.listed()}, as_json)


@clients.command("limits")
@click.argument("client")
@click.option("--weight-per-minute", type=_WEIGHT, help="What all its keys may spend together.")
@click.option("--currency", help="The currency's title, such as BTC; on any network. With one or both of:")
@click.option("--largest-order", help="What it may send in one order; none takes the limit away.")
@click.option("--daily-sum", help="What its orders of 24 hours may come to; none takes it away.")
@_decided
def limit_client(
    client: str, weight_per_minute: int | None, currency: str | None, as_json: bool, **options: Any
) -> None:
    """Set what a client (its name or id) may spend per minute, or how much of a currency it may order. Without an option:
    show what is set, and what is used of it."""
    service = open_service()
    decided = {"by": actor(options["by"]), "reason": options["reason"]}
    bounds: tuple[Bound, ...] = ("largest_order", "daily_sum")
    changes = {name: _bound(options[name]) for name in bounds if options[name] is not None}
    if (currency is not None) != bool(changes):
        raise click.UsageError("A limit on orders is --currency with --largest-order, --daily-sum or both.")
    if currency is not None:
        service.clients.limit_orders(client, currency, changes, **decided)
    if weight_per_minute is not None:
        service.clients.limit(client, weight_per_minute, **decided)
    shown = service.clients.one(client)
    show(shown | {"order_limits": service.order_limits.shown(shown["id"])}, as_json)


@click.command()
@click.option("--subject", help="Only of this key, client or endpoint.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100)
@click.option("--json", "as_json", is_flag=True)
def audit(subject: str | None, limit: int, as_json: bool) -> None:
    """What was decided about keys and clients, by whom and why; the newest first."""
    show({"audit": open_service().clients.audit(limit, subject)}, as_json)


@click.group()
def addresses() -> None:
    """Addresses that no order may pay out or refund to."""


def _place(command: Any) -> Any:
    for option in (
        click.option("--network", required=True, help="The network's title, such as BTC or ERC20."),
        click.option("--currency", required=True, help="The currency's title, such as BTC or USDT."),
    ):
        command = option(command)
    return click.argument("address")(command)


@addresses.command("block")
@_place
@click.option("--reason", required=True, help="Why; kept in the audit, never told to a caller.")
@click.option("--by", help="Who wants it; default: who is logged in.")
@click.option("--json", "as_json", is_flag=True)
def block_address(address: str, currency: str, network: str, reason: str, by: str | None, as_json: bool) -> None:
    """Refuse new orders to an address, in any spelling and on every network, from now on."""
    show(open_service().blocked.block(currency, network, address, by=actor(by), reason=reason), as_json)


@addresses.command("unblock")
@_place
@click.option("--reason", required=True, help="Why; kept in the audit.")
@click.option("--by", help="Who wants it; default: who is logged in.")
@click.option("--json", "as_json", is_flag=True)
def unblock_address(address: str, currency: str, network: str, reason: str, by: str | None, as_json: bool) -> None:
    """Take new orders to an address again."""
    open_service().blocked.unblock(currency, network, address, by=actor(by), reason=reason)
    show({"address": address, "blocked": False}, as_json)


@addresses.command("list")
@click.option("--json", "as_json", is_flag=True)
def list_addresses(as_json: bool) -> None:
    """Every blocked address, with who blocked it and why."""
    show({"addresses": open_service().blocked.listed()}, as_json)
