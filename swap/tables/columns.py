"""What all rows are made of: the declarative base, and two column types of our own, Money and Utc, because those of the
databases lose digits or zones."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import uuid_utils
from sqlalchemy import (
    JSON,
    Dialect,
    MetaData,
    Numeric,
    String,
    Text,
)
from sqlalchemy import DateTime as SaDateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator, TypeEngine

from swap.domain.money import plain
from swap.domain.times import cut_to_ms, iso


class Money(TypeDecorator[Decimal]):
    """A Decimal without loss: NUMERIC on PostgreSQL, TEXT in plain notation on SQLite, whose own NUMERIC goes through
    floats (12345678.123456789012345678 came back changed). Compare amounts in Python, not in SQL."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Numeric() if dialect.name == "postgresql" else String())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not isinstance(value, Decimal):
            raise TypeError(f"money is Decimal, not {type(value).__name__}")
        text = plain(value)  # refuses NaN and infinities, which PostgreSQL would keep
        return value if dialect.name == "postgresql" else text

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Utc(TypeDecorator[datetime]):
    """An aware UTC time, cut to milliseconds: timestamptz on PostgreSQL, sortable ISO-8601 text on SQLite."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(SaDateTime(timezone=True) if dialect.name == "postgresql" else String(24))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        value = cut_to_ms(value)
        return value if dialect.name == "postgresql" else iso(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.astimezone(UTC)


def new_id(prefix: str) -> str:
    """An opaque id such as `ord_019a...`; UUIDv7 underneath, so that rows made together lie together."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


Json = JSON().with_variant(JSONB(), "postgresql")


class Row(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, Decimal: Money, dict[str, Any]: Json, list[Any]: Json, str: Text}  # noqa: RUF012
