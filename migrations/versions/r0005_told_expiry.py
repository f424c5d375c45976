"""What the upstream said about an order's expiry is remembered apart from the facts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "r0005"
down_revision = "r0004"
branch_labels = None
depends_on = None


def upgrade():
    kind = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("orders", sa.Column("told_expiry", kind, nullable=True))


def downgrade():
    op.drop_column("orders", "told_expiry")
