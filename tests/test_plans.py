"""No list, search or worker reads through a large table: PostgreSQL answers each of their statements from an index.

A new filter, or a query of a worker, goes in here. Where it fails, the query needs an index (swap/tables/), or has to be put
so that one of those there serves it; an index costs every poll something, for that writes a new version of the order's row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session

from swap.domain.lifecycle import Status
from swap.domain.schedules import Slowdown
from swap.domain.times import Timing
from swap.ops.housekeeping import Housekeeping
from swap.ops.support import Support
from swap.orders.read import OrderReader
from swap.push import feed as feed_module
from swap.push.feed import Feed
from swap.store import attempts, deliveries, events, leases, reconciliations, search, upstream_orders, watching
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.events import EventFilter
from swap.tables import Order, OrderEvent, Row, WebhookDelivery, WebhookEndpoint
from swap.web.schemas import DeliveriesQuery, OrdersQuery
from tests.databases import POSTGRES
from tests.factories import order_row
from tests.plans import explained, fill
from tests.product import NoQueue

pytestmark = [pytest.mark.db, pytest.mark.skipif(not POSTGRES, reason="these are the plans of PostgreSQL")]

NOW = datetime(2026, 11, 28, tzinfo=UTC)
SHOP, OTHERS = "cli_shop", 20
ORDERS = 20_000
"""Of the one client that has nearly all of them: that an order is this client's excludes nothing."""
LARGE = {
    "orders": ORDERS,
    "order_events": 3 * ORDERS,
    "webhook_deliveries": ORDERS,
    "order_attempts": ORDERS,
    "transfers": ORDERS,
    "upstream_orders": ORDERS,
    "upstream_refs": 2 * ORDERS,
    "search_terms": ORDERS,
    "upstream_calls": ORDERS,
    "used_signatures": ORDERS,
}

# Rare is what four orders have, spread over all the time.
RARE, RARE_ORDERS = "n % 5000 = 1", 4


def table(name: str) -> Any:
    return Row.metadata.tables[name]


def named(prefix: str, of: str = "n") -> str:
    return f"'{prefix}' || lpad(({of})::text, 20, '0')"


def ago(minutes: str) -> str:
    return f"timestamptz '{NOW.isoformat()}' - ({minutes}) * interval '1 minute'"


def either(**of_condition: str) -> str:
    """A CASE: `rare`, `common`, `other` -> expression."""
    return (
        f"CASE WHEN {RARE} THEN {of_condition['rare']} WHEN n % 3 = 0 THEN {of_condition['common']}"
        f" ELSE {of_condition['other']} END"
    )


def fill_orders(connection: Any) -> None:
    # The last 400 are watched, half of those are due.
    watched = f"n > {ORDERS - 400}"
    row = order_row(SHOP, request={})
    common = {each.columns[0].name: getattr(row, each.key) for each in Order.__mapper__.column_attrs}
    fill(
        connection,
        table("orders"),
        ORDERS,
        common,
        id=named("ord_"),
        client_id=f"CASE WHEN n % 50 = 7 THEN {named('cli_', f'n % {OTHERS}')} ELSE '{SHOP}' END",
        client_order_id=named("order-"),
        status=f"CASE WHEN {watched} THEN (ARRAY['creating','in_doubt','confirming','on_hold','awaiting_deposit',"
        "'awaiting_deposit','awaiting_deposit','completed','expired','failed'])[1 + n % 10]"
        f" WHEN {RARE} THEN 'refunded' WHEN n % 2000 = 5 THEN 'needs_review' WHEN n % 5 = 0 THEN 'expired'"
        " ELSE 'completed' END",
        status_before_review="CASE WHEN n % 2000 = 5 THEN 'confirming' END",
        from_currency=either(rare="'ZEC'", common="'BTC'", other="'USDT'"),
        from_network=either(rare="'ZEC'", common="'BTC'", other="'TRON'"),
        to_currency=either(rare="'DASH'", common="'XRP'", other="'ETH'"),
        to_network=either(rare="'DASH'", common="'XRP'", other="'ETH'"),
        user_id=either(rare="'rare'", common="'guest'", other=named("u")),
        session_id=either(rare="'rare'", common="'guest'", other="NULL"),
        account_id=either(rare="'rare'", common="'guest'", other=named("a")),
        destination_address=either(rare="'rare'", common="'wallet'", other=named("r")),
        destination_memo=either(rare="'777'", common="'1'", other="NULL"),
        deposit_address=either(rare="'rare'", common="'wallet'", other=named("bc1")),
        deposit_memo=either(rare="'777'", common="'1'", other="NULL"),
        upstream_order_id="n::text",
        next_check_at=f"CASE WHEN {watched} THEN {ago('n % 200 - 100')} END",
        created_at=ago(f"({ORDERS} - n) * 30"),
        updated_at=f"CASE WHEN {RARE} THEN {ago('n / 5000 + 1')} ELSE {ago(f'({ORDERS} - n) * 30 + 10')} END",
    )
    of_order = {"client_id": SHOP, "direction": "deposit", "role": "shown", "candidates": []}
    fill(
        connection,
        table("search_terms"),
        ORDERS,
        of_order,
        term=either(rare="'rare'", common="'berlin'", other=named("term")),
        order_id=named("ord_"),
    )
    # Of the last 600: two hundred of them are watched no more.
    place = {"place": named("place-"), "order_id": named("ord_", f"{ORDERS} - n")}
    fill(connection, table("deposit_places"), 600, {}, **place)
    fill(connection, table("transfers"), ORDERS, {**of_order, "position": 0}, order_id=named("ord_"), tx_id=named("tx"))


