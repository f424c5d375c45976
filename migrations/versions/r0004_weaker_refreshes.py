"""An instrument remembers how often in a row the upstream has told of less protection."""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision = "r0003"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("instruments", sa.Column("weaker_refreshes", sa.Integer(), server_default="0", nullable=False))


def downgrade():
    op.drop_column("instruments", "weaker_refreshes")
