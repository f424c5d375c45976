"""The largest order and the largest daily sum of a client, per currency that it sends. Nobody has one yet."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0014"
down_revision = "r0013"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("clients", sa.Column("order_limits", swap.tables.Json, nullable=False, server_default="[]"))


def downgrade():
    op.drop_column("clients", "order_limits")