def fill_upstream(connection: Any) -> None:
    key = {"upstream_key": "pk_test", "candidates": [], "refs": []}
    fill(
        connection,
        table("order_attempts"),
        ORDERS,
        {**key, "number": 1, "outcome": "done"},
        order_id=named("ord_"),
        sent_at=ago(f"({ORDERS} - n) * 30"),
    )
    fill(
        connection,
        table("upstream_orders"),
        ORDERS,
        {**key, "role": "shown"},
        id=named("ups_"),
        order_id=named("ord_"),
        ref="n::text",
        seen_at=ago(f"({ORDERS} - n) * 30"),
    )
    for prefix in ("", "uuid-"):
        fill(connection, table("upstream_refs"), ORDERS, {}, ref=f"'{prefix}' || n", upstream_order=named("ups_"))
    call = {"endpoint": "create", "method": "POST", "attempt": 1, "ms": 10, "outcome": "done"}
    # Ninety days and a few hours, which are to be forgotten.
    fill(connection, table("upstream_calls"), ORDERS, call, id=named("call_"), at=ago(f"({ORDERS} - n) * 6.5"))
    fill(connection, table("used_signatures"), ORDERS, {}, signature=named("s"), expires_at=ago("10 - n"))


def fill_push(connection: Any) -> None:
    endpoint = {
        "client_id": SHOP,
        "url": "https://shop.example/hook",
        "secret_sealed": "",
        "types": [],
        "enabled": True,
    }
    fill(connection, table("webhook_endpoints"), 3, endpoint, id=named("whe_"), created_at=ago("0"), failures="0")
    event = {"client_id": SHOP, "type": "order.updated", "order": {}, "detail": {}}
    # The last 200 events are not published yet.
    fill(
        connection,
        table("order_events"),
        2 * ORDERS,
        event,
        id=named("evt_"),
        order_id=named("ord_", "(n + 1) / 2"),
        sequence="2 - n % 2",
        position=f"CASE WHEN n <= {2 * ORDERS - 200} THEN n END",
        created_at=ago(f"({2 * ORDERS} - n) * 3.25"),
    )
    journal = {**event, "type": "journal.refused", "sequence": None, "position": None, "order": None}
    of_journal = {"id": named("journal_"), "order_id": named("ord_"), "created_at": ago(f"({ORDERS} - n) * 6.5")}
    fill(connection, table("order_events"), ORDERS, journal, **of_journal)
    delivery = {"client_id": SHOP, "type": "order.updated", "attempts": 0, "tries": 0}
    # Of the third endpoint hardly any; the last 300 are pending.
    fill(
        connection,
        table("webhook_deliveries"),
        ORDERS,
        delivery,
        id=named("whd_"),
        endpoint_id=f"CASE WHEN {RARE} THEN {named('whe_', '3')} ELSE {named('whe_', '1 + n % 2')} END",
        event_id=named("evt_", "2 * n"),
        order_id=named("ord_"),
        sequence="2",
        status=f"CASE WHEN n > {ORDERS - 300} THEN 'pending' WHEN {RARE} THEN 'failed' WHEN n % 4000 = 3 THEN 'skipped'"
        " ELSE 'delivered' END",
        next_attempt_at=f"CASE WHEN n > {ORDERS - 300} THEN {ago('n % 100 - 50')} END",
        created_at=ago(f"({ORDERS} - n) * 6.5"),
    )


