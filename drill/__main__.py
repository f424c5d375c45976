"""python -m drill: 500 orders in 8 minutes; --small: 60 in two minutes; --mutant NAME: with the service broken on purpose.

Exit codes: 0 all checks passed (with --mutant: the break was caught), 1 they did not, 2 called wrongly or not started.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from drill import plan as plans
from drill.mutants import MUTANTS, caught
from drill.processes import PartFailed
from drill.report import show, write
from drill.run import Outcome, run
from drill.service_cli import ToolFailed


def main() -> int:
    asked = _arguments()
    console = Console(quiet=asked.quiet, width=None if sys.stdout.isatty() else 170)
    signal.signal(signal.SIGTERM, _interrupted)
    mutants = list(MUTANTS) if asked.mutant == "all" else [asked.mutant]
    worst = 0
    for mutant in mutants:
        worst = max(worst, _one(asked, mutant, console))
    return worst


def _one(asked: argparse.Namespace, mutant: str | None, console: Console) -> int:
    folder = Path(tempfile.mkdtemp(prefix="swap-drill-"))
    keep = asked.keep
    try:
        outcome = run(_plan(asked, mutant), folder, lambda text: console.print(text, style="dim", highlight=False))
        show(outcome, console)
        if asked.json:
            write(outcome, asked.json)
        passed = outcome.passed if mutant is None else _caught(outcome, mutant, folder, console)
        keep = keep or not passed
        return 0 if passed else 1
    except (PartFailed, ToolFailed) as error:
        keep = True
        Console(stderr=True).print(f"The drill could not be held: {error}", highlight=False, markup=False)
        return 2
    except KeyboardInterrupt:
        return 2
    finally:
        if keep:
            console.print(f"Logs, arrivals and evidence are in {folder}", highlight=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _caught(outcome: Outcome, mutant: str, folder: Path, console: Console) -> bool:
    problem = caught(mutant, outcome.violated, folder / "logs")
    if problem is None:
        console.print(f"[green]✓[/green] {mutant}: caught by {', '.join(sorted(outcome.violated))}", highlight=False)
    else:
        console.print(f"[red]✗[/red] {mutant}: {problem}", highlight=False)
    return problem is None


def _plan(asked: argparse.Namespace, mutant: str | None) -> plans.Plan:
    changed = {
        "orders": asked.orders,
        "threads": asked.clients,
        "seconds": asked.seconds,
        "seed": asked.seed,
        "scale": asked.scale,
        "speed": asked.speed,
        "rps": asked.rps,
        "spare_limit": asked.spare_limit,
        "weights": tuple(asked.weight) or None,
    }
    given = {name: value for name, value in changed.items() if value is not None}
    if mutant is not None:
        given = {**MUTANTS[mutant].options, **given, "mutant": mutant}
    given |= {"profile": asked.profile, "blows": not asked.no_blows, "database_url": asked.database_url}
    given |= {"id_form": "uuid" if asked.uuid_ids else None}
    return (plans.small if asked.small or mutant is not None else plans.full)(**given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m drill", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument(
        "--small", action="store_true", help="60 orders in about two minutes, fewer blows; mutants use it too"
    )
    parser.add_argument("--orders", type=int)
    parser.add_argument("--clients", type=int, help="threads that place orders (16)")
    parser.add_argument(
        "--seconds", type=float, help="at most, from the first process until all must be well; the audit comes after"
    )
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--database-url",
        default=os.environ.get("TEST_DATABASE_URL") or None,
        help="a PostgreSQL server to make a database on; default: TEST_DATABASE_URL, else SQLite",
    )
    parser.add_argument("--sqlite", dest="database_url", action="store_const", const=None, help="whatever is set")
    parser.add_argument("--scale", type=float, help="SWAP_TIME_SCALE")
    parser.add_argument("--speed", type=float, help="the sandbox's")
    parser.add_argument("--rps", type=float, help="UPSTREAM_RPS")
    parser.add_argument("--profile", choices=["clean", "chaos"], default="chaos", help="the sandbox's")
    parser.add_argument(
        "--weight",
        action="append",
        type=_weight,
        default=[],
        metavar="FAULT=SHARE",
        help="of a fault of the sandbox, on top of the profile's; may be given again",
    )
    parser.add_argument("--spare-limit", type=int, help="SWAP_SPARE_LIMIT")
    parser.add_argument("--uuid-ids", action="store_true", help="every create answers a UUID alone")
    parser.add_argument("--no-blows", action="store_true", help="kill nothing, cut nothing")
    parser.add_argument(
        "--mutant", choices=[*MUTANTS, "all"], help="break the service on purpose; 0 when that is caught"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--keep", action="store_true", help="keep logs and evidence also when all is well")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args()


def _weight(text: str) -> tuple[str, float]:
    fault, _, share = text.partition("=")
    return fault, float(share)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
