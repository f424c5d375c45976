"""Watching orders whose upstream answers badly, or contradicts itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from swap.domain.facts import Kind
from swap.ops.by_hand import Act
from swap.sandbox.world import World
from swap.store import leases
from swap.tables import Order, OrderEvent, TransferRow, UpstreamCall, UpstreamRef
from swap.wiring import Service
from tests.conftest import Clock, Shop, look
from tests.factories import forget_upstream_orders, read_order, show, upstream_owners
from tests.faults import Faults, Looks, knowing_no, spoiling
from tests.polling import DAY, START, all_of, due_ids, journal, place, types, view, walk, watch_due

pytestmark = pytest.mark.sqlite_only

JSON = "application/json"
GUID = "1b5f7a52-8a3e-4a64-9d3c-1f2e3d4c5b6b"

# --- answers that contradict -----------------------------------------------------------------------------------------


def test_an_answer_that_forgets_moves_nothing_backwards(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (190,))
    looks.edit = lambda body: {**body, "orderEvents": [], "deposits": [], "completed": False}
    (after,) = walk(service, clock, order_id, (250,))
    assert after["status"] == "exchanging"
    assert len(after["deposits"]) == 1
    assert types(service, order_id) == [*START, "exchanging"]


Edit = Callable[[dict[str, Any]], dict[str, Any]]


def pending(**changed: Any) -> Edit:
    """The deposits as a look tells them that comes before they are settled."""

    def edit(body: dict[str, Any]) -> dict[str, Any]:
        told = {name: body["createdAt"] if value == "created" else value for name, value in changed.items()}
        return {**body, "deposits": [{**deposit, **told} for deposit in body["deposits"]]}

    return edit


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(pending(txId="a" * 64), id="a fee bump"),
        pytest.param(pending(txId=None, createdAt="created"), id="no id yet, and another time"),
    ],
)
def test_a_deposit_that_is_told_anew_before_it_is_settled_is_one_deposit_and_told_as_one(
    service: Service, shop: Shop, clock: Clock, looks: Looks, first: Edit
) -> None:
    order_id = place(shop, "completes")
    looks.edit = first
    walk(service, clock, order_id, (70,))
    assert len(view(service, order_id)["deposits"]) == 1
    looks.edit = None
    seen = walk(service, clock, order_id, (190, 310, 370))
    assert [len(order["deposits"]) for order in seen] == [1, 1, 1]
    assert types(service, order_id) == [*START, "confirming", "exchanging", "sending", "completed"]
    stored = all_of(service, TransferRow, TransferRow.order_id == order_id)
    assert len([row for row in stored if row.direction == "deposit"]) == 1


def test_each_further_deposit_is_told_and_none_is_told_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "completes")

    def paid(times: int) -> Edit:
        def edit(body: dict[str, Any]) -> dict[str, Any]:
            (deposit,) = body["deposits"]
            return {**body, "deposits": [{**deposit, "txId": f"{n}" * 64} for n in range(times)]}

        return edit

    for moment, times in zip((70, 100, 130, 190, 250, 310, 370), (1, 2, 1, 2, 3, 2, 3), strict=True):
        looks.edit = paid(times)
        walk(service, clock, order_id, (moment,))
    found = view(service, order_id)
    assert types(service, order_id).count("late_deposit") == 2
    assert (found["status"], len(found["deposits"])) == ("completed", 3)
    assert (found["funds"], found["final"]) == ("with_upstream", False), "the upstream registered one of them"


def test_a_deposit_is_seen_though_the_upstream_knows_the_order_by_its_uuid_alone(
    service: Service, shop: Shop, clock: Clock, world: World, faults: Faults
) -> None:
    order_id = place(shop)
    faults["order"] = knowing_no(world.orders()[0].number)
    seen = set()
    for _ in range(12):
        clock.advance(60)
        look(service, order_id)
        seen.add(read_order(service.database, order_id).failures)
    assert view(service, order_id)["status"] == "completed"
    assert max(seen) == 1
    service.review.begin(order_id, Act("anna", "what is it", do=True))
    assert service.review.release(order_id, Act("anna", "it is well", do=True))["done"]


def test_a_copy_that_lags_is_believed_in_nothing(service: Service, shop: Shop, clock: Clock, looks: Looks) -> None:
    order_id = place(shop)
    told: list[dict[str, Any]] = []

    def keep(body: dict[str, Any]) -> dict[str, Any]:
        told.append(body)
        return body

    looks.edit = keep
    walk(service, clock, order_id, (70, 190, 310))
    before = view(service, order_id)
    looks.edit = lambda body: {**told[0], "completed": True}
    (after,) = walk(service, clock, order_id, (330,))
    assert {name for name in after if after[name] != before[name]} <= {"as_of", "next_check_at", "updated_at"}
    looks.edit = None
    walk(service, clock, order_id, (370,))
    assert types(service, order_id) == [*START, "confirming", "exchanging", "sending", "completed"]


def test_a_second_deposit_that_stays_with_the_upstream_for_a_day_is_for_a_person(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop, "second_deposit")
    done, late, later = walk(service, clock, order_id, (450, 1.3 * DAY, 2.6 * DAY))
    assert [order["status_reason"] for order in (done, late, later)] == [None, "under_review", "under_review"]
    for order in (done, late, later):
        assert (order["status"], order["funds"], order["final"]) == ("completed", "with_upstream", False)
    assert read_order(service.database, order_id).status == "needs_review"
    assert later["sequence"] == late["sequence"], "told once"
    (review,) = all_of(service, OrderEvent, OrderEvent.type == "journal.review")
    assert review.detail == {"status": "needs_review", "reason": "uncovered"}


def test_a_person_who_releases_an_order_with_an_uncovered_deposit_is_not_asked_again(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop, "second_deposit")
    walk(service, clock, order_id, (450, 1.3 * DAY))
    service.review.release(order_id, Act("anna", "the upstream sends it back", do=True))
    walk(service, clock, order_id, (1.4 * DAY, 2.6 * DAY))
    assert read_order(service.database, order_id).status == "completed"


def test_a_refunded_order_is_watched_and_follows_another_deposit(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "refunded")
    walk(service, clock, order_id, (370,))
    assert view(service, order_id)["final"] is True
    later = (clock() + timedelta(hours=2)).isoformat()

    def another(body: dict[str, Any]) -> dict[str, Any]:
        (first,) = body["deposits"]
        events = [{"kind": kind, "createdAt": later} for kind in ("INCOMING_FUNDS_DETECTED", "DEPOSIT_REGISTERED")]
        second = {**first, "txId": "b" * 64, "createdAt": later}
        return {**body, "deposits": [first, second], "orderEvents": [*events, *body["orderEvents"]]}

    looks.edit = another
    (found,) = walk(service, clock, order_id, (1.3 * DAY,))
    assert (found["status"], found["funds"], found["final"]) == ("exchanging", "with_upstream", False)
    assert types(service, order_id) == [*START, "refunded", "late_deposit", "exchanging"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"destinationAddress": "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe"}, "destination_mismatch"),
        ({"destinationAddressMemo": "99"}, "memo_mismatch"),
        ({"claimedDepositAmount": "9.9"}, "amount_mismatch"),
        ({"rateMode": "FIXED"}, "rate_mode_mismatch"),
        ({"failedToCreate": True}, "failed_to_create"),
        ({"depositAddressMemo": {"type": "tag", "value": "1234567"}}, "answer_unreadable"),
    ],
)
def test_an_order_that_public_info_tells_otherwise_is_not_payable_until_it_agrees_again(
    service: Service, shop: Shop, clock: Clock, looks: Looks, wrong: dict[str, Any], reason: str
) -> None:
    order_id = place(shop, "expires")
    looks.edit = lambda body: {**body, **wrong}
    walk(service, clock, order_id, (20, 40))
    seen = view(service, order_id)
    assert (seen["status"], seen["status_reason"]) == ("awaiting_deposit", "under_review")
    assert (seen["deposit"]["payable"], seen["deposit"]["payable_reason"]) == (False, reason)
    assert types(service, order_id) == [*START, "updated"], "said once"
    looks.edit = None
    walk(service, clock, order_id, (60,))
    seen = view(service, order_id)
    assert (seen["status_reason"], seen["deposit"]["payable"]) == (None, True)


def paid_out(body: dict[str, Any]) -> dict[str, Any]:
    """The answer of an upstream for which this is done."""
    made = body["createdAt"]
    deposit = {"txId": "e" * 64, "amount": "9.9", "createdAt": made, "confirmations": 9, "isPending": False}
    payout = {"txId": "f" * 64, "amount": "7", "createdAt": made}
    return {**body, "completed": True, "deposits": [deposit], "withdrawals": [payout]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"claimedDepositAmount": "9.9"},
        {"rateMode": "FIXED"},
        {"pair": {"instrumentTo": {"currencyTitle": "ETH", "networkTitle": "ETH"}}},
        {"destinationAddressMemo": "99"},
        {"depositAddress": {"depositAddress": "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"}},
    ],
)
def test_an_answer_that_contradicts_the_order_completes_nothing_and_leaves_no_facts(
    service: Service, shop: Shop, clock: Clock, looks: Looks, wrong: dict[str, Any]
) -> None:
    order_id = place(shop, "expires")
    before = read_order(service.database, order_id).facts
    looks.edit = lambda body: paid_out({**body, **wrong})
    (seen,) = walk(service, clock, order_id, (20,))
    assert (seen["status"], seen["status_reason"], seen["final"]) == ("awaiting_deposit", "under_review", False)
    assert (seen["deposits"], seen["withdrawals"], seen["deposit"]["payable"]) == ([], [], False)
    assert read_order(service.database, order_id).facts == before


def test_what_contradicts_an_order_that_has_ended_neither_moves_it_nor_asks_anybody(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (370,))
    refund = {"kind": "REFUND_COMPLETED", "createdAt": (clock() + timedelta(hours=20)).isoformat()}
    looks.edit = lambda body: {
        **body,
        "orderEvents": [refund, *body["orderEvents"]],
        "destinationAddress": "rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe",
    }
    walk(service, clock, order_id, (1.3 * DAY, 2.6 * DAY))
    stored = read_order(service.database, order_id)
    assert (stored.status, stored.conflict) == ("completed", "destination_mismatch")
    assert types(service, order_id) == [*START, "completed"]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"state":"completed","status":"ok","completed":"true"}',
        b'{"completed":true,"withdrawals":[{"txId":"ffffffffffffffffffff","amount":"1"}]}',
    ],
)
def test_an_answer_that_names_neither_the_order_nor_its_destination_is_no_answer(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: bytes
) -> None:
    order_id = place(shop)
    looks.answer = ("200 OK", JSON, answer)
    (seen,) = walk(service, clock, order_id, (20,))
    assert (seen["status"], read_order(service.database, order_id).failures) == ("awaiting_deposit", 1)


def test_an_expiry_is_not_taken_back_by_an_answer_about_other_terms(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop, "expires")
    looks.answer = ("410 Gone", JSON, b'{"status":"ERR_ORDER_EXPIRED","message":"Order expired","data":{}}')
    walk(service, clock, order_id, (20, 700))
    number = read_order(service.database, order_id).upstream_order_id
    told: dict[str, Any] = {"orderId": number, "orderEvents": [], "state": "created", "rateMode": "FIXED"}
    looks.answer = ("200 OK", JSON, json.dumps(told).encode())
    seen = walk(service, clock, order_id, (1100, 1800))[-1]
    assert (seen["status"], seen["deposit"]["payable"]) == ("expired", False)


def test_an_order_does_not_take_the_id_of_another_from_an_answer_in_conflict(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    one, other = (place(shop, "expires", client_order_id=memo, destination_memo=memo) for memo in ("1", "2"))
    destination = read_order(service.database, other).destination_address
    with service.database.write() as session:
        forget_upstream_orders(session)
        session.execute(update(Order).values(upstream_order_id=None))
    for order_id, ref in ((one, "0b5f7a52-8a3e-4a64-9d3c-1f2e3d4c5b6a"), (other, GUID)):
        show(service.database, read_order(service.database, order_id), ref)
    told = {"orderId": 777777, "destinationAddress": destination, "destinationAddressMemo": "2", "orderEvents": []}
    clock.advance(20)
    looks.answer = ("200 OK", JSON, json.dumps(told).encode())
    look(service, one)
    assert view(service, one)["deposit"]["payable_reason"] == "memo_mismatch"
    looks.answer = ("200 OK", JSON, json.dumps({**told, "completed": True}).encode())
    look(service, other)
    assert (view(service, one)["upstream_order_id"], view(service, other)["upstream_order_id"]) == (None, "777777")
    assert view(service, other)["status"] != "awaiting_deposit"


def test_a_deposit_is_found_although_the_upstream_said_that_it_failed_to_create_the_order(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    looks.edit = lambda body: {**body, "failedToCreate": True}
    walk(service, clock, order_id, (20,))
    looks.edit = None
    walk(service, clock, order_id, (190, 370))
    assert view(service, order_id)["status"] == "completed"
    assert len(view(service, order_id)["deposits"]) == 1


def test_an_order_whose_create_was_answered_with_one_wrong_echo_is_shown_once_public_info_agrees(
    service: Service, shop: Shop, clock: Clock, faults: Faults
) -> None:
    faults["create"] = spoiling(lambda body: body.update(destinationAddress="rPT1Sjq2YGrBMTttX4GZHjKu9dyfzbpAYe"))
    order_id = place(shop)
    assert view(service, order_id)["deposit"] is None
    walk(service, clock, order_id, (20,))
    seen = view(service, order_id)
    assert (seen["status_reason"], seen["deposit"]["payable"]) == (None, True)
    assert seen["deposit"]["address"] is not None


def test_a_completed_order_that_is_no_longer_called_completed_stays_so(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (370,))
    hold = {"kind": "KYC_REQUIRED", "createdAt": clock().isoformat()}
    looks.edit = lambda body: {**body, "completed": False, "orderEvents": [hold], "withdrawals": []}
    walk(service, clock, order_id, (1.3 * DAY, 2.6 * DAY))
    assert view(service, order_id)["status"] == "completed"
    assert types(service, order_id) == [*START, "completed"]


def test_a_refund_and_a_payout_together_are_flagged_once(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (370,))
    refund = {"kind": "REFUND_COMPLETED", "createdAt": "2020-01-01T00:00:00Z"}
    looks.edit = lambda body: {**body, "orderEvents": [*body["orderEvents"], refund]}
    walk(service, clock, order_id, (1.3 * DAY, 2.6 * DAY))
    assert view(service, order_id)["status"] == "completed"
    assert journal(service, order_id) == ["journal.review"]


def test_a_status_that_the_table_forbids_is_journalled_once_and_not_taken(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (70,))
    with service.database.write() as session:  # as a person would, after a review
        session.execute(update(Order).values(status="failed", version=Order.version + 1))
    begun = ("CREATION_END", "INCOMING_FUNDS_DETECTED", "DEPOSIT_REGISTERED")
    looks.edit = lambda body: {
        **body,
        "completed": False,
        "withdrawals": [],
        "orderEvents": [e for e in body["orderEvents"] if e["kind"] in begun],
    }
    walk(service, clock, order_id, (190, 5_000, 10_000))
    assert view(service, order_id)["status"] == "failed"
    assert journal(service, order_id) == ["journal.refused"]
    (refused,) = all_of(service, OrderEvent, OrderEvent.type == "journal.refused")
    assert refused.detail == {"source": "look", "refused": "exchanging", "status": "failed"}


def test_a_reversal_of_a_completed_order_is_followed_and_flagged(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (370,))
    refund = {"kind": "REFUND_COMPLETED", "createdAt": (clock() + timedelta(hours=20)).isoformat()}
    looks.edit = lambda body: {**body, "orderEvents": [refund, *body["orderEvents"]]}
    (after,) = walk(service, clock, order_id, (40 * 3600,))
    assert (after["status"], after["status_reason"], after["funds"]) == ("refunded", "reversal", "returned")
    assert journal(service, order_id) == ["journal.review"]


def test_a_kind_nobody_knows_is_journalled_once_and_moves_nothing(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    odd = {"kind": "SOMETHING_NEW", "createdAt": clock().isoformat()}
    looks.edit = lambda body: {**body, "orderEvents": [odd, *body["orderEvents"]]}
    walk(service, clock, order_id, (20, 45, 70))
    assert types(service, order_id) == [*START, "confirming"]
    assert journal(service, order_id) == ["journal.unknown_kinds"]


def learn(monkeypatch: pytest.MonkeyPatch, kind: str, meaning: Kind) -> None:
    """The next version of the mapping."""
    known = Kind.of
    monkeypatch.setattr(Kind, "of", staticmethod(lambda raw: meaning if raw == kind else known(raw)))


def test_a_kind_that_is_learned_later_moves_the_order_although_nobody_repeats_it(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    told = {"kind": "SOMETHING_NEW", "createdAt": (clock() + timedelta(seconds=100)).isoformat()}
    looks.edit = lambda body: {**body, "orderEvents": [told, *body["orderEvents"]]}
    walk(service, clock, order_id, (70,))
    looks.edit = lambda body: {**body, "orderEvents": []}
    learn(monkeypatch, "SOMETHING_NEW", Kind.REFUND_REQUESTED)
    (seen,) = walk(service, clock, order_id, (95,))
    assert seen["status"] == "refunding"
    assert types(service, order_id) == [*START, "confirming", "refunding"]


def test_orders_that_are_looked_at_rarely_are_made_due_once_their_kinds_are_known(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, other = place(shop, "expires"), place(shop, "expires", client_order_id="order-2")
    told = {"kind": "SOMETHING_NEW", "createdAt": clock().isoformat()}
    looks.edit = lambda body: {**body, "orderEvents": [told, *body["orderEvents"]]}
    look(service, order_id)
    looks.edit = None
    for moment in (950, 1560, 5 * DAY):
        clock.advance(read_order(service.database, order_id).created_at + timedelta(seconds=moment) - clock())
        for each in (order_id, other):
            look(service, each)
            assert view(service, each)["status"] == ("awaiting_deposit" if moment == 950 else "expired")
    assert service.support.replay(clock()) == [], "not known yet"
    assert watch_due(service) == []
    learn(monkeypatch, "SOMETHING_NEW", Kind.DEPOSIT_REGISTERED)
    assert service.support.replay(clock()) == [order_id]
    assert service.support.replay(clock()) == [], "once"
    assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] == "exchanging"
    assert journal(service, order_id) == ["journal.unknown_kinds", "journal.replayed"]
    assert journal(service, other) == []


def test_a_look_that_broke_on_the_database_hands_its_lease_back_and_counts_no_failure(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    clock.advance(190)
    left, real = [3], service.database.write

    @contextmanager
    def away() -> Iterator[Any]:
        if left[0]:
            left[0] -= 1
            raise OperationalError("BEGIN", {}, Exception("away"))
        with real() as session:
            yield session

    assert due_ids(service) == [order_id]
    claimed = leases.claim

    def then_away(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(service.database, "write", away)
        return claimed(*arguments, **options)

    monkeypatch.setattr(leases, "claim", then_away)
    service.due.work(60)
    stored = read_order(service.database, order_id)
    assert (left, stored.failures, stored.status) == ([0], 0, "awaiting_deposit")
    assert stored.next_check_at is not None
    assert stored.next_check_at < clock() + timedelta(seconds=6)
    clock.advance(6)
    assert watch_due(service) == [order_id]
    assert view(service, order_id)["status"] == "exchanging"


def test_a_numeric_id_learned_later_is_the_one_asked_with_and_owned(
    service: Service, shop: Shop, clock: Clock, looks: Looks, world: World
) -> None:
    order_id = place(shop)
    (made,) = world.orders()
    with service.database.write() as session:
        session.execute(update(Order).values(upstream_order_id=made.guid))
        session.execute(delete(UpstreamRef).where(UpstreamRef.ref == str(made.number)))
    walk(service, clock, order_id, (20, 45))
    assert view(service, order_id)["upstream_order_id"] == str(made.number)
    assert [f"orderId={ref}&" in asked for ref, asked in zip((made.guid, made.number), looks.asked, strict=True)]
    refs = upstream_owners(service.database)
    assert refs[str(made.number)] == refs[made.guid] == order_id


def completed(service: Service, shop: Shop, clock: Clock, count: int) -> list[str]:
    placed = [place(shop, client_order_id=f"order-{number}") for number in range(count)]
    for seconds in (20, 170, 180, 200):
        clock.advance(seconds)
        for order_id in placed:
            look(service, order_id)
    return placed


@pytest.mark.parametrize(
    "constant", [{"id": 1}, {"uuid": "00000000-0000-4000-8000-000000000000"}, {"reference": "swap"}]
)
def test_a_constant_that_poses_as_an_id_blinds_no_order(
    service: Service, shop: Shop, clock: Clock, faults: Faults, looks: Looks, constant: dict[str, Any]
) -> None:
    faults["create"] = spoiling(lambda body: {**body, **constant})
    looks.edit = lambda body: {**body, **constant}
    with capture_logs() as logs:
        placed = completed(service, shop, clock, 3)
    assert [view(service, order_id)["status"] for order_id in placed] == ["completed"] * 3
    alarms = [entry for entry in logs if entry["event"] == "orders.shared_upstream_id"]
    assert [(entry["log_level"], entry["ref"]) for entry in alarms] == [("error", str(*constant.values()))], "once"
    assert not {"orders.upstream_id_taken", "watch.answer_of_another"} & {entry["event"] for entry in logs}


def test_a_constant_of_public_info_alone_blinds_no_order(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    looks.edit = lambda body: {**body, "reference": "swap"}
    placed = completed(service, shop, clock, 2)
    assert [view(service, order_id)["status"] for order_id in placed] == ["completed"] * 2


def test_an_answer_that_names_itself_by_the_id_of_another_order_is_not_believed(
    service: Service, shop: Shop, clock: Clock, looks: Looks, world: World
) -> None:
    one, other = place(shop), place(shop, client_order_id="order-2")
    foreign = str(world.orders()[1].number)
    clock.advance(190)
    looks.edit = lambda body: {**body, "legacyOrderId": body["orderId"], "orderId": foreign}
    for _ in range(2):
        look(service, one)
    stored = read_order(service.database, one)
    assert (stored.status, stored.failures, stored.upstream_order_id) == (
        *("awaiting_deposit", 2),
        str(world.orders()[0].number),
    )
    assert journal(service, one) == ["journal.answer_of_another"]
    assert upstream_owners(service.database)[foreign] == other


# --- where to pay ----------------------------------------------------------------------------------------------------

OTHER_ADDRESS = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"depositAddress": OTHER_ADDRESS}, "deposit_address_changed"),
        ({"depositAddressMemo": "77"}, "deposit_memo_changed"),
    ],
)
def test_deposit_details_that_change_at_a_later_look_end_payments(
    service: Service, shop: Shop, clock: Clock, looks: Looks, changed: dict[str, str], reason: str
) -> None:
    order_id = place(shop)
    shown = view(service, order_id)["deposit"]["address"]
    looks.edit = lambda body: {**body, "depositAddress": {**body["depositAddress"], **changed}}
    first, again = walk(service, clock, order_id, (20, 45))
    assert first["deposit"]["payable"] is False
    assert first["deposit"]["payable_reason"] == reason
    assert first["deposit"]["address"] == shown, "whoever has paid already must find what they paid to"
    assert again["sequence"] == first["sequence"], "told once"
    assert types(service, order_id) == [*START, "updated"]
    assert read_order(service.database, order_id).deposit_address == shown, "written once"


def unverified(service: Service, order_id: str, **changed: Any) -> None:
    with service.database.write() as session:
        values = {"payable": False, "payable_reason": "unverified", **changed}
        session.execute(update(Order).where(Order.id == order_id).values(version=Order.version + 1, **values))


def test_a_held_order_is_released_by_a_look_that_tells_enough(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    unverified(service, order_id)
    assert view(service, order_id)["deposit"]["payable"] is False
    (seen,) = walk(service, clock, order_id, (20,))
    assert seen["deposit"]["payable"] is True
    assert seen["deposit"]["address"].startswith("bc1q")


def test_a_held_order_is_not_released_to_an_address_that_the_look_contradicts(
    service: Service, shop: Shop, clock: Clock
) -> None:
    order_id = place(shop)
    unverified(service, order_id, deposit_address=OTHER_ADDRESS)
    (seen,) = walk(service, clock, order_id, (20,))
    assert seen["deposit"]["payable"] is False
    assert seen["deposit"]["payable_reason"] == "deposit_address_changed"


def test_a_held_order_is_not_released_to_an_address_that_nobody_ever_judged(
    service: Service, shop: Shop, clock: Clock, looks: Looks
) -> None:
    order_id = place(shop)
    unverified(service, order_id, deposit_address="bc1qnonsense")
    looks.edit = lambda body: {**body, "depositAddress": None}
    (seen,) = walk(service, clock, order_id, (20,))
    assert seen["deposit"]["payable"] is False
    assert seen["deposit"]["payable_reason"] == "deposit_address_invalid"


# --- looks that fail -------------------------------------------------------------------------------------------------

HTML = "text/html"
BAD = [
    pytest.param(("404 Not Found", JSON, b'{"message": "Order not found"}'), id="404"),
    pytest.param(("500 Oops", JSON, b"{}"), id="500"),
    pytest.param(("403 Forbidden", HTML, b"<html><title>Just a moment...</title></html>"), id="html-403"),
    pytest.param(("200 OK", HTML, b"<html></html>"), id="html-200"),
    pytest.param(("429 Slow down", JSON, b"{}"), id="429"),
]


@pytest.mark.parametrize("answer", BAD)
def test_a_bad_answer_changes_nothing_but_the_next_look_and_is_journalled(
    service: Service, shop: Shop, clock: Clock, looks: Looks, answer: tuple[str, str, bytes]
) -> None:
    order_id = place(shop)
    before = view(service, order_id)
    looks.answer = answer
    (after,) = walk(service, clock, order_id, (200,))
    volatile = ("next_check_at", "as_of", "updated_at")
    assert {**after, **{name: before[name] for name in volatile}} == before
    assert after["as_of"] == before["as_of"], "nothing was learned"
    stored = read_order(service.database, order_id)
    # Being told to slow down says nothing about the order.
    assert stored.failures == (0 if answer[0].startswith("429") else 1)
    assert stored.next_check_at is not None
    assert clock() < stored.next_check_at < clock() + timedelta(minutes=2)
    calls = all_of(service, UpstreamCall, UpstreamCall.endpoint == "order")
    assert calls
    assert {(c.order_ref, c.status) for c in calls} == {(order_id, int(answer[0][:3]))}

    looks.answer = None
    (well,) = walk(service, clock, order_id, (400,))
    assert well["status"] == "completed"
    assert read_order(service.database, order_id).failures == 0


def test_an_upstream_that_does_not_answer_in_time_is_a_failed_look(
    other_service: Callable[..., Service],
    service: Service,
    shop: Shop,
    clock: Clock,
    looks: Looks,
) -> None:
    hasty = other_service(upstream_read_timeout=0.1)
    order_id = place(shop)
    looks.hold = threading.Event()
    walk(hasty, clock, order_id, (20,))
    looks.hold.set()
    assert read_order(service.database, order_id).failures == 1
    outcomes = {c.outcome for c in all_of(service, UpstreamCall, UpstreamCall.endpoint == "order")}
    assert outcomes == {"UPSTREAM_TIMEOUT"}


def test_failed_looks_back_off_to_an_hour_and_alert_after_five(
    service: Service, shop: Shop, clock: Clock, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    looks.answer = ("404 Not Found", JSON, b"{}")
    alarms: list[str] = []
    monkeypatch.setattr("swap.watching.poll.log.error", lambda event, **_: alarms.append(event))
    waits = []
    for number in range(1, 27):
        due_at = read_order(service.database, order_id).next_check_at
        assert due_at is not None
        clock.advance(due_at - clock() + timedelta(seconds=1))
        assert watch_due(service) == [order_id]
        stored = read_order(service.database, order_id)
        assert stored.next_check_at is not None
        waits.append((stored.next_check_at - clock()).total_seconds())
        assert stored.failures == number
        assert alarms == ["watch.order_not_readable"] * ((number >= 5) + (number >= 24)), "once, then daily"
    assert 24 <= waits[0] <= 36
    assert all(wait <= 3600 * 1.2 for wait in waits)
    assert waits[-1] >= 3600 * 0.8


def test_a_row_that_cannot_be_read_backs_off_and_stops_nobody(service: Service, shop: Shop, clock: Clock) -> None:
    poison, well = place(shop), place(shop, client_order_id="order-2")
    broken = {"events": [{"kind": "CREATION_END", "at": "not a time"}]}
    with service.database.write() as session:
        session.execute(update(Order).where(Order.id == poison).values(facts=broken))
    clock.advance(190)
    assert sorted(watch_due(service)) == sorted([poison, well])
    assert view(service, well)["status"] == "exchanging"
    stored = read_order(service.database, poison)
    assert stored.failures == 1
    assert stored.next_check_at is not None
    assert stored.next_check_at < clock() + timedelta(seconds=60), "its own back-off, not the lease"


def test_an_order_without_any_id_to_ask_with_backs_off_like_one_that_cannot_be_read(
    service: Service, shop: Shop, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = place(shop)
    with service.database.write() as session:
        session.execute(update(Order).values(upstream_order_id=None))
        forget_upstream_orders(session)
    alarms: list[str] = []
    monkeypatch.setattr("swap.watching.poll.log.error", lambda event, **_: alarms.append(event))
    for number in range(1, 12):
        clock.advance(3 * 3600)
        assert watch_due(service) == [order_id]
        assert watch_due(service) == []
        stored = read_order(service.database, order_id)
        assert (stored.failures, stored.lease_token) == (number, None)
    assert alarms == ["watch.no_upstream_id", "watch.order_not_readable"]
    assert stored.next_check_at is not None
    assert stored.next_check_at > clock() + timedelta(minutes=40)


def test_a_gone_answer_is_a_fact_and_no_failure(service: Service, shop: Shop, clock: Clock, looks: Looks) -> None:
    order_id = place(shop, "expires")
    walk(service, clock, order_id, (950,))
    assert read_order(service.database, order_id).failures == 0
    (call,) = all_of(service, UpstreamCall, UpstreamCall.endpoint == "order")
    assert (call.status, call.outcome) == (410, "UPSTREAM_ORDER_EXPIRED")


def test_only_looks_that_brought_news_are_kept(service: Service, shop: Shop, clock: Clock) -> None:
    order_id = place(shop)
    walk(service, clock, order_id, (20, 40, 70, 90, 110))
    kept = all_of(service, UpstreamCall, UpstreamCall.endpoint == "order")
    assert [(c.order_ref, c.status, c.outcome) for c in kept][-1] == (order_id, 200, "OK")
    assert len(kept) <= 2  # the first may tell more than the create did; then only the deposit is news
    assert "INCOMING_FUNDS_DETECTED" in (kept[-1].response_body or "")
