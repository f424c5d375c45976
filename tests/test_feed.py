"""The feed: one order for everybody, without holes for a reader, whoever publishes."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from swap.errors import InvalidRequest
from swap.push.feed import RETENTION, Feed
from swap.store import endpoints, events
from swap.store.database import Database
from swap.store.events import EventFilter
from swap.tables import FeedHead, OrderEvent
from tests.factories import NOON, make_client, make_order, make_orders, move, read_order


class JobQueue:
    """Remembers who was rung for."""

    def __init__(self) -> None:
        self.rung: list[str] = []
        self.told: list[int] = []

    def enqueue(self, job: str, *_arguments: object) -> bool:
        self.rung.append(job)
        return False

    def announce(self, position: int) -> None:
        self.told.append(position)


def make_feed(database: Database) -> tuple[Feed, JobQueue]:
    queue = JobQueue()
    return Feed(database, queue, lambda: NOON), queue  # type: ignore[arg-type] # a stand-in that records


@pytest.fixture
def feed(database: Database) -> Feed:
    return make_feed(database)[0]


def read_all(feed: Feed, client_id: str, *, limit: int = 3, after: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = feed.page(client_id, after, limit)
        found += page["events"]
        after = page["next"]
        if not page["has_more"]:
            return found


def assert_in_order(found: list[dict[str, Any]]) -> None:
    """Cursors ascend, and each order's events come by sequence, from 1, without a hole."""
    cursors = [event["cursor"] for event in found]
    assert cursors == sorted(set(cursors))
    per_order: dict[str, list[int]] = {}
    for event in found:
        per_order.setdefault(event["order_id"], []).append(event["sequence"])
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in per_order.values())


def test_an_event_is_read_back_as_the_contract_says(database: Database, feed: Feed) -> None:
    order = make_order(database)
    assert feed.publish() == 1
    page = feed.page(order.client_id, None, 10)
    (event,) = page["events"]
    assert list(event) == ["id", "type", "order_id", "sequence", "cursor", "created_at", "order"]
    assert event["id"].startswith("evt_")
    assert (event["type"], event["order_id"], event["sequence"]) == ("order.created", order.id, 1)
    assert event["cursor"].startswith("000000000001")
    assert event["order"]["status"] == "awaiting_deposit"
    assert (page["next"], page["has_more"]) == (event["cursor"], False)


def test_pages_go_on_where_the_last_one_ended(database: Database, feed: Feed) -> None:
    client = make_client(database)
    ids = make_orders(database, 8, client)
    feed.publish()
    found = read_all(feed, client, limit=3)
    assert sorted(event["order_id"] for event in found) == sorted(ids)
    assert_in_order(found)
    page = feed.page(client, found[-1]["cursor"], 3)
    assert page == {"events": [], "next": found[-1]["cursor"], "has_more": False}


def test_an_empty_feed_gives_a_cursor_that_can_be_used_later(database: Database, feed: Feed) -> None:
    client = make_client(database)
    start = feed.page(client, None, 10)
    assert (start["events"], start["has_more"]) == ([], False)
    make_orders(database, 2, client)
    feed.publish()
    assert len(feed.page(client, start["next"], 10)["events"]) == 2


def test_a_client_reads_its_own_events_alone(database: Database, feed: Feed) -> None:
    mine, theirs = make_client(database, "mine"), make_client(database, "theirs")
    order = make_order(database, mine)
    make_orders(database, 3, theirs)
    feed.publish()
    assert [e["order_id"] for e in read_all(feed, mine)] == [order.id]
    assert len(read_all(feed, theirs)) == 3


def test_what_only_support_sees_is_never_published(database: Database, feed: Feed) -> None:
    order = make_order(database, status="creating", deposit_kind=None, deposit_address=None, payable=False)
    move(database, order, status="in_doubt")
    assert feed.publish() == 1
    assert feed.publish() == 0
    assert len(read_all(feed, order.client_id)) == 1


def test_publishing_rings_for_deliveries_only_when_there_was_something(database: Database) -> None:
    feed, queue = make_feed(database)
    feed.publish()
    assert queue.rung == []
    make_order(database)
    feed.publish()
    assert queue.rung == ["deliver"]


