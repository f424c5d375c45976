"""A deposit address belongs to one watched order: a primary key says so. Attempts know what they were promised."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import swap.tables
from swap import addresses

revision = "r0002"
down_revision = "r0001"
branch_labels = None
depends_on = None

_SHOWN = sa.text(
    "SELECT id, from_currency, from_network, deposit_address, deposit_link, deposit_memo FROM orders"
    " WHERE deposit_kind IS NOT NULL AND next_check_at IS NOT NULL ORDER BY created_at, id"
)

# Until now every attempt was promised what its order was.
_PROMISED = sa.text(
    "UPDATE order_attempts SET amount_to_get ="
    " (SELECT amount_to_get FROM orders WHERE orders.id = order_attempts.order_id)"
)


def upgrade():
    places = op.create_table(
        "deposit_places",
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_deposit_places_order_id")),
        sa.PrimaryKeyConstraint("place", name=op.f("pk_deposit_places")),
    )
    op.create_index(op.f("ix_deposit_places_order_id"), "deposit_places", ["order_id"])
    # Of orders that share a place already, the oldest keeps it: the others stay as they are, and nothing new joins them.
    claimed = {}
    for order_id, currency, network, address, link, memo in op.get_bind().execute(_SHOWN):
        where = link if address is None else addresses.validate(currency, network, address).normalised or address
        claimed.setdefault(json.dumps([currency, network, where, memo or ""]), order_id)
    op.bulk_insert(places, [{"place": place, "order_id": order_id} for place, order_id in claimed.items()])

    with op.batch_alter_table("order_attempts") as table:
        table.add_column(sa.Column("amount_to_get", swap.tables.Money(), nullable=True))
        table.drop_column("absent_reads")
    with op.batch_alter_table("orphans") as table:
        table.add_column(sa.Column("deposit_address", sa.Text(), nullable=True))
        table.add_column(sa.Column("deposit_memo", sa.Text(), nullable=True))
        table.create_index(op.f("ix_orphans_order_id"), ["order_id"])
    op.create_index("ix_order_attempts_upstream_key_sent_at", "order_attempts", ["upstream_key", "sent_at"])
    op.execute(_PROMISED)


def downgrade():
    with op.batch_alter_table("orphans") as table:
        table.drop_index(op.f("ix_orphans_order_id"))
        table.drop_column("deposit_memo")
        table.drop_column("deposit_address")
    op.drop_index("ix_order_attempts_upstream_key_sent_at", table_name="order_attempts")
    with op.batch_alter_table("order_attempts") as table:
        table.add_column(
            sa.Column(
                "absent_reads",
                sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
                server_default="[]",
                nullable=False,
            )
        )
        table.drop_column("amount_to_get")
    op.drop_index(op.f("ix_deposit_places_order_id"), table_name="deposit_places")
    op.drop_table("deposit_places")
