"""The stream: how far back the feed can be read, and tracking tokens that can be revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("feed_head", sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("orders", sa.Column("token_version", sa.Integer(), server_default="0", nullable=False))


def downgrade():
    op.drop_column("orders", "token_version")
    with op.batch_alter_table("feed_head") as feed_head:
        feed_head.drop_column("floor")
