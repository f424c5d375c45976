"""Limits belong to the client; keys expire, know where they may be used from, and when they were; acts are written down."""

import sqlalchemy as sa
from alembic import op

import swap.tables

revision = "r0011"
down_revision = "r0010"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("clients", sa.Column("weight_per_minute", sa.Integer(), nullable=False, server_default="6000"))
    # What its most generous live key was allowed: nobody gets less than before.
    op.execute(
        "UPDATE clients SET weight_per_minute = coalesce((SELECT max(k.weight_per_minute) FROM api_keys k"
        " WHERE k.client_id = clients.id AND k.revoked_at IS NULL), 6000)"
    )
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("allowed_from", swap.tables.Json, nullable=False, server_default="[]"))
        table.add_column(sa.Column("expires_at", swap.tables.Utc(), nullable=True))
        table.add_column(sa.Column("last_used_at", swap.tables.Utc(), nullable=True))
        table.add_column(sa.Column("last_used_from", sa.Text(), nullable=True))
        table.drop_column("weight_per_minute")
    op.create_index("ix_api_keys_client_id", "api_keys", ["client_id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("at", swap.tables.Utc(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("detail", swap.tables.Json, nullable=False),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_subject", "audit", ["subject"])


def downgrade():
    op.drop_table("audit")
    op.drop_index("ix_api_keys_client_id", "api_keys")
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("weight_per_minute", sa.Integer(), nullable=False, server_default="6000"))
        table.drop_column("last_used_from")
        table.drop_column("last_used_at")
        table.drop_column("expires_at")
        table.drop_column("allowed_from")
    op.execute(
        "UPDATE api_keys SET weight_per_minute ="
        " (SELECT c.weight_per_minute FROM clients c WHERE c.id = api_keys.client_id)"
    )
    op.drop_column("clients", "weight_per_minute")
