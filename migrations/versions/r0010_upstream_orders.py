"""Upstream orders are rows of their own, with a role: shown, spare or unowned; an id belongs to one of them."""

import json

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0010"
down_revision = "r0009"
branch_labels = None
depends_on = None

# Nobody was shown anything yet, or ever: what such an order owns is its spare.
_NOT_SHOWN = ("creating", "in_doubt", "failed")


def upgrade():
    connection = op.get_bind()
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

    rows, refs = {}, {}
    for own in owned:
        number = len(rows) + 1
        shown = own["deposit_kind"] is not None or own["status"] not in _NOT_SHOWN
        row = rows.setdefault(
            ("order", own["order_id"]),
            {
                "id": f"ups_{number:08}",
                "role": "shown" if shown else "spare",
                "order_id": own["order_id"],
                "candidates": [],
                "ref": own["ref"],
                "upstream_key": own["upstream_key"],
                "destination_address": own["destination_address"],
                "amount": own["amount"],
                "deposit_address": own["deposit_address"],
                "deposit_memo": own["deposit_memo"],
                "seen_at": own["created_at"],
                "deposit_seen_at": None,
                "next_check_at": None if shown else own["created_at"],
            },
        )
        if own["ref"] == own["upstream_order_id"]:
            row["ref"] = own["ref"]
        refs[own["ref"]] = row
    for orphan in orphans:
        ids = list(dict.fromkeys([orphan["ref"], *_list(orphan["refs"])]))
        # One that shares an id with another is the same, and the one that a customer was shown above all.
        row = next((refs[ref] for ref in ids if ref in refs), None)
        if row is None:
            order_id = orphan["order_id"] if orphan["order_id"] in known_orders else None
            row = {name: value for name, value in orphan.items() if name != "refs"}
            row |= {"id": f"ups_{len(rows) + 1:08}", "role": "unowned" if order_id is None else "spare"}
            row |= {"order_id": order_id, "candidates": []}
            rows[("orphan", orphan["ref"])] = row
        elif row["role"] != "shown":
            row["deposit_seen_at"] = row["deposit_seen_at"] or orphan["deposit_seen_at"]
            if row["order_id"] is None and orphan["order_id"] in known_orders:
                row |= {"role": "spare", "order_id": orphan["order_id"]}
        for ref in ids:
            refs.setdefault(ref, row)
    op.bulk_insert(upstream_orders, list(rows.values()))
    op.bulk_insert(upstream_refs, [{"ref": ref, "upstream_order": row["id"]} for ref, row in refs.items()])


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
    others = [
        {**{name: row[name] for name in kept}, "refs": ids.get(row["id"], [])} for row in rows if row["role"] != "shown"
    ]
    op.bulk_insert(orphans, others)


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
