"""The one door, the claims and the ids of orders, with real threads on both databases."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Text, cast, event, select, update

from swap.domain.lifecycle import TRANSITIONS, Facts, Status, Transfer, UpstreamEvent
from swap.store import attempts as attempt_rows
from swap.store import clients, deliveries, endpoints, leases, upstream_orders
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import Order, OrderEvent, TransferRow, WebhookDelivery
from tests.factories import (
    NOON,
    make_client,
    make_order,
    make_orders,
    move,
    order_row,
    read_order,
    show,
    told,
    upstream_owners,
)
from tests.threads import race

LEASE = timedelta(seconds=150)


def events(database: Database, order_id: str) -> list[OrderEvent]:
    with database.read() as session:
        return list(
            session.scalars(select(OrderEvent).where(OrderEvent.order_id == order_id).order_by(OrderEvent.created_at))
        )


def public(database: Database, order_id: str) -> list[tuple[int | None, str]]:
    return sorted((e.sequence, e.type) for e in events(database, order_id) if e.sequence is not None)


# --- the one door ----------------------------------------------------------------------------------------------------


def test_of_sixteen_who_move_an_order_at_once_exactly_one_wins(database: Database, twin: Database) -> None:
    order = make_order(database)
    targets = [Status.CONFIRMING, Status.EXCHANGING, Status.ON_HOLD, Status.EXPIRED] * 4
    moved = race(16, lambda n: move((database, twin)[n % 2], order, status=targets[n]))
    winners = [m for m in moved if m is not None]
    assert len(winners) == 1
    now = read_order(database, order.id)
    assert (now.status, now.version, now.sequence) == (winners[0].status, 2, 2)
    assert public(database, order.id) == [(1, "order.created"), (2, f"order.{now.status}")]


def test_the_event_is_written_with_the_move_or_not_at_all(database: Database) -> None:
    order = make_order(database)
    with pytest.raises(RuntimeError), database.write() as session:
        assert order_rows.move(session, order, {"status": Status.CONFIRMING}, at=NOON, source="test") is not None
        session.flush()
        raise RuntimeError("we die before the commit")
    assert read_order(database, order.id).status == "awaiting_deposit"
    assert public(database, order.id) == [(1, "order.created")]
    assert move(database, order, status=Status.CONFIRMING) is not None
    assert public(database, order.id) == [(1, "order.created"), (2, "order.confirming")]


def test_sequences_have_no_holes_however_many_write_at_once(database: Database, twin: Database) -> None:
    order = make_order(database)

    def work(number: int) -> int:
        done = 0
        while done < 4:
            seen = read_order(database, order.id)
            moved = move((database, twin)[number % 2], seen, user_id=f"{number}.{done}")
            done += moved is not None
        return done

    assert sum(race(6, work)) == 24
    assert [sequence for sequence, _ in public(database, order.id)] == list(range(1, 26))
    assert read_order(database, order.id).sequence == 25


def test_every_step_that_is_not_in_the_table_raises_and_writes_nothing(database: Database) -> None:
    order = make_order(database)
    for before in Status:
        with database.write() as session:
            session.execute(update(Order).values(status=before))
        seen = read_order(database, order.id)
        for after in Status:
            if after in TRANSITIONS[before] or after is before:
                continue
            with pytest.raises(ValueError, match="no way from"):
                move(database, seen, status=after)
    assert public(database, order.id) == [(1, "order.created")]


def test_every_step_of_the_table_can_be_taken(database: Database) -> None:
    client = make_client(database)
    for before, targets in TRANSITIONS.items():
        for after in targets:
            order = make_order(database, client, status=before)
            moved = move(database, order, status=after)
            assert moved is not None
            assert read_order(database, order.id).status == after
            assert read_order(database, order.id).status_changed_at == NOON + timedelta(minutes=1)


@pytest.mark.parametrize("name", ["deposit_kind", "deposit_address", "deposit_memo", "deposit_link"])
def test_deposit_details_are_written_once(database: Database, name: str) -> None:
    order = make_order(database, deposit_memo="7")
    for other in ("another", None):
        if other == getattr(order, name):
            continue
        with pytest.raises(ValueError, match="written once"):
            move(database, order, **{name: other})
    assert move(database, order, **{name: getattr(order, name)}) is not None, "the same again is no change"


def test_deposit_details_may_be_written_when_there_are_none(database: Database) -> None:
    order = make_order(database, status="creating", deposit_kind=None, deposit_address=None, payable=False)
    moved = move(
        database, order, status="awaiting_deposit", deposit_kind="address", deposit_address="bc1qx", payable=True
    )
    assert moved is not None
    assert read_order(database, order.id).deposit_address == "bc1qx"


def test_a_look_without_news_writes_no_event_but_is_a_move(database: Database) -> None:
    order = make_order(database)
    later = NOON + timedelta(minutes=1)
    moved = move(database, order, as_of=later, next_check_at=later, failures=0, upstream_state="created")
    assert moved is not None
    assert public(database, order.id) == [(1, "order.created")]
    now = read_order(database, order.id)
    assert (now.version, now.sequence, now.as_of, now.updated_at) == (2, 1, later, later)


def test_a_change_that_only_support_sees_is_journalled(database: Database) -> None:
    order = make_order(database, status="creating", deposit_kind=None, deposit_address=None, payable=False)
    assert move(database, order, status="in_doubt") is not None
    created, journalled = events(database, order.id)
    assert (journalled.type, journalled.sequence, journalled.order) == ("journal.in_doubt", None, None)
    assert journalled.detail == {"source": "test"}
    assert created.sequence == read_order(database, order.id).sequence == 1


def test_the_event_carries_the_order_as_it_was_then_under_its_sequence(database: Database) -> None:
    order = make_order(database)
    confirming = move(database, order, status="confirming")
    assert confirming is not None
    move(database, confirming, status="exchanging")
    shown = {e.sequence: e.order for e in events(database, order.id)}
    assert {n: (o["status"], o["sequence"]) for n, o in shown.items() if o} == {
        1: ("awaiting_deposit", 1),
        2: ("confirming", 2),
        3: ("exchanging", 3),
    }


def test_the_type_says_the_status_where_that_changed_and_else_what_it_was_told(database: Database) -> None:
    order = make_order(database)
    with database.write() as session:
        changes = [({"user_id": "u1"}, None), ({"user_id": "u2"}, "order.late_deposit"), ({"status": "expired"}, "x")]
        for change, type_ in changes:
            moved = order_rows.move(session, order, change, at=NOON, source="test", type=type_)
            assert moved is not None
            order = moved
    assert [type_ for _, type_ in public(database, order.id)] == [
        *("order.created", "order.updated", "order.late_deposit", "order.expired")
    ]


def test_the_transfers_follow_the_facts(database: Database) -> None:
    order = make_order(database)
    paid = Transfer("deposit", Decimal("0.000000000000000001"), "tx-in", NOON, confirmations=0, pending=True)
    first = move(database, order, facts=Facts(transfers=(paid,)).to_json())
    assert first is not None
    settled = Transfer("deposit", Decimal("0.000000000000000001"), "tx-in", NOON, confirmations=2)
    out = Transfer("withdrawal", Decimal("12345678.123456789012345678"), "tx-out", NOON + timedelta(minutes=1))
    assert move(database, first, facts=Facts(transfers=(paid, settled, out)).to_json()) is not None
    with database.read() as session:
        found = session.scalars(select(TransferRow).order_by(TransferRow.position)).all()
        by_tx = order_rows.page(session, order.client_id, {"tx_id": "tx-out"}, None, 10)
        by_none = order_rows.page(session, order.client_id, {"tx_id": "tx"}, None, 10)
    assert [(t.direction, t.amount, t.tx_id, t.confirmations) for t in found] == [
        ("deposit", Decimal("0.000000000000000001"), "tx-in", 2),
        ("withdrawal", Decimal("12345678.123456789012345678"), "tx-out", None),
    ]
    assert ([o.id for o in by_tx], by_none) == ([order.id], [])


def test_facts_come_back_as_they_were_written(database: Database) -> None:
    order = make_order(database)
    facts = Facts(
        events=frozenset({UpstreamEvent("CREATION_END", NOON), UpstreamEvent("Ünknown ☂", NOON)}),
        transfers=(Transfer("deposit", Decimal("1E-18"), None, None, pending=True),),
        kyc_link="https://x/y",
    )
    move(database, order, facts=facts.to_json())
    assert Facts.from_json(read_order(database, order.id).facts) == facts


# --- making ----------------------------------------------------------------------------------------------------------


def test_one_client_order_id_makes_one_order_however_many_ask_at_once(database: Database, twin: Database) -> None:
    client = make_client(database)

    def work(number: int) -> bool:
        with (database, twin)[number % 2].write() as session:
            return order_rows.insert(session, order_row(client, client_order_id="checkout-17"))

    assert sorted(race(8, work)) == [False] * 7 + [True]
    with database.read() as session:
        (order,) = session.scalars(select(Order)).all()
        assert order_rows.by_client_order_id(session, client, "checkout-17") is not None
    assert public(database, order.id) == [(1, "order.created")]


def test_another_client_may_use_the_same_client_order_id(database: Database) -> None:
    for name in ("one", "two"):
        make_order(database, make_client(database, name), client_order_id="checkout-17")


def test_an_order_of_somebody_else_is_not_found(database: Database) -> None:
    order = make_order(database)
    with database.read() as session:
        assert order_rows.get(session, order.id, order.client_id) is not None
        assert order_rows.get(session, order.id, make_client(database, "other")) is None


def test_orders_made_in_the_same_millisecond_are_paged_without_loss(database: Database) -> None:
    ids = make_orders(database, 7)
    seen: list[str] = []
    after = None
    while True:
        with database.read() as session:
            page = order_rows.page(session, make_client(database), {}, after, 3)
        if not page:
            break
        seen += [order.id for order in page]
        after = (page[-1].created_at, page[-1].id)
    assert sorted(seen) == sorted(ids)
    assert len(seen) == len(set(seen))


def test_a_quote_makes_one_order(database: Database) -> None:
    one, other = make_order(database), make_order(database)
    spent = race(6, lambda n: _spend(database, (one, other)[n % 2].id))
    assert sorted(spent) == [False] * 3 + [True] * 3, "the one it belongs to may ask again"


def _spend(database: Database, order_id: str) -> bool:
    with database.write() as session:
        return order_rows.spend_quote(session, "quote-1", order_id, NOON)


def test_a_signature_is_spent_once_however_many_bring_it_at_once(database: Database, twin: Database) -> None:
    def work(number: int) -> bool:
        with (database, twin)[number % 2].write() as session:
            return clients.spend_signature(session, "abc", NOON)

    assert sorted(race(8, work)) == [False] * 7 + [True]
    with database.write() as session:
        clients.forget_signatures(session, NOON)
        assert not clients.spend_signature(session, "abc", NOON), "not forgotten before its time"
        clients.forget_signatures(session, NOON + timedelta(seconds=1))
        assert clients.spend_signature(session, "abc", NOON)


def test_attempts_are_counted_and_answered_whatever_became_of_the_order(database: Database) -> None:
    order = make_order(database, status="creating")
    with database.write() as session:
        numbers = [attempt_rows.start_attempt(session, order, NOON) for _ in range(3)]
        attempt_rows.finish_attempt(
            session, order.id, 2, outcome="unknown", refs=["1", "b"], finished_at=NOON, answer="{}"
        )
    assert numbers == [1, 2, 3]
    with database.read() as session:
        found = attempt_rows.attempts_of(session, order.id)
    assert [(a.number, a.outcome, a.refs) for a in found] == [(1, None, []), (2, "unknown", ["1", "b"]), (3, None, [])]


# --- ids of the upstream ---------------------------------------------------------------------------------------------


def test_an_id_of_the_upstream_belongs_to_one_order(database: Database) -> None:
    one, other = make_order(database), make_order(database)
    assert show(database, one, "90210", "guid-1") == set()
    assert show(database, one, "90210") == set(), "once more is no clash"
    assert show(database, other, "guid-2", "90210") == {"90210"}
    assert upstream_owners(database) == {"90210": one.id, "guid-1": one.id}
    with database.read() as session:
        assert upstream_orders.shown_refs(session, one.id) == ["90210", "guid-1"]
        assert upstream_orders.shown_refs(session, other.id) == []


def test_two_orders_that_claim_one_id_at_once_do_not_both_get_it(database: Database, twin: Database) -> None:
    ids = make_orders(database, 6)

    def work(number: int) -> set[str]:
        with (database, twin)[number % 2].write() as session:
            order = order_rows.get(session, ids[number])
            assert order is not None
            return upstream_orders.show(session, order, told("90210"), NOON)

    taken = race(6, work)
    assert sorted(len(t) for t in taken) == [0, 1, 1, 1, 1, 1]
    assert upstream_owners(database) == {"90210": ids[taken.index(set())]}


# --- leases ----------------------------------------------------------------------------------------------------------


def claim(database: Database, now: datetime, limit: int, *, by_rank: bool = False) -> list[Order]:
    with database.write() as session:
        return list(leases.claim(session, now, limit, by_rank=by_rank))


def ids_of(orders: Iterable[Order]) -> set[str]:
    return {order.id for order in orders}


def moved_by(database: Database, order: Order, **changes: Any) -> Order | None:
    """What becomes of a look's write by the holder of this lease."""
    with database.write() as session:
        return order_rows.move(session, order, changes, at=NOON, source="look", lease=order.lease_token)


