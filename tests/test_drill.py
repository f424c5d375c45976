"""The drill, small: real processes, a misbehaving upstream, parts killed, stores cut off; and the drill's own eyes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from drill import plan as plans
from drill.address_checks import address_checks
from drill.audit import order_checks
from drill.delivery_checks import hearing_checks
from drill.evidence import Check, Evidence
from drill.fault_injection import Blow, FaultInjector, schedule
from drill.invariants import budget, one_look, resolver, secrets_kept, went_on
from drill.mutants import APPLIED, MUTANTS, caught
from drill.plan import Plan
from drill.processes import Parts, free_port
from drill.receiver import Arrival, Endpoint
from drill.sandbox_truth import Upstream
from drill.workload import RESPELT, PlannedRequest, Record, wants

ROOT = Path(__file__).resolve().parents[1]
POSTGRES = os.environ.get("TEST_DATABASE_URL")


# --- the drill itself ------------------------------------------------------------------------------------------------


# What a machine that is busy with something else may be too slow for.
IN_TIME = {"agreed", "doubts", "failed_share"}


@pytest.mark.drill
@pytest.mark.timeout(480)
def test_the_small_drill_finds_nothing_wrong(tmp_path: Path) -> None:
    told, printed = small_drill(tmp_path / "report.json")
    violated = {check["name"] for check in told["checks"] if check["violations"]}
    if "agreed" in violated or (violated and violated <= IN_TIME):
        # Once more; what was lost or doubled when all had come to rest has no second chance.
        told, printed = small_drill(tmp_path / "again.json")
    assert told["passed"], printed
    assert told["orders"] >= 57
    assert told["resolver"]["in_doubt"] > 0
    assert len(told["blows"]) == 11
    # Workers are not dead for long enough in so short a time.
    assert all(check["looked_at"] for check in told["checks"] if check["name"] not in ("failed", "went_on"))


def small_drill(report: Path) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "drill", "--small", "--json", str(report)]
    command += ["--database-url", POSTGRES] if POSTGRES else ["--sqlite"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=230)
    assert report.exists(), done.stdout + done.stderr
    told: dict[str, Any] = json.loads(report.read_text())
    assert (done.returncode == 0) == told["passed"]
    return told, done.stdout + done.stderr


# --- its eyes --------------------------------------------------------------------------------------------------------
# A world in which all is well, as evidence; each test spoils one thing and says which check must see it.

NOW = 1_760_000_000.0
AT = "2025-10-09T08:53:20.000Z"
LATER = "2025-10-09T08:53:25.000Z"
ADDRESS, MEMO, REFUND = "rDestination", "7", "bc1refund"


def plan(**changed: Any) -> Plan:
    return plans.small(**changed)


def body(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "client_order_id": f"drill-{number}",
        "from": {"currency": "BTC", "network": "BTC"},
        "to": {"currency": "XRP", "network": "XRP"},
        "amount": "0.0125",
        "rate_mode": "FLOATING",
        "destination_address": ADDRESS,
        "destination_memo": MEMO,
        "refund_address": REFUND,
        "user_id": "user-1",
        "metadata": {"cart": number},
        **changed,
    }


def an_order(number: int = 0, **changed: Any) -> dict[str, Any]:
    asked = body(number)
    return {
        "id": f"ord_{number}",
        **{
            name: asked[name]
            for name in ("client_order_id", "from", "to", "amount", "rate_mode", "user_id", "metadata")
        },
        "status": "completed",
        "status_reason": None,
        "sequence": 3,
        "destination": {"address": ADDRESS, "memo": MEMO},
        "refund": {"address": REFUND, "memo": None},
        "deposit": {"address": f"bc1deposit{number}", "memo": None, "payable": False},
        "amount_to_get": "321.4",
        "deposits": [{"amount": "0.01250", "tx_id": f"tx-{number}"}],
        "upstream_order_id": str(100 + number),
        **changed,
    }


def an_event(order: dict[str, Any], sequence: int, status: str) -> dict[str, Any]:
    shown = {**order, "status": status, "sequence": sequence}
    if status == "creating":
        shown |= {"deposit": None, "upstream_order_id": None}
    return {
        "id": f"evt_{order['id']}_{sequence}",
        "type": "order.created" if sequence == 1 else f"order.{status}",
        "order_id": order["id"],
        "sequence": sequence,
        "cursor": f"{sequence + 10 * int(order['id'][4:]):012}",
        "created_at": AT if sequence < 3 else LATER,
        "order": shown,
        "detail": {},
    }


def an_upstream(number: int = 0, **changed: Any) -> Upstream:
    values: dict[str, Any] = {
        "ids": (str(100 + number), f"guid-{number}"),
        "print": ("BTC", "BTC", "XRP", "XRP", Decimal("0.0125"), ADDRESS, MEMO, REFUND, None, "FLOATING"),
        "deposit": (f"bc1deposit{number}", None),
        "echoed_destination": ADDRESS,
        "created_at": NOW + 0.1,
        "status": "completed",
        "at_rest": True,
        "answered": True,
        "fault": None,
        "scenario": "completes",
        "amount_to_get": Decimal("321.5"),
        "deposits": ((f"tx-{number}", Decimal("0.0125")),),
        "looks_at_once": 1,
        **changed,
    }
    return Upstream(**values)


def evidence(count: int = 2, **changed: Any) -> Evidence:
    orders = [an_order(number) for number in range(count)]
    shown: dict[str, Any] = {}
    arrivals: list[Arrival] = []
    for order in orders:
        events = [an_event(order, n + 1, s) for n, s in enumerate(("creating", "awaiting_deposit", "completed"))]
        shown[order["id"]] = {
            "order": {**order, "internal": {"upstream_refs": [order["upstream_order_id"]]}},
            "attempts": [{"number": 1, "sent_at": AT, "outcome": "done"}],
            "events": events,
            "deliveries": [{"endpoint_id": "whe_0", "sequence": n, "status": "delivered"} for n in (1, 2, 3)],
        }
        for event in events:
            told = {
                "type": event["type"],
                "timestamp": event["created_at"],
                "data": {"sequence": event["sequence"], "order": event["order"]},
            }
            at = NOW + event["sequence"]
            arrivals.append(
                Arrival("0-0", event["id"], order["id"], event["sequence"], told, at=at, until=at + 0.1, answered=204)
            )
    values: dict[str, Any] = {
        "plan": plan(),
        "records": [
            Record(
                PlannedRequest(0, 0, 0.0, "good", body(number)),
                body(number),
                accepted=True,
                order_ids={f"ord_{number}"},
                answers=[(NOW, 201, None)],
            )
            for number in range(count)
        ],
        "orders": {0: orders},
        "feeds": {0: [event for order in orders for event in shown[order["id"]]["events"]]},
        "shown": shown,
        "unreadable": {},
        "truth": [an_upstream(number) for number in range(count)],
        "orphans": [],
        "arrivals": arrivals,
        "endpoints": [Endpoint("0-0", 0, "http://receiver", id="whe_0")],
        "unverified": [],
        "load": {"seconds": [{"second": int(NOW), "total": 20, "endpoints": {}}], "peak": 20, "total": 20},
        "faults": {"requests": {}, "fired": {}},
        "blows": [],
        "pending": [],
        **changed,
    }
    return Evidence(**values)


def violated(e: Evidence) -> set[str]:
    return {check.name for check in checks(e) if not check.passed}


def checks(e: Evidence) -> list[Check]:
    return [*order_checks(e), *address_checks(e), *hearing_checks(e), budget(e), one_look(e), went_on(e)]


def test_a_world_in_which_all_is_well_passes() -> None:
    assert violated(evidence()) == set()


def test_an_accepted_order_that_is_gone_is_seen() -> None:
    e = evidence()
    e.orders[0].pop()
    e.shown.pop("ord_1")
    assert "accepted" in violated(e)


def test_an_order_that_says_something_else_than_was_asked_is_seen() -> None:
    e = evidence()
    e.records[0].body["user_id"] = "somebody else"
    assert violated(e) == {"accepted"}


def test_one_client_order_id_answered_with_two_orders_is_seen() -> None:
    e = evidence()
    e.records[0].order_ids.add("ord_1")
    assert "accepted" in violated(e)


def test_an_undocumented_answer_is_seen() -> None:
    e = evidence()
    e.records[0].oddities.append("was answered 500 INTERNAL")
    assert violated(e) == {"answers"}


def test_a_wrong_request_with_an_order_is_seen() -> None:
    e = evidence()
    e.records[1].want.kind = "bad_address"
    assert "refused" in violated(e)


def test_an_upstream_order_of_nobody_is_seen_unless_it_is_a_reported_orphan() -> None:
    e = evidence(truth=[an_upstream(0), an_upstream(1), an_upstream(2)])
    assert violated(e) == {"owned", "doubled", "accounted"}
    told = [{"upstream_order_id": "102", "refs": ["guid-2"]}]
    assert violated(evidence(truth=e.truth, orphans=told)) == set()


def test_an_upstream_order_with_two_owners_is_seen() -> None:
    e = evidence()
    e.shown["ord_1"]["order"]["internal"]["upstream_refs"].append("guid-0")
    assert {"owned", "doubled"} <= violated(e)


@pytest.mark.parametrize("place", [5, 6, 7, 8, 9])
def test_an_upstream_order_with_other_details_is_seen(place: int) -> None:
    other = an_upstream(0)
    changed = (*other.print[:place], "other", *other.print[place + 1 :])
    assert "details" in violated(evidence(truth=[an_upstream(0, print=changed), an_upstream(1)]))


def test_another_orders_deposit_address_shown_at_any_time_is_seen() -> None:
    e = evidence()
    event = e.shown["ord_0"]["events"][1]
    event["order"] = {**event["order"], "deposit": {"address": "bc1deposit1", "memo": None, "payable": True}}
    assert "deposits" in violated(e)


def test_an_order_with_a_doubtful_echo_that_is_payable_at_once_is_seen() -> None:
    e = evidence(truth=[an_upstream(0, echoed_destination="rOther"), an_upstream(1)])
    event = e.shown["ord_0"]["events"][1]
    event["order"] = {**event["order"], "deposit": {"address": "bc1deposit0", "memo": None, "payable": True}}
    assert "deposits" in violated(e)
    first = e.shown["ord_0"]["events"][0]
    first["order"] = {**first["order"], "deposit": None, "status_reason": "verifying"}
    assert "deposits" not in violated(e), "it was read again before anybody was shown it"


@pytest.mark.parametrize("created_at", [NOW - 5, NOW + 60])
def test_an_upstream_order_from_outside_the_attempt_is_seen(created_at: float) -> None:
    assert violated(evidence(truth=[an_upstream(0, created_at=created_at), an_upstream(1)])) == {"windows"}


def test_an_upstream_that_hung_may_take_a_create_when_it_wakes() -> None:
    e = evidence(truth=[an_upstream(0, created_at=NOW + 12), an_upstream(1)])
    assert violated(e) == {"windows"}
    e.blows.append((NOW + 1, NOW + 9, "pause the upstream"))
    assert violated(e) == set()


def test_a_failed_order_with_an_upstream_order_is_seen() -> None:
    e = evidence(plan=plans.full())
    e.orders[0][0] |= {"status": "failed", "status_reason": "upstream_error", "deposits": []}
    assert {"failed", "failed_share", "status"} <= violated(e)


def test_a_failed_order_whose_upstream_order_nobody_reports_is_seen() -> None:
    e = evidence()
    e.orders[0][0] |= {"status": "failed", "status_reason": "create_unconfirmed", "upstream_order_id": None}
    e.orders[0][0] |= {"deposits": []}
    e.shown["ord_0"]["order"]["internal"]["upstream_refs"] = []
    assert {"failed", "owned"} <= violated(e)


def failed(truth: list[Upstream], outcomes: list[str]) -> Evidence:
    e = evidence(truth=truth, plan=plans.full())
    e.orders[0][0] |= {"status": "failed", "upstream_order_id": None, "deposit": None}
    e.shown["ord_0"]["order"]["internal"]["upstream_refs"] = []
    attempt = e.shown["ord_0"]["attempts"][0]
    e.shown["ord_0"]["attempts"] = [{**attempt, "outcome": outcome} for outcome in outcomes]
    for event in e.shown["ord_0"]["events"]:
        event["order"] = {**event["order"], "deposit": None}
    return e


@pytest.mark.parametrize(
    ("outcomes", "excused"),
    [
        (["done"], False),
        (["refused"], True),
        (["unknown", "unknown"], False),
        (["unknown", "unknown", "not_sent"], False),
        (["unknown", "unknown", "unknown"], True),
        (["unknown", "done", "unknown"], False),
    ],
)
def test_an_order_may_fail_only_when_it_was_refused_or_when_none_of_its_creates_arrived(
    outcomes: list[str], excused: bool
) -> None:
    assert ("failed_share" not in violated(failed([an_upstream(1)], outcomes))) is excused


def test_an_order_that_failed_although_the_upstream_made_one_is_seen() -> None:
    assert "failed_share" in violated(failed([an_upstream(0), an_upstream(1)], ["unknown"] * 3))


def test_an_order_left_in_doubt_or_in_doubt_for_too_long_is_seen() -> None:
    e = evidence()
    e.orders[0][0] |= {"status": "creating"}
    assert "doubts" in violated(e)
    e = evidence()
    e.shown["ord_0"]["events"][1]["created_at"] = "2025-10-09T09:53:20.000Z"
    assert "doubts" in violated(e)


def test_a_status_that_is_not_the_truths_is_seen() -> None:
    assert violated(evidence(truth=[an_upstream(0, status="refunded"), an_upstream(1)])) == {"status"}


# --- what was shown --------------------------------------------------------------------------------------------------


def a_shown(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {"address": f"bc1deposit{number}", "memo": None, "payable": True, **changed}


def test_a_second_address_of_an_order_is_seen() -> None:
    e = evidence(truth=[an_upstream(0), an_upstream(1), an_upstream(2)])
    e.orphans.append({"upstream_order_id": "102", "refs": ["guid-2"], "role": "spare", "order_id": "ord_0"})
    assert violated(e) == set()
    event = e.shown["ord_0"]["events"][1]
    event["order"] = {**event["order"], "deposit": a_shown(2)}
    assert "shown_once" in violated(e)


def test_an_address_that_only_an_answer_named_is_seen() -> None:
    e = evidence()
    e.records[0].places.add(("ord_0", ("bc1deposit0", None)))
    assert violated(e) == set()
    e.records[0].places.add(("ord_0", ("bc1deposit0", "7")))
    assert violated(e) == {"shown_once"}


@pytest.mark.parametrize("hidden", [None, {"address": None, "memo": None, "payable": False}])
def test_an_address_that_is_hidden_again_is_seen(hidden: dict[str, Any] | None) -> None:
    e = evidence()
    e.orders[0][0] |= {"deposit": hidden}
    assert "shown_once" in violated(e)


@pytest.mark.parametrize(("address", "is_same"), [("BC1DEPOSIT0", True), ("bc1deposit00", False)])
def test_an_address_that_two_orders_showed_is_seen_in_any_spelling(address: str, is_same: bool) -> None:
    e = evidence(truth=[an_upstream(0), an_upstream(1, deposit=(address, None))])
    for view in (e.orders[0][1], *(event["order"] for event in e.shown["ord_1"]["events"][1:])):
        view["deposit"] = a_shown(address=address)
    assert ("shown_to_one" in violated(e)) is is_same


def test_one_address_with_two_memos_is_two_places() -> None:
    e = evidence(truth=[an_upstream(n, deposit=("rShared", str(n))) for n in range(2)])
    for n in range(2):
        for view in (e.orders[0][n], *(event["order"] for event in e.shown[f"ord_{n}"]["events"][1:])):
            view["deposit"] = a_shown(address="rShared", memo=str(n))
    assert not {"shown_to_one", "shown_once"} & violated(e)


A_SPARE = {"upstream_order_id": "102", "refs": ["guid-2"], "role": "spare", "order_id": "ord_0"}


@pytest.mark.parametrize(
    "reports",
    [
        [],
        [A_SPARE, {**A_SPARE, "role": "unowned", "upstream_order_id": "guid-2"}],
        [{**A_SPARE, "order_id": None}],
        [{**A_SPARE, "order_id": "ord_9"}],
        [{**A_SPARE, "role": "lost"}],
        [A_SPARE, {**A_SPARE, "upstream_order_id": "100", "refs": []}],
    ],
)
def test_an_upstream_order_in_no_role_or_two_or_of_nobody_is_seen(reports: list[dict[str, Any]]) -> None:
    e = evidence(truth=[an_upstream(0), an_upstream(1), an_upstream(2)], orphans=reports)
    assert "accounted" in violated(e)


@pytest.mark.parametrize("report", [A_SPARE, {**A_SPARE, "role": "unowned", "order_id": None}])
def test_a_spare_and_an_unowned_upstream_order_are_accounted_for(report: dict[str, Any]) -> None:
    e = evidence(truth=[an_upstream(0), an_upstream(1), an_upstream(2)], orphans=[report])
    assert violated(e) == set()


def test_a_spare_of_an_order_that_asked_for_something_else_is_seen() -> None:
    print_ = (*an_upstream().print[:4], Decimal("0.02"), *an_upstream().print[5:])
    e = evidence(truth=[an_upstream(0), an_upstream(1), an_upstream(2, print=print_)], orphans=[A_SPARE])
    assert "accounted" in violated(e)


def test_an_order_that_nobody_can_pay_does_not_account_for_its_upstream_order() -> None:
    e = evidence()
    for view in (e.orders[0][0], *(event["order"] for event in e.shown["ord_0"]["events"])):
        view["deposit"] = None
    assert violated(e) == {"accounted"}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"amount": "0.0125", "tx_id": "tx-replaced"}],
        [{"amount": "0.0125", "tx_id": "tx-0"}, {"amount": "0.0125", "tx_id": "tx-0"}],
        [{"amount": "0.0100", "tx_id": "tx-0"}],
    ],
)
def test_deposits_other_than_those_that_came_in_are_seen(rows: list[dict[str, Any]]) -> None:
    e = evidence()
    e.orders[0][0]["deposits"] = rows
    assert violated(e) == {"transfers"}


def test_a_promise_for_another_amount_is_seen_on_an_order_and_on_a_quote() -> None:
    e = evidence()
    e.orders[0][0]["amount_to_get"] = "514.6"  # of a completed one: what came, which may be anything
    assert violated(e) == set()
    event = e.shown["ord_0"]["events"][0]
    event["order"] = {**event["order"], "amount_to_get": "514.6"}
    assert "promised" in violated(e)
    e = evidence()
    e.records[0].promised.append("320.0")
    assert violated(e) == {"promised"}
    e.records[0].promised[:] = ["321.6"]
    assert violated(e) == set()


def test_a_quote_that_made_two_orders_is_seen_however_it_is_spelt() -> None:
    e = evidence()
    for record, quote in zip(e.records, ("terms.1760.MAC8", "terms.1760.MAC9"), strict=False):
        record.body["quote_id"] = quote
    assert "quotes" in violated(e)
    e.records[1].body["quote_id"] = "terms.1761.MAC9"
    assert "quotes" not in violated(e)


def test_a_hole_in_the_sequence_is_seen() -> None:
    e = evidence()
    del e.shown["ord_0"]["events"][1]
    assert "sequences" in violated(e)


def test_an_event_missing_in_the_feed_and_a_cursor_that_falls_back_are_seen() -> None:
    e = evidence()
    del e.feeds[0][1]
    assert violated(e) == {"feed"}
    e = evidence()
    e.feeds[0].reverse()
    assert violated(e) == {"feed"}


def test_an_event_that_never_arrived_is_seen_unless_its_delivery_is_marked_failed() -> None:
    e = evidence()
    e.arrivals.pop()
    assert violated(e) == {"delivered"}
    e.shown["ord_1"]["deliveries"][2]["status"] = "failed"
    assert violated(e) == set()


def test_an_event_before_its_elder_was_taken_is_seen() -> None:
    e = evidence()
    e.arrivals[0], e.arrivals[1] = e.arrivals[1], e.arrivals[0]
    early, late = e.arrivals[0], e.arrivals[1]
    e.arrivals[0] = Arrival(**{**vars(early), "at": NOW, "until": NOW})
    e.arrivals[1] = Arrival(**{**vars(late), "at": NOW + 1, "until": NOW + 1})
    assert violated(e) == {"order"}


def test_a_webhook_that_says_something_else_than_its_event_is_seen() -> None:
    e = evidence()
    e.arrivals[0].body["data"]["order"] = {}
    assert violated(e) == {"verified"}
    assert violated(evidence(unverified=["0-0 evt: no matching signature"])) == {"verified"}


def test_a_second_over_budget_is_seen_unless_a_paused_upstream_woke_up_in_it() -> None:
    most = int(plan().rps * 1.5)
    load = {"seconds": [{"second": int(NOW), "total": most + 1, "endpoints": {}}], "peak": most + 1, "total": most + 1}
    assert violated(evidence(load=load)) == {"budget"}
    assert violated(evidence(load=load, blows=[(NOW - 3, NOW + 0.5, "pause the upstream")])) == set()


def test_two_looks_at_once_are_seen() -> None:
    assert violated(evidence(truth=[an_upstream(0, looks_at_once=2), an_upstream(1)])) == {"one_look"}
    assert violated(evidence(truth=[an_upstream(0, looks_at_once=2, answered=False), an_upstream(1)])) == set()


@pytest.mark.parametrize(
    ("asked_at", "others", "seen"),
    [
        (None, [], {"went_on"}),
        (25, [], set()),
        (5, [], {"went_on"}),  # before anybody could notice
        (None, [(NOW, NOW + 40, "database away")], set()),
        (None, [(NOW, NOW + 40, "kill a worker worker-1")], {"went_on"}),
    ],
)
def test_a_service_that_waits_for_dead_workers_is_seen(
    asked_at: int | None, others: list[tuple[float, float, str]], seen: set[str]
) -> None:
    rows = [{"second": int(NOW) + n, "total": 2, "endpoints": {"info": 2} if n == asked_at else {}} for n in range(40)]
    e = evidence(load={"seconds": rows, "peak": 2, "total": 80})
    e.blows += [(NOW, NOW + 30, "kill all workers"), *others]
    assert violated(e) == seen


def test_what_is_left_open_at_the_deadline_is_seen() -> None:
    assert violated(evidence(pending=["ord_0: still creating"])) == {"agreed"}


def test_a_secret_in_a_log_is_seen_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "api.log").write_text("one line\nkey sws_abcdef used\n")
    check = secrets_kept(tmp_path, {"API secret 0-0": "sws_abcdef", "other": "not there"})
    assert check.violations == ["API secret 0-0 is in api.log, line 2"]


def test_doubts_are_counted_by_how_they_ended() -> None:
    e = evidence()
    events = e.shown["ord_0"]["events"]
    doubt = an_event(e.orders[0][0], 2, "creating")
    doubt["order"]["status_reason"] = "create_in_doubt"
    events[1:] = [doubt, {**events[2], "detail": {"source": "resolver", "adopted": "100"}}]
    found = resolver(e)
    assert (found["in_doubt"], found["adopted"], found["unconfirmed"]) == (1, 1, 0)
    assert found["seconds_p50"] == 5.0


# --- what it plays ---------------------------------------------------------------------------------------------------

ADDRESSES = {
    name: {network: f"{name} on {network}" for network in ("XRP", "TRC20", "ERC20", "BTC", "LTC")}
    for name in (
        *("completes", "refunded", "hold_then_completes", "hold_then_refunded"),
        *("expires", "wrong_amount", "second_deposit", "late_deposit"),
    )
}


def test_the_same_seed_wants_and_strikes_the_same() -> None:
    assert wants(plan(), ADDRESSES) == wants(plan(), ADDRESSES)
    assert wants(plan(), ADDRESSES) != wants(plan(seed=2), ADDRESSES)
    assert schedule(plan()) == schedule(plan())
    assert schedule(plan()) != schedule(plan(seed=2))


def test_many_orders_are_alike_but_for_memo_or_user() -> None:
    made = [want for want in wants(plans.full(), ADDRESSES) if want.right and not want.twin]
    assert len(made) == 500
    could_match = Counter((w.body["destination_address"], w.body["amount"], w.body["from"]["currency"]) for w in made)
    assert sum(count for count in could_match.values() if count > 5) > 400
    same_memo = Counter(
        (w.body["destination_address"], w.body["amount"], w.body.get("destination_memo"), w.body.get("refund_address"))
        for w in made
    )
    assert sum(count for count in same_memo.values() if count > 1) > 100


def test_quotes_are_spelt_anew_without_moving_any_other_want() -> None:
    made = wants(plans.full(), ADDRESSES)
    respelt = [want for want in made if want.kind == RESPELT]
    assert len(respelt) == 10
    quoted = {want.id: want for want in made if want.kind == "quoted"}
    assert all(want.after in quoted and want.body["amount"] == quoted[want.after].body["amount"] for want in respelt)
    others = [(round(w.at, 6), w.client, w.key, w.kind, w.body) for w in made if w.kind != RESPELT]
    assert hashlib.sha256(json.dumps(others).encode()).hexdigest()[:16] == "6eb605089b00a7ce"


def test_the_full_drill_strikes_with_everything_while_orders_are_placed() -> None:
    full = plans.full()
    blows = schedule(full)
    assert len({blow.kind for blow in blows}) == 12
    assert {blow.kind for blow in schedule(plan())} == {blow.kind for blow in blows} - {"restart Redis"}
    assert all(0 < blow.at < full.placing_seconds for blow in blows)
    assert any(blow.kind == "Redis away" and blow.seconds == 30 for blow in blows)


@pytest.mark.parametrize(("size", "digest"), [(plans.full(), "a7a42e97bf37f34d"), (plans.small(), "382edf7f75f49d0e")])
def test_blows_that_were_added_move_none_of_the_others(size: Plan, digest: str) -> None:
    """What a seed strikes with is promised: a run of last month repeats."""
    later = {"stop Redis", "stop the database", "kill all workers"}
    old = [(round(b.at, 6), b.kind, round(b.seconds, 6), b.target) for b in schedule(size) if b.kind not in later]
    assert hashlib.sha256(repr(old).encode()).hexdigest()[:16] == digest


class APart:
    """Stands for a process: notes what is done to it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def kill(self) -> None:
        self.told.append("kill")

    def start(self) -> None:
        self.told.append("start")

    def signal(self, number: int) -> None:
        self.told.append(signal.Signals(number).name)


