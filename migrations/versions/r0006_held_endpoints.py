"""A webhook endpoint that is overloaded is held as a whole."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0006"
down_revision = "r0005"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("webhook_endpoints", sa.Column("held_until", swap.tables.Utc(), nullable=True))


def downgrade():
    op.drop_column("webhook_endpoints", "held_until")
