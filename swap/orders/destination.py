"""The check of destinations before an order: our own verdict, and the upstream's.

Ours knows checksums and networks, the upstream's knows accounts, sanctions and its own routes (docs/upstream.md E3).
The upstream may turn valid into invalid, never the reverse. Where it cannot be asked, a valid of ours is enough and the
create judges; a destination that we have no rule for needs the upstream's explicit yes. Whenever the two verdicts differ,
the safer side wins, and the disagreement is logged and counted.

A clear answer is kept for five minutes in this process. A validation id carries a clear yes from `preview` to the order.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from sqlalchemy.exc import SQLAlchemyError

from swap import addresses
from swap.addresses import Verdict
from swap.addresses.networks import NETWORKS
from swap.domain.times import from_ms, iso, to_ms
from swap.errors import FieldProblem, MemoRefused, Problems, TryAgainLater, UpstreamError, UpstreamRefused
from swap.infra.shares import NoPlace, Shares
from swap.infra.tickets import ExpiredTicket, InvalidTicket, SignedTickets, binding
from swap.infra.vault import Vault
from swap.orders.blocked import BlockedAddresses
from swap.orders.validation import (
    Destination,
    destination_problems,
    memo_may_be_waived,
    memo_name,
    offline_is_enough,
    offline_verdict,
)
from swap.store import disagreements, events
from swap.store.database import Database
from swap.tables import InstrumentRow, Order
from swap.upstream.client import UpstreamClient
from swap.upstream.rate_budget import CHECK, PREVIEW

log = structlog.get_logger()

ID_LIFETIME = timedelta(minutes=10)
KEPT_FOR = timedelta(minutes=5)
_MOST_KEPT = 10_000
# All that one question may take, its turn included. An order's may take less, never more.
CHECK_SECONDS, PREVIEW_SECONDS = 4.0, 3.0
# A hanging upstream must not fill the API's threads with customers who are still typing.
_MOST_PREVIEWS = 8

# Refusals of ours about which the upstream is asked anyway, to find out which side is wrong. A text that may be a secret,
# whole or with a typing error, is never sent on, nor is one that is no address: it would end up in the upstream's journal
# and in ours.
_WORTH_ASKING = frozenset(
    {
        *("testnet", "other_network", "burn_address", "token_contract", "legacy_form", "unsupported_form"),
        *("memo_not_supported", "memo_too_long", "memo_not_numeric", "memo_leading_zero", "memo_out_of_range"),
        *("memo_conflict", "iban_checksum", "iban_country", "iban_form", "account_checksum"),
    }
)
# These only where the text begins as addresses of the network do, and is not as long as a private key for import.
_MISTYPED = frozenset({"bad_checksum", "mixed_case"})
_PRIVATE_KEY_LENGTHS = (51, 52)

SideName = Literal["destination", "refund"]


@dataclass(frozen=True, slots=True)
class UpstreamVerdict:
    """The upstream's verdict on a destination. `as_of`: when it was given; `reason`: in the upstream's words, which may
    repeat the address, so it is never logged."""

    status: Literal["valid", "invalid", "unavailable", "not_asked"]
    as_of: datetime | None = None
    field: Literal["address", "memo"] = "address"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OrderSide:
    """One address of an order, with our verdict on it. `validated_at`: when the upstream said yes, by a validation id; then
    it is not asked again."""

    name: SideName
    instrument: InstrumentRow
    verdict: Verdict
    validated_at: datetime | None = None


@dataclass
class DestinationReport:
    """`problems` by field of the order; `evidence` for the journal, by side."""

    problems: Problems = field(default_factory=Problems)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)


class DestinationCheck:
    """Thread-safe. `is_away`: whether the upstream as a whole is known not to answer."""

    def __init__(
        self,
        database: Database,
        upstream: UpstreamClient,
        vault: Vault,
        clock: Callable[[], datetime],
        *,
        is_away: Callable[[], bool],
    ) -> None:
        self._database, self._upstream, self._clock, self._is_away = database, upstream, clock, is_away
        self._tickets = SignedTickets(vault, "validation", clock)
        self._hash_key = vault.keys("address hash")[0]
        self._blocked = BlockedAddresses(database, clock)
        self._kept: OrderedDict[tuple[str, ...], UpstreamVerdict] = OrderedDict()
        self._lock = threading.Lock()
        self._room = Shares(_MOST_PREVIEWS, waiting=_MOST_PREVIEWS)

    # --- orders ------------------------------------------------------------------------------------------------------

    def check(self, sides: Iterable[OrderSide], left: Callable[[], float]) -> DestinationReport:
        """What the upstream has against the addresses of an order that we found nothing wrong with.

        `left`: the seconds left for questions; it raises TryAgainLater when there are none. Raises TryAgainLater when the
        upstream cannot be asked where its yes is needed, or time is up; unless it refused another side anyway.
        """
        report, unanswered = DestinationReport(), False
        for side in sides:
            try:
                verdict = self._check_side(side, left)
            except TryAgainLater:
                unanswered = True
                continue
            report.evidence[side.name] = {
                "offline": side.verdict.status,
                "upstream": verdict.status,
                "as_of": None if verdict.as_of is None else iso(verdict.as_of),
            }
            if verdict.status == "invalid":
                report.problems.add(f"{side.name}_{verdict.field}", _refusal(verdict))
            elif verdict.status != "valid" and (
                self._is_away() or not offline_is_enough(side.instrument, side.verdict)
            ):
                # While the whole upstream is away the create could not judge either, and must not be what finds out.
                unanswered = True
        if unanswered and not report.problems:
            raise could_not_ask()
        return report

    def _check_side(self, side: OrderSide, left: Callable[[], float]) -> UpstreamVerdict:
        if side.validated_at is not None:
            return UpstreamVerdict("valid", side.validated_at)
        address, memo = side.verdict.send_address or "", side.verdict.send_memo
        return self._ask(side.instrument, side.verdict, address, memo, CHECK, lambda: min(left(), CHECK_SECONDS))

    def validated_at(
        self, client_id: str, instrument: InstrumentRow, verdict: Verdict | None, validation_id: str
    ) -> datetime | FieldProblem:
        """When the upstream said yes to exactly this destination, by the id that `preview` gave out for it.

        `verdict`: ours on the destination, None where no address is given. A problem is VALIDATION_INVALID,
        VALIDATION_EXPIRED or VALIDATION_MISMATCH.
        """
        try:
            (bound_to, as_of), _ = self._tickets.open(validation_id)
        except ExpiredTicket as error:
            message = f"This validation expired at {iso(error.expires_at)}; validate again, or leave it out."
            return FieldProblem("VALIDATION_EXPIRED", message)
        except InvalidTicket:
            return FieldProblem("VALIDATION_INVALID", "This validation id was not made here.")
        if verdict is None or bound_to != _binding(client_id, instrument, verdict):
            message = "This validation was made for another currency, network, address, memo or client."
            return FieldProblem("VALIDATION_MISMATCH", message)
        return from_ms(int(as_of))

    def create_refused(self, order: Order, error: UpstreamRefused) -> None:
        """The create itself refused an address or memo: note it, if we had called it valid."""
        verdict = addresses.validate(
            order.to_currency, order.to_network, order.destination_address, order.destination_memo
        )
        if verdict.status != "valid":
            return
        about = "memo" if isinstance(error, MemoRefused) else "address"
        self._disagreed(
            order.destination_address,
            order.destination_memo,
            order,
            network=verdict.network or order.to_network,
            kind="create_refused",
            field=about,
            reason="",
        )

    # --- frontends ---------------------------------------------------------------------------------------------------

    def preview(
        self, client_id: str, instrument: InstrumentRow, destination: Destination, *, asker: str = ""
    ) -> dict[str, Any]:
        """Both verdicts on a destination, as the API answers them. `orderable`: an order to it would be accepted here.
        `asker`: whose places among those who ask it takes, the client's own by default."""
        address, memo = destination.address or "", destination.memo
        verdict = offline_verdict(instrument, address, memo, self._clock())
        problems = destination_problems(instrument, destination, verdict)
        problems.update(self._blocked.problems({"address": verdict}))
        upstream = self._preview(asker or client_id, instrument, verdict, address, memo)
        if verdict.status != "invalid" and upstream.status == "invalid":
            problems.add(upstream.field, _refusal(upstream))
        status = _combined(instrument, verdict, upstream)
        answer: dict[str, Any] = {
            "status": status,
            "valid": {"valid": True, "invalid": False, "unchecked": None}[status],
            "orderable": status == "valid" and not problems,
            **_explanation(status, verdict, upstream, problems),
            "problems": {name: [problem.to_json() for problem in those] for name, those in problems.items()},
            "offline": {"status": verdict.status, "reason": verdict.reason, "as_of": iso(self._clock())},
            "upstream": {
                "status": upstream.status,
                "reason": upstream.reason,
                "as_of": None if upstream.as_of is None else iso(upstream.as_of),
            },
            "normalised": verdict.normalised,
            "send": None
            if verdict.send_address is None
            else {"address": verdict.send_address, "memo": verdict.send_memo},
            "embedded_memo": verdict.embedded_memo,
            "warnings": list(verdict.warnings),
            "memo": _memo_view(instrument, verdict, memo, problems),
            "validation_id": None,
            "validation_expires_at": None,
        }
        if verdict.status != "invalid" and upstream.status == "valid" and upstream.as_of is not None:
            expires_at = self._clock() + ID_LIFETIME
            answer["validation_expires_at"] = iso(expires_at)
            answer["validation_id"] = self._tickets.issue(
                _binding(client_id, instrument, verdict), str(to_ms(upstream.as_of)), expires_at=expires_at
            )
        return answer

    def _preview(
        self, asker: str, instrument: InstrumentRow, verdict: Verdict, address: str, memo: str | None
    ) -> UpstreamVerdict:
        if verdict.status != "invalid":
            address, memo = verdict.send_address or "", verdict.send_memo
        elif not _is_worth_asking(verdict, address):
            return UpstreamVerdict("not_asked")
        try:
            with self._room.place(asker, 0.1):
                return self._ask(instrument, verdict, address, memo, PREVIEW, lambda: PREVIEW_SECONDS)
        except NoPlace:
            return UpstreamVerdict("unavailable")

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        instrument: InstrumentRow,
        ours: Verdict,
        address: str,
        memo: str | None,
        priority: str,
        seconds: Callable[[], float],
    ) -> UpstreamVerdict:
        """The upstream's verdict on this address and memo, on which ours is `ours`."""
        memo = memo or None
        key = (instrument.currency_key, instrument.network_key, address, memo or "")
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.as_of is not None and self._clock() - kept.as_of < KEPT_FOR:
                return kept
        try:
            answer = self._upstream.validate_address(
                instrument.currency, instrument.network, address, memo, priority=priority, deadline=seconds()
            )
        except UpstreamError as error:
            # A firewall in front of this endpoint, a timeout, our own budget: none says anything about the address.
            log.warning("gate.not_asked", network=instrument.network, lane=priority, code=error.code, cause=error.cause)
            return UpstreamVerdict("unavailable")
        verdict = UpstreamVerdict(
            "valid" if answer.valid else "invalid",
            self._clock(),
            answer.field or "address",
            (answer.reason or "")[:200] or None,
        )
        with self._lock:
            self._kept[key] = verdict
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        # Once per question asked, or a repeated look at what is kept would count as news.
        network, reason = ours.network or instrument.network, ours.reason or ""
        if (ours.status, verdict.status) == ("valid", "invalid"):
            self._disagreed(address, memo, network=network, kind="upstream_refused", field=verdict.field, reason="")
        elif (ours.status, verdict.status) == ("invalid", "valid"):
            about = "memo" if reason.startswith("memo_") else "address"
            self._disagreed(address, memo, network=network, kind="upstream_accepted", field=about, reason=reason)
        return verdict

    def _disagreed(self, address: str, memo: str | None, order: Order | None = None, **facts: str) -> None:
        """Log, count, and journal with the order where there is one. `facts`: network, kind, field, reason. The address
        appears as a hash that only we can make."""
        text = "\n".join((address, memo or ""))
        address_hash = hmac.new(self._hash_key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]
        facts["address_hash"] = address_hash
        order_id = None if order is None else order.id
        log.warning("gate.disagreement", order_id=order_id, **facts)
        now = self._clock()
        try:
            with self._database.write() as session:
                disagreements.count(session, **facts, now=now)
                if order is not None:
                    events.add_event(session, order, "journal.gate_disagreement", at=now, detail=facts)
        except SQLAlchemyError:
            log.warning("gate.disagreement_not_kept", order_id=order_id)


