"""Rows, a module per noun. No behaviour.

The database is the truth: due times, leases, deliveries and history are rows here; Redis only wakes the workers up.
"""

from swap.tables.catalog import CatalogState, InstrumentRow, PairRow
from swap.tables.clients import ApiKey, AuditEntry, BlockedAddress, Client, UsedSignature
from swap.tables.columns import Json, Money, Row, Utc, new_id
from swap.tables.orders import (
    DepositPlace,
    Order,
    OrderAttempt,
    SearchTerm,
    SharedRef,
    SpentQuote,
    TransferRow,
    UpstreamOrder,
    UpstreamRef,
)
from swap.tables.parts import Heartbeat
from swap.tables.push import FeedHead, OrderEvent, WebhookDelivery, WebhookEndpoint
from swap.tables.upstream import Disagreement, PeriodicTask, Reconciliation, UpstreamCall, Watching

__all__ = [
    "ApiKey",
    "AuditEntry",
    "BlockedAddress",
    "CatalogState",
    "Client",
    "DepositPlace",
    "Disagreement",
    "FeedHead",
    "Heartbeat",
    "InstrumentRow",
    "Json",
    "Money",
    "Order",
    "OrderAttempt",
    "OrderEvent",
    "PairRow",
    "PeriodicTask",
    "Reconciliation",
    "Row",
    "SearchTerm",
    "SharedRef",
    "SpentQuote",
    "TransferRow",
    "UpstreamCall",
    "UpstreamOrder",
    "UpstreamRef",
    "UsedSignature",
    "Utc",
    "Watching",
    "WebhookDelivery",
    "WebhookEndpoint",
    "new_id",
]
