"""What a webhook says: whole where it fits, bounded where it would not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from swap.push.payload import MAX_BODY_BYTES, TYPES, webhook_body
from swap.tables import OrderEvent


def event(**order: Any) -> OrderEvent:
    return OrderEvent(
        id="evt_1",
        order_id="ord_1",
        client_id="cli_1",
        sequence=3,
        position=7,
        type="order.updated",
        order={"id": "ord_1", "status": "confirming", "deposits": [], "withdrawals": [], "metadata": {}, **order},
        detail={},
        created_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    )


def transfers(count: int) -> list[dict[str, str]]:
    return [{"amount": "0.1", "tx_id": f"{number:064d}", "at": "2026-01-31T12:00:00.000Z"} for number in range(count)]


@pytest.mark.parametrize(
    ("order", "shortened"),
    [
        pytest.param({"metadata": {"note": "x" * 4000}, "deposits": transfers(20)}, None, id="fits"),
        pytest.param({"deposits": transfers(300)}, ["deposits"], id="deposits"),
        pytest.param({"deposits": transfers(9), "withdrawals": transfers(300)}, ["withdrawals"], id="payouts"),
        pytest.param(
            {"metadata": {"n": "é" * 9800}, "deposits": transfers(100)},
            ["deposits", "metadata"],
            id="both and metadata",
        ),
        pytest.param({"destination": {"memo": "x" * 30_000}}, ["order"], id="nothing helps"),
    ],
)
def test_no_body_is_larger_than_twenty_kilobytes_and_it_says_what_is_missing(
    order: dict[str, Any], shortened: list[str] | None
) -> None:
    made = event(**order)
    content = webhook_body(made, "abcdef")
    assert len(content) <= MAX_BODY_BYTES == 20_000
    data = orjson.loads(content)["data"]
    assert data.get("shortened") == shortened
    assert (data["order_id"], data["sequence"], data["cursor"]) == ("ord_1", 3, "000000000007abcdef")
    if shortened is None:
        assert data["order"] == made.order
    elif shortened == ["order"]:
        assert data["order"] is None
    else:
        for name in set(shortened) - {"metadata"}:
            assert data["order"][name] == order[name][-10:], "the newest are kept"
        assert data["order"]["status"] == "confirming"
    assert webhook_body(made, "abcdef") == content
    assert made.order is not None
    assert all(made.order[name] == value for name, value in order.items()), "the event itself is whole"


def test_the_types_are_those_of_the_contract_and_the_one_about_endpoints() -> None:
    assert {each for each in TYPES if not each.startswith("order.")} == {"endpoint.disabled"}