def an_injector(
    *blows: Blow, parts: tuple[str, ...] = ("redis", "worker-1", "worker-2")
) -> tuple[Any, dict[str, APart]]:
    all_parts = {name: APart() for name in parts}
    injector = FaultInjector(plan(blows=False), cast(Any, SimpleNamespace(all=all_parts)), cast(Any, None), "")
    injector._left = list(blows)
    return injector, all_parts


def test_redis_and_the_database_are_stopped_and_not_killed() -> None:
    injector, parts = an_injector(
        Blow(1, "stop Redis", 3), Blow(1, "stop the database", 5), parts=("redis", "database")
    )
    injector.step(1)
    assert parts["redis"].told == parts["database"].told == ["SIGSTOP"]
    injector.step(4)
    assert (parts["redis"].told, parts["database"].told) == (["SIGSTOP", "SIGCONT"], ["SIGSTOP"])
    injector.end()
    assert parts["database"].told == ["SIGSTOP", "SIGCONT"]
    assert [name for _, _, name in injector.dealt] == ["stop Redis", "stop the database"]


def test_a_worker_that_two_blows_keep_down_starts_when_the_last_is_over() -> None:
    injector, parts = an_injector(
        Blow(1, "kill a worker", 2, "worker-1"), Blow(2, "kill all workers", 5), Blow(4, "kill a worker", 1, "worker-2")
    )
    for moment in (1.0, 2.0, 3.1, 4.0, 5.1):
        injector.step(moment)
        assert "start" not in parts["worker-1"].told + parts["worker-2"].told
    assert injector.down == {"worker-1", "worker-2"}
    injector.step(7.1)
    assert parts["worker-1"].told[-1] == parts["worker-2"].told[-1] == "start"
    assert injector.down == frozenset()


