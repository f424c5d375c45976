"""What each mutant replaces: {mutant: {module: patch}}. A patch gets the module when it has just been executed.

Loaded by `sitecustomize` in a fresh process: standard library only, and nothing of the service at the top.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from inspect import signature
from types import ModuleType
from typing import Any

Patch = Callable[[ModuleType], None]


def _replace(owner: Any, name: str, value: Any) -> None:
    """As setattr, but what is replaced must be there, and called the same way: a patch that only breaks its caller would be
    caught for the wrong reason."""
    before, now = signature(getattr(owner, name)), signature(value)
    takes_all = any(
        each.kind is each.VAR_POSITIONAL or each.kind is each.VAR_KEYWORD for each in now.parameters.values()
    )
    if not takes_all and list(before.parameters)[1:] != list(now.parameters)[1:]:
        raise TypeError(f"{name} is called with {before}")
    setattr(owner, name, value)


def _replace_value(owner: Any, name: str, value: Any) -> None:
    """For what is not called."""
    if type(getattr(owner, name)) is not type(value):
        raise TypeError(f"{name} is {getattr(owner, name)!r}")
    setattr(owner, name, value)


def _unknown_is_failed(module: ModuleType) -> None:
    failed = {"status": "failed", "status_reason": "upstream_error", "next_check_at": None}
    _replace(module, "in_doubt", lambda *_, **__: {**failed, "status": module.Status.FAILED})


def _memo_is_dropped(module: ModuleType) -> None:
    request = module.CreateRequest
    _replace(module, "CreateRequest", lambda **fields: request(**{**fields, "destination_memo": None}))


def _event_is_skipped(module: ModuleType) -> None:
    add = module.add_event

    def add_but_one(session: Any, order: Any, type: str, **more: Any) -> None:
        if type not in ("order.exchanging", "order.refunding"):
            add(session, order, type, **more)

    _replace(module, "add_event", add_but_one)


def _budget_is_ignored(module: ModuleType) -> None:
    _replace(module.RateBudget, "take", lambda self, *args, **kwargs: None)


def _create_is_repeated(module: ModuleType) -> None:
    create = module.UpstreamClient.create_order
    from swap.errors import OutcomeUnknown

    def until_it_answers(self: Any, request: Any, **more: Any) -> Any:
        for _ in range(3):
            try:
                return create(self, request, **more)
            except OutcomeUnknown:
                continue
        return create(self, request, **more)

    _replace(module.UpstreamClient, "create_order", until_it_answers)


def _address_is_enough(module: ModuleType) -> None:
    def all_of(self: Any, doubt: Any) -> Any:
        wanted = doubt.order.destination_address
        return [
            module.Candidate(row.refs[0], row.refs, key, row.created_at)
            for key, upstream in doubt.upstreams.items()
            for row in self.read_list(upstream) or ()
            if row.destination_address == wanted
        ]

    def examine(self: Any, doubt: Any, candidate: Any) -> Any:
        order, upstream = doubt.order, doubt.upstreams[candidate.upstream_key]
        reply = upstream.order(candidate.ref, order.destination_address, order_ref=order.id, deadline=5)
        with self._database.read() as session:
            taken = module.upstream_ids.named(session, reply.primary_ref, reply.refs).of_others(order.id)
        return module.Found(candidate, module.Finding.ANOTHERS if taken else module.Finding.OURS, reply)

    _replace(module.CandidateSearch, "all_of", all_of)
    _replace(module.CandidateSearch, "examine", examine)


def _rivals_are_ignored(module: ModuleType) -> None:
    _replace(module, "is_no_rivals", lambda session, order, found: True)


def _address_belongs_to_all(module: ModuleType) -> None:
    _replace(module, "claim", lambda session, order_id, place: True)
    _replace(module, "taken", lambda session, place, *, excluding: False)


def _answer_is_not_compared(module: ModuleType) -> None:
    _replace(module.Asked, "contradicted_by", lambda self, answer: None)
    _replace(module.Asked, "contradicted_by_refusal", lambda self, answer: None)


def _any_spelling_opens(module: ModuleType) -> None:
    tickets = module.SignedTickets
    open_canonical = tickets.open

    def open_any(self: Any, ticket: str) -> Any:
        signed, dot, mac = ticket.rpartition(".")
        return open_canonical(self, signed + dot + module.base64_encode(module.base64_decode(mac)).decode("ascii"))

    _replace(tickets, "open", open_any)


def _spare_is_dropped(module: ModuleType) -> None:
    # Also what is nobody's at first, and becomes a spare once public-info tells whose it is.
    def record_nothing(*_: Any, **__: Any) -> None:
        return None

    _replace(module, "record", record_nothing)


def _address_may_change(module: ModuleType) -> None:
    _replace_value(module, "_WRITE_ONCE", ())


def _newest_address_is_shown(module: ModuleType) -> None:
    learn = module.UnownedOrderPoller._learn

    def learn_and_show(self: Any, session: Any, row: Any, reply: Any, now: datetime) -> None:
        learn(self, session, row, reply, now)
        order = module.order_rows.get(session, row.order_id) if row.order_id else None
        if order is not None and order.deposit_kind is not None and reply.deposit_address is not None:
            place = {name: getattr(reply, name) for name in ("deposit_address", "deposit_memo")}
            module.order_rows.move(session, order, place, at=now, source="look")

    _replace(module.UnownedOrderPoller, "_learn", learn_and_show)


def _lease_holds_nobody_off(module: ModuleType) -> None:
    _replace(module, "_unleased", lambda now: module.literal(1) == module.literal(1))


def _lease_is_not_asked_for(module: ModuleType) -> None:
    _replace(module, "_holding", lambda lease: [])


PATCHES: dict[str, dict[str, Patch]] = {
    "call-unknown-failed": {"swap.orders.showing": _unknown_is_failed},
    "adopt-by-address": {
        "swap.orders.candidates": _address_is_enough,
        "swap.orders.resolve": _rivals_are_ignored,
    },
    "drop-memo": {"swap.orders.create": _memo_is_dropped},
    "skip-event": {"swap.store.orders": _event_is_skipped},
    "ignore-budget": {"swap.upstream.rate_budget": _budget_is_ignored},
    "retry-blindly": {"swap.upstream.client": _create_is_repeated},
    "act-without-lease": {
        "swap.store.leases": _lease_holds_nobody_off,
        "swap.store.orders": _lease_is_not_asked_for,
    },
    "drop-spare": {"swap.store.upstream_orders": _spare_is_dropped},
    "overwrite-shown-address": {
        "swap.store.orders": _address_may_change,
        "swap.watching.unowned": _newest_address_is_shown,
    },
    "show-without-ownership": {"swap.store.deposit_places": _address_belongs_to_all},
    "trust-shifted-answer": {"swap.upstream.echoes": _answer_is_not_compared},
    "spend-by-spelling": {"swap.infra.tickets": _any_spelling_opens},
}