def test_eight_threads_that_claim_two_hundred_due_orders_get_each_once(database: Database, twin: Database) -> None:
    ids = make_orders(database, 200)
    now = NOON + timedelta(hours=1)

    def work(number: int) -> list[Order]:
        mine: list[Order] = []
        while found := claim((database, twin)[number % 2], now, 7, by_rank=number % 3 > 0):
            assert len(found) <= 7
            assert len({order.lease_token for order in found}) == 1
            mine += found
        return mine

    claimed = [each for mine in race(8, work) for each in mine]
    assert len(claimed) == 200
    assert ids_of(claimed) == set(ids)


def test_the_longest_overdue_are_claimed_first_and_keep_their_due_time(database: Database) -> None:
    ids = make_orders(database, 5)
    now = NOON + timedelta(seconds=1)
    first = claim(database, now, 2)
    assert ids_of(first) == set(ids[:2])
    assert {order.next_check_at for order in first} == {NOON, NOON + timedelta(milliseconds=1)}
    assert ids_of(claim(database, now, 9)) == set(ids[2:])
    with database.read() as session:
        assert leases.count_due(session, now, 9) == 0


def test_lower_ranks_are_claimed_first_and_within_a_rank_the_longest_overdue(database: Database) -> None:
    waiting, ended = make_orders(database, 2), make_orders(database, 2, status="completed")
    doubt, held = (make_orders(database, 1, status=status)[0] for status in ("in_doubt", "on_hold"))
    now = NOON + timedelta(seconds=1)
    found = [ids_of(claim(database, now, limit, by_rank=True)) for limit in (1, 2, 9)]
    assert found == [{doubt}, {held, waiting[0]}, {waiting[1], *ended}]


