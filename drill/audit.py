"""Orders against the truth: what was accepted is there, belongs to the right upstream order and to one alone, and nothing
ended that should not have."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from drill.evidence import Check, Evidence
from drill.sandbox_truth import Upstream, fingerprint, moment, seconds
from drill.workload import Record

FAILED_SHARE = 0.05
_BEFORE_ADDRESS = "creating"
# How far the service allows the clocks to be apart. They are one here, but of orders that are equal in everything, sent in
# such short succession, one may take the other's: it is all the same to both.
_CLOCK_SLACK = 2.5


def order_checks(e: Evidence) -> list[Check]:
    return [
        *(agreed(e), accepted(e), refused(e), answers(e), owned_once(e), details(e), deposits(e), windows(e)),
        *(doubled(e), failed_wrongly(e), failed_share(e), doubts(e), statuses(e)),
    ]


def agreed(e: Evidence) -> Check:
    check = Check("agreed", "the service agrees with the truth before the deadline", len(e.truth))
    check.violations = list(e.pending)
    return check


def accepted(e: Evidence) -> Check:
    check = Check("accepted", "every accepted order is present, readable and as it was asked for")
    by_want: dict[tuple[int, str], set[str]] = defaultdict(set)
    for record in e.records:
        if not record.want.right:
            continue
        if record.accepted:
            check.looked_at += 1
            for order_id in record.order_ids:
                _compare(check, e, record, order_id)
        by_want[record.want.client, record.want.id] |= record.order_ids
    for (client, name), ids in by_want.items():
        if len(ids) > 1:
            check.fail(f"client {client} {name}: one client_order_id was answered with several orders: {sorted(ids)}")
    for order_id, reason in e.unreadable.items():
        check.fail(f"{order_id}: {reason}")
    lost = sum(1 for r in e.records if r.want.right and not r.accepted)
    check.figure = f"{lost} never accepted" if lost else ""
    return check


def _compare(check: Check, e: Evidence, record: Record, order_id: str) -> None:
    """The order as it is read now with the request as it was sent."""
    if order_id not in e.all_orders:
        check.fail(f"{order_id} ({record.want.id}) was accepted and is not listed")
        return
    client, order = e.all_orders[order_id]
    asked = record.body
    expected = {
        "client_order_id": asked["client_order_id"],
        "from": asked["from"],
        "to": asked["to"],
        "rate_mode": asked["rate_mode"],
        "destination": {"address": asked["destination_address"], "memo": asked.get("destination_memo")},
        "refund": {"address": asked.get("refund_address"), "memo": asked.get("refund_memo")},
        "user_id": asked.get("user_id"),
        "metadata": asked["metadata"],
    }
    wrong = [name for name, value in expected.items() if order[name] != value]
    wrong += ["amount"] if Decimal(order["amount"]) != Decimal(asked["amount"]) else []
    wrong += ["client"] if client != record.want.client else []
    if wrong:
        check.fail(f"{order_id} ({record.want.id}) is not as asked for in: {', '.join(wrong)}")


def refused(e: Evidence) -> Check:
    check = Check("refused", "wrong requests left no order")
    known = {(client, order["client_order_id"]) for client, orders in e.orders.items() for order in orders}
    for record in e.records:
        if not record.want.right and record.want.kind != "conflict":
            check.looked_at += 1
            if (record.want.client, record.want.id) in known:
                check.fail(f"{record.want.id} ({record.want.kind}) has an order")
    return check


def answers(e: Evidence) -> Check:
    check = Check("answers", "every answer is a documented one")
    told: Counter[str] = Counter()
    for record in e.records:
        check.looked_at += len(record.answers)
        told.update(f"{status}" for _, status, _ in record.answers)
        for text in record.oddities:
            check.fail(f"{record.want.id} {sorted(record.order_ids)}: {text}")
    silences = sum(record.silences for record in e.records)
    check.figure = ", ".join(f"{status}: {n}" for status, n in sorted(told.items())) + f"; silent: {silences}"
    return check


def owned_once(e: Evidence) -> Check:
    check = Check("owned", "every upstream order is owned by one of ours, or a reported orphan", len(e.truth))
    orphans = 0
    for upstream in e.truth:
        owners = e.owners[upstream.ids[0]]
        if len(owners) > 1:
            check.fail(f"{upstream.name} is claimed by {sorted(owners)}")
        elif owners:
            continue
        elif upstream.ids[0] in e.orphaned:
            orphans += 1
        else:
            sent = _sent_about(e, upstream)
            check.fail(f"{upstream.name} of {moment(upstream.created_at)} belongs to nobody; sent about then: {sent}")
    check.figure = f"{orphans} orphans"
    return check


def _sent_about(e: Evidence, upstream: Upstream) -> list[str]:
    """Our orders that asked for such a one at that time, with what became of them."""
    found = []
    for order_id, (_, order) in e.all_orders.items():
        # Without the memo: a memo that was lost on the way is one of the things looked for.
        if _without_memo(fingerprint(order)) == _without_memo(upstream.print) and _inside(e, order_id, upstream):
            found.append(f"{order_id} {order['status']} ({order['status_reason']})")
    return found


def _without_memo(print: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*print[:6], *print[7:])


def _inside(e: Evidence, order_id: str, upstream: Upstream) -> bool:
    """Whether one of the order's creates can have made this upstream order: not before it was sent, and not after it must
    have been taken or dropped by an upstream that may sit on it, or hang, for a while."""
    for attempt in e.shown.get(order_id, {}).get("attempts", ()):
        sent = seconds(attempt["sent_at"])
        late = e.plan.accepted_late if upstream.fault == "create.accept_late" else e.plan.late_answer
        patience = max(e.plan.create_timeout, late) + 5
        pauses = sum(
            to - at for at, to, name in e.blows if name.startswith("pause") and to > sent and at < sent + patience
        )
        if sent - _CLOCK_SLACK <= upstream.created_at <= sent + patience + pauses:
            return True
    return False


def details(e: Evidence) -> Check:
    check = Check("details", "no order has another's pair, amount, destination, memo, refund or rate mode")
    names = (
        "from",
        "from network",
        "to",
        "to network",
        "amount",
        "destination",
        "memo",
        "refund",
        "refund memo",
        "mode",
    )
    for order_id, order, upstream in e.owned():
        check.looked_at += 1
        ours, theirs = fingerprint(order), upstream.print
        differ = [f"{n} {a!r} != {b!r}" for n, a, b in zip(names, ours, theirs, strict=True) if a != b]
        if differ:
            check.fail(f"{order_id} has {upstream.name}: {'; '.join(differ)}")
    return check


def deposits(e: Evidence) -> Check:
    """At any time, not only in the end: a customer pays to what was shown once."""
    check = Check("deposits", "no customer was ever shown where to pay for another order, or for a doubtful echo")
    for order_id, (_, order) in e.all_orders.items():
        mine = [up for up in e.truth if order_id in e.owners[up.ids[0]]]
        right = {up.deposit for up in mine}
        doubtful = any(up.echoed_destination != up.print[5] and up.answered for up in mine)
        for shown in (order, *(event["order"] for event in e.public_events(order_id))):
            deposit = shown["deposit"]
            if deposit is None or deposit["address"] is None:
                continue
            check.looked_at += 1
            if (deposit["address"], deposit["memo"]) not in right:
                check.fail(
                    f"{order_id} #{shown['sequence']} showed {deposit['address']} {deposit['memo']}, not of its own"
                )
                break
            if doubtful and deposit["payable"]:
                check.fail(
                    f"{order_id} #{shown['sequence']} was payable although its create echoed another destination"
                )
                break
    return check


def windows(e: Evidence) -> Check:
    """Among orders that are equal to the upstream this is the only sign that the wrong one was taken."""
    check = Check("windows", "every owned upstream order was created within an attempt of its owner")
    for order_id, _, upstream in e.owned():
        check.looked_at += 1
        if not _inside(e, order_id, upstream):
            sent = [moment(seconds(a["sent_at"])) for a in e.shown.get(order_id, {}).get("attempts", ())]
            check.fail(f"{order_id} sent at {sent} owns {upstream.name} of {moment(upstream.created_at)}")
    return check


def doubled(e: Evidence) -> Check:
    """Counted by what the upstream can see, without asking who owns what: as many as we have, and no more."""
    check = Check("doubled", "no order was made twice at the upstream without being reported")
    ours = Counter(fingerprint(order) for _, order in e.all_orders.values())
    theirs = Counter(up.print for up in e.truth if up.ids[0] not in e.orphaned)
    check.looked_at = len(theirs)
    for print, count in theirs.items():
        if count > ours[print]:
            asked = [order_id for order_id, (_, order) in e.all_orders.items() if fingerprint(order) == print]
            there = [up.ids[0] for up in e.truth if up.print == print and up.ids[0] not in e.orphaned]
            check.fail(f"{count} at the upstream for {ours[print]} of ours ({asked}): {there}")
    several: dict[str, list[str]] = defaultdict(list)
    for order_id, _, upstream in e.owned():
        if upstream.ids[0] not in e.orphaned:
            several[order_id].append(upstream.ids[0])
    for order_id, ids in several.items():
        if len(ids) > 1:
            check.fail(f"{order_id} owns several upstream orders: {ids}")
    return check


def _good_refusal(record: dict[str, Any]) -> bool:
    """Whether the upstream itself said no to the last attempt."""
    attempts = record.get("attempts", ())
    return bool(attempts) and attempts[-1]["outcome"] == "refused"


def failed_wrongly(e: Evidence) -> Check:
    check = Check("failed", "no order is failed while an upstream order of it exists, owned or unreported")
    loose = [up for up in e.truth if not e.owners[up.ids[0]] and up.ids[0] not in e.orphaned]
    for order_id, (_, order) in e.all_orders.items():
        if order["status"] != "failed" or order["deposits"]:
            continue
        check.looked_at += 1
        owned = [up.name for up in e.truth if order_id in e.owners[up.ids[0]] and up.ids[0] not in e.orphaned]
        left = [
            up.name
            for up in loose
            if _without_memo(up.print) == _without_memo(fingerprint(order)) and _inside(e, order_id, up)
        ]
        if owned or left:
            check.fail(f"{order_id} failed ({order['status_reason']}) owning {owned}, perhaps made as {left}")
    return check


def failed_share(e: Evidence) -> Check:
    check = Check("failed_share", f"under {FAILED_SHARE:.0%} of all orders failed without a refusal", len(e.all_orders))
    reasons: Counter[str] = Counter()
    failed = []
    for order_id, (_, order) in e.all_orders.items():
        if order["status"] == "failed" and not _good_refusal(e.shown.get(order_id, {})):
            failed.append(f"{order_id} ({order['status_reason']})")
            reasons[str(order["status_reason"])] += 1
    share = len(failed) / max(1, len(e.all_orders))
    hopeless = _hopeless(e)
    check.figure = f"{share:.1%}" + "".join(f", {reason}: {count}" for reason, count in reasons.most_common())
    check.figure += f"; {hopeless} upstream orders nobody could confirm" if hopeless else ""
    # Of few orders chance alone can make too many hopeless.
    counted = len(failed) - (hopeless if e.plan.small else 0)
    if counted >= FAILED_SHARE * len(e.all_orders):
        check.violations = failed
    return check


def _hopeless(e: Evidence) -> int:
    """Upstream orders whose create was not answered and whose public-info never says where to pay: nobody could be told."""
    traits = e.faults.get("orders", {})
    return sum(1 for up in e.truth if not up.answered and "order.bare_info" in traits.get(up.ids[0], {}))


def doubts(e: Evidence) -> Check:
    check = Check(
        "doubts", f"nothing is or was undecided for more than {e.plan.doubt_seconds:.0f} s after its last attempt"
    )
    slowest = 0.0
    for order_id, (_, order) in e.all_orders.items():
        attempts = e.shown.get(order_id, {}).get("attempts", ())
        if order["status"] == _BEFORE_ADDRESS:
            check.fail(f"{order_id} is still creating ({order['status_reason']}), {len(attempts)} attempts")
        check.looked_at += 1
        left = [event for event in e.public_events(order_id) if event["order"]["status"] != _BEFORE_ADDRESS]
        if not left or not attempts:
            continue
        took = seconds(left[0]["created_at"]) - max(seconds(a["sent_at"]) for a in attempts)
        slowest = max(slowest, took)
        if took > e.plan.doubt_seconds:
            check.fail(f"{order_id} was undecided for {took:.0f} s, then {left[0]['order']['status']}")
    check.figure = f"slowest {slowest:.1f} s"
    return check


def statuses(e: Evidence) -> Check:
    check = Check("status", "the final status is the truth's")
    ends: Counter[str] = Counter()
    for order_id, order, upstream in e.owned():
        if upstream.ids[0] in e.orphaned:
            continue
        check.looked_at += 1
        ends[order["status"]] += 1
        if upstream.at_rest and order["status"] != upstream.status:
            check.fail(f"{order_id} is {order['status']}, {upstream.name} is {upstream.status} ({upstream.scenario})")
    check.figure = ", ".join(f"{status}: {count}" for status, count in ends.most_common())
    return check
