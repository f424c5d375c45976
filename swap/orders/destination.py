"""The gate before an order: our own verdict on a destination, and the upstream's.

Ours knows checksums and networks, the upstream's knows accounts, sanctions and its own routes (docs/upstream.md E3).
The upstream may turn valid into invalid, never the reverse. Where it cannot be asked, a valid of ours is enough and the
create judges; what we have no rule for needs its explicit yes. Whenever the two differ the safer side wins, and it is
written down.

A clear answer is kept for five minutes in this process. A validation id carries a clear yes from `preview` to the order.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import structlog
from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy.exc import SQLAlchemyError

from swap import addresses
from swap.addresses import Verdict
from swap.addresses.networks import NETWORKS
from swap.domain.times import iso
from swap.errors import InvalidRequest, MemoRefused, TryAgainLater, UpstreamError, UpstreamRefused
from swap.infra.vault import Vault
from swap.orders.validation import (
    FieldProblem,
    memo_may_be_waived,
    memo_name,
    offline,
    offline_is_enough,
    place_problems,
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
# A hanging upstream must not fill the API's threads with people who are still typing.
_MOST_PREVIEWS = 8

# Refusals of ours about which the upstream is asked all the same, to find out who is wrong. Nothing is sent on that may
# be a secret, whole or with a typing error, or no address at all: it would end up with the upstream, and in the journal.
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

Word = Literal["valid", "invalid", "unavailable", "not_asked"]


@dataclass(frozen=True, slots=True)
class UpstreamVerdict:
    """The upstream's word on a destination. `as_of`: when it gave it; `reason`: in its own words, perhaps repeating the
    address, so never logged."""

    word: Word
    as_of: datetime | None = None
    field: Literal["address", "memo"] = "address"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """One end of an order: `side` is destination or refund. `vouched_at`: when the upstream said yes, by a validation
    id; then it is not asked again."""

    side: Literal["destination", "refund"]
    instrument: InstrumentRow
    verdict: Verdict
    vouched_at: datetime | None = None


@dataclass
class DestinationReport:
    """`problems` by field of the order; `evidence` for the journal, by side."""

    problems: dict[str, list[FieldProblem]] = field(default_factory=dict)
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
        # As for quotes: the current key signs, all verify.
        self._serializer = URLSafeSerializer(list(reversed(vault.keys("validation"))), salt="validation")
        self._hash_key = vault.keys("address hash")[0]
        self._kept: OrderedDict[tuple[str, ...], UpstreamVerdict] = OrderedDict()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(_MOST_PREVIEWS)

    # --- orders ------------------------------------------------------------------------------------------------------

    def admit(self, ends: list[End], left: Callable[[], float]) -> DestinationReport:
        """What the upstream has against the ends of an order that we found nothing wrong with.

        `left`: the seconds left for questions; it raises TryAgainLater when there are none. Raises that when the
        upstream cannot be asked where its yes is needed, or time is up; unless something was refused anyway.
        """
        admission, owed = DestinationReport(), False
        for end in ends:
            try:
                said = self._admit(end, left)
            except TryAgainLater:
                owed = True
                continue
            admission.evidence[end.side] = {
                "offline": end.verdict.status,
                "upstream": said.word,
                "as_of": None if said.as_of is None else iso(said.as_of),
            }
            if said.word == "invalid":
                admission.problems.setdefault(f"{end.side}_{said.field}", []).append(_refusal(said))
            elif said.word != "valid" and (self._is_away() or not offline_is_enough(end.instrument, end.verdict)):
                # While the whole upstream is away the create could not judge either, and must not be what finds out.
                owed = True
        if owed and not admission.problems:
            raise could_not_ask()
        return admission

    def _admit(self, end: End, left: Callable[[], float]) -> UpstreamVerdict:
        if end.vouched_at is not None:
            return UpstreamVerdict("valid", end.vouched_at)
        return self._ask(end.instrument, end.verdict, CHECK, lambda: min(left(), CHECK_SECONDS))

    def vouched(
        self, client_id: str, side: str, instrument: InstrumentRow, verdict: Verdict | None, validation_id: str
    ) -> datetime:
        """When the upstream said yes to exactly this destination, by the id that `preview` gave out for it.

        `verdict` None: no address is given. Raises InvalidRequest on `<side>_validation_id` with VALIDATION_INVALID,
        VALIDATION_EXPIRED or VALIDATION_MISMATCH.
        """
        name = f"{side}_validation_id"
        try:
            content = self._serializer.loads(validation_id)
        except BadData:
            raise _id_problem(name, "VALIDATION_INVALID", "This validation id was not made here.") from None
        expires_at = _moment(content["x"])
        if self._clock() >= expires_at:
            raise _id_problem(
                name,
                "VALIDATION_EXPIRED",
                f"This validation expired at {iso(expires_at)}; validate again, or leave it out.",
            )
        if verdict is None or content["b"] != _binding(client_id, instrument, verdict):
            message = "This validation was made for another currency, network, address, memo or client."
            raise _id_problem(name, "VALIDATION_MISMATCH", message)
        return _moment(content["a"])

    def create_refused(self, order: Order, error: UpstreamRefused) -> None:
        """The create itself refused an address or memo: note it, if we had called it valid."""
        verdict = addresses.validate(
            order.to_currency, order.to_network, order.destination_address, order.destination_memo
        )
        if verdict.status != "valid":
            return
        about = "memo" if isinstance(error, MemoRefused) else "address"
        places = (order.destination_address, order.destination_memo)
        self._disagreed(verdict.network or order.to_network, "create_refused", about, "", places, order)

    # --- frontends ---------------------------------------------------------------------------------------------------

    def preview(
        self, client_id: str, instrument: InstrumentRow, address: str, memo: str | None, memo_none: bool
    ) -> dict[str, Any]:
        """Both verdicts on a destination, as the API answers them. `orderable`: an order to it would be accepted here."""
        verdict = offline(instrument, address, memo)
        problems = place_problems(instrument, address, memo, memo_none)
        said = self._previewed(instrument, verdict, address, memo)
        if verdict.status != "invalid" and said.word == "invalid":
            problems.setdefault(said.field, []).append(_refusal(said))
        status = _combined(instrument, verdict, said)
        answer: dict[str, Any] = {
            "status": status,
            "valid": {"valid": True, "invalid": False, "unchecked": None}[status],
            "orderable": status == "valid" and not problems,
            **_explanation(status, verdict, said, problems),
            "problems": problems,
            "offline": {"status": verdict.status, "reason": verdict.reason, "as_of": iso(self._clock())},
            "upstream": {
                "status": said.word,
                "reason": said.reason,
                "as_of": None if said.as_of is None else iso(said.as_of),
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
        if verdict.status != "invalid" and said.word == "valid" and said.as_of is not None:
            expires_at = self._clock() + ID_LIFETIME
            answer["validation_expires_at"] = iso(expires_at)
            binding = _binding(client_id, instrument, verdict)
            answer["validation_id"] = self._serializer.dumps({"b": binding, "x": _ms(expires_at), "a": _ms(said.as_of)})
        return answer

    def _previewed(
        self, instrument: InstrumentRow, verdict: Verdict, address: str, memo: str | None
    ) -> UpstreamVerdict:
        if verdict.status == "invalid":
            if not _is_worth_asking(verdict, address):
                return UpstreamVerdict("not_asked")
            verdict = Verdict("invalid", verdict.reason, network=verdict.network, send_address=address, send_memo=memo)
        if not self._room.acquire(timeout=0.1):
            return UpstreamVerdict("unavailable")
        try:
            return self._ask(instrument, verdict, PREVIEW, lambda: PREVIEW_SECONDS)
        finally:
            self._room.release()

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask(
        self, instrument: InstrumentRow, verdict: Verdict, priority: str, seconds: Callable[[], float]
    ) -> UpstreamVerdict:
        """The upstream's word on what `verdict` would send it."""
        address, memo = verdict.send_address or "", verdict.send_memo or None
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
        word: Word = "valid" if answer.valid else "invalid"
        said = UpstreamVerdict(word, self._clock(), answer.field or "address", (answer.reason or "")[:200] or None)
        with self._lock:
            self._kept[key] = said
            self._kept.move_to_end(key)
            if len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        # Once per question asked, or a repeated look at what is kept would count as news.
        if (verdict.status, said.word) == ("valid", "invalid"):
            self._disagreed(verdict.network or instrument.network, "upstream_refused", said.field, "", (address, memo))
        elif (verdict.status, said.word) == ("invalid", "valid"):
            reason = verdict.reason or ""
            about = "memo" if reason.startswith("memo_") else "address"
            network = verdict.network or instrument.network
            self._disagreed(network, "upstream_accepted", about, reason, (address, memo))
        return said

    def _disagreed(
        self,
        network: str,
        kind: str,
        about: str,
        reason: str,
        place: tuple[str, str | None],
        order: Order | None = None,
    ) -> None:
        """Log, count, and journal with the order where there is one. The address appears as a hash that only we can make."""
        text = "\n".join((place[0], place[1] or ""))
        address_hash = hmac.new(self._hash_key, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]
        told = {"network": network, "kind": kind, "field": about, "reason": reason, "address_hash": address_hash}
        order_id = None if order is None else order.id
        log.warning("gate.disagreement", order_id=order_id, **told)
        now = self._clock()
        try:
            with self._database.write() as session:
                disagreements.count(session, **told, now=now)
                if order is not None:
                    events.add_event(session, order, "journal.gate_disagreement", at=now, detail=told)
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
    instrument: InstrumentRow, verdict: Verdict, said: UpstreamVerdict
) -> Literal["valid", "invalid", "unchecked"]:
    if "invalid" in (verdict.status, said.word):
        return "invalid"
    return "valid" if said.word == "valid" or offline_is_enough(instrument, verdict) else "unchecked"


