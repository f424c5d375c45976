"""A lease on an order has columns of its own, and every part of the service shows that it lives."""

import sqlalchemy as sa
from alembic import op

from swap.tables import Json, Utc

revision = "r0008"
down_revision = "r0007"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("orders", sa.Column("leased_until", Utc(), nullable=True))
    op.add_column("orders", sa.Column("lease_token", sa.Text(), nullable=True))
    op.create_table(
        "heartbeats",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("queues", Json, nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", Utc(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("stopped_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_heartbeats")),
    )


def downgrade():
    op.drop_table("heartbeats")
    op.drop_column("orders", "lease_token")
    op.drop_column("orders", "leased_until")
