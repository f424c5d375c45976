"""Orders against the truth: what was accepted is there, belongs to the right upstream order and to one alone, and nothing
ended that should not have."""

from __future__ import annotations

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from drill.evidence import Check, Evidence
from drill.sandbox_truth import Upstream, fingerprint, moment, seconds
from drill.workload import Record

# How many orders there must be for each that may fail although nothing was refused.
EXCUSED_OF = 500
_BEFORE_ADDRESS = "creating"
# How far the service allows the clocks to be apart. They are one here.
_CLOCK_SLACK = 1.0


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
        doubtful = [up for up in mine if up.echoed_destination != up.print[5] and up.answered]
        read_again = False
        for shown in (*(event["order"] for event in e.public_events(order_id)), order):
            read_again |= shown["deposit"] is None and shown["status_reason"] is not None
            deposit = shown["deposit"]
            if deposit is None or deposit["address"] is None:
                continue
            check.looked_at += 1
            if (deposit["address"], deposit["memo"]) not in right:
                check.fail(
                    f"{order_id} #{shown['sequence']} showed {deposit['address']} {deposit['memo']}, not of its own"
                )
                break
            if deposit["payable"] and not read_again and any(shown["upstream_order_id"] in up.ids for up in doubtful):
                check.fail(
                    f"{order_id} #{shown['sequence']} was payable at once although its create echoed another destination"
                )
                break
    return check


def windows(e: Evidence) -> Check:
    """Orders that are equal to the upstream in everything may have each other's: it is all the same to both."""
    check = Check(
        "windows", "every owned upstream order was created within an attempt of its owner, or of an equal order"
    )
    equal: dict[Any, list[str]] = defaultdict(list)
    for order_id, (_, order) in e.all_orders.items():
        equal[fingerprint(order)].append(order_id)
    for order_id, order, upstream in e.owned():
        check.looked_at += 1
        if not any(_inside(e, each, upstream) for each in (order_id, *equal[fingerprint(order)])):
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
    """An order may fail without a refusal only when all the creates that it may have were sent, none was answered, and the
    upstream made nothing of any; and that of one order in 500."""
    check = Check(
        "failed_share", "no order failed without a refusal, but where no create ever arrived", len(e.all_orders)
    )
    excused = []
    reasons: Counter[str] = Counter()
    for order_id, (_, order) in e.all_orders.items():
        record = e.shown.get(order_id, {})
        if order["status"] != "failed" or _good_refusal(record):
            continue
        reasons[str(order["status_reason"])] += 1
        if _never_arrived(e, order_id, record):
            excused.append(order_id)
        else:
            check.fail(f"{order_id} failed ({order['status_reason']})")
    if len(excused) > max(1, len(e.all_orders) // EXCUSED_OF):
        check.violations += [f"{order_id} was never made: more than 1 in {EXCUSED_OF}" for order_id in excused]
    check.figure = f"{sum(reasons.values()) / max(1, len(e.all_orders)):.1%}" + "".join(
        f", {reason}: {count}" for reason, count in reasons.most_common()
    )
    return check


def _never_arrived(e: Evidence, order_id: str, record: dict[str, Any]) -> bool:
    sent = [attempt for attempt in record.get("attempts", ()) if attempt["outcome"] != "not_sent"]
    print = fingerprint(e.all_orders[order_id][1])
    made = [
        up for up in e.truth if up.print == print and e.owners[up.ids[0]] <= {order_id} and _inside(e, order_id, up)
    ]
    silent = all(attempt["outcome"] in (None, "unknown") for attempt in sent)
    return len(sent) >= e.plan.create_attempts and silent and not made


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