def test_a_claim_by_rank_reads_the_index_of_each_rank_and_sorts_nothing(database: Database) -> None:
    if database.engine.dialect.name != "postgresql":
        pytest.skip("SQLite may as well read along the index of all due times, which is in the same order")
    make_orders(database, 400)
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    claim(database, NOON, 1000, by_rank=True)
    event.remove(database.engine, "before_cursor_execute", note)
    claims = [each for each in statements if each[0].startswith("WITH due")]
    assert len(claims) == 4
    with database.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE orders")
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for rank, (statement, parameters) in enumerate(claims):
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            assert f"ix_orders_claim_{rank}" in plan, plan
            assert "Sort" not in plan, plan
        connection.rollback()


def test_a_lease_that_nobody_renews_runs_out_and_one_that_is_renewed_does_not(database: Database) -> None:
    killed, working = make_orders(database, 2)
    orders = {order.id: order for order in claim(database, NOON + timedelta(seconds=1), 9)}
    renewed_at = NOON + timedelta(seconds=6)
    with database.write() as session:
        leases.renew(session, [(working, orders[working].lease_token or "")], renewed_at)
    over = NOON + timedelta(seconds=1) + leases.LEASE
    assert claim(database, over - timedelta(milliseconds=1), 9) == []
    assert ids_of(claim(database, over, 9)) == {killed}
    assert ids_of(claim(database, renewed_at + leases.LEASE, 9)) == {working}


