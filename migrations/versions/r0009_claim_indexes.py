"""Due orders are claimed rank by rank, each along an index of its own."""

import sqlalchemy as sa
from alembic import op

revision = "r0009"
down_revision = "r0008"
branch_labels = None
depends_on = None

RANKS = (
    "'creating', 'in_doubt'",
    "'confirming', 'exchanging', 'sending', 'on_hold', 'refunding', 'needs_review'",
    "'awaiting_deposit'",
    "'expired', 'failed', 'completed', 'refunded'",
)


def upgrade():
    for rank, statuses in enumerate(RANKS):
        which = sa.text(f"status IN ({statuses}) AND next_check_at IS NOT NULL")
        op.create_index(
            f"ix_orders_claim_{rank}", "orders", ["next_check_at"], postgresql_where=which, sqlite_where=which
        )


def downgrade():
    for rank in range(len(RANKS)):
        op.drop_index(f"ix_orders_claim_{rank}", table_name="orders")
