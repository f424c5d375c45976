"""Values that the upstream gives to several orders as an id are kept: they are none."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0007"
down_revision = "r0006"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "shared_refs",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("seen_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_shared_refs")),
    )


def downgrade():
    op.drop_table("shared_refs")
