"""Endpoints whose owners have proved to want what is sent there. Those that there are went without a proof and stay."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0013"
down_revision = "r0012"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("webhook_endpoints") as table:
        table.add_column(sa.Column("new_url", sa.Text(), nullable=True))
        table.add_column(sa.Column("verified_at", swap.tables.Utc(), nullable=True))
    op.execute("UPDATE webhook_endpoints SET verified_at = created_at")


def downgrade():
    with op.batch_alter_table("webhook_endpoints") as table:
        table.drop_column("verified_at")
        table.drop_column("new_url")