def _is_worth_asking(verdict: Verdict, address: str) -> bool:
    if verdict.reason not in _MISTYPED:
        return verdict.reason in _WORTH_ASKING
    starts = () if verdict.network is None else NETWORKS[verdict.network].starts
    return address.startswith(starts) and len(address) not in _PRIVATE_KEY_LENGTHS


def could_not_ask() -> TryAgainLater:
    """No order was made, since the upstream could not be asked; the same request may be sent again."""
    return TryAgainLater(
        "The upstream could not be asked about this order in time; none was made.",
        code="UPSTREAM_UNAVAILABLE",
        retry_after=5,
    )


def _combined(
    instrument: InstrumentRow, verdict: Verdict, upstream: UpstreamVerdict
) -> Literal["valid", "invalid", "unchecked"]:
    if "invalid" in (verdict.status, upstream.status):
        return "invalid"
    return "valid" if upstream.status == "valid" or offline_is_enough(instrument, verdict) else "unchecked"


def _explanation(status: str, verdict: Verdict, upstream: UpstreamVerdict, problems: Problems) -> dict[str, str | None]:
    """field, reason, message, hint: of the first thing in the way of an order, or of the verdict."""
    if verdict.status == "invalid":
        return {"field": verdict.field, "reason": verdict.reason, "message": verdict.message, "hint": verdict.hint}
    if upstream.status == "invalid":
        message = _refusal(upstream).message
        return {"field": upstream.field, "reason": "upstream_refused", "message": message, "hint": None}
    for name, (problem, *_) in problems.items():
        return {"field": name, "reason": problem.code.lower(), "message": problem.message, "hint": None}
    if status == "unchecked":
        message = "The upstream could not be asked about this destination, and an order to it needs its yes."
        return {"field": None, "reason": verdict.reason or "upstream_unavailable", "message": message, "hint": None}
    return {"field": None, "reason": None, "message": "The address can be paid to.", "hint": None}


