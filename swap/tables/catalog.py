"""Instruments and pairs as the upstream lists them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy.orm import Mapped, mapped_column

from swap.tables.columns import Row


class InstrumentRow(Row):
    """`currency` and `network` are the upstream's titles verbatim; the keys are their case-folded forms (T7).
    `weaker_refreshes`: how many refreshes in a row have told of less protection than the row has."""

    __tablename__ = "instruments"
    currency_key: Mapped[str] = mapped_column(primary_key=True)
    network_key: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    network: Mapped[str]
    type: Mapped[str]
    name: Mapped[str | None]
    slug: Mapped[str | None]
    precision: Mapped[int]
    requires_memo: Mapped[bool]
    contract_address: Mapped[str | None]
    logo_url: Mapped[str | None]
    active: Mapped[bool]
    weaker_refreshes: Mapped[int] = mapped_column(default=0, server_default="0")


class PairRow(Row):
    """A directed pair. Limits and fixed rate are learned from rates that were read; null until then."""

    __tablename__ = "pairs"
    from_currency_key: Mapped[str] = mapped_column(primary_key=True)
    from_network_key: Mapped[str] = mapped_column(primary_key=True)
    to_currency_key: Mapped[str] = mapped_column(primary_key=True)
    to_network_key: Mapped[str] = mapped_column(primary_key=True)
    active: Mapped[bool]
    min_amount: Mapped[Decimal | None]
    max_amount: Mapped[Decimal | None]
    fixed_rate: Mapped[bool | None]
    limits_as_of: Mapped[datetime | None]


class CatalogState(Row):
    """One row. `version` rises with every change of instruments or pairs; `failures`: refreshes in a row that failed."""

    __tablename__ = "catalog_state"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    version: Mapped[int]
    fetched_at: Mapped[datetime | None]
    failures: Mapped[int]
    last_error: Mapped[str | None]
