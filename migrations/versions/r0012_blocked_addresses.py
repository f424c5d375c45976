"""Addresses that no order may pay out or refund to."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0012"
down_revision = "r0011"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "blocked_addresses",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("blocked_by", sa.Text(), nullable=False),
        sa.Column("blocked_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_blocked_addresses")),
    )


def downgrade():
    op.drop_table("blocked_addresses")
