"""Placing orders.

The order of things is the point: intent row and attempt first, then the call with no session open, then the answer written
down whatever it was, then the one door. See docs/architecture.md, "A create".
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from swap.domain.lifecycle import Facts, Status
from swap.domain.times import Timing
from swap.errors import Conflict, InvalidRequest, OrderRefused, TryAgainLater
from swap.market.catalog import Catalog
from swap.market.quotes import Quotes, Terms, Ticket, terms_of
from swap.orders.create import TOTAL_SECONDS, CreateOptions, OrderCreator
from swap.orders.destination import DestinationCheck, DestinationReport, End, could_not_ask
from swap.orders.read import load
from swap.orders.validation import Checked, OrderRequest, checked, offline, request_problems
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.store.serializers import order_view
from swap.tables import InstrumentRow, Order, new_id


@dataclass(frozen=True)
class Placed:
    """`kind`: new, with where to pay; pending: still creating or in doubt; again: the stored order, whatever it is now."""

    kind: Literal["new", "pending", "again"]
    order: dict[str, Any]


class OrderPlacer:
    def __init__(
        self,
        database: Database,
        destinations: DestinationCheck,
        catalog: Catalog,
        quotes: Quotes,
        creator: OrderCreator,
        options: CreateOptions,
        timing: Timing,
    ) -> None:
        self._database, self._destinations, self._catalog = database, destinations, catalog
        self._quotes, self._creator, self._options, self._timing = quotes, creator, options, timing
        self._room = threading.BoundedSemaphore(options.max_at_once)
        self._closed = False

    def problems(self, partial: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        """Field problems of a request, malformed fields left out; see `checks.request_problems`. Without a catalog none
        are found: what is malformed is no less so for that."""
        try:
            return request_problems(self._catalog.usable(), partial)
        except TryAgainLater:
            return {}

    def place(self, client_id: str, request: OrderRequest) -> Placed:
        """Place an order, or find the one this `client_order_id` already made.

        Raises InvalidRequest (nothing stored, the id is free), Conflict (CLIENT_ORDER_ID_CONFLICT), OrderRefused (the
        order is kept as failed), TryAgainLater (the same request may be sent again).
        """
        give_up = self._timing.monotonic() + TOTAL_SECONDS
        with self._database.read() as session:
            known = order_rows.by_client_order_id(session, client_id, request.client_order_id)
        if known is not None:
            self._must_equal(known, request)
            if not self._may_be_sent_again(known):
                return _placed(known)
        # Only what asks the upstream needs room: an order that is known is found however slow the upstream is.
        if self._closed:
            raise TryAgainLater("This process is about to end.", code="STOPPING", retry_after=1)
        if not self._room.acquire(timeout=0.1):
            raise TryAgainLater(
                "Too many orders are being placed at this moment.", code="TOO_MANY_CREATES", retry_after=2
            )
        try:
            if known is None:
                return self._place_new(client_id, request, give_up)
            return self._next_attempt(known, request, give_up)
        finally:
            self._room.release()

    def close(self, seconds: float) -> bool:
        """Take no more creates, and wait at most so long for those that are open. False when some still are."""
        self._closed = True
        until = self._timing.monotonic() + seconds
        return all(
            self._room.acquire(timeout=max(0.0, until - self._timing.monotonic()))
            for _ in range(self._options.max_at_once)
        )

    def _place_new(self, client_id: str, request: OrderRequest, give_up: float) -> Placed:
        snapshot = self._catalog.usable()
        found = request_problems(snapshot, vars(request))
        ticket = None
        source = snapshot.instrument(request.from_currency, request.from_network)
        target = snapshot.instrument(request.to_currency, request.to_network)
        if source is not None and target is not None:
            try:
                ticket = self._ticket(client_id, request, source, target)
            except InvalidRequest as error:
                found |= error.fields
        vouched = {}
        for side, instrument in (("destination", target), ("refund", source)):
            try:
                vouched[side] = self._vouched(client_id, request, side, instrument)
            except InvalidRequest as error:
                found |= error.fields
        if found:
            raise InvalidRequest(found)
        check = checked(snapshot, request)
        terms, admission = self._agreed(request, check, ticket, vouched, give_up)

        order = self._new_order(client_id, request, check, terms)
        with self._database.write() as session:
            inserted = order_rows.insert(session, order, {"gate": admission.evidence})
            if inserted:
                if ticket and not order_rows.spend_quote(session, ticket.mark, order.id, ticket.expires_at):
                    message = "This quote has already made an order; ask for a new one."
                    raise InvalidRequest({"quote_id": [{"code": "QUOTE_SPENT", "message": message}]})
                number = order_rows.start_attempt(session, order.id, order.upstream_key, order.created_at)
        if not inserted:
            with self._database.read() as session:
                known = order_rows.by_client_order_id(session, client_id, request.client_order_id)
            assert known is not None
            self._must_equal(known, request)
            return self._next_attempt(known, request, give_up) if self._may_be_sent_again(known) else _placed(known)
        return _made(self._creator.send(order, number, give_up - self._timing.monotonic()))

    @staticmethod
    def _must_equal(order: Order, request: OrderRequest) -> None:
        """Raises Conflict when the `client_order_id` was used with other fields. A field the stored request does not know
        was added to the API later, and was not given."""
        asked, known = request.stored(), order.request
        names = asked.keys() | known.keys()
        # null, missing, false and {} are all ways of not giving an optional field.
        different = sorted(name for name in names if (asked.get(name) or None) != (known.get(name) or None))
        if different:
            raise Conflict(
                "This client_order_id belongs to an order with other fields; use a new one for a new order.",
                code="CLIENT_ORDER_ID_CONFLICT",
                order_id=order.id,
                different=[field_name(name) for name in different],
            )

    def _may_be_sent_again(self, order: Order) -> bool:
        """Whether its last attempt is known not to have reached the upstream."""
        if order.status != Status.CREATING:
            return False
        with self._database.read() as session:
            return order_rows.attempts_of(session, order.id)[-1].outcome == "not_sent"

    def _next_attempt(self, order: Order, request: OrderRequest, give_up: float) -> Placed:
        """The last attempt certainly never reached the upstream: the same request makes the next one, under a lease.

        `order` as it was read before its attempts were: whoever changed it since has the lease.
        """
        snapshot = self._catalog.usable()
        changes: dict[str, Any] = {"upstream_key": self._options.upstream_key}
        try:
            found = request_problems(snapshot, vars(request))
            if found:
                raise InvalidRequest(found)
            check = checked(snapshot, request)
            # With a quote the terms stay as quoted, or the order ends; without one, today's rate is as good as the last.
            if self._ticket(order.client_id, request, check.source, check.target) is None:
                changes |= _terms_columns(self._terms_now(check, order.amount, request.rate_mode, give_up))
        except InvalidRequest as error:
            return self._ended(order, error)
        with self._database.write() as session:
            changes["next_check_at"] = self._creator.sweep_due_at()
            leased = order_rows.move(session, order, changes, at=self._timing.now(), source="api")
            number = (
                0
                if leased is None
                else order_rows.start_attempt(session, order.id, leased.upstream_key, self._timing.now())
            )
        if leased is None:
            return _placed(load(self._database, order.id))
        return _made(self._creator.send(leased, number, give_up - self._timing.monotonic()))

    def _ended(self, order: Order, error: InvalidRequest) -> Placed:
        """What was right when the order was written down no longer is: its quote ran out, its pair was switched off."""
        code = next(iter(error.fields.values()))[0]["code"]
        if self._creator.fail(order, code.lower()) is None:
            return _placed(load(self._database, order.id))
        raise OrderRefused(
            "The upstream was not reached in time, and now this order can no longer be made; it is kept as failed.",
            code=code,
            order_id=order.id,
            fields=error.fields,
        ) from error

    def _ticket(
        self, client_id: str, request: OrderRequest, source: InstrumentRow, target: InstrumentRow
    ) -> Ticket | None:
        if request.quote_id is None:
            return None
        ticket = self._quotes.open(request.quote_id, client_id, source, target, request.amount, request.rate_mode)
        self._quotes.check_age(ticket.terms)
        return ticket

    def _vouched(
        self, client_id: str, request: OrderRequest, side: str, instrument: InstrumentRow | None
    ) -> datetime | None:
        """When the upstream said yes to this end of the order, where a validation id says so; see
        `DestinationCheck.vouched`."""
        fields = vars(request)
        validation_id = fields[f"{side}_validation_id"]
        if validation_id is None or instrument is None:
            return None
        address = fields[f"{side}_address"]
        verdict = None if address is None else offline(instrument, address, fields[f"{side}_memo"])
        return self._destinations.vouched(client_id, side, instrument, verdict, validation_id)

    def _agreed(
        self,
        request: OrderRequest,
        check: Checked,
        ticket: Ticket | None,
        vouched: dict[str, datetime | None],
        give_up: float,
    ) -> tuple[Terms, DestinationReport]:
        """The terms, once the upstream has nothing against amount and addresses. Raises InvalidRequest with all that it
        has, TryAgainLater when it cannot be asked."""
        refused: dict[str, list[dict[str, Any]]] = {}
        terms = ticket.terms if ticket else None
        if terms is None:
            try:
                terms = self._terms_now(check, request.amount, request.rate_mode, give_up)
            except InvalidRequest as error:
                refused |= error.fields
        ends = [End("destination", check.target, check.destination, vouched["destination"])]
        if check.refund is not None:
            ends.append(End("refund", check.source, check.refund, vouched["refund"]))
        try:
            admission = self._destinations.admit(ends, lambda: self._left(give_up))
            refused |= admission.problems
        except TryAgainLater:
            if not refused:
                raise
        if refused:
            raise InvalidRequest(refused)
        assert terms is not None
        return terms, admission

    def _terms_now(self, check: Checked, amount: Decimal, mode: Any, give_up: float) -> Terms:
        return terms_of(self._quotes.rate(check.source, check.target, amount, mode, self._left(give_up)))

    def _new_order(self, client_id: str, request: OrderRequest, check: Checked, terms: Terms) -> Order:
        now = self._timing.now()
        return Order(
            id=new_id("ord"),
            client_id=client_id,
            client_order_id=request.client_order_id,
            request=request.stored(),
            version=1,
            sequence=1,
            status=Status.CREATING,
            status_changed_at=now,
            from_currency=check.source.currency,
            from_network=check.source.network,
            to_currency=check.target.currency,
            to_network=check.target.network,
            rate_mode=request.rate_mode,
            amount=request.amount,
            **_terms_columns(terms),
            referrer_id=self._options.referrer_id,
            markup=self._options.markup,
            destination_address=check.destination.send_address or request.destination_address,
            destination_memo=check.destination.send_memo,
            refund_address=None if check.refund is None else check.refund.send_address or request.refund_address,
            refund_memo=None if check.refund is None else check.refund.send_memo,
            user_id=request.user_id,
            session_id=request.session_id,
            account_id=request.account_id,
            order_metadata=request.metadata,
            upstream_key=self._options.upstream_key,
            payable=False,
            facts=Facts().to_json(),
            token_version=0,
            failures=0,
            next_check_at=self._creator.sweep_due_at(),
            created_at=now,
            updated_at=now,
        )

    def _left(self, give_up: float) -> float:
        """Seconds left for one more question. Raises TryAgainLater when a create would no longer fit."""
        left = give_up - self._timing.create_timeout - self._timing.monotonic()
        if left < 0.5:
            raise could_not_ask()
        return left


def _terms_columns(terms: Terms) -> dict[str, Any]:
    return {
        "amount_to_get": terms.amount_to_get,
        "rate": terms.claimed,
        "network_fee": terms.network_fee,
        "confirmations_required": terms.confirmations_required,
    }


def field_name(name: str) -> str:
    """A field of OrderRequest as the caller knows it: `from_currency` is `from.currency` there."""
    side, _, part = name.partition("_")
    return f"{side}.{part}" if side in ("from", "to") else name


def _placed(order: Order) -> Placed:
    pending = order.status in (Status.CREATING, Status.IN_DOUBT)
    return Placed("pending" if pending else "again", order_view(order))


def _made(order: Order) -> Placed:
    """What the call that sent the create answers; an order that others took further meanwhile is no new one."""
    return Placed("new", order_view(order)) if order.status == Status.AWAITING_DEPOSIT else _placed(order)
