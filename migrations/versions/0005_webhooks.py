"""Webhooks as clients manage them: rotation, health, messages of our own, leases beside due times."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

import swap.tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=Text()), "postgresql")
PENDING = sa.text("status = 'pending'")
LEASED = sa.text("leased_until IS NOT NULL")


def upgrade():
    # Column by column: SQLite would make this table anew in a batch, and deliveries refer to it.
    for column in (
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("old_secret_sealed", sa.Text(), nullable=True),
        sa.Column("old_secret_until", swap.tables.Utc(), nullable=True),
        sa.Column("disabled_at", swap.tables.Utc(), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", swap.tables.Utc(), nullable=True),
        sa.Column("deleted_at", swap.tables.Utc(), nullable=True),
    ):
        op.add_column("webhook_endpoints", column)

    for column in (
        sa.Column("client_id", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=True),
        sa.Column("message", JSON, nullable=True),
        sa.Column("tries", sa.Integer(), nullable=True),
        sa.Column("leased_until", swap.tables.Utc(), nullable=True),
    ):
        op.add_column("webhook_deliveries", column)
    op.execute(
        "UPDATE webhook_deliveries SET tries = attempts,"
        " client_id = (SELECT client_id FROM webhook_endpoints WHERE id = endpoint_id),"
        " type = (SELECT type FROM order_events WHERE id = event_id)"
    )
    for name in ("due", "endpoint_id_order_id_sequence"):
        op.drop_index(f"ix_webhook_deliveries_{name}", table_name="webhook_deliveries")
    with op.batch_alter_table("webhook_deliveries") as deliveries:
        for name, kind in (("client_id", sa.Text()), ("type", sa.Text()), ("tries", sa.Integer())):
            deliveries.alter_column(name, existing_type=kind, nullable=False)
        for name, kind in (("event_id", sa.Text()), ("order_id", sa.Text()), ("sequence", sa.Integer())):
            deliveries.alter_column(name, existing_type=kind, nullable=True)
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index(
        "ix_webhook_deliveries_line",
        "webhook_deliveries",
        ["endpoint_id", "order_id", "sequence"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index(
        "ix_webhook_deliveries_in_flight",
        "webhook_deliveries",
        ["endpoint_id"],
        postgresql_where=LEASED,
        sqlite_where=LEASED,
    )
    op.create_index("ix_webhook_deliveries_client_id_created_at", "webhook_deliveries", ["client_id", "created_at"])


def downgrade():
    for name in ("due", "line", "in_flight", "client_id_created_at"):
        op.drop_index(f"ix_webhook_deliveries_{name}", table_name="webhook_deliveries")
    # What the old schema has no words for: messages of our own, and deliveries that were skipped.
    op.execute("DELETE FROM webhook_deliveries WHERE event_id IS NULL")
    op.execute("UPDATE webhook_deliveries SET status = 'failed' WHERE status = 'skipped'")
    with op.batch_alter_table("webhook_deliveries") as deliveries:
        for name in ("client_id", "type", "message", "tries", "leased_until"):
            deliveries.drop_column(name)
        for name, kind in (("event_id", sa.Text()), ("order_id", sa.Text()), ("sequence", sa.Integer())):
            deliveries.alter_column(name, existing_type=kind, nullable=False)
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["next_attempt_at"],
        postgresql_where=PENDING,
        sqlite_where=PENDING,
    )
    op.create_index(
        "ix_webhook_deliveries_endpoint_id_order_id_sequence",
        "webhook_deliveries",
        ["endpoint_id", "order_id", "sequence"],
    )
    for name in (
        "description",
        "old_secret_sealed",
        "old_secret_until",
        "disabled_at",
        "disabled_reason",
        "failures",
        "failing_since",
        "deleted_at",
    ):
        op.drop_column("webhook_endpoints", name)