def test_a_holder_that_lost_its_lease_neither_writes_nor_renews_nor_gives_back(database: Database) -> None:
    make_order(database)
    (slow,) = claim(database, NOON, 1)
    (quick,) = claim(database, NOON + leases.LEASE, 1)
    assert slow.lease_token != quick.lease_token
    assert moved_by(database, slow, status="confirming") is None
    with database.write() as session:
        order_rows.back_off(session, slow, NOON + timedelta(hours=1), failures=1, lease=slow.lease_token)
        leases.release(session, slow, NOON + timedelta(hours=1))
        leases.renew(session, [(slow.id, slow.lease_token or "")], NOON + timedelta(hours=1))
    stored = read_order(database, slow.id)
    assert (stored.status, stored.failures, stored.next_check_at) == ("awaiting_deposit", 0, NOON)
    assert (stored.lease_token, stored.leased_until) == (quick.lease_token, quick.leased_until)
    assert moved_by(database, quick, status="confirming") is not None


def test_a_lease_that_ran_out_counts_until_another_process_takes_the_order(database: Database) -> None:
    make_order(database)
    (order,) = claim(database, NOON, 1)
    assert moved_by(database, order, status="confirming") is not None
    assert read_order(database, order.id).lease_token is None, "and the write ends it"
    assert moved_by(database, order, status="exchanging") is None, "so that a job that runs twice writes once"


