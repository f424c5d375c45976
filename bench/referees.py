"""What other libraries say about the same addresses: `make referees`, or `python -m bench.referees`.

Asks the referees (referee_worker.py, in their own environment) and this service about every row of tests/vectors that
has no memo, since no library has memo rules, and prints per library what each got wrong on the networks the library
knows. Every difference must have an explanation in differences.toml, and every explanation a difference; otherwise the
exit code is 1.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.fuzz_addresses import vectors
from swap.addresses import validate

HERE = Path(__file__).parent
INTERPRETER = HERE.parent / ".venv-referees" / "bin" / "python"
NOT_INSTALLED = "the referees are not installed: run `make referees` once"
KINDS = {True: "false_accept", False: "false_refusal"}


def ask_referees(rows: list[dict[str, Any]], seconds: float = 0) -> dict[str, dict[str, Any]] | None:
    """The worker's answer by library (see there), or None when the environment is not there."""
    if not INTERPRETER.exists():
        return None
    question = {"rows": [[row["network"], row["address"]] for row in rows], "seconds": seconds}
    answer = subprocess.run(
        [INTERPRETER, "-I", HERE / "referee_worker.py"],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(answer.stdout)
    return found


def ours(row: dict[str, Any]) -> bool:
    return validate(row["network"], row["network"], row["address"]).status == "valid" or _by_token(row)


def _by_token(row: dict[str, Any]) -> bool:
    # For their own coin some titles mean two networks; for any other coin they mean the one of the vectors.
    return validate("another coin", row["network"], row["address"]).status == "valid"


@dataclass
class Explanation:
    """One entry of differences.toml; `rows` counts what it explained."""

    library: str
    kind: str
    right: str
    why: str
    networks: frozenset[str]
    tier: str | None
    category: str | None
    match: re.Pattern[str]
    rows: int = 0

    def covers(self, library: str, kind: str, row: dict[str, Any]) -> bool:
        return (
            (self.library, self.kind) == (library, kind)
            and row["network"] in self.networks
            and self.tier in (None, row["tier"])
            and self.category in (None, row["category"])
            and self.match.search(row["reason"]) is not None
        )


def explanations() -> list[Explanation]:
    entries = tomllib.loads((HERE / "differences.toml").read_text(encoding="utf-8"))["difference"]
    return [
        Explanation(
            entry["library"], entry["kind"], entry["right"], entry["why"], frozenset(entry["networks"]),
            entry.get("tier"), entry.get("category"), re.compile(entry.get("match", "")),
        )
        for entry in entries
    ]  # fmt: skip


def _wrong(answer: object, label: bool) -> str | None:
    if isinstance(answer, str):
        return "crash"
    return None if answer is label else KINDS[bool(answer)]


def _line(name: str, networks: int | str, counts: Counter[str]) -> str:
    rows = counts["rows"]
    right = f"{100 * counts['right'] / rows:.2f} %" if rows else "-"
    return (
        f"{name:<24}{networks:>9}{rows:>7}{right:>11}{counts['false_accept']:>15}{counts['false_refusal']:>16}"
        f"{counts['crash']:>9}"
    )


def compare(rows: list[dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[str]:
    """Prints the tables; answers what lacks an explanation."""
    known, unexplained, verdicts = explanations(), [], [ours(row) for row in rows]
    for tier in ("must", "policy"):
        print(
            f"\n{tier:<24}{'networks':>9}{'rows':>7}{'right':>11}{'false accepts':>15}{'false refusals':>16}{'crashes':>9}"
        )
        for library, result in found.items():
            if result["error"] is not None:
                print(f"{library:<24} cannot be used here: {result['error']}")
                continue
            theirs, mine = Counter[str](), Counter[str]()
            for row, answer, verdict in zip(rows, result["answers"], verdicts, strict=True):
                if answer is None or row["tier"] != tier:
                    continue
                for counts, wrong in ((theirs, _wrong(answer, row["valid"])), (mine, _wrong(verdict, row["valid"]))):
                    counts["rows"] += 1
                    counts[wrong or "right"] += 1
                wrong = _wrong(answer, row["valid"])
                if verdict is not row["valid"]:
                    unexplained.append(f"this service: {row['network']} {ascii(row['address'])[:90]}: {row['reason']}")
                if wrong is not None:
                    entry = next((entry for entry in known if entry.covers(library, wrong, row)), None)
                    if entry is None:
                        told = f"{row['network']} {tier} {row['category']}: {row['reason']}"
                        unexplained.append(f"{library} {wrong}: {told} {ascii(row['address'])[:90]}")
                    else:
                        entry.rows += 1
            print(_line(f"{library} {result['version']}", len(result["networks"]), theirs))
            print(_line("  this service, same rows", "", mine))
    usable = {library for library, result in found.items() if result["error"] is None}
    print("\nDifferences, and who is right (bench/differences.toml)")
    for entry in known:
        if entry.rows:
            where = ", ".join(sorted(entry.networks)[:6]) + (", ..." if len(entry.networks) > 6 else "")
            print(f"  {entry.rows:>3} {entry.library} {entry.kind} on {where}; right: {entry.right}. {entry.why}")
        elif entry.library in usable:
            unexplained.append(f"nothing to explain any more: {entry.library} {entry.kind}: {entry.why}")
    return unexplained


def main() -> None:
    rows = [row for row in vectors() if "memo" not in row]
    found = ask_referees(rows)
    if found is None:
        sys.exit(NOT_INSTALLED)
    unexplained = compare(rows, found)
    print(f"\n{len(unexplained)} without explanation")
    for line in unexplained:
        print(f"  {line}")
    sys.exit(bool(unexplained))


if __name__ == "__main__":
    main()