def _memo_view(instrument: InstrumentRow, verdict: Verdict, memo: str | None, problems: Problems) -> dict[str, Any]:
    rule = addresses.memo_rule(instrument.currency, instrument.network)
    is_inside = verdict.embedded_memo is not None
    required = instrument.requires_memo and not is_inside
    if "memo" in problems:
        status = "missing" if memo is None else "invalid"
    elif is_inside:
        status = "in_address"
    elif memo is not None:
        status = "given"
    else:
        status = "not_needed" if not required else "missing" if "memo_none" in problems else "waived"
    return {
        "name": memo_name(instrument),
        "status": status,
        "required": required,
        "may_be_waived": required and memo_may_be_waived(instrument),
        "allowed": rule.kind != "none",
        "format": rule.description,
    }


def _refusal(upstream: UpstreamVerdict) -> FieldProblem:
    reason = f" ({upstream.reason})" if upstream.reason else ""
    message = f"The upstream does not accept this {upstream.field}{reason}."
    return FieldProblem(f"{upstream.field.upper()}_REFUSED", message)


def _binding(client_id: str, instrument: InstrumentRow, verdict: Verdict) -> str:
    """What the upstream was asked, and for which client; an X-address and its two parts are the same question."""
    return binding(client_id, instrument.currency, instrument.network, verdict.send_address or "", verdict.send_memo)
