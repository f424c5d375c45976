"""Watching within a budget: chores of the fleet, the list as a doorbell, daily reconciliation."""

from decimal import Decimal

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

import swap.tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=Text()), "postgresql")


def upgrade():
    op.add_column("orders", sa.Column("rung_at", swap.tables.Utc(), nullable=True))
    op.create_table(
        "chores",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    watching = op.create_table(
        "watching",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("moving", swap.tables.Money(), nullable=False),
        sa.Column("fresh", swap.tables.Money(), nullable=False),
        sa.Column("aged", swap.tables.Money(), nullable=False),
        sa.Column("planned", swap.tables.Money(), nullable=False),
        sa.Column("list_state", sa.Text(), nullable=False),
        sa.Column("list_reason", sa.Text(), nullable=True),
        sa.Column("list_until", swap.tables.Utc(), nullable=True),
        sa.Column("list_began_at", swap.tables.Utc(), nullable=True),
        sa.Column("counted", sa.Integer(), nullable=False),
        sa.Column("announced", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watching")),
    )
    one, none = Decimal(1), Decimal(0)
    op.execute(
        watching.insert().values(
            id=1, moving=one, fresh=one, aged=one, planned=none, list_state="learning", counted=0, announced=0
        )
    )
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("started_at", swap.tables.Utc(), nullable=False),
        sa.Column("finished_at", swap.tables.Utc(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("listed", sa.Integer(), nullable=False),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("findings", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
    )
    op.create_index(op.f("ix_reconciliations_started_at"), "reconciliations", ["started_at"])


def downgrade():
    op.drop_table("reconciliations")
    op.drop_table("watching")
    op.drop_table("chores")
    op.drop_column("orders", "rung_at")
