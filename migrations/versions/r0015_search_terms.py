"""Orders are found by texts of the client, and by whatever else on an index."""

import sqlalchemy as sa
from alembic import op

revision = "r0015"
down_revision = "r0014"
branch_labels = None
depends_on = None


_ALWAYS = (("status",), ("updated_at",), ("from_currency", "from_network"), ("to_currency", "to_network"))
_GIVEN = ("user_id", "session_id", "account_id", "destination_memo", "deposit_memo")


def upgrade():
    op.create_table(
        "search_terms",
        sa.Column("term", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_search_terms_order_id")),
        sa.PrimaryKeyConstraint("term", "client_id", "order_id", name=op.f("pk_search_terms")),
    )
    for names in _ALWAYS:
        op.create_index(f"ix_orders_client_id_{names[0]}", "orders", ["client_id", *names])
    for name in _GIVEN:
        which = sa.text(f"{name} IS NOT NULL")
        op.create_index(
            f"ix_orders_client_id_{name}", "orders", ["client_id", name], postgresql_where=which, sqlite_where=which
        )
    which = sa.text("status IN ('failed', 'skipped')")
    op.create_index(
        "ix_webhook_deliveries_given_up",
        "webhook_deliveries",
        ["client_id", "created_at"],
        postgresql_where=which,
        sqlite_where=which,
    )
    op.drop_index("ix_order_attempts_upstream_key_sent_at", table_name="order_attempts")
    op.create_index("ix_order_attempts_sent_at_upstream_key", "order_attempts", ["sent_at", "upstream_key"])


def downgrade():
    op.drop_index("ix_order_attempts_sent_at_upstream_key", table_name="order_attempts")
    op.create_index("ix_order_attempts_upstream_key_sent_at", "order_attempts", ["upstream_key", "sent_at"])
    op.drop_index("ix_webhook_deliveries_given_up", table_name="webhook_deliveries")
    for name in (*(names[0] for names in _ALWAYS), *_GIVEN):
        op.drop_index(f"ix_orders_client_id_{name}", table_name="orders")
    op.drop_table("search_terms")