def test_of_many_processes_that_hold_one_lease_only_the_last_writes(database: Database, twin: Database) -> None:
    """Eight in turn claim it after the lease before theirs ran out; then all of them come back at the same time."""
    make_order(database)
    holders = [claim((database, twin)[n % 2], NOON + n * leases.LEASE, 1)[0] for n in range(8)]

    def work(number: int) -> bool:
        return moved_by((database, twin)[number % 2], holders[number], status="confirming") is not None

    assert race(8, work) == [False] * 7 + [True]


def test_an_order_that_is_given_back_without_a_plan_is_not_claimed_again_at_once(database: Database) -> None:
    unplanned, planned = make_orders(database, 2, next_check_at=NOON)
    orders = {order.id: order for order in claim(database, NOON, 9)}
    later = NOON + timedelta(seconds=30)
    with database.write() as session:
        order_rows.back_off(session, orders[planned], NOON + timedelta(seconds=2), failures=0)
        for order in orders.values():
            leases.release(session, order, later)
    assert read_order(database, unplanned).next_check_at == later
    assert read_order(database, planned).next_check_at == NOON + timedelta(seconds=2)
    assert ids_of(claim(database, NOON + timedelta(seconds=2), 9)) == {planned}


def test_an_order_is_brought_forward_but_never_out_of_a_lease_a_back_off_or_a_pause(database: Database) -> None:
    hour = NOON + timedelta(hours=1)
    waiting, failing, paused, due, final = (
        make_order(database, next_check_at=hour).id,
        make_order(database, next_check_at=hour, failures=3).id,
        make_order(database, next_check_at=hour, leased_until=hour).id,
        make_order(database).id,
        make_order(database, next_check_at=None).id,
    )
    leased = make_order(database, next_check_at=hour, leased_until=NOON + leases.LEASE, lease_token="another's").id
    all_of = (waiting, failing, paused, due, final, leased)
    soon = NOON + timedelta(seconds=5)
    for signalled in (False, True):
        with database.write() as session:
            leases.bring_forward(session, all_of, soon, signalled=signalled)
        stored = {order_id: read_order(database, order_id) for order_id in all_of}
        assert [stored[order_id].next_check_at for order_id in all_of] == [soon, hour, hour, NOON, None, hour]
        watched = [order_id for order_id in all_of if stored[order_id].signalled_at is not None]
        assert watched == ([waiting, failing, paused, due, leased] if signalled else [])
    with database.write() as session:
        leases.bring_forward(session, all_of, soon + timedelta(hours=2))
    assert read_order(database, waiting).next_check_at == soon, "sooner, never later"
    with database.read() as session:
        written = session.execute(select(cast(Order.next_check_at, Text)).where(Order.id.in_([waiting, due]))).all()
    assert len({len(text) for (text,) in written}) == 1, "in the one form"
    assert ids_of(claim(database, soon, 9)) == {waiting, due}