@pytest.mark.process
def test_a_stopped_proxy_leaves_its_callers_waiting_and_then_goes_on(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target, port = server.getsockname()[1], free_port()
        parts = Parts(tmp_path)
        command = [sys.executable, "-m", "drill.database_proxy", str(port), f"127.0.0.1:{target}"]
        part = parts.start("database", command, dict(os.environ), pausable=True)
        try:
            parts.wait_for("database", lambda: listens(port))
            server.accept()[0].close()  # of the look whether it listens
            with socket.create_connection(("127.0.0.1", port), timeout=5) as caller:
                accepted, _ = server.accept()
                with accepted:
                    caller.sendall(b"question")
                    assert accepted.recv(100) == b"question"
                    part.signal(signal.SIGSTOP)
                    accepted.sendall(b"answer")
                    caller.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        caller.recv(100)
                    # Nobody notices by being refused, either.
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    part.signal(signal.SIGCONT)
                    caller.settimeout(5)
                    assert caller.recv(100) == b"answer"
                assert caller.recv(100) == b""
            assert parts.stop() == []
        finally:
            parts.kill_all()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


# --- the mutants -------------------------------------------------------------------------------------------------


def test_each_mutant_names_checks_that_exist() -> None:
    e = evidence()
    names = {check.name for check in checks(e)}
    assert all(mutant.betrayed_by <= names for mutant in MUTANTS.values())


def test_a_mutant_counts_as_caught_only_when_it_was_applied_and_seen_for_what_it_is(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    log.write_text("nothing\n")
    assert "never applied" in (caught("drop-memo", {"details"}, tmp_path) or "")
    log.write_text(f"{APPLIED} drop-memo in swap.orders.create\n")
    assert caught("drop-memo", set(), tmp_path) == "passed every check"
    assert "but not by" in (caught("drop-memo", {"budget"}, tmp_path) or "")
    assert caught("drop-memo", {"details"}, tmp_path) is None


@pytest.mark.parametrize("name", sorted(MUTANTS))
@pytest.mark.process
def test_each_mutant_finds_what_it_replaces(name: str) -> None:
    environ = {"PATH": os.environ["PATH"], "DRILL_MUTANT": name, "PYTHONPATH": str(ROOT / "drill" / "mutants")}
    done = subprocess.run(
        [sys.executable, "-c", "import swap.wiring"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"{APPLIED} {name}" in done.stderr
