"""What the clients want: orders, many of them alike but for memo or user, and some requests that are wrong.

The destination decides what becomes of an order at the sandbox, so most orders share a few addresses; amounts are few as
well, so that an order that must be found again has others like it all around.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

from drill.plan import ENDPOINT_CLIENTS, KEYS_EACH, Plan

# from, to, amounts, weight. XRP needs a tag on either side: ours as destination, the upstream's as deposit memo.
_ROUTES: tuple[tuple[tuple[str, str], tuple[str, str], tuple[str, ...], int], ...] = (
    (("BTC", "BTC"), ("XRP", "XRP"), ("0.0125", "0.02"), 60),
    (("XRP", "XRP"), ("BTC", "BTC"), ("500",), 15),
    (("USDT", "TRC20"), ("LTC", "LTC"), ("150", "151"), 15),
    (("ETH", "ERC20"), ("USDT", "TRC20"), ("0.4",), 10),
)
_FATES = {
    "completes": 56,
    "refunded": 10,
    "hold_then_completes": 7,
    "hold_then_refunded": 5,
    "expires": 8,
    "wrong_amount": 5,
    "second_deposit": 5,
    "late_deposit": 4,
}
# It takes 2100 s of the sandbox's time, so it must begin early.
_LATE_SHARE = 0.2
_WRONG = ("bad_address", "no_memo", "too_small", "unknown_field", "bad_signature", "conflict")
# A quote that an order has spent already, in another spelling: the same signature has several in base64.
RESPELT = "respelt_quote"
_RESPELT_SHARE = 0.02
_WRONG_SHARE, _TWIN_SHARE, _QUOTED_SHARE, _FIXED_SHARE = 0.08, 0.06, 0.1, 0.1


Place = tuple[str | None, str | None]
"""Where an order is paid: address, memo."""


@dataclass
class PlannedRequest:
    """One request to be made. `kind`: good, quoted, or why it is wrong. A twin is the same request sent by another
    thread at the same moment, as after a double click; both want one order. `after`: the client_order_id of the one that
    must have been accepted before."""

    client: int
    key: int
    at: float
    kind: str
    body: dict[str, Any]
    twin: bool = False
    scenario: str = ""
    after: str | None = None

    @property
    def id(self) -> str:
        return str(self.body["client_order_id"])

    @property
    def right(self) -> bool:
        return self.kind in ("good", "quoted")


@dataclass
class Record:
    """What a client saw. `order_ids`: all that any answer named; one, if all is well. `places`: (order id, where to pay),
    of every answer that said so. `promised`: what quotes said that the amount would get."""

    want: PlannedRequest
    body: dict[str, Any]
    answers: list[tuple[float, int, str | None]] = field(default_factory=list)
    silences: int = 0
    accepted: bool = False
    refused: str | None = None
    gave_up: bool = False
    order_ids: set[str] = field(default_factory=set)
    places: set[tuple[str, Place]] = field(default_factory=set)
    promised: list[str] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    first_at: float = 0.0
    accepted_at: float | None = None


def wants(plan: Plan, addresses: dict[str, dict[str, str]]) -> list[PlannedRequest]:
    """In order of time. `addresses`: {scenario: {network: address}}, as the sandbox tells them."""
    rng = plan.dice("wants")
    memos = [str(rng.randint(10_000, 4_000_000_000)) for _ in range(max(4, plan.orders // 10))]
    made: list[PlannedRequest] = []
    for number in range(plan.orders):
        # Uneven: half of them come in little bursts.
        at = plan.placing_seconds * (number + rng.random()) / plan.orders
        if number % 2:
            at = plan.placing_seconds * (number // 8 * 8 + rng.random()) / plan.orders
        made.append(_good(plan, rng, number, at, addresses, memos))
    good = [want for want in made if want.kind == "good"]
    for want in [want for want in good if rng.random() < _TWIN_SHARE]:
        key = (want.key + 1) % KEYS_EACH
        made.append(
            PlannedRequest(want.client, key, want.at + rng.uniform(0, 0.05), want.kind, want.body, True, want.scenario)
        )
    for number in range(round(plan.orders * _WRONG_SHARE)):
        made.append(_wrong(rng, rng.choice(good), _WRONG[number % len(_WRONG)], number))
    return sorted([*made, *_respelt(plan, made)], key=lambda want: want.at)


def _respelt(plan: Plan, made: list[PlannedRequest]) -> list[PlannedRequest]:
    """At the time of others, and thrown on their own, so that they move nothing."""
    rng = plan.dice("respelt quotes")
    quoted = [want for want in made if want.kind == "quoted"]
    chosen = rng.sample(quoted, min(len(quoted), max(1, round(plan.orders * _RESPELT_SHARE))))
    return [
        PlannedRequest(
            *(want.client, want.key, want.at + rng.uniform(0.2, 1.0), RESPELT),
            {**want.body, "client_order_id": f"drill-respelt-{number:03}"},
            after=want.id,
        )
        for number, want in enumerate(chosen)
    ]


def _good(
    plan: Plan, rng: Random, number: int, at: float, addresses: dict[str, dict[str, str]], memos: list[str]
) -> PlannedRequest:
    source, target, amounts, _ = rng.choices(_ROUTES, [route[3] for route in _ROUTES])[0]
    fates = {
        name: weight for name, weight in _FATES.items() if name != "late_deposit" or number < plan.orders * _LATE_SHARE
    }
    fate = rng.choices(list(fates), list(fates.values()))[0]
    client = rng.randrange(ENDPOINT_CLIENTS)
    body: dict[str, Any] = {
        "client_order_id": f"drill-{number:04}",
        "from": {"currency": source[0], "network": source[1]},
        "to": {"currency": target[0], "network": target[1]},
        "amount": rng.choice(amounts),
        "rate_mode": "FIXED" if rng.random() < _FIXED_SHARE else "FLOATING",
        "destination_address": addresses[fate][target[1]],
        "metadata": {"cart": number},
    }
    if target[0] == "XRP":
        body["destination_memo"] = rng.choice(memos)
    if rng.random() < 0.6:
        body["refund_address"] = addresses[rng.choice(("completes", "refunded"))][source[1]]
        if source[0] == "XRP":
            body["refund_memo"] = rng.choice(memos[:3])
    if rng.random() < 0.7:
        body["user_id"] = f"user-{rng.randrange(plan.orders)}"
    kind = "quoted" if rng.random() < _QUOTED_SHARE else "good"
    return PlannedRequest(client, rng.randrange(KEYS_EACH), at, kind, body, scenario=fate)


def _wrong(rng: Random, good: PlannedRequest, kind: str, number: int) -> PlannedRequest:
    """A good request with one thing wrong. `conflict` uses the client_order_id of a good one, a little later."""
    body = {**good.body, "client_order_id": f"drill-wrong-{number:03}"}
    match kind:
        case "bad_address":
            address = body["destination_address"]
            # One character in the middle: only a checksum tells.
            middle = len(address) // 2
            body["destination_address"] = (
                address[:middle] + ("3" if address[middle] != "3" else "4") + address[middle + 1 :]
            )
        case "no_memo":
            body |= {"to": {"currency": "XRP", "network": "XRP"}, "from": {"currency": "BTC", "network": "BTC"}}
            body |= {"amount": "0.0125", "destination_address": "rKT3Xcg8Ei2dssmSEcx91YKtdsxy56dkSw"}
            for name in ("destination_memo", "refund_address", "refund_memo"):
                body.pop(name, None)
        case "too_small":
            body["amount"] = "0.00001"
        case "unknown_field":
            body["destination_tag"] = "1"
        case "conflict":
            body |= {"client_order_id": good.id, "user_id": "somebody else"}
    at = good.at + (rng.uniform(1, 3) if kind == "conflict" else rng.uniform(0, 0.5))
    return PlannedRequest(good.client, good.key, at, kind, body, after=good.id if kind == "conflict" else None)