def _explanation(
    status: str, verdict: Verdict, said: UpstreamVerdict, problems: Mapping[str, list[FieldProblem]]
) -> dict[str, str | None]:
    """field, reason, message, hint: of the first thing in the way of an order, or of the verdict."""
    if verdict.status == "invalid":
        return {"field": verdict.field, "reason": verdict.reason, "message": verdict.message, "hint": verdict.hint}
    if said.word == "invalid":
        message = _refusal(said)["message"]
        return {"field": said.field, "reason": "upstream_refused", "message": message, "hint": None}
    for name, (problem, *_) in problems.items():
        return {"field": name, "reason": problem["code"].lower(), "message": problem["message"], "hint": None}
    if status == "unchecked":
        message = "The upstream could not be asked about this destination, and an order to it needs its yes."
        return {"field": None, "reason": verdict.reason or "upstream_unavailable", "message": message, "hint": None}
    return {"field": None, "reason": None, "message": "The address can be paid to.", "hint": None}


def _memo_view(
    instrument: InstrumentRow, verdict: Verdict, memo: str | None, problems: Mapping[str, list[FieldProblem]]
) -> dict[str, Any]:
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


def _refusal(said: UpstreamVerdict) -> FieldProblem:
    reason = f" ({said.reason})" if said.reason else ""
    message = f"The upstream does not accept this {said.field}{reason}."
    return {"code": f"{said.field.upper()}_REFUSED", "message": message}


def _binding(client_id: str, instrument: InstrumentRow, verdict: Verdict) -> str:
    """What the upstream was asked, and for whom; an X-address and its two parts are the same question."""
    memo = "-" if verdict.send_memo is None else f"={verdict.send_memo}"
    parts = (client_id, instrument.currency, instrument.network, verdict.send_address or "", memo)
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:32]


def _id_problem(name: str, code: str, message: str) -> InvalidRequest:
    return InvalidRequest({name: [{"code": code, "message": message}]})


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
