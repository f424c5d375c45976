"""`swap orders ...`: what support and operators do with orders."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from swap.errors import SwapError
from swap.tools.command_line import open_service, show


@click.group()
def orders() -> None:
    """Orders, for support."""


@orders.command("show")
@click.argument("order_id")
@click.option("--json", "as_json", is_flag=True)
def show_order(order_id: str, as_json: bool) -> None:
    """The full record: row, attempts, events with the journal, deliveries."""
    show(open_service().support.record(order_id), as_json)


@orders.command("find")
@click.argument("clue")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def find_orders(clue: str, limit: int, as_json: bool) -> None:
    """Orders of all clients by an id, a transaction, an address, a memo, a user or a search term, whole."""
    show(open_service().support.find(clue, limit), as_json)


@orders.command("orphans")
@click.option("--json", "as_json", is_flag=True)
def show_orphans(as_json: bool) -> None:
    """Orders at the upstream that belong to none of ours, or could not be proved to."""
    show({"orphans": open_service().support.unowned_orders()}, as_json)


@orders.command("replay")
@click.option("--json", "as_json", is_flag=True)
def replay_orders(as_json: bool) -> None:
    """After an update that reads more kinds of upstream events: poll the orders with such events now."""
    service = open_service()
    show({"orders": service.support.replay(service.clock())}, as_json)


# --- a person's decisions --------------------------------------------------------------------------------------------


def _text(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    if not given.strip():
        raise click.BadParameter("must not be blank")
    return given


def decision(use: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A command that shows what it would do, and does it with --yes. `use` gets the service, the Act, and its own
    parameters, and returns what to show."""

    @click.option("--reason", required=True, callback=_text, help="Kept with the order.")
    @click.option("--by", required=True, callback=_text, help="Who decides; kept with the order.")
    @click.option("--yes", is_flag=True, help="Do it; without, only show what would be done.")
    @click.option("--json", "as_json", is_flag=True)
    @wraps(use)
    def command(reason: str, by: str, yes: bool, as_json: bool, **given: Any) -> None:
        from swap.ops.by_hand import Act

        try:
            shown = use(open_service(), Act(by, reason, yes), **given)
        except SwapError as error:
            if not as_json:
                raise
            details = getattr(error, "details", {})
            show({"error": {"code": error.code, "message": error.message, "details": details}}, as_json)
            sys.exit(1)
        show(shown, as_json)
        if not yes:
            click.echo("Nothing was done. With --yes it is.", err=True)

    return command


@orders.command("under-review")
@click.option("--json", "as_json", is_flag=True)
def list_reviews(as_json: bool) -> None:
    """Orders that wait for a person, those that wait longest first."""
    show({"orders": open_service().review.listed()}, as_json)


@orders.command("review")
@click.argument("order_id")
@decision
def begin_review(service: Any, act: Any, order_id: str) -> dict[str, Any]:
    """Put an order under review: it cannot be paid, and only a person moves it on."""
    shown: dict[str, Any] = service.review.begin(order_id, act)
    return shown


@orders.command("release")
@click.argument("order_id")
@click.option("--accept", is_flag=True, help="Even if the upstream's answer differs: it counts as agreed from now on.")
@decision
def release(service: Any, act: Any, order_id: str, accept: bool) -> dict[str, Any]:
    """End a review, after asking the upstream again."""
    shown: dict[str, Any] = service.review.release(order_id, act, accept=accept)
    return shown


@orders.command("end")
@click.argument("order_id")
@click.option("--as", "status", type=click.Choice(["failed", "expired", "completed", "refunded"]), default="failed")
@click.option("--despite-record", is_flag=True, help="Of an order under review: you know better than its record.")
@decision
def end(service: Any, act: Any, order_id: str, status: str, despite_record: bool) -> dict[str, Any]:
    """End an order: as failed or expired where nothing was paid, as completed or refunded where the record shows it."""
    from swap.domain.lifecycle import Status

    shown: dict[str, Any] = service.review.end(order_id, Status(status), act, despite_record=despite_record)
    return shown


@orders.command("link")
@click.argument("ref")
@click.argument("order_id")
@decision
def link(service: Any, act: Any, ref: str, order_id: str) -> dict[str, Any]:
    """Give an upstream order that is nobody's, or a spare, to an order: shown while it has none, else as its spare."""
    shown: dict[str, Any] = service.linking.link(ref, order_id, act)
    return shown
