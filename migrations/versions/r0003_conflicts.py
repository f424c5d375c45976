"""An order remembers in what the upstream differs from what its customer was shown."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import swap.tables

revision = "r0003"
down_revision = "r0002"
branch_labels = None
depends_on = None


def upgrade():
    json = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql")
    op.add_column("orders", sa.Column("conflict", sa.Text(), nullable=True))
    op.add_column("orders", sa.Column("conflict_since", swap.tables.Utc(), nullable=True))
    op.add_column("orders", sa.Column("accepted_answer", json, nullable=True))


def downgrade():
    # A build without this one knows no way out of a review: such an order goes on where it was, not payable.
    op.execute(
        "UPDATE orders SET status = status_before_review, status_before_review = NULL"
        " WHERE status = 'needs_review' AND status_before_review IS NOT NULL"
    )
    for name in ("accepted_answer", "conflict_since", "conflict"):
        op.drop_column("orders", name)
