"""Placing orders.

The order of things is the point: intent row and attempt first, then the call with no session open, then the answer written
down in every case, then the one door. See docs/architecture.md, "A create".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.orm import Session

from swap.addresses import Verdict
from swap.domain.lifecycle import Facts, Status
from swap.domain.order_limits import OrderLimit
from swap.domain.times import Timing, iso
from swap.errors import Conflict, InvalidRequest, OrderRefused, Problems, TryAgainLater
from swap.infra.shares import NoPlace, Shares
from swap.market.catalog import Catalog
from swap.market.quotes import Quote, Quotes, Swap, Terms, terms_of
from swap.orders.blocked import BlockedAddresses
from swap.orders.create import TOTAL_SECONDS, CreateOptions, OrderCreator
from swap.orders.destination import DestinationCheck, DestinationReport, OrderSide, SideName, could_not_ask
from swap.orders.limits import OrderLimits
from swap.orders.read import load
from swap.orders.validation import Destination, Examined, OrderRequest, PartialRequest, examine, invoice_problems
from swap.store import attempts as attempt_rows
from swap.store import orders as order_rows
from swap.store.database import Database
from swap.tables import InstrumentRow, Order, new_id

# How long an order waits for another one that is being placed to be over.
_LINE_SECONDS = 2.0


@dataclass(frozen=True)
class Placed:
    """`kind`: new, with where to pay; pending: still creating or in doubt; again: the stored order, in any status."""

    kind: Literal["new", "pending", "again"]
    order: Order


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
        self._room = Shares(options.max_at_once, waiting=max(1, options.max_at_once // 2))
        self._blocked = BlockedAddresses(database, timing.now)
        self._limits = OrderLimits(database, timing.now)
        self._closed = False

    def problems(self, client_id: str, request: PartialRequest, limits: Sequence[OrderLimit]) -> Problems:
        """What else is wrong with a request that is malformed in part. Without a catalog, nothing: the caller has the
        malformed fields to correct anyway."""
        try:
            examined = examine(self._catalog.usable(), request, self._timing.now())
        except TryAgainLater:
            return Problems()
        self._limits.note(examined, client_id, request, limits)
        return examined.problems

    def place(self, client_id: str, request: OrderRequest, limits: Sequence[OrderLimit]) -> Placed:
        """Place an order, or find the one this `client_order_id` already made, whatever the client's `limits` are now.

        Raises InvalidRequest (nothing stored, the id is free), Conflict (CLIENT_ORDER_ID_CONFLICT), OrderRefused (the
        order is kept as failed), TryAgainLater (the same request may be sent again).
        """
        give_up = self._timing.monotonic() + TOTAL_SECONDS
        with self._database.read() as session:
            known = order_rows.by_client_order_id(session, client_id, request.client_order_id)
        if known is not None:
            _must_equal(known, request)
            if not self._may_be_sent_again(known):
                return _placed(known)
        # Only a request that asks the upstream needs room: a known order is found however slow the upstream is.
        self._must_be_open()
        try:
            with self._room.place(client_id, _LINE_SECONDS):
                self._must_be_open()
                if known is None:
                    return self._place_new(client_id, request, limits, give_up)
                return self._next_attempt(known, request, give_up)
        except NoPlace:
            raise TryAgainLater(
                "Too many orders of yours are being placed at this moment.", code="TOO_MANY_CREATES", retry_after=2
            ) from None

    def _must_be_open(self) -> None:
        if self._closed:
            raise TryAgainLater("This process is about to end.", code="STOPPING", retry_after=1)

    def close(self, seconds: float) -> bool:
        """Take no more creates, and wait at most this long for those that are open. False when some still are."""
        self._closed = True
        return self._room.all_free(seconds)

    def _place_new(self, client_id: str, request: OrderRequest, limits: Sequence[OrderLimit], give_up: float) -> Placed:
        examined = examine(self._catalog.usable(), request, self._timing.now())
        swap, quote = self._quoted(client_id, request, examined)
        sides = self._sides(client_id, request, examined)
        self._blocked.note(examined)
        self._limits.note(examined, client_id, request, limits)
        if examined.problems:
            raise InvalidRequest(examined.problems)
        assert swap is not None
        terms, report = self._agreed(swap, quote, sides, give_up)

        order = self._new_order(client_id, request, swap, sides, terms)
        with self._database.write() as session:
            inserted = order_rows.insert(session, order, {"gate": report.evidence})
            if inserted:
                self._limits.hold(session, order, limits)
                if quote is not None:
                    _spend(session, quote, order.id, self._timing.now())
                number = attempt_rows.start_attempt(session, order, order.created_at)
        if not inserted:
            with self._database.read() as session:
                known = order_rows.by_client_order_id(session, client_id, request.client_order_id)
            assert known is not None
            _must_equal(known, request)
            return self._next_attempt(known, request, give_up) if self._may_be_sent_again(known) else _placed(known)
        return _sent(self._creator.send(order, number, order.created_at, give_up - self._timing.monotonic()))

    def _may_be_sent_again(self, order: Order) -> bool:
        """Whether none of its attempts reached the upstream, for certain. Once one may have, it is the resolver that creates
        again."""
        if order.status != Status.CREATING:
            return False
        with self._database.read() as session:
            return all(attempt.outcome == "not_sent" for attempt in attempt_rows.attempts_of(session, order.id))

    def _next_attempt(self, order: Order, request: OrderRequest, give_up: float) -> Placed:
        """The last attempt certainly never reached the upstream: the same request makes the next one, under a lease.

        `order` as it was read before its attempts were: a process that has changed it since has the lease.
        """
        examined = examine(self._catalog.usable(), request, self._timing.now())
        swap, quote = self._quoted(order.client_id, request, examined)
        self._blocked.note(examined)
        changes: dict[str, Any] = {"upstream_key": self._options.upstream_key}
        try:
            if examined.problems:
                raise InvalidRequest(examined.problems)
            assert swap is not None
            # With a quote the terms stay as quoted, or the order ends; without one, today's rate is as good as the last.
            if quote is None:
                terms = _terms_of_known(lambda: self._terms_now(swap, give_up))
                problems = invoice_problems(examined.destination, terms.amount_to_get, examined.refund, swap.amount)
                if problems:
                    raise InvalidRequest(problems)
                changes |= _terms_columns(terms)
        except InvalidRequest as error:
            return self._ended(order, error)
        with self._database.write() as session:
            changes["next_check_at"] = self._creator.sweep_due_at()
            now = self._timing.now()
            leased = order_rows.move(session, order, changes, at=now, source="api")
            number = 0 if leased is None else attempt_rows.start_attempt(session, leased, now)
        if leased is None:
            return _placed(load(self._database, order.id))
        return _sent(self._creator.send(leased, number, now, give_up - self._timing.monotonic()))

    def _ended(self, order: Order, error: InvalidRequest) -> Placed:
        """What was right when the order was written down no longer is: its quote ran out, its pair was switched off."""
        code = next(iter(error.fields.values()))[0].code
        if self._creator.fail(order, code.lower()) is None:
            return _placed(load(self._database, order.id))
        raise OrderRefused(
            "The upstream was not reached in time, and now this order can no longer be made; it is kept as failed.",
            code=code,
            order_id=order.id,
            fields=error.details["fields"],
        ) from error

    def _quoted(self, client_id: str, request: OrderRequest, examined: Examined) -> tuple[Swap | None, Quote | None]:
        """The swap, None where an instrument is unknown, and the quote that it comes with. Notes what is wrong with that."""
        if examined.source is None or examined.target is None:
            return None, None
        swap = Swap(examined.source, examined.target, request.amount, request.rate_mode)
        if request.quote_id is None:
            return swap, None
        return swap, examined.problems.collect("quote_id", self._quotes.open(request.quote_id, client_id, swap))

    def _sides(self, client_id: str, request: OrderRequest, examined: Examined) -> dict[SideName, OrderSide]:
        """Both addresses of the order, as far as they are given. Notes what is wrong with their validation ids."""
        sides: dict[SideName, OrderSide] = {}
        given: tuple[tuple[SideName, Destination | None, InstrumentRow | None, Verdict | None], ...] = (
            ("destination", request.destination, examined.target, examined.destination),
            ("refund", request.refund, examined.source, examined.refund),
        )
        for name, written, instrument, verdict in given:
            if written is None or instrument is None:
                continue
            validated_at = None
            if written.validation_id is not None:
                validated_at = examined.problems.collect(
                    f"{name}_validation_id",
                    self._destinations.validated_at(client_id, instrument, verdict, written.validation_id),
                )
            if verdict is not None:
                sides[name] = OrderSide(name, instrument, verdict, validated_at)
        return sides

    def _agreed(
        self, swap: Swap, quote: Quote | None, sides: Mapping[SideName, OrderSide], give_up: float
    ) -> tuple[Terms, DestinationReport]:
        """The terms, once the upstream has nothing against amount and addresses. Raises InvalidRequest with all that it
        has, TryAgainLater when it cannot be asked."""
        problems = Problems()
        terms = quote.terms if quote else None
        if terms is None:
            try:
                terms = self._terms_now(swap, give_up)
            except InvalidRequest as error:
                problems.update(error.fields)
        if terms is not None:
            verdicts = {name: side.verdict for name, side in sides.items()}
            problems.update(
                invoice_problems(verdicts.get("destination"), terms.amount_to_get, verdicts.get("refund"), swap.amount)
            )
        try:
            report = self._destinations.check(sides.values(), lambda: self._left(give_up))
            problems.update(report.problems)
        except TryAgainLater:
            if not problems:
                raise
        if problems:
            raise InvalidRequest(problems)
        assert terms is not None
        return terms, report

    def _terms_now(self, swap: Swap, give_up: float) -> Terms:
        # It is a part of the create, and must not stand behind polls as a quote does.
        return terms_of(self._quotes.rate(swap, self._left(give_up), priority="create"))

    def _new_order(
        self, client_id: str, request: OrderRequest, swap: Swap, sides: Mapping[SideName, OrderSide], terms: Terms
    ) -> Order:
        now = self._timing.now()
        destination = sides["destination"].verdict
        refund = sides["refund"].verdict if "refund" in sides else None
        return Order(
            id=new_id("ord"),
            client_id=client_id,
            client_order_id=request.client_order_id,
            request=request.stored(),
            version=1,
            sequence=1,
            status=Status.CREATING,
            status_changed_at=now,
            from_currency=swap.source.currency,
            from_network=swap.source.network,
            to_currency=swap.target.currency,
            to_network=swap.target.network,
            rate_mode=request.rate_mode,
            amount=request.amount,
            **_terms_columns(terms),
            referrer_id=self._options.referrer_id,
            markup=self._options.markup,
            destination_address=destination.send_address,
            destination_memo=destination.send_memo,
            refund_address=None if refund is None else refund.send_address,
            refund_memo=None if refund is None else refund.send_memo,
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


def _must_equal(order: Order, request: OrderRequest) -> None:
    """Raises Conflict when the `client_order_id` was used with other fields. A field the stored request does not know was
    added to the API later, and was not given."""
    stored, asked = order.request, request.stored()
    # null, missing, false and {} are all ways of not giving an optional field.
    different = sorted(
        name for name in stored.keys() | asked.keys() if not _is_same(stored.get(name) or None, asked.get(name) or None)
    )
    if different:
        raise Conflict(
            "This client_order_id belongs to an order with other fields; use a new one for a new order.",
            code="CLIENT_ORDER_ID_CONFLICT",
            order_id=order.id,
            different=[field_name(name) for name in different],
        )


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are the same JSON. To Python 1 and true are equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return bool(one == other)


def field_name(name: str) -> str:
    """A key of `OrderRequest.stored` as the caller knows it: `from_currency` is `from.currency` there."""
    side, _, part = name.partition("_")
    return f"{side}.{part}" if side in ("from", "to") else name


def _placed(order: Order) -> Placed:
    pending = order.status in (Status.CREATING, Status.IN_DOUBT)
    return Placed("pending" if pending else "again", order)


def _terms_of_known(terms_now: Callable[[], Terms]) -> Terms:
    """The terms now for an order that is written down. It was offered in its mode, so a rate in another one is more likely
    the upstream's mistake (docs/upstream.md, T12) than the end of the offer. Raises TryAgainLater for it."""
    try:
        return terms_now()
    except InvalidRequest as error:
        if "rate_mode" not in error.fields:
            raise
        message = "The upstream gives no rate in this mode right now."
        raise TryAgainLater(message, code="RATE_UNAVAILABLE", retry_after=5) from error


def _sent(order: Order) -> Placed:
    """What the call that sent the create answers. An order that another process took further meanwhile is no new one."""
    return Placed("new", order) if order.status == Status.AWAITING_DEPOSIT else _placed(order)


def _spend(session: Session, quote: Quote, order_id: str, now: datetime) -> None:
    """In the transaction of the order, not when the quote was opened: the checks in between take seconds."""
    if now >= quote.expires_at:
        message = f"This quote expired at {iso(quote.expires_at)}; ask for a new one."
        raise InvalidRequest.on("quote_id", "QUOTE_EXPIRED", message)
    if not order_rows.spend_quote(session, quote.mark, order_id, quote.expires_at):
        message = "This quote has already made an order; ask for a new one."
        raise InvalidRequest.on("quote_id", "QUOTE_SPENT", message)
