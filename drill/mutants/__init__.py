"""Ways to break the service on purpose, so that the drill can be seen to notice.

Nothing of this is in the product: `sitecustomize.py` in this folder is found by the child processes alone, through
PYTHONPATH, and replaces a function here and there as its module is loaded (see `patches.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

APPLIED = "drill.mutant_applied"


@dataclass(frozen=True)
class Mutant:
    """`betrayed_by`: the checks of which one must fail; another failure would be luck. `options`: of the drill, where the
    small one would give the break no occasion."""

    says: str
    betrayed_by: frozenset[str]
    options: dict[str, Any] = field(default_factory=dict)


MUTANTS: dict[str, Mutant] = {
    "call-unknown-failed": Mutant(
        "a create without an answer is called failed",
        frozenset({"failed", "failed_share"}),
    ),
    "adopt-by-address": Mutant(
        "an order in doubt takes any upstream order with its destination",
        # What is taken is contradicted by the next poll: then the order agrees with nothing, instead of telling lies.
        frozenset({"details", "agreed"}),
    ),
    "drop-memo": Mutant(
        "the destination memo is not sent",
        # An answer that repeats no memo is not shown, so nobody pays, and the order fails.
        frozenset({"details", "failed_share"}),
    ),
    "skip-event": Mutant(
        "one kind of event is not written",
        frozenset({"sequences", "delivered", "feed"}),
    ),
    "ignore-budget": Mutant(
        "every process asks the upstream as often as it likes",
        frozenset({"budget"}),
        {"rps": 12.0},
    ),
    "retry-blindly": Mutant(
        "a create without an answer is sent again at once",
        frozenset({"doubled"}),
    ),
    "show-without-ownership": Mutant(
        "nobody asks whether an address was shown to another order",
        frozenset({"shown_to_one"}),
        {"weights": (("place.per_refund", 0.5),)},
    ),
    "trust-shifted-answer": Mutant(
        "no answer is compared with its question",
        frozenset({"promised"}),
        {"weights": (("wire.shifted", 0.5),)},
    ),
    "overwrite-shown-address": Mutant(
        "an order that shows an address may show another one later",
        frozenset({"shown_once"}),
        {"weights": (("create.accept_late", 0.3),)},
    ),
    "drop-spare": Mutant(
        "what was made in vain is not written down",
        frozenset({"accounted"}),
        {"weights": (("create.accept_late", 0.3),)},
    ),
    "act-without-lease": Mutant(
        "who works on an order does not ask whether another does",
        frozenset({"one_look"}),
        {"weights": (("info.delay", 0.3),)},
    ),
    "spend-by-spelling": Mutant(
        "a quote is spent by its spelling, of which it has several",
        frozenset({"quotes"}),
    ),
}


def caught(name: str, violated: set[str], logs: Path) -> str | None:
    """None when the break was noticed for the right reason, else what is wrong with the proof."""
    applied = any(f"{APPLIED} {name}" in path.read_text(errors="replace") for path in logs.glob("*.log"))
    if not applied:
        return "was never applied: what it replaces was not loaded by any part"
    if not violated:
        return "passed every check"
    if not violated & MUTANTS[name].betrayed_by:
        wanted = ", ".join(sorted(MUTANTS[name].betrayed_by))
        return f"was noticed by {', '.join(sorted(violated))}, but not by one of {wanted}"
    return None