def fill_all(database: Database) -> None:
    with database.engine.begin() as connection:
        client = {"weight_per_minute": 6000}
        fill(connection, table("clients"), 1, client, id=f"'{SHOP}'", name="'shop'", created_at=ago("0"))
        fill(
            connection, table("clients"), OTHERS, client, id=named("cli_", "n - 1"), name="n::text", created_at=ago("0")
        )
        fill_orders(connection)
        fill_upstream(connection)
        fill_push(connection)
        connection.execute(text(f"UPDATE feed_head SET position = {2 * ORDERS - 200}"))
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


class Unchanged(Database):
    """Every transaction is rolled back, so that each statement meets the same rows."""

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self._write_engine, expire_on_commit=False) as session, session.begin() as transaction:
            yield session
            session.flush()
            transaction.rollback()


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    assert POSTGRES is not None
    admin_url = make_url(POSTGRES).set(drivername="postgresql+psycopg")
    admin = create_engine(admin_url, isolation_level="AUTOCOMMIT")
    name = f"swap_plans_{os.getpid()}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        with closing(Unchanged(admin_url.set(database=name).render_as_string(hide_password=False))) as database:
            database.migrate()
            fill_all(database)
            yield database
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def must_be_served(database: Database, work: Callable[[], object]) -> None:
    with explained(database, LARGE) as found:
        work()
    assert not found, "\n\n".join(found)


# --- GET /v1/orders --------------------------------------------------------------------------------------------------

DAY = timedelta(days=1)
START = NOW - timedelta(minutes=30 * ORDERS)
# Filter -> one value that hardly any order has, and one that a third of them have.
FILTERS: dict[str, tuple[Any, ...]] = {
    "status": ([Status.REFUNDED], [Status.COMPLETED], [Status.CONFIRMING], [Status.CREATING, Status.IN_DOUBT]),
    "client_order_id": ("order-" + "1".zfill(20), "none"),
    "user_id": ("rare", "guest", "none"),
    "session_id": ("rare", "guest", "none"),
    "account_id": ("rare", "guest", "none"),
    "search_term": ("rare", "berlin", "none"),
    "ids": (["ord_" + f"{n}".zfill(20) for n in range(1, 101)],),
    "from_currency": ("ZEC", "BTC", "none"),
    "from_network": ("ZEC", "BTC", "none"),
    "to_currency": ("DASH", "XRP", "none"),
    "to_network": ("DASH", "XRP", "none"),
    "destination_address": ("rare", "wallet", "none"),
    "destination_memo": ("777", "1", "none"),
    "deposit_address": ("rare", "wallet", "none"),
    "deposit_memo": ("777", "1", "none"),
    "upstream_order_id": ("17", "none"),
    "tx_id": ("tx" + "17".zfill(20), "none"),
    "created_since": (NOW - DAY, START + DAY, NOW + DAY),
    "created_until": (NOW - DAY, START + DAY, START - DAY),
    "updated_since": (NOW - timedelta(minutes=5), NOW - DAY, START + DAY, NOW + DAY),
    "updated_until": (NOW - DAY, START + DAY, START - DAY),
}


def list_orders(database: Database, **filters: Any) -> None:
    reader = OrderReader(database, lambda: NOW, Slowdown)
    reader.page(SHOP, filters, None, 101)
    reader.page(SHOP, filters, (NOW - timedelta(minutes=15 * ORDERS), "ord_"), 101)


def test_every_filter_of_the_list_of_orders_is_here() -> None:
    assert set(FILTERS) == set(OrdersQuery().fields) - {"after", "limit"}


def test_the_whole_list_of_orders_is_read_by_pages(filled: Database) -> None:
    must_be_served(filled, lambda: list_orders(filled))


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_of_the_list_of_orders_is_served_by_an_index(name: str, filled: Database) -> None:
    def work() -> None:
        for value in FILTERS[name]:
            list_orders(filled, **{name: value})

    must_be_served(filled, work)


# --- other lists -----------------------------------------------------------------------------------------------------

