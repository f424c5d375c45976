"""Disagreements between our verdicts on destinations and the upstream's."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "disagreements",
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", swap.tables.Utc(), nullable=False),
        sa.Column("last_at", swap.tables.Utc(), nullable=False),
        sa.Column("address_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("network", "kind", "field", "reason", name=op.f("pk_disagreements")),
    )


def downgrade():
    op.drop_table("disagreements")