def test_more_than_one_round_is_published_in_one_go(
    database: Database, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.push.feed._AT_ONCE", 4)
    client = make_client(database)
    ids = make_orders(database, 11, client)
    for order_id in ids[:5]:
        move(database, read_order(database, order_id), status="confirming")
    assert feed.publish() == 16
    assert_in_order(read_all(feed, client))


def rewrite(database: Database, order_id: str, sequence: int, **values: Any) -> None:
    with database.write() as session:
        session.execute(
            update(OrderEvent).where(OrderEvent.order_id == order_id, OrderEvent.sequence == sequence).values(**values)
        )


@pytest.mark.parametrize("at_once", [1, 2, 500])
def test_clocks_that_disagree_do_not_reorder_the_events_of_one_order(
    database: Database, feed: Feed, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Each event of the order was written by a process whose clock was behind that of the one before."""
    monkeypatch.setattr("swap.push.feed._AT_ONCE", at_once)
    order = make_order(database)
    for status in ("confirming", "exchanging", "sending", "completed"):
        moved = move(database, read_order(database, order.id), status=status)
        assert moved is not None
    make_orders(database, 3, order.client_id)
    for sequence in range(1, 6):
        wrong = {"id": f"evt_{9 - sequence}", "created_at": NOON - timedelta(minutes=sequence)}
        rewrite(database, order.id, sequence, **wrong)
    assert feed.publish() == 8
    found = read_all(feed, order.client_id)
    assert len(found) == 8
    assert_in_order(found)


# --- two publishers --------------------------------------------------------------------------------------------------


def test_a_publisher_that_pauses_before_its_commit_hides_nothing_from_a_reader(
    database: Database, twin: Database, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(database)
    make_orders(database, 3, client)
    other, _ = make_feed(twin)
    numbered, go_on, second_began = threading.Event(), threading.Event(), threading.Event()
    assign_positions, lock_head = events.assign_positions, events.lock_head

    def paused(session: Any, positions: dict[str, int]) -> None:
        assign_positions(session, positions)
        session.flush()
        numbered.set()
        assert go_on.wait(20)

    def noted(session: Any) -> FeedHead:
        if numbered.is_set():
            second_began.set()
        return lock_head(session)

    monkeypatch.setattr(events, "assign_positions", paused)
    monkeypatch.setattr(events, "lock_head", noted)
    first = threading.Thread(target=feed.publish)
    first.start()
    assert numbered.wait(20)
    if database.sqlite:
        # One writer at a time: who would publish waits for it, and so does who would make a new order.
        second = threading.Thread(target=other.publish)
        second.start()
    else:
        late = make_orders(twin, 2, client)
        second = threading.Thread(target=other.publish)
        second.start()
        assert second_began.wait(20)
    assert feed.page(client, None, 10)["events"] == [], "nothing of a number is seen before its commit"
    go_on.set()
    first.join()
    second.join()
    found = read_all(feed, client)
    assert len(found) == (3 if database.sqlite else 3 + len(late))
    assert_in_order(found)


def test_a_reader_between_writers_and_publishers_misses_nothing(database: Database, twin: Database, feed: Feed) -> None:
    client = make_client(database)
    ids = make_orders(database, 6, client)
    writing = threading.Event()
    read: list[dict[str, Any]] = []

    def write(number: int) -> None:
        for turn in range(12):
            order = read_order(database, ids[(number + turn) % 6])
            move((database, twin)[number % 2], order, user_id=f"{number}.{turn}")

    def publish(publisher: Feed) -> None:
        while not writing.wait(0.003):
            publisher.publish()

    def follow() -> None:
        after = None
        while True:
            over = writing.is_set() and not publishers[0].is_alive() and not publishers[1].is_alive()
            page = feed.page(client, after, 4)
            read.extend(page["events"])
            after = page["next"]
            if over and not page["has_more"]:
                return

    publishers = [threading.Thread(target=publish, args=(f,)) for f in (feed, make_feed(twin)[0])]
    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    reader = threading.Thread(target=follow)
    for thread in (*publishers, reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    writing.set()
    for thread in (*publishers, reader):
        thread.join()
    feed.publish()
    read += read_all(feed, client, after=read[-1]["cursor"] if read else None)
    assert_in_order(read)
    with database.read() as session:
        written = session.scalars(select(OrderEvent.id).where(OrderEvent.sequence.is_not(None))).all()
    assert sorted(event["id"] for event in read) == sorted(written)


# --- cursors ---------------------------------------------------------------------------------------------------------


def refusal(feed: Feed, client_id: str, after: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        feed.page(client_id, after, 10)
    return caught.value


@pytest.mark.parametrize("after", ["", "12", "x" * 18, "-00000000001abcdef", "00000000000١abcdef", " " * 18, "\x00"])
def test_what_is_no_cursor_is_refused(database: Database, feed: Feed, after: str) -> None:
    error = refusal(feed, make_client(database), after)
    assert error.fields["after"][0].code == "CURSOR_MALFORMED"


def test_a_cursor_of_another_life_of_the_database_is_told_apart(database: Database, feed: Feed) -> None:
    order = make_order(database)
    feed.publish()
    cursor = feed.page(order.client_id, None, 10)["next"]
    with database.write() as session:
        session.execute(update(FeedHead).values(epoch="ffffff"))
    assert refusal(feed, order.client_id, cursor).code == "CURSOR_RESET"


def test_a_cursor_ahead_of_the_feed_comes_from_before_a_restore(database: Database, feed: Feed) -> None:
    """A backup brings the epoch back as it was; only the place in the feed shows that time went backwards."""
    order = make_order(database)
    feed.publish()
    cursor = feed.page(order.client_id, None, 10)["next"]
    with database.write() as session:
        session.execute(update(FeedHead).values(position=0))
    assert refusal(feed, order.client_id, cursor).code == "CURSOR_RESET"


def test_times_in_events_are_those_of_the_change_not_of_publishing(database: Database, feed: Feed) -> None:
    order = make_order(database)
    move(database, order, status="confirming")
    feed.publish()
    times = [datetime.fromisoformat(e["created_at"]) for e in read_all(feed, order.client_id)]
    assert times == [NOON, NOON + timedelta(minutes=1)]


def test_a_new_epoch_makes_every_cursor_given_out_void(database: Database, feed: Feed) -> None:
    order = make_order(database)
    feed.publish()
    cursor = feed.page(order.client_id, None, 10)["next"]
    epoch = feed.new_epoch()
    assert cursor[12:] != epoch
    assert refusal(feed, order.client_id, cursor).code == "CURSOR_RESET"
    assert feed.page(order.client_id, None, 10)["next"] == cursor[:12] + epoch


def test_a_client_that_nothing_happens_to_keeps_up_with_the_feed(database: Database, feed: Feed) -> None:
    """Or its cursor would be too old one day, though it missed nothing."""
    quiet = make_client(database, "quiet")
    start = feed.page(quiet, None, 10)["next"]
    make_orders(database, 3, make_client(database, "busy"))
    feed.publish()
    page = feed.page(quiet, start, 10)
    assert (page["events"], page["has_more"], page["next"][:12]) == ([], False, "000000000003")


# --- filters ---------------------------------------------------------------------------------------------------------


def test_filters_choose_among_the_events_and_cursors_go_on_behind_what_they_left_out(
    database: Database, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(database)
    ids = make_orders(database, 6, client)
    for order_id in ids[:3]:
        move(database, read_order(database, order_id), status="confirming")
    feed.publish()
    everything = read_all(feed, client)

    def only(only: EventFilter) -> list[str]:
        found, after = [], None
        while True:
            page = feed.page(client, after, 2, only)
            assert len(page["events"]) <= 2
            found += [event["id"] for event in page["events"]]
            assert after is None or page["next"] > after or not page["has_more"]
            after = page["next"]
            if not page["has_more"]:
                assert feed.page(client, after, 2)["events"] == []
                return found

    later = NOON + timedelta(seconds=1)
    wanted: list[tuple[EventFilter, Any]] = [
        (EventFilter(types=("order.confirming",)), lambda e: e["type"] == "order.confirming"),
        (EventFilter(types=("order.refunded",)), lambda e: False),
        (EventFilter(order_ids=(ids[1],)), lambda e: e["order_id"] == ids[1]),
        (EventFilter(since=later), lambda e: e["type"] == "order.confirming"),
        (EventFilter(until=later), lambda e: e["type"] == "order.created"),
        (
            EventFilter(types=("order.created",), order_ids=(ids[0], ids[5])),
            lambda e: e["order_id"] in (ids[0], ids[5]),
        ),
    ]
    for scan in (1, 2, 4, 10_000):
        monkeypatch.setattr("swap.push.feed._SCAN", scan)
        for which, fits in wanted:
            expected = [e["id"] for e in everything if fits(e) and (not which.types or e["type"] in which.types)]
            assert only(which) == expected


# --- retention -------------------------------------------------------------------------------------------------------


def aged(database: Database) -> Feed:
    """The feed as it is a day after everything made at NOON has become too old."""
    return Feed(database, JobQueue(), lambda: NOON + RETENTION + timedelta(days=1))  # type: ignore[arg-type] # a stand-in that records


def ended(database: Database, client_id: str, **changed: Any) -> str:
    return make_order(database, client_id, **{"status": "completed", "next_check_at": None, **changed}).id


def kept(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(OrderEvent.order_id)))


def test_a_cursor_from_before_what_is_kept_has_expired(database: Database, feed: Feed) -> None:
    client = make_client(database)
    old = ended(database, client)
    feed.publish()
    cursor = feed.page(client, None, 10)["next"]
    make_orders(database, 2, client)
    feed.publish()
    later = aged(database)
    late = make_order(database, client, created_at=NOON + RETENTION)
    later.publish()
    assert later.forget_old() == 1
    assert refusal(later, client, cursor).code == "CURSOR_EXPIRED"
    assert old not in kept(database)
    page = later.page(client, None, 10)
    assert [e["order_id"] for e in page["events"]] == [late.id], (
        "not those of orders that go on, behind which no cursor is taken"
    )
    assert later.page(client, page["next"], 10)["events"] == []
    assert refusal(later, client, events.cursor_text(2, page["next"][12:])).code == "CURSOR_EXPIRED"
    assert len(later.page(client, events.cursor_text(3, page["next"][12:]), 10)["events"]) == 1


def test_only_orders_that_ended_for_good_are_forgotten(database: Database, feed: Feed) -> None:
    client = make_client(database)
    gone = {
        ended(database, client),
        ended(database, client, status="refunded"),
        ended(database, client, status="expired"),
    }
    stay = {
        make_order(database, client).id,
        ended(database, client, next_check_at=NOON),
        ended(database, client, status="needs_review"),
        make_order(database, client, status="completed", created_at=NOON + timedelta(days=2), next_check_at=None).id,
    }
    feed.publish()
    unpublished = ended(database, client)
    assert aged(database).forget_old() == len(gone)
    assert kept(database) == stay | {unpublished}


def test_an_order_keeps_all_of_its_events_or_none(database: Database, feed: Feed) -> None:
    order = make_order(database)
    feed.publish()
    with database.write() as session:
        session.execute(update(OrderEvent).values(created_at=NOON - timedelta(days=10)))
    row = read_order(database, order.id)
    move(database, row, status="failed", next_check_at=None)
    feed.publish()
    rewrite(database, order.id, 2, created_at=NOON + timedelta(days=2))
    assert aged(database).forget_old() == 0
    rewrite(database, order.id, 2, created_at=NOON)
    assert aged(database).forget_old() == 2


def test_events_with_deliveries_on_record_are_not_forgotten(database: Database, feed: Feed) -> None:
    client = make_client(database)
    with database.write() as session:
        endpoints.add_endpoint(
            session, client_id=client, url="https://x.test", secret_sealed="", types=[], now=NOON, verified_at=NOON
        )
    order_id = ended(database, client)
    feed.publish()
    assert aged(database).forget_old() == 0
    assert kept(database) == {order_id}


def test_forgetting_goes_through_all_there_is_in_small_steps(
    database: Database, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swap.push.feed._FORGET_AT_ONCE", 2)
    client = make_client(database)
    for number in range(7):
        ended(database, client, **({"next_check_at": NOON} if number % 3 == 0 else {}))
    feed.publish()
    assert aged(database).forget_old() == 4
    assert len(kept(database)) == 3


def test_listeners_are_told_how_far_the_feed_has_grown_after_it_has(database: Database) -> None:
    feed, queue = make_feed(database)
    feed.publish()
    assert queue.told == []
    make_orders(database, 3)
    feed.publish()
    assert queue.told == [3]
