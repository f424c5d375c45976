"""The journal of calls to the upstream."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlalchemy.orm import Session

from swap.tables import UpstreamCall, new_id


def add_call(session: Session, **values: Any) -> None:
    """`values`: fields of `upstream.journal.Call`, which are the columns."""
    session.add(UpstreamCall(id=new_id("call"), **values))


def forget_calls(session: Session, before: datetime) -> None:
    session.execute(delete(UpstreamCall).where(UpstreamCall.at < before))
