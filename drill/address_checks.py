"""What customers were shown, and what was not shown to anybody: one address per order, for good and for nobody else;
every upstream order in one role; every deposit counted once; every promise right, and every quote spent once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from statistics import median
from typing import Any

from drill.evidence import Check, Evidence
from drill.sandbox_truth import Fingerprint, Upstream, fingerprint
from drill.workload import Place

_ROLES = ("spare", "unowned")
# The sandbox's prices stay within 0.05 %; two amounts, or the two rate modes, are 0.5 % and more apart.
_MOVES = Decimal("0.003")
_ANY_CASE = ("0x", "bc1", "ltc1")


def address_checks(e: Evidence) -> list[Check]:
    return [shown_once(e), shown_to_one(e), accounted(e), transfers(e), promised(e), spent_once(e)]


def shown_once(e: Evidence) -> Check:
    check = Check("shown_once", "an order shows one address at most, and never another or none again")
    answered: dict[str, set[Place]] = defaultdict(set)
    for record in e.records:
        for order_id, place in record.places:
            answered[order_id].add(place)
    for order_id, (_, order) in e.all_orders.items():
        views = [_place(view) for view in _views(e, order_id, order)]
        # What callers were told is in no order of time with the events: only what it was can be compared.
        shown = {place for place in views if place is not None} | answered[order_id]
        check.looked_at += len(shown)
        if len(shown) > 1:
            check.fail(f"{order_id} showed {len(shown)} addresses: {sorted(map(str, shown))}")
        first = next((number for number, place in enumerate(views) if place is not None), len(views))
        if None in views[first:]:
            check.fail(f"{order_id} showed {views[first]}, and later nothing")
    return check


def shown_to_one(e: Evidence) -> Check:
    """Expired and ended orders too: they are watched for longer than any drill lasts, and what comes in is theirs."""
    check = Check("shown_to_one", "no address was shown to two orders")
    shown: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for order_id, (_, order) in e.all_orders.items():
        for view in _views(e, order_id, order):
            place = _place(view)
            if place is not None:
                shown[order["from"]["network"], _comparable(place[0]), place[1]].add(order_id)
    check.looked_at = len(shown)
    for place, order_ids in shown.items():
        if len(order_ids) > 1:
            check.fail(f"{place} was shown to {sorted(order_ids)}")
    return check


def accounted(e: Evidence) -> Check:
    """Stricter than `owned`: which of them the customer was shown is known, and so is whose spare the others are."""
    check = Check("accounted", "every upstream order is shown to one customer, a spare, or unowned", len(e.truth))
    roles: Counter[str] = Counter()
    for upstream in e.truth:
        shown = [
            order_id
            for order_id, (_, order) in e.all_orders.items()
            if order["upstream_order_id"] in upstream.ids and order["deposit"] is not None
        ]
        reported = _reported(e, upstream)
        if len(shown) + len(reported) != 1:
            told = [f"{row.get('role')} of {row.get('order_id')}" for row in reported]
            check.fail(f"{upstream.name} is shown to {shown} and reported as {told}")
            continue
        roles["shown" if shown else _role(reported[0])] += 1
        problem = _misreported(e, reported[0], upstream) if reported else None
        if problem:
            check.fail(f"{upstream.name} {problem}")
    check.figure = ", ".join(f"{role}: {count}" for role, count in sorted(roles.items()))
    return check


def _reported(e: Evidence, upstream: Upstream) -> list[dict[str, Any]]:
    ids = set(upstream.ids)
    return [row for row in e.orphans if ids & {str(ref) for ref in (row["upstream_order_id"], *row.get("refs", ()))}]


def _role(row: dict[str, Any]) -> str:
    return str(row.get("role", "unowned"))


def _misreported(e: Evidence, row: dict[str, Any], upstream: Upstream) -> str | None:
    role, order_id = _role(row), row.get("order_id")
    if role not in _ROLES:
        return f"is reported as {role}"
    if role == "unowned":
        return None
    if order_id not in e.all_orders:
        return f"is reported as a spare of {order_id}, which is none of ours"
    if fingerprint(e.all_orders[order_id][1]) != upstream.print:
        return f"is reported as a spare of {order_id}, which asked for something else"
    return None


def transfers(e: Evidence) -> Check:
    """Replaced ones are gone, those with another date are the same, and a list that names one twice makes no second."""
    check = Check("transfers", "every order has the deposits that came in, each once")
    for order_id, order, upstream in e.owned():
        if not upstream.at_rest or order["upstream_order_id"] not in upstream.ids:
            continue
        check.looked_at += len(upstream.deposits)
        ours = Counter((row["tx_id"], Decimal(row["amount"])) for row in order["deposits"])
        if ours != Counter(upstream.deposits):
            theirs = sorted(map(str, upstream.deposits))
            check.fail(f"{order_id} has deposits {sorted(map(str, ours.elements()))}, {upstream.name} has {theirs}")
    return check


def promised(e: Evidence) -> Check:
    """An answer that was taken for that to another question shows in what was promised, before anything was created."""
    check = Check("promised", "nothing was promised that another amount, pair or rate mode would get")
    gets: dict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    for upstream in e.truth:
        gets[_question(upstream.print)].append(upstream.amount_to_get)

    def compare(who: str, question: tuple[Any, ...], told: str | None) -> None:
        if told is None or question not in gets:
            return
        check.looked_at += 1
        right = median(gets[question])
        if abs(Decimal(told) - right) > right * _MOVES:
            check.fail(f"{who} was promised {told} where {right} is right")

    for order_id, (_, order) in e.all_orders.items():
        for view in _views(e, order_id, order):
            # Later it says what comes, which may be of another amount than was asked for.
            if view["status"] in ("creating", "awaiting_deposit"):
                compare(f"{order_id} #{view['sequence']}", _question(fingerprint(order)), view["amount_to_get"])
    for record in e.records:
        asked = record.body
        question = (*asked["from"].values(), *asked["to"].values(), Decimal(asked["amount"]), asked["rate_mode"])
        for told in record.promised:
            compare(record.want.id, question, told)
    return check


def _question(print: Fingerprint) -> tuple[Any, ...]:
    return (*print[:5], print[9])


def spent_once(e: Evidence) -> Check:
    """By what is signed in it, not by its spelling."""
    check = Check("quotes", "no quote made two orders, however it was spelt")
    made: dict[str, set[str]] = defaultdict(set)
    for record in e.records:
        quote = record.body.get("quote_id")
        if quote is not None:
            made[quote.rpartition(".")[0]] |= record.order_ids if record.accepted else set()
    for order_ids in made.values():
        check.looked_at += 1
        if len(order_ids) > 1:
            check.fail(f"one quote made {sorted(order_ids)}")
    return check


def _views(e: Evidence, order_id: str, order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The order as it was told, oldest first."""
    yield from (event["order"] for event in e.public_events(order_id))
    yield order


def _place(view: dict[str, Any]) -> Place | None:
    deposit = view["deposit"]
    return None if deposit is None or deposit["address"] is None else (deposit["address"], deposit["memo"])


def _comparable(address: str | None) -> str | None:
    """Hex and bech32 are the same address in any case; base58 is not."""
    folded = address.lower() if address else ""
    return folded if folded.startswith(_ANY_CASE) else address
