"""The sandbox's own books, as the drill reads them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import requests

ENDS = {
    "completes": "completed",
    "refunded": "refunded",
    "hold_then_completes": "completed",
    "hold_then_refunded": "refunded",
    "expires": "expired",
    "late_deposit": "completed",
    "wrong_amount": "completed",
    "second_deposit": "completed",
}

Fingerprint = tuple[str, str, str, str, Decimal, str, str | None, str | None, str | None, str]


@dataclass(frozen=True)
class Upstream:
    """One order as it truly is. `ids`: every form. `status`: ours in the same situation, None while it moves. `at_rest`:
    nothing more will happen to it. `deposits`: (transaction, amount) of each. `looks_at_once`: the most requests about it
    at the same time."""

    ids: tuple[str, ...]
    print: Fingerprint
    deposit: tuple[str | None, str | None]
    echoed_destination: str
    created_at: float
    status: str | None
    at_rest: bool
    answered: bool
    fault: str | None
    scenario: str
    amount_to_get: Decimal
    deposits: tuple[tuple[str, Decimal], ...]
    looks_at_once: int

    @property
    def name(self) -> str:
        return f"upstream {self.ids[0]} ({self.fault or 'no fault'}, {'answered' if self.answered else 'not answered'})"


class Sandbox:
    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self._http = requests.Session()
        self._http.trust_env = False

    def get(self, path: str) -> Any:
        """Raises requests.RequestException."""
        got = self._http.get(self.base_url + path, timeout=20)
        got.raise_for_status()
        return got.json()

    def put_faults(self, changes: dict[str, object]) -> None:
        got = self._http.put(f"{self.base_url}/sandbox/faults", json=changes, timeout=20)
        if got.status_code != 200:
            raise requests.RequestException(f"PUT /sandbox/faults: {got.status_code} {got.text[:300]}")

    def up(self) -> bool:
        try:
            return bool(self.get("/sandbox/health")["status"] == "ok")
        except (requests.RequestException, ValueError):
            return False

    def addresses(self) -> dict[str, dict[str, str]]:
        return {row["name"]: row["addresses"] for row in self.get("/sandbox/scenarios")}

    def orders(self) -> list[Upstream]:
        return [_upstream(row) for row in self.get("/sandbox/orders")]


def fingerprint(order: dict[str, Any]) -> Fingerprint:
    """What the upstream can tell two of our orders apart by, read from the order as callers see it."""
    destination, refund = order["destination"], order["refund"]
    return (
        *(order["from"]["currency"], order["from"]["network"], order["to"]["currency"], order["to"]["network"]),
        Decimal(order["amount"]),
        *(destination["address"], destination["memo"] or None, refund["address"] or None, refund["memo"] or None),
        order["rate_mode"],
    )


def seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def moment(at: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03}"


def _upstream(row: dict[str, Any]) -> Upstream:
    source, target = row["pair"]["instrumentFrom"], row["pair"]["instrumentTo"]
    status = "on_hold" if row["onHold"] else None
    if row["completed"]:
        status = "completed"
    elif row["status"] == "refunded":
        status = "refunded"
    elif row["expired"]:
        status = "expired"
    place = row["depositAddress"] or {}
    return Upstream(
        ids=tuple(row["ids"]),
        print=(
            *(source["currencyTitle"], source["networkTitle"], target["currencyTitle"], target["networkTitle"]),
            Decimal(row["claimedDepositAmount"]),
            *(row["destinationAddress"], row["destinationAddressMemo"] or None),
            *(row["refundAddress"] or None, row["refundAddressMemo"] or None),
            row["rateMode"],
        ),
        deposit=(place.get("depositAddress"), place.get("depositAddressMemo")),
        echoed_destination=row["echoedDestination"],
        created_at=seconds(row["createdAt"]),
        status=status,
        at_rest=status == ENDS[row["scenario"]] and _settled(row),
        answered=row["wasAnswered"],
        fault=row["createFault"],
        scenario=row["scenario"],
        amount_to_get=Decimal(row["amountToGet"]),
        deposits=tuple((one["txId"], Decimal(one["amount"])) for one in row["deposits"]),
        looks_at_once=row["looksAtOnce"],
    )


def _settled(row: dict[str, Any]) -> bool:
    """Whether every deposit is confirmed, and what was to be sent back is."""
    if "deposits.partly_refunded" in row["traits"] and row["orderEvents"][0]["kind"] != "REFUND_COMPLETED":
        return False
    return not any(one["isPending"] for one in row["deposits"])
