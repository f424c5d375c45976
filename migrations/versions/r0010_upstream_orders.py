"""Upstream orders are rows of their own, with a role: shown, spare or unowned; an id belongs to one of them."""

import json
import re

import sqlalchemy as sa
from alembic import op

import swap.tables
from swap import addresses
from swap.domain import fiat

revision = "r0010"
down_revision = "r0009"
branch_labels = None
depends_on = None

# Nobody was shown anything yet, or ever: what such an order owns is its spare.
_NOT_SHOWN = ("creating", "in_doubt", "failed")
_WHAT_IS_KNOWN = ("destination_address", "amount", "deposit_address", "deposit_memo")
_NUMBER = re.compile(r"[0-9]+", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def upgrade():
    connection = op.get_bind()
    shared = set(connection.scalars(sa.text("SELECT ref FROM shared_refs")))
    owned = _all(
        "SELECT r.ref, r.order_id, o.status, o.deposit_kind, o.upstream_order_id, o.upstream_key, o.destination_address,"
        " o.amount, o.deposit_address, o.deposit_memo, o.created_at, o.next_check_at"
        " FROM upstream_refs r JOIN orders o ON o.id = r.order_id ORDER BY r.ref"
    )
    orphans = _all("SELECT * FROM orphans ORDER BY seen_at, ref")
    known_orders = set(connection.scalars(sa.text("SELECT id FROM orders")))
    op.drop_table("upstream_refs")
    op.drop_table("orphans")
    upstream_orders, upstream_refs = _create()

    rows = _Rows()
    for own in owned:
        if own["ref"] not in shared:
            rows.add_owned(own)
    for orphan in orphans:
        order_id = orphan["order_id"] if orphan["order_id"] in known_orders else None
        # A poll wrote all that looked like an id in an answer into the orphan.
        ids = [ref for ref in dict.fromkeys([orphan["ref"], *_list(orphan["refs"])]) if ref not in shared]
        rows.add_orphan({**orphan, "order_id": order_id, "ref": ids[0] if ids else orphan["ref"]}, ids)
    op.bulk_insert(upstream_orders, rows.all)
    op.bulk_insert(upstream_refs, [{"ref": ref, "upstream_order": row["id"]} for ref, row in rows.by_ref.items()])
    _claim_places([row for row in rows.all if row["role"] == "spare"])


class _Rows:
    """The new rows, and which of them has which id."""

    def __init__(self):
        self.all, self.by_ref, self._by_order, self._ids = [], {}, {}, {}

    def add_owned(self, own):
        """An id that belongs to an order."""
        shown = own["deposit_kind"] is not None or own["status"] not in _NOT_SHOWN
        row = self._by_order.get(own["order_id"])
        if row is None:
            row = self._by_order[own["order_id"]] = self._new(
                own,
                role="shown" if shown else "spare",
                seen_at=own["created_at"],
                deposit_seen_at=None,
                next_check_at=None if shown else own["created_at"],
            )
        if own["ref"] == own["upstream_order_id"]:
            row["ref"] = own["ref"]
        self._attach(row, own["ref"])

    def add_orphan(self, orphan, ids):
        """`ids`: all of it, but for what is known to be none."""
        # A second number is no id of the order that it was found with.
        ids = [ref for ref in ids if not _cannot_be_one(orphan["ref"], ref)]
        row = self._same(orphan, ids)
        if row is None:
            role = "unowned" if orphan["order_id"] is None else "spare"
            times = {name: orphan[name] for name in ("seen_at", "deposit_seen_at", "next_check_at")}
            row = self._new(orphan, role=role, **times)
        elif row["role"] != "shown":
            _fill(row, orphan)
        for ref in ids:
            # One that another has already would make one of them two.
            if ref not in self.by_ref and not _cannot_be_one(row["ref"], ref):
                self._attach(row, ref)

    def _same(self, orphan, ids):
        """The upstream order that shares an id with the orphan and is the same: one that a customer was shown above all."""
        found = {row["id"]: row for row in (self.by_ref.get(ref) for ref in ids) if row is not None}
        same = [row for row in found.values() if self._may_be_one(row, orphan, ids)]
        return min(same, key=lambda row: ("shown", "spare", "unowned").index(row["role"]), default=None)

    def _may_be_one(self, row, orphan, ids):
        """A value that the upstream gives to all orders may not be found out yet: then it does not make them one."""
        if row["ref"] == orphan["ref"]:
            return True
        own = [ref for ref in self._ids[row["id"]] if not _cannot_be_one(row["ref"], ref)]
        for kind in (_NUMBER, _UUID):
            one, other = ({ref for ref in refs if kind.fullmatch(ref)} for refs in (own, ids))
            if one and other and not one & other:
                return False
        # One upstream order is not the spare of two orders, unless it is recorded by the very same id twice.
        one_owner = None in (row["order_id"], orphan["order_id"]) or row["order_id"] == orphan["order_id"]
        return one_owner or self.by_ref.get(orphan["ref"]) is row

    def _new(self, known, **more):
        row = {name: known[name] for name in ("order_id", "ref", "upstream_key", *_WHAT_IS_KNOWN)}
        row |= {"id": f"ups_{len(self.all) + 1:08}", "candidates": [], **more}
        self.all.append(row)
        return row

    def _attach(self, row, ref):
        self.by_ref[ref] = row
        self._ids.setdefault(row["id"], []).append(ref)


def _fill(row, orphan):
    """What is not known of it yet. It is watched as long as one of both was."""
    for name in ("destination_address", "amount"):
        row[name] = orphan[name] if row[name] is None else row[name]
    if row["deposit_address"] is None:
        row |= {name: orphan[name] for name in ("deposit_address", "deposit_memo")}
    row["deposit_seen_at"] = row["deposit_seen_at"] or orphan["deposit_seen_at"]
    row["next_check_at"] = min(filter(None, (row["next_check_at"], orphan["next_check_at"])), default=None)
    if row["order_id"] is None and orphan["order_id"] is not None:
        row |= {"role": "spare", "order_id": orphan["order_id"]}


def _cannot_be_one(one, other):
    """An upstream order has one number, and one UUID."""
    return one != other and any(kind.fullmatch(one) and kind.fullmatch(other) for kind in (_NUMBER, _UUID))


def _claim_places(spares):
    """What a watched spare is paid at belongs to its order. Where another one has the place already, it keeps it."""
    routes = {row["id"]: row for row in _all("SELECT id, from_currency, from_network FROM orders")}
    taken = {row["place"] for row in _all("SELECT place FROM deposit_places")}
    claimed = {}
    for spare in spares:
        if spare["deposit_address"] is not None and spare["next_check_at"] is not None:
            route, address = routes[spare["order_id"]], spare["deposit_address"]
            currency, network = route["from_currency"], route["from_network"]
            verdict = addresses.validate(currency, network, address)
            if verdict.status == "unchecked":
                verdict = fiat.validate(currency, address)
            place = json.dumps([currency, network, verdict.normalised or address, spare["deposit_memo"] or ""])
            if place not in taken:
                claimed.setdefault(place, spare["order_id"])
    places = sa.table("deposit_places", sa.column("place"), sa.column("order_id"))
    op.bulk_insert(places, [{"place": place, "order_id": order_id} for place, order_id in claimed.items()])


def _create():
    upstream_orders = op.create_table(
        "upstream_orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("candidates", swap.tables.Json, nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("destination_address", sa.Text(), nullable=True),
        sa.Column("amount", swap.tables.Money(), nullable=True),
        sa.Column("deposit_address", sa.Text(), nullable=True),
        sa.Column("deposit_memo", sa.Text(), nullable=True),
        sa.Column("seen_at", swap.tables.Utc(), nullable=False),
        sa.Column("deposit_seen_at", swap.tables.Utc(), nullable=True),
        sa.Column("next_check_at", swap.tables.Utc(), nullable=True),
        sa.CheckConstraint("role IN ('shown', 'spare', 'unowned')", name="ck_upstream_orders_role"),
        sa.CheckConstraint("(role = 'unowned') = (order_id IS NULL)", name="ck_upstream_orders_owner"),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_upstream_orders_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstream_orders")),
    )
    op.create_index(op.f("ix_upstream_orders_order_id"), "upstream_orders", ["order_id"])
    op.create_index(op.f("ix_upstream_orders_next_check_at"), "upstream_orders", ["next_check_at"])
    shown = sa.text("role = 'shown'")
    op.create_index(
        "ix_upstream_orders_shown",
        "upstream_orders",
        ["order_id"],
        unique=True,
        postgresql_where=shown,
        sqlite_where=shown,
    )
    upstream_refs = op.create_table(
        "upstream_refs",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("upstream_order", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["upstream_order"], ["upstream_orders.id"], name=op.f("fk_upstream_refs_upstream_order")
        ),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_upstream_refs")),
    )
    op.create_index(op.f("ix_upstream_refs_upstream_order"), "upstream_refs", ["upstream_order"])
    return upstream_orders, upstream_refs


def downgrade():
    rows = _all("SELECT * FROM upstream_orders ORDER BY seen_at, id")
    ids = {}
    for ref in _all("SELECT ref, upstream_order FROM upstream_refs ORDER BY ref"):
        ids.setdefault(ref["upstream_order"], []).append(ref["ref"])
    op.drop_table("upstream_refs")
    op.drop_table("upstream_orders")
    upstream_refs = op.create_table(
        "upstream_refs",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_upstream_refs_order_id")),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_upstream_refs")),
    )
    op.create_index(op.f("ix_upstream_refs_order_id"), "upstream_refs", ["order_id"])
    orphans = op.create_table(
        "orphans",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("refs", swap.tables.Json, nullable=False),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("destination_address", sa.Text(), nullable=True),
        sa.Column("amount", swap.tables.Money(), nullable=True),
        sa.Column("seen_at", swap.tables.Utc(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("deposit_seen_at", swap.tables.Utc(), nullable=True),
        sa.Column("next_check_at", swap.tables.Utc(), nullable=True),
        sa.Column("deposit_address", sa.Text(), nullable=True),
        sa.Column("deposit_memo", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_orphans")),
    )
    op.create_index(op.f("ix_orphans_next_check_at"), "orphans", ["next_check_at"])
    op.create_index(op.f("ix_orphans_order_id"), "orphans", ["order_id"])
    shown = [row for row in rows if row["role"] == "shown"]
    owned = [{"ref": ref, "order_id": row["order_id"]} for row in shown for ref in ids.get(row["id"], [])]
    op.bulk_insert(upstream_refs, owned)
    kept = {column.name for column in orphans.columns} - {"refs"}
    others = {}
    for row in rows:
        if row["role"] != "shown":
            # The old table has one row for what is asked for by one id.
            other = others.setdefault(row["ref"], {**{name: row[name] for name in kept}, "refs": []})
            other["refs"] += ids.get(row["id"], [])
            other["deposit_seen_at"] = other["deposit_seen_at"] or row["deposit_seen_at"]
    op.bulk_insert(orphans, list(others.values()))


def _all(query):
    """The rows, with times and amounts as the columns of the new tables take them."""
    types = {name: swap.tables.Utc() for name in ("seen_at", "created_at", "deposit_seen_at", "next_check_at")}
    types["amount"] = swap.tables.Money()
    connection = op.get_bind()
    result = connection.execute(sa.text(query))
    names = list(result.keys())
    return [
        {
            name: types[name].process_result_value(value, connection.dialect) if name in types else value
            for name, value in zip(names, row, strict=True)
        }
        for row in result
    ]


def _list(value):
    return json.loads(value) if isinstance(value, str) else value
