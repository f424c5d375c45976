"""The house rules: the upstream's budget, secrets, parts that live and die as they should; and how the resolver did."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from drill.evidence import Check, Evidence
from drill.processes import Parts
from drill.sandbox_truth import moment, seconds

OVER_BUDGET = 1.5
# Real seconds without a worker's sign of life after which the schedulers do the work, and what they need to begin.
_WORKERS_MISSED = 15 + 3
_ENOUGH_SECONDS = 3
_ID = re.compile(r"[0-9a-f-]{24,}.*", re.DOTALL)


def budget(e: Evidence) -> Check:
    """An upstream that hung is handed everything that callers have sent and given up on meanwhile in one moment: those
    seconds, and no others, say nothing about when it was sent."""
    check = Check("budget", f"no clock second above {OVER_BUDGET} x UPSTREAM_RPS at the upstream")
    most = e.plan.rps * OVER_BUDGET
    woken = {int(to) + more for _, to, name in e.blows if name.startswith("pause") for more in (0, 1)}
    for row in e.load["seconds"]:
        if row["second"] in woken:
            continue
        check.looked_at += 1
        if row["total"] > most:
            check.fail(f"{moment(row['second'])[:8]}: {row['total']} requests, {most:.0f} allowed: {row['endpoints']}")
    totals = [row["total"] for row in e.load["seconds"]]
    mean = sum(totals) / max(1, len(totals))
    each = e.load["total"] / max(1, len(e.truth))
    check.figure = f"peak {e.load['peak']}, mean {mean:.1f}; {e.load['total']} requests, {each:.1f} per upstream order"
    return check


def one_look(e: Evidence) -> Check:
    """A lease is for one: whoever works without one is seen when an answer takes its time. An upstream order whose create
    was not answered is looked at for every order of ours that may have made it."""
    check = Check("one_look", "no upstream order with a known owner was asked about twice at the same time")
    for upstream in e.truth:
        if not upstream.answered or upstream.ids[0] in e.orphaned:
            continue
        check.looked_at += 1
        if upstream.looks_at_once > 1:
            check.fail(f"{upstream.name} was asked about by {upstream.looks_at_once} at once")
    return check


def went_on(e: Evidence) -> Check:
    """Seconds in which something else was away say nothing."""
    check = Check("went_on", "while all workers were dead, upstream orders were asked about all the same")
    harmless = ("kill all workers", "kill a worker", "kill the API")
    away = [(at, to) for at, to, name in e.blows if not name.startswith(harmless)]
    asked = {row["second"]: row["endpoints"].get("info", 0) for row in e.load["seconds"]}
    for at, to, name in e.blows:
        if name != "kill all workers":
            continue
        alone = [
            second
            for second in range(int(at + _WORKERS_MISSED) + 1, int(to))
            if not any(begun < second + 1 and second < ended + 1 for begun, ended in away)
        ]
        check.looked_at += len(alone)
        if len(alone) >= _ENOUGH_SECONDS and not any(asked.get(second, 0) for second in alone):
            check.fail(f"nothing was asked from {moment(alone[0])} to {moment(alone[-1])}")
    return check


def secrets_kept(logs: Path, secrets: dict[str, str]) -> Check:
    """`secrets`: text by what it is; only that is repeated here."""
    check = Check("secrets", "no secret is in any line any part wrote")
    for path in sorted(logs.iterdir()):
        text = path.read_text(errors="replace")
        check.looked_at += text.count("\n")
        for name, secret in secrets.items():
            if secret in text:
                line = text[: text.index(secret)].count("\n") + 1
                check.fail(f"{name} is in {path.name}, line {line}")
    check.figure = f"{len(secrets)} secrets"
    return check


def lived(parts: Parts, stopped: Iterable[str]) -> Check:
    check = Check("parts", "no part ended by itself, and every one ends on SIGTERM in time with code 0", len(parts.all))
    for part in parts.all.values():
        check.violations += part.died
    check.violations += stopped
    check.figure = f"{sum(part.starts for part in parts.all.values())} starts"
    return check


def complaints(logs: Path) -> dict[str, int]:
    """What the parts logged as errors, by name; not judged, but worth a look."""
    found: Counter[str] = Counter()
    for path in sorted(logs.iterdir()):
        for line in path.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                found[f"{path.stem}: not JSON"] += bool(line.strip())
                continue
            if isinstance(row, dict) and row.get("level") in ("error", "critical"):
                found[_ID.sub("...", str(row.get("event")))[:60]] += 1
    return dict(found.most_common())


def resolver(e: Evidence) -> dict[str, Any]:
    """How doubts ended, and how long they took."""
    adopted = again = unconfirmed = doubted = 0
    took: list[float] = []
    for order_id, record in e.shown.items():
        events = sorted(record["events"], key=lambda event: event["created_at"])
        details = [event["detail"] or {} for event in events]
        adopted += any(_said(detail, "adopted") for detail in details)
        again += any(_said(detail, "not_found") for detail in details)
        reasons = {(event["order"] or {}).get("status_reason") for event in events}
        unconfirmed += "create_unconfirmed" in reasons or any(d.get("code") == "CREATE_UNCONFIRMED" for d in details)
        public = e.public_events(order_id)
        began = [ev for ev in public if ev["order"]["status_reason"] == "create_in_doubt"]
        if began:
            doubted += 1
            ended = [
                ev for ev in public if ev["sequence"] > began[0]["sequence"] and ev["order"]["status"] != "creating"
            ]
            if ended:
                took.append(seconds(ended[0]["created_at"]) - seconds(began[0]["created_at"]))
    took.sort()
    return {
        "in_doubt": doubted,
        "adopted": adopted,
        "created_again": again,
        "unconfirmed": unconfirmed,
        "resolved": len(took),
        "seconds_p50": round(median(took), 1) if took else None,
        "seconds_p95": round(took[int(len(took) * 0.95)], 1) if took else None,
    }


def _said(detail: Any, name: str) -> bool:
    """Whether the detail of an event says so, on any level."""
    if isinstance(detail, dict):
        return bool(detail.get(name)) or any(_said(value, name) for value in detail.values())
    return False