DELIVERIES: dict[str, tuple[Any, ...]] = {
    "endpoint": ("whe_" + "3".zfill(20), "whe_" + "1".zfill(20), "none"),
    "order_id": ("ord_" + "17".zfill(20), "none"),
    "status": ("failed", "skipped", "pending", "delivered"),
    "since": (NOW - DAY, NOW - 20 * DAY, NOW + DAY),
}


def test_every_filter_of_the_list_of_deliveries_is_here() -> None:
    assert set(DELIVERIES) == set(DeliveriesQuery().fields) - {"after", "limit"}


@pytest.mark.parametrize("name", DELIVERIES)
def test_a_filter_of_the_list_of_deliveries_is_served_by_an_index(name: str, filled: Database) -> None:
    def work() -> None:
        for value in DELIVERIES[name]:
            filters = {} if name == "since" else {{"endpoint": "endpoint_id"}.get(name, name): value}
            since = value if name == "since" else None
            with filled.read() as session:
                middle = deliveries.get_delivery(session, SHOP, "whd_" + str(ORDERS // 2).zfill(20))
                deliveries.page(session, SHOP, filters, since, None, 101)
                deliveries.page(session, SHOP, filters, since, middle, 101)

    must_be_served(filled, work)


@pytest.mark.parametrize(
    "only", [EventFilter(), EventFilter(order_ids=("ord_" + "17".zfill(20),)), EventFilter(types=("order.updated",))]
)
def test_the_feed_is_read_along_its_positions(
    only: EventFilter, filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With filters it looks at so many events for a page, on purpose.
    monkeypatch.setattr(feed_module, "_SCAN", 300)
    feed = Feed(filled, NoQueue(), lambda: NOW)  # type: ignore[arg-type] # a stand-in

    def work() -> None:
        for position in (0, ORDERS, 2 * ORDERS - 300):
            feed.read(SHOP, position, 100, only)
            feed.all_clients(position, 100)

    must_be_served(filled, work)


# --- support ---------------------------------------------------------------------------------------------------------

CLUES: dict[str, tuple[str, ...]] = {
    "id": ("ord_" + "17".zfill(20),),
    "client_order_id": ("order-" + "17".zfill(20),),
    "user_id": ("rare",),
    "session_id": ("rare",),
    "account_id": ("rare",),
    "destination_memo": ("777",),
    "deposit_memo": ("777",),
    "search_term": ("rare",),
    "destination_address": ("rare",),
    "deposit_address": ("rare",),
    "upstream_order_id": ("uuid-17",),
    "tx_id": ("tx" + "17".zfill(20),),
}


@pytest.mark.parametrize("name", [*CLUES, "nothing"])
def test_support_finds_by_every_kind_of_clue_along_an_index(name: str, filled: Database) -> None:
    (clue,) = CLUES.get(name, ("nothing",))
    found: list[dict[str, Any]] = []
    must_be_served(filled, lambda: found.append(Support(filled).find(clue, 20)))
    assert any(name in order["matched"] for order in found[0]["orders"]) is (name in CLUES)


def test_every_kind_of_clue_is_here() -> None:
    assert set(CLUES) == set(search._queries("clue", {}))


def test_the_record_of_an_order_is_read_along_indexes(filled: Database) -> None:
    must_be_served(filled, lambda: Support(filled).record("ord_" + "17".zfill(20)))


# --- workers ---------------------------------------------------------------------------------------------------------


def in_session(work: Callable[[Session], object]) -> Callable[[Database], None]:
    def run(database: Database) -> None:
        with database.write() as session:
            work(session)

    return run


def an_order(session: Session) -> Order:
    return session.get_one(Order, "ord_" + str(ORDERS - 7).zfill(20))


def an_endpoint(session: Session) -> WebhookEndpoint:
    return session.get_one(WebhookEndpoint, "whe_" + "1".zfill(20))


def a_delivery(session: Session) -> WebhookDelivery:
    return session.get_one(WebhookDelivery, "whd_" + str(ORDERS - 7).zfill(20))


def an_event(session: Session) -> OrderEvent:
    return session.get_one(OrderEvent, "evt_" + "17".zfill(20))


HOUR = timedelta(hours=1)
REFS = [str(n) for n in range(1, 21)]
WORK: dict[str, Callable[[Session], object]] = {
    "orders due": lambda s: leases.count_due(s, NOW, 64),
    "a claim by rank": lambda s: leases.claim(s, NOW, 8),
    "a claim by age": lambda s: leases.claim(s, NOW, 8, by_rank=False),
    "leases renewed": lambda s: leases.renew(s, [("ord_" + str(n).zfill(20), "x") for n in range(8)], NOW),
    "a lease ended": lambda s: leases.release(s, an_order(s), NOW),
    "orders brought forward": lambda s: leases.bring_forward(s, [an_order(s).id], NOW, signalled=True),
    "a move": lambda s: order_rows.move(s, an_order(s), {"next_check_at": NOW}, at=NOW, source="test"),
    "a back-off": lambda s: order_rows.back_off(s, an_order(s), NOW, failures=1),
    "rivals": lambda s: order_rows.rivals(s, an_order(s)),
    "orders in doubt": lambda s: order_rows.count_in_doubt(s, 100),
    "orders under review": order_rows.under_review,
    "polls that are planned": lambda s: watching.planned_polls(s, NOW, list_trusted=False),
    "keys of what is watched": watching.watched_keys,
    "orders on the upstream's list": lambda s: watching.last_polled(s, REFS),
    "creates of an hour": lambda s: attempts.creates_since(s, "pk_test", NOW - HOUR),
    "pairs created again": lambda s: attempts.last_again_by_pair(s, "pk_test", NOW - HOUR),
    "pairs that are not answered": lambda s: attempts.unanswered_by_pair(s, "pk_test", NOW - HOUR, NOW),
    "answers that name an order": lambda s: attempts.named_since(s, NOW - HOUR),
    "creates that were not shown": lambda s: attempts.unshown_since(s, "pk_test", NOW - HOUR),
    "upstream orders due": lambda s: upstream_orders.claim_due(s, NOW, HOUR),
    "orders to be compared": lambda s: reconciliations.page(s, "pk_test", "ord_" + "900".zfill(20), 20),
    "orders without an id": lambda s: reconciliations.without_id(s, "rare", START, NOW),
    "events to publish": events.has_unpublished,
    "deliveries due": lambda s: deliveries.has_due(s, NOW),
    "deliveries claimed": lambda s: deliveries.claim_due(s, NOW, HOUR, 8, at_once=4, probe_from=3),
    "a delivery to send": lambda s: deliveries.load_for_sending(s, a_delivery(s).id),
    "a delivery recorded": lambda s: deliveries.record(s, a_delivery(s), status="delivered"),
    "deliveries held back": lambda s: deliveries.hold_back(s, a_delivery(s), NOW),
    "deliveries sent again": lambda s: deliveries.send_again(s, a_delivery(s), NOW),
    "failed deliveries sent again": lambda s: deliveries.send_all_again(s, an_endpoint(s), ["failed"], START, NOW, 100),
    "deliveries skipped": lambda s: deliveries.skip_waiting(s, an_endpoint(s).id),
}


@pytest.mark.parametrize("name", WORK)
def test_what_workers_look_for_is_found_along_an_index(name: str, filled: Database) -> None:
    must_be_served(filled, lambda: in_session(WORK[name])(filled))


def test_a_backlog_of_half_the_orders_and_deliveries_is_not_read_through_for_the_next_few(filled: Database) -> None:
    with filled.write() as session:
        for name, status, due in (
            ("orders", "awaiting_deposit", "next_check_at"),
            ("webhook_deliveries", "pending", "next_attempt_at"),
        ):
            late = f"UPDATE {name} SET status = '{status}', {due} = created_at WHERE right(id, 1) < '5'"
            session.execute(text(late))
            session.execute(text(f"ANALYZE {name}"))
        with explained(filled, LARGE) as found:
            for work in ("orders due", "a claim by rank", "a claim by age", "deliveries due", "deliveries claimed"):
                WORK[work](session)
            deliveries.add_deliveries(session, [(an_endpoint(session), an_event(session))], NOW)
    assert not found, "\n\n".join(found)


def test_events_are_published_along_indexes(filled: Database) -> None:
    feed = Feed(filled, NoQueue(), lambda: NOW)  # type: ignore[arg-type] # a stand-in
    must_be_served(filled, lambda: feed.publish())


def test_housekeeping_reads_what_it_forgets_and_no_more(filled: Database) -> None:
    feed = Feed(filled, NoQueue(), lambda: NOW)  # type: ignore[arg-type] # a stand-in
    must_be_served(filled, Housekeeping(filled, feed, Timing(now=lambda: NOW)).clean_due)
