"""The resolver: what was read of the upstream's list, and orphans."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

import swap.tables

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=Text()), "postgresql")


def upgrade():
    op.add_column("order_attempts", sa.Column("absent_reads", JSON, server_default="[]", nullable=False))
    op.create_table(
        "orphans",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("refs", JSON, nullable=False),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("destination_address", sa.Text(), nullable=True),
        sa.Column("amount", swap.tables.Money(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("seen_at", swap.tables.Utc(), nullable=False),
        sa.Column("deposit_seen_at", swap.tables.Utc(), nullable=True),
        sa.Column("next_check_at", swap.tables.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_orphans")),
    )
    op.create_index(op.f("ix_orphans_next_check_at"), "orphans", ["next_check_at"])
    # Orders in doubt that nothing could resolve so far: the resolver takes them up at once.
    op.execute("UPDATE orders SET next_check_at = updated_at WHERE status = 'in_doubt' AND next_check_at IS NULL")


def downgrade():
    op.drop_table("orphans")
    with op.batch_alter_table("order_attempts") as attempts:
        attempts.drop_column("absent_reads")
