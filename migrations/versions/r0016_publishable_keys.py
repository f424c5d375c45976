"""Publishable keys: without a secret, bound to origins, with a limit of their own."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0016"
down_revision = "r0015"
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table("api_keys") as table:
        table.alter_column("secret_sealed", existing_type=sa.Text(), nullable=True)
        table.add_column(sa.Column("origins", swap.tables.Json, nullable=False, server_default="[]"))
        table.add_column(sa.Column("weight_per_minute", sa.Integer(), nullable=True))


def downgrade():
    # The version before has no key without a secret.
    op.execute("DELETE FROM api_keys WHERE secret_sealed IS NULL")
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("weight_per_minute")
        table.drop_column("origins")
        table.alter_column("secret_sealed", existing_type=sa.Text(), nullable=False)
