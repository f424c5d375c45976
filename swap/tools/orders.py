"""`swap orders ...`: what support and operators do with orders."""

from __future__ import annotations

import click

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
