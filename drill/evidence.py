"""What an audit looks at, and what it says."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from drill.plan import Plan
from drill.receiver import Arrival, Endpoint
from drill.sandbox_truth import Upstream
from drill.workload import Record


@dataclass
class Check:
    """`name` is stable, mutants are told by it. `looked_at`: how many things; a check that looked at nothing proves
    nothing, and the table says so. `figure`: what was counted besides."""

    name: str
    says: str
    looked_at: int = 0
    figure: str = ""
    violations: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations

    def fail(self, text: str) -> None:
        self.violations.append(text)


@dataclass
class Evidence:
    """Everything that was gathered when the waiting was over. `orders`, `feeds`: by client. `shown`: `swap orders show`
    by order id. `unreadable`: ids of orders that could not be read, with the reason."""

    plan: Plan
    records: list[Record]
    orders: dict[int, list[dict[str, Any]]]
    feeds: dict[int, list[dict[str, Any]]]
    shown: dict[str, dict[str, Any]]
    unreadable: dict[str, str]
    truth: list[Upstream]
    orphans: list[dict[str, Any]]
    arrivals: list[Arrival]
    endpoints: list[Endpoint]
    unverified: list[str]
    load: dict[str, Any]
    faults: dict[str, Any]
    blows: list[tuple[float, float, str]]
    pending: list[str]

    def keep(self, folder: Path) -> None:
        """All of it as JSON, to look at what a violation is about when the database is gone."""
        content = {
            "plan": {name: value for name, value in vars(self.plan).items() if name != "database_url"},
            "records": [asdict(record) for record in self.records],
            "shown": self.shown,
            "truth": [vars(upstream) for upstream in self.truth],
            "orphans": self.orphans,
            "faults": self.faults,
            "load": self.load,
            "blows": self.blows,
        }
        text = json.dumps(
            content, indent=1, default=lambda value: sorted(value, key=str) if isinstance(value, set) else str(value)
        )
        (folder / "evidence.json").write_text(text, encoding="utf-8")

    @cached_property
    def all_orders(self) -> dict[str, tuple[int, dict[str, Any]]]:
        """{id: (client, order)}"""
        return {order["id"]: (client, order) for client, orders in self.orders.items() for order in orders}

    @cached_property
    def upstream_by_id(self) -> dict[str, Upstream]:
        return {ref: upstream for upstream in self.truth for ref in upstream.ids}

    @cached_property
    def refs(self) -> dict[str, set[str]]:
        """Every id of the upstream's that an order of ours claims: the one it shows, and all that support is shown."""
        found: dict[str, set[str]] = defaultdict(set)
        for order_id, (_, order) in self.all_orders.items():
            if order["upstream_order_id"]:
                found[order_id].add(order["upstream_order_id"])
        for order_id, record in self.shown.items():
            found[order_id] |= set(record["order"].get("internal", {}).get("upstream_refs", ()))
        return found

    @cached_property
    def owners(self) -> dict[str, set[str]]:
        """{first id of an upstream order: ids of our orders that claim it}"""
        found: dict[str, set[str]] = {upstream.ids[0]: set() for upstream in self.truth}
        for order_id, refs in self.refs.items():
            for ref in refs:
                if ref in self.upstream_by_id:
                    found[self.upstream_by_id[ref].ids[0]].add(order_id)
        return found

    @cached_property
    def orphaned(self) -> set[str]:
        """First ids of the upstream orders that are reported as orphans."""
        told = {str(ref) for one in self.orphans for ref in (one["upstream_order_id"], *one.get("refs", ()))}
        return {upstream.ids[0] for upstream in self.truth if told & set(upstream.ids)}

    def owned(self) -> Iterator[tuple[str, dict[str, Any], Upstream]]:
        """(order id, order, the upstream order it claims), once for each claim."""
        for upstream in self.truth:
            for order_id in sorted(self.owners[upstream.ids[0]]):
                if order_id in self.all_orders:
                    yield order_id, self.all_orders[order_id][1], upstream

    def public_events(self, order_id: str) -> list[dict[str, Any]]:
        """By sequence; from `swap orders show`."""
        events = [e for e in self.shown.get(order_id, {}).get("events", ()) if e["sequence"] is not None]
        return sorted(events, key=lambda event: event["sequence"])
