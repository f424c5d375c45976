"""The schema of the first release."""

import secrets
from decimal import Decimal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

import swap.tables

# Not 0001 to 0006: those were the versions before the first release, and a database that is at one of them is refused.
revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "catalog_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("fetched_at", swap.tables.Utc(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog_state")),
    )
    op.create_table(
        "chores",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("next_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("name", name=op.f("uq_clients_name")),
    )
    op.create_table(
        "disagreements",
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", swap.tables.Utc(), nullable=False),
        sa.Column("last_at", swap.tables.Utc(), nullable=False),
        sa.Column("address_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("network", "kind", "field", "reason", name=op.f("pk_disagreements")),
    )
    op.create_table(
        "feed_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Text(), nullable=False),
        sa.Column("floor", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feed_head")),
    )
    op.create_table(
        "instruments",
        sa.Column("currency_key", sa.Text(), nullable=False),
        sa.Column("network_key", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("slug", sa.Text(), nullable=True),
        sa.Column("precision", sa.Integer(), nullable=False),
        sa.Column("requires_memo", sa.Boolean(), nullable=False),
        sa.Column("contract_address", sa.Text(), nullable=True),
        sa.Column("logo_url", sa.Text(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("currency_key", "network_key", name=op.f("pk_instruments")),
    )
    op.create_table(
        "orphans",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column(
            "refs", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("destination_address", sa.Text(), nullable=True),
        sa.Column("amount", swap.tables.Money(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("seen_at", swap.tables.Utc(), nullable=False),
        sa.Column("deposit_seen_at", swap.tables.Utc(), nullable=True),
        sa.Column("next_check_at", swap.tables.Utc(), nullable=True),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_orphans")),
    )
    op.create_index(op.f("ix_orphans_next_check_at"), "orphans", ["next_check_at"], unique=False)
    op.create_table(
        "pairs",
        sa.Column("from_currency_key", sa.Text(), nullable=False),
        sa.Column("from_network_key", sa.Text(), nullable=False),
        sa.Column("to_currency_key", sa.Text(), nullable=False),
        sa.Column("to_network_key", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("min_amount", swap.tables.Money(), nullable=True),
        sa.Column("max_amount", swap.tables.Money(), nullable=True),
        sa.Column("fixed_rate", sa.Boolean(), nullable=True),
        sa.Column("limits_as_of", swap.tables.Utc(), nullable=True),
        sa.PrimaryKeyConstraint(
            "from_currency_key", "from_network_key", "to_currency_key", "to_network_key", name=op.f("pk_pairs")
        ),
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
        sa.Column(
            "counts", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column(
            "findings", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliations")),
    )
    op.create_index(op.f("ix_reconciliations_started_at"), "reconciliations", ["started_at"], unique=False)
    op.create_table(
        "spent_quotes",
        sa.Column("quote", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("expires_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("quote", name=op.f("pk_spent_quotes")),
    )
    op.create_index(op.f("ix_spent_quotes_expires_at"), "spent_quotes", ["expires_at"], unique=False)
    op.create_table(
        "upstream_calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_ref", sa.Text(), nullable=True),
        sa.Column("at", swap.tables.Utc(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("ms", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("request_body", sa.Text(), nullable=True),
        sa.Column("response_body", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upstream_calls")),
    )
    op.create_index(op.f("ix_upstream_calls_at"), "upstream_calls", ["at"], unique=False)
    op.create_index(op.f("ix_upstream_calls_order_ref"), "upstream_calls", ["order_ref"], unique=False)
    op.create_table(
        "used_signatures",
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("expires_at", swap.tables.Utc(), nullable=False),
        sa.PrimaryKeyConstraint("signature", name=op.f("pk_used_signatures")),
    )
    op.create_index(op.f("ix_used_signatures_expires_at"), "used_signatures", ["expires_at"], unique=False)
    op.create_table(
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
    op.create_table(
        "api_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_sealed", sa.Text(), nullable=False),
        sa.Column(
            "scopes", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("weight_per_minute", sa.Integer(), nullable=False),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.Column("revoked_at", swap.tables.Utc(), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_api_keys_client_id")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_order_id", sa.Text(), nullable=False),
        sa.Column(
            "request", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("status_before_review", sa.Text(), nullable=True),
        sa.Column("status_changed_at", swap.tables.Utc(), nullable=False),
        sa.Column("from_currency", sa.Text(), nullable=False),
        sa.Column("from_network", sa.Text(), nullable=False),
        sa.Column("to_currency", sa.Text(), nullable=False),
        sa.Column("to_network", sa.Text(), nullable=False),
        sa.Column("rate_mode", sa.Text(), nullable=False),
        sa.Column("amount", swap.tables.Money(), nullable=False),
        sa.Column("amount_to_get", swap.tables.Money(), nullable=True),
        sa.Column(
            "rate", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("network_fee", swap.tables.Money(), nullable=True),
        sa.Column("referrer_id", sa.Text(), nullable=True),
        sa.Column("markup", swap.tables.Money(), nullable=True),
        sa.Column("destination_address", sa.Text(), nullable=False),
        sa.Column("destination_memo", sa.Text(), nullable=True),
        sa.Column("refund_address", sa.Text(), nullable=True),
        sa.Column("refund_memo", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("account_id", sa.Text(), nullable=True),
        sa.Column(
            "metadata", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("upstream_order_id", sa.Text(), nullable=True),
        sa.Column("upstream_state", sa.Text(), nullable=True),
        sa.Column("deposit_kind", sa.Text(), nullable=True),
        sa.Column("deposit_address", sa.Text(), nullable=True),
        sa.Column("deposit_memo", sa.Text(), nullable=True),
        sa.Column("deposit_link", sa.Text(), nullable=True),
        sa.Column("payable", sa.Boolean(), nullable=False),
        sa.Column("payable_reason", sa.Text(), nullable=True),
        sa.Column("payable_until", swap.tables.Utc(), nullable=True),
        sa.Column("confirmations_required", sa.Integer(), nullable=True),
        sa.Column(
            "facts", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("action_url", sa.Text(), nullable=True),
        sa.Column("action_since", swap.tables.Utc(), nullable=True),
        sa.Column("token_version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("as_of", swap.tables.Utc(), nullable=True),
        sa.Column("signalled_at", swap.tables.Utc(), nullable=True),
        sa.Column("next_check_at", swap.tables.Utc(), nullable=True),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.Column("updated_at", swap.tables.Utc(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_orders_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("client_id", "client_order_id", name=op.f("uq_orders_client_id_client_order_id")),
    )
    op.create_index("ix_orders_client_id_created_at_id", "orders", ["client_id", "created_at", "id"], unique=False)
    op.create_index(op.f("ix_orders_deposit_address"), "orders", ["deposit_address"], unique=False)
    op.create_index("ix_orders_destination_address", "orders", ["destination_address"], unique=False)
    op.create_index(
        "ix_orders_next_check_at",
        "orders",
        ["next_check_at"],
        unique=False,
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_orders_upstream_order_id"), "orders", ["upstream_order_id"], unique=False)
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("secret_sealed", sa.Text(), nullable=False),
        sa.Column("old_secret_sealed", sa.Text(), nullable=True),
        sa.Column("old_secret_until", swap.tables.Utc(), nullable=True),
        sa.Column(
            "types", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", swap.tables.Utc(), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failing_since", swap.tables.Utc(), nullable=True),
        sa.Column("deleted_at", swap.tables.Utc(), nullable=True),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_webhook_endpoints_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index(op.f("ix_webhook_endpoints_client_id"), "webhook_endpoints", ["client_id"], unique=False)
    op.create_table(
        "order_attempts",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("upstream_key", sa.Text(), nullable=False),
        sa.Column("sent_at", swap.tables.Utc(), nullable=False),
        sa.Column("finished_at", swap.tables.Utc(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column(
            "refs", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column(
            "absent_reads",
            sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"),
            server_default="[]",
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_attempts_order_id")),
        sa.PrimaryKeyConstraint("order_id", "number", name=op.f("pk_order_attempts")),
    )
    op.create_table(
        "order_events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column(
            "order", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column(
            "detail", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False
        ),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_order_events_order_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_order_events")),
        sa.UniqueConstraint("order_id", "sequence", name=op.f("uq_order_events_order_id_sequence")),
        sa.UniqueConstraint("position", name=op.f("uq_order_events_position")),
    )
    op.create_index("ix_order_events_client_id_position", "order_events", ["client_id", "position"], unique=False)
    op.create_index("ix_order_events_order_id_id", "order_events", ["order_id", "id"], unique=False)
    op.create_index(
        "ix_order_events_unpublished",
        "order_events",
        ["id"],
        unique=False,
        postgresql_where=sa.text("position IS NULL AND sequence IS NOT NULL"),
        sqlite_where=sa.text("position IS NULL AND sequence IS NOT NULL"),
    )
    op.create_table(
        "transfers",
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("amount", swap.tables.Money(), nullable=True),
        sa.Column("tx_id", sa.Text(), nullable=True),
        sa.Column("confirmations", sa.Integer(), nullable=True),
        sa.Column("at", swap.tables.Utc(), nullable=True),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_transfers_order_id")),
        sa.PrimaryKeyConstraint("order_id", "position", name=op.f("pk_transfers")),
    )
    op.create_index(op.f("ix_transfers_tx_id"), "transfers", ["tx_id"], unique=False)
    op.create_table(
        "upstream_refs",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name=op.f("fk_upstream_refs_order_id")),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_upstream_refs")),
    )
    op.create_index(op.f("ix_upstream_refs_order_id"), "upstream_refs", ["order_id"], unique=False)
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=True),
        sa.Column(
            "message", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", swap.tables.Utc(), nullable=True),
        sa.Column("leased_until", swap.tables.Utc(), nullable=True),
        sa.Column("delivered_at", swap.tables.Utc(), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("response_excerpt", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", swap.tables.Utc(), nullable=False),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_webhook_deliveries_endpoint_id")
        ),
        sa.ForeignKeyConstraint(["event_id"], ["order_events.id"], name=op.f("fk_webhook_deliveries_event_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint("endpoint_id", "event_id", name=op.f("uq_webhook_deliveries_endpoint_id_event_id")),
    )
    op.create_index(
        "ix_webhook_deliveries_client_id_created_at", "webhook_deliveries", ["client_id", "created_at"], unique=False
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["endpoint_id", "next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
        sqlite_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_webhook_deliveries_in_flight",
        "webhook_deliveries",
        ["endpoint_id"],
        unique=False,
        postgresql_where=sa.text("leased_until IS NOT NULL"),
        sqlite_where=sa.text("leased_until IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_line",
        "webhook_deliveries",
        ["endpoint_id", "order_id", "sequence"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
        sqlite_where=sa.text("status = 'pending'"),
    )
    op.create_index(op.f("ix_webhook_deliveries_order_id"), "webhook_deliveries", ["order_id"], unique=False)

    op.bulk_insert(
        sa.table(
            "catalog_state",
            sa.column("id", sa.Integer),
            sa.column("version", sa.Integer),
            sa.column("failures", sa.Integer),
        ),
        [{"id": 1, "version": 0, "failures": 0}],
    )
    op.bulk_insert(
        sa.table(
            "feed_head", sa.column("id", sa.Integer), sa.column("position", sa.BigInteger), sa.column("epoch", sa.Text)
        ),
        [{"id": 1, "position": 0, "epoch": secrets.token_hex(3)}],
    )
    factors = {"moving": Decimal(1), "fresh": Decimal(1), "aged": Decimal(1), "planned": Decimal(0)}
    op.bulk_insert(
        sa.table(
            "watching",
            sa.column("id", sa.Integer),
            *(sa.column(name, swap.tables.Money()) for name in factors),
            sa.column("list_state", sa.Text),
            sa.column("counted", sa.Integer),
            sa.column("announced", sa.Integer),
        ),
        [{"id": 1, **factors, "list_state": "learning", "counted": 0, "announced": 0}],
    )


def downgrade():
    op.drop_index(op.f("ix_webhook_deliveries_order_id"), table_name="webhook_deliveries")
    op.drop_index(
        "ix_webhook_deliveries_line",
        table_name="webhook_deliveries",
        postgresql_where=sa.text("status = 'pending'"),
        sqlite_where=sa.text("status = 'pending'"),
    )
    op.drop_index(
        "ix_webhook_deliveries_in_flight",
        table_name="webhook_deliveries",
        postgresql_where=sa.text("leased_until IS NOT NULL"),
        sqlite_where=sa.text("leased_until IS NOT NULL"),
    )
    op.drop_index(
        "ix_webhook_deliveries_due",
        table_name="webhook_deliveries",
        postgresql_where=sa.text("status = 'pending'"),
        sqlite_where=sa.text("status = 'pending'"),
    )
    op.drop_index("ix_webhook_deliveries_client_id_created_at", table_name="webhook_deliveries")
    op.drop_table("webhook_deliveries")
    op.drop_index(op.f("ix_upstream_refs_order_id"), table_name="upstream_refs")
    op.drop_table("upstream_refs")
    op.drop_index(op.f("ix_transfers_tx_id"), table_name="transfers")
    op.drop_table("transfers")
    op.drop_index(
        "ix_order_events_unpublished",
        table_name="order_events",
        postgresql_where=sa.text("position IS NULL AND sequence IS NOT NULL"),
        sqlite_where=sa.text("position IS NULL AND sequence IS NOT NULL"),
    )
    op.drop_index("ix_order_events_order_id_id", table_name="order_events")
    op.drop_index("ix_order_events_client_id_position", table_name="order_events")
    op.drop_table("order_events")
    op.drop_table("order_attempts")
    op.drop_index(op.f("ix_webhook_endpoints_client_id"), table_name="webhook_endpoints")
    op.drop_table("webhook_endpoints")
    op.drop_index(op.f("ix_orders_upstream_order_id"), table_name="orders")
    op.drop_index("ix_orders_next_check_at", table_name="orders", postgresql_where=sa.text("next_check_at IS NOT NULL"))
    op.drop_index("ix_orders_destination_address", table_name="orders")
    op.drop_index(op.f("ix_orders_deposit_address"), table_name="orders")
    op.drop_index("ix_orders_client_id_created_at_id", table_name="orders")
    op.drop_table("orders")
    op.drop_table("api_keys")
    op.drop_table("watching")
    op.drop_index(op.f("ix_used_signatures_expires_at"), table_name="used_signatures")
    op.drop_table("used_signatures")
    op.drop_index(op.f("ix_upstream_calls_order_ref"), table_name="upstream_calls")
    op.drop_index(op.f("ix_upstream_calls_at"), table_name="upstream_calls")
    op.drop_table("upstream_calls")
    op.drop_index(op.f("ix_spent_quotes_expires_at"), table_name="spent_quotes")
    op.drop_table("spent_quotes")
    op.drop_index(op.f("ix_reconciliations_started_at"), table_name="reconciliations")
    op.drop_table("reconciliations")
    op.drop_table("pairs")
    op.drop_index(op.f("ix_orphans_next_check_at"), table_name="orphans")
    op.drop_table("orphans")
    op.drop_table("instruments")
    op.drop_table("feed_head")
    op.drop_table("disagreements")
    op.drop_table("clients")
    op.drop_table("chores")
    op.drop_table("catalog_state")