def test_what_is_not_due_or_no_longer_watched_is_not_claimed(database: Database) -> None:
    make_order(database, next_check_at=None)
    make_order(database, next_check_at=NOON + timedelta(milliseconds=1))
    with database.read() as session:
        assert leases.count_due(session, NOON, 9) == 0
        assert leases.count_due(session, NOON + timedelta(milliseconds=1), 9) == 1
    assert claim(database, NOON, 9) == []


def test_a_back_off_made_for_an_order_that_moved_meanwhile_is_dropped(database: Database) -> None:
    stale = make_order(database)
    assert move(database, stale, status="confirming", next_check_at=NOON) is not None
    with database.write() as session:
        order_rows.back_off(session, stale, NOON + timedelta(hours=1), failures=3)
    now = read_order(database, stale.id)
    assert (now.next_check_at, now.failures) == (NOON, 0)
    with database.write() as session:
        order_rows.back_off(session, now, NOON + timedelta(hours=1), failures=1)
    assert read_order(database, stale.id).next_check_at == NOON + timedelta(hours=1)


def test_eight_threads_that_claim_two_hundred_deliveries_get_each_once(database: Database, twin: Database) -> None:
    client = make_client(database)
    make_orders(database, 100, client)
    with database.write() as session:
        for name in ("a", "b"):
            endpoint = endpoints.add_endpoint(
                session, client_id=client, url=f"https://{name}", secret_sealed="", types=[], now=NOON, verified_at=NOON
            )
            session.flush()
            told = [(endpoint, event) for event in session.scalars(select(OrderEvent))]
            deliveries.add_deliveries(session, told, NOON)

    def work(number: int) -> list[str]:
        mine: list[str] = []
        while True:
            with (database, twin)[number % 2].write() as session:
                free = random.randint(1, 9)
                found = deliveries.claim_due(session, NOON, LEASE, free, at_once=200, probe_from=20)
            if not found:
                return mine
            mine += found

    claimed = [each for mine in race(8, work) for each in mine]
    with database.read() as session:
        assert sorted(claimed) == sorted(session.scalars(select(WebhookDelivery.id)))
    assert len(claimed) == 200
