"""Orders are found by texts of the client."""

import sqlalchemy as sa
from alembic import op

revision = "r0015"
down_revision = "r0013"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "search_terms",
        sa.Column("term", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_search_terms_order_id")),
        sa.PrimaryKeyConstraint("term", "client_id", "order_id", name=op.f("pk_search_terms")),
    )


def downgrade():
    op.drop_table("search_terms")
