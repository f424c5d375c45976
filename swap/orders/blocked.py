"""Blocked addresses: where no order pays out or refunds to, whoever places it. Why is for staff alone to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from swap import addresses
from swap.addresses import Verdict
from swap.domain import fiat
from swap.domain.times import iso
from swap.errors import Conflict, FieldProblem, InvalidRequest, NotFound, Problems
from swap.orders.validation import Examined
from swap.store import blocked_addresses
from swap.store.clients import write_audit
from swap.store.database import Database
from swap.tables import BlockedAddress


class BlockedAddresses:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database, self._clock = database, clock

    def problems(self, verdicts: Mapping[str, Verdict | None]) -> Problems:
        """DESTINATION_BLOCKED for each of these fields whose address is blocked."""
        accounts = {name: _account(verdict) for name, verdict in verdicts.items() if verdict is not None}
        problems = Problems()
        with self._database.read() as session:
            blocked = blocked_addresses.blocked_of(session, [each for each in accounts.values() if each])
        for name, account in accounts.items():
            if account in blocked:
                problems.add(name, FieldProblem("DESTINATION_BLOCKED", "Nothing is sent to this address by us."))
        return problems

    def note(self, examined: Examined) -> None:
        """Add what is blocked to the problems of an order's request."""
        both = {"destination_address": examined.destination, "refund_address": examined.refund}
        examined.problems.update(self.problems(both))

    def block(self, currency: str, network: str, address: str, *, by: str, reason: str) -> dict[str, Any]:
        """Block an address, on every network. Raises InvalidRequest for what is no address there, Conflict
        (BLOCKED_ALREADY)."""
        account = self._named(currency, network, address)
        now = self._clock()
        row = BlockedAddress(
            address=account, currency=currency, network=network, reason=reason, blocked_by=by, blocked_at=now
        )
        with self._database.write() as session:
            if not blocked_addresses.block(session, row):
                raise Conflict("This address is blocked already.", code="BLOCKED_ALREADY")
            write_audit(session, by, "addresses.block", account, now, reason=reason)
        return _view(row)

    def unblock(self, currency: str, network: str, address: str, *, by: str, reason: str) -> None:
        """Raises InvalidRequest for what is no address there, NotFound (NOT_BLOCKED)."""
        account = self._named(currency, network, address)
        with self._database.write() as session:
            if not blocked_addresses.unblock(session, account):
                raise NotFound("This address is not blocked.", code="NOT_BLOCKED")
            write_audit(session, by, "addresses.unblock", account, self._clock(), reason=reason)

    def listed(self) -> list[dict[str, Any]]:
        """Every blocked address, the newest first."""
        with self._database.read() as session:
            return [_view(row) for row in blocked_addresses.all_blocked(session)]

    def _named(self, currency: str, network: str, address: str) -> str:
        verdict = addresses.validate(currency, network, address)
        if verdict.status == "unchecked":
            verdict = fiat.validate(currency, address)
        account = _account(verdict) if verdict.status != "invalid" else None
        if account is None:
            raise InvalidRequest.on("address", "ADDRESS_INVALID", f"This is no address on {network} that we can read.")
        return account


def _account(verdict: Verdict) -> str | None:
    return verdict.normalised or verdict.send_address


def _view(row: BlockedAddress) -> dict[str, Any]:
    return {
        "address": row.address,
        "currency": row.currency,
        "network": row.network,
        "reason": row.reason,
        "blocked_by": row.blocked_by,
        "blocked_at": iso(row.blocked_at),
    }
