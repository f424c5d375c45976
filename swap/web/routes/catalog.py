"""Instruments and pairs."""

from __future__ import annotations

from typing import Any

import flask
from flask_smorest import Blueprint

from swap import addresses
from swap.domain.money import plain
from swap.domain.times import iso
from swap.errors import NotFound
from swap.market.catalog import Snapshot
from swap.orders.validation import amount_places
from swap.store.catalog import PairKey
from swap.tables import InstrumentRow, PairRow
from swap.web import cursors
from swap.web.auth import FOR_PAGES
from swap.web.reply import current_service, with_etag
from swap.web.schemas import PairsQuery

blp = Blueprint("instruments", __name__, description="What can be swapped for what.")


@blp.get("/v1/instruments")
@blp.doc(**FOR_PAGES)
def instruments() -> flask.Response:
    """Every active instrument."""
    snapshot = current_service().catalog.snapshot()
    rows = sorted(snapshot.instruments.values(), key=lambda row: (row.currency_key, row.network_key))
    return with_etag({"instruments": [instrument_view(row) for row in rows], **_freshness(snapshot)})


@blp.get("/v1/instruments/<string:currency>/<string:network>")
@blp.doc(**FOR_PAGES)
def instrument(currency: str, network: str) -> flask.Response:
    """One instrument; titles are compared without regard to case."""
    snapshot = current_service().catalog.snapshot()
    row = snapshot.instrument(currency, network)
    if row is None:
        raise NotFound(f"There is no active instrument {currency} on {network}.", code="INSTRUMENT_UNKNOWN")
    return with_etag({"instrument": instrument_view(row), **_freshness(snapshot)})


@blp.get("/v1/pairs")
@blp.doc(**FOR_PAGES)
@blp.arguments(PairsQuery, location="query")
def pairs(query: dict[str, Any]) -> flask.Response:
    """Directed pairs, filtered by any of the four titles, by pages. Limits and rate modes are null until a quote has
    brought them; the upstream lists none."""
    service = current_service()
    snapshot = service.catalog.snapshot()
    limit, after = query.pop("limit"), query.pop("after", None)
    filters = {f"{name}_key": title.casefold() for name, title in query.items() if title is not None}
    position = cursors.decode(after, _position)
    rows = service.catalog.pairs(filters, position, limit + 1)
    shown, more = rows[:limit], len(rows) > limit
    return with_etag(
        {
            "pairs": [view for row in shown if (view := _pair_view(snapshot, row)) is not None],
            "next": cursors.encode(*_key(shown[-1])) if more else None,
            "has_more": more,
            **_freshness(snapshot),
        }
    )


def instrument_view(row: InstrumentRow) -> dict[str, Any]:
    rule = addresses.memo_rule(row.currency, row.network)
    return {
        "currency": row.currency,
        "network": row.network,
        "type": row.type,
        "name": row.name,
        "precision": amount_places(row),
        "requires_memo": row.requires_memo,
        "memo_name": rule.name,
        "contract_address": row.contract_address,
        "logo_url": row.logo_url,
    }


def _pair_view(snapshot: Snapshot, row: PairRow) -> dict[str, Any] | None:
    source = snapshot.instruments.get((row.from_currency_key, row.from_network_key))
    target = snapshot.instruments.get((row.to_currency_key, row.to_network_key))
    if source is None or target is None:
        return None
    known = row.limits_as_of is not None
    return {
        "from": {"currency": source.currency, "network": source.network},
        "to": {"currency": target.currency, "network": target.network},
        "rate_modes": ["FLOATING", *(["FIXED"] if row.fixed_rate else [])] if known else None,
        "limits": {
            "min": None if row.min_amount is None else plain(row.min_amount),
            "max": None if row.max_amount is None else plain(row.max_amount),
            "as_of": iso(row.limits_as_of),
        }
        if row.limits_as_of is not None
        else None,
    }


def _freshness(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "as_of": None if snapshot.as_of is None else iso(snapshot.as_of),
        "staleness": snapshot.staleness(current_service().clock()),
    }


def _key(row: PairRow) -> PairKey:
    return row.from_currency_key, row.from_network_key, row.to_currency_key, row.to_network_key


def _position(parts: list[str]) -> PairKey:
    from_currency, from_network, to_currency, to_network = parts
    return from_currency, from_network, to_currency, to_network
