"""The table, and the same for machines."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from drill.run import Outcome

SHOWN = 10


def show(outcome: Outcome, console: Console) -> None:
    plan = outcome.plan
    title = f"{plan.orders} orders, seed {plan.seed}, {plan.profile}, {outcome.database}, {outcome.seconds:.0f} s"
    if plan.mutant:
        title += f", broken on purpose: {plan.mutant}"
    table = Table(title=title, title_justify="left", pad_edge=False)
    for name in ("", "check", "holds when", "looked at", "violations", "figures"):
        table.add_column(name, justify="right" if name in ("looked at", "violations") else "left")
    for check in outcome.checks:
        mark = "[green]✓[/green]" if check.passed else "[red]✗[/red]"
        if check.passed and not check.looked_at:
            mark = "[yellow]-[/yellow]"
        table.add_row(
            mark, check.name, check.says, str(check.looked_at), str(len(check.violations) or ""), check.figure
        )
    console.print(table)
    for name, value in _lines(outcome.figures):
        console.print(f"  {name:<18} {value}", highlight=False, markup=False)
    for check in outcome.checks:
        if not check.passed:
            console.print(f"\n✗ {check.name}: {check.says}", style="red", markup=False)
            for text in check.violations[:SHOWN]:
                console.print(f"    {text}", highlight=False, markup=False)
            if len(check.violations) > SHOWN:
                console.print(f"    and {len(check.violations) - SHOWN} more")


def _lines(figures: dict[str, Any]) -> list[tuple[str, str]]:
    resolver = figures["resolver"]
    blows = Counter(blow["kind"] for blow in figures["blows"])
    return [
        (
            "resolver",
            f"{resolver['in_doubt']} in doubt: {resolver['adopted']} adopted, {resolver['created_again']} created again, "
            f"{resolver['unconfirmed']} unconfirmed; {resolver['seconds_p50']} / {resolver['seconds_p95']} s (p50 / p95)",
        ),
        ("accepted after", f"{figures['accepted_after_p50']} / {figures['accepted_after_p95']} s (p50 / p95)"),
        ("statuses", _counts(figures["statuses"])),
        (
            "orders",
            f"{figures['orders']} ours, {figures['upstream_orders']} upstream, {len(figures['orphans'])} orphans",
        ),
        ("requests", _counts(figures["upstream"]["requests"])),
        ("faults", f"{sum(figures['faults'].values())}, of {len(figures['faults'])} kinds"),
        ("blows", _counts(blows)),
        ("logged as errors", _counts(figures["logged_errors"]) or "nothing"),
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def write(outcome: Outcome, path: Path) -> None:
    content = {
        "passed": outcome.passed,
        "plan": {name: value for name, value in vars(outcome.plan).items() if name != "database_url"},
        "database": outcome.database,
        "seconds": round(outcome.seconds, 1),
        "checks": [{**vars(check), "passed": check.passed} for check in outcome.checks],
        **outcome.figures,
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
