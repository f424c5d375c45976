"""Validations of addresses and memos per second, on one core, beside the fastest referee of each network.

The goal is 40,000/s mixed over all vectors. Ratios count more than rates: both sides run in turn on the same machine,
on the rows without a memo of the networks that the library knows.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from bench.fuzz_addresses import vectors
from bench.referees import NOT_INSTALLED, ask_referees
from swap.addresses import validate
from swap.addresses.networks import NETWORKS

GOAL = 40_000
SECONDS = 1.0

Call = tuple[str, str, str | None]


def calls(rows: list[dict[str, Any]]) -> list[Call]:
    return [(row["network"], row["address"], row.get("memo")) for row in rows]


def rate(asked: list[Call], seconds: float = SECONDS) -> float:
    """Calls per second of processor time, so that another process on the same core takes nothing away."""
    done, begun = 0, time.process_time()
    while (spent := time.process_time() - begun) < seconds:
        for code, address, memo in asked:
            validate(code, code, address, memo)
        done += len(asked)
    return done / spent


def _by(name: str, rows: list[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> None:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    rates = sorted((rate(calls(group), 0.1), group_name) for group_name, group in groups.items())
    slow = ", ".join(f"{group} {per_second:,.0f}" for per_second, group in rates[:5])
    fast = ", ".join(f"{group} {per_second:,.0f}" for per_second, group in rates[:-4:-1])
    print(f"  by {name}: slowest {slow}; fastest {fast}")


def run() -> None:
    """Prints the rates and the ratios."""
    rows = vectors()
    mixed = rate(calls(rows))
    print(f"addresses: {mixed:,.0f} validations/s, {len(rows):,} vectors mixed, one core (goal {GOAL:,})")
    _by("network", rows, lambda row: str(row["network"]))
    _by("verdict", rows, lambda row: "valid" if row["valid"] else "invalid")
    plain = [row for row in rows if "memo" not in row]
    found = ask_referees(plain, SECONDS)
    if found is None:
        print(f"  beside the referees: not measured, {NOT_INSTALLED}")
        return
    known = Counter(code for result in found.values() for code in result.get("networks", ()))
    print(f"  {'beside':<24}{'networks':>9}{'rows':>7}{'referee/s':>12}{'this service/s':>16}{'ratio':>8}")
    for library, result in found.items():
        if result["error"] is not None:
            print(f"  {library:<24} cannot be used here: {result['error']}")
            continue
        same = [row for row in plain if row["network"] in result["networks"]]
        mine, theirs = rate(calls(same)), result["per_second"]
        label = f"{library} {result['version']}"
        print(
            f"  {label:<24}{len(result['networks']):>9}{len(same):>7}{theirs:>12,.0f}{mine:>16,.0f}{mine / theirs:>7.2f}x"
        )
    print(f"  {len(set(NETWORKS) - set(known))} of {len(NETWORKS)} networks are known to no referee")


if __name__ == "__main__":
    run()
