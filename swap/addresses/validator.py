"""The order of the checks. Cheap ones first; looking at other networks only once the address is refused."""

from __future__ import annotations

from swap.addresses import memos
from swap.addresses.aliases import resolve, shares_form_with_usual
from swap.addresses.hints import certainly_elsewhere, explain, explain_unclean, explain_whitespace
from swap.addresses.memos import MEMOS, NO_MEMO, UNKNOWN_MEMO, MemoRule
from swap.addresses.networks import NETWORKS
from swap.addresses.payable import LONGEST
from swap.addresses.refusals import MESSAGES, REFINABLE, InvalidAddress
from swap.addresses.verdict import Verdict

# Refusals of a memo that the description of its type answers.
_LIMITS = frozenset({"memo_too_long", "memo_not_numeric", "memo_out_of_range"})


def network_code(currency: str, network: str) -> str | None:
    """The internal code behind a catalog's titles, or None when it is unknown or means two networks."""
    return resolve(currency, network)[0] if _is_text(currency) and _is_text(network) else None


def memo_rule(currency: str, network: str) -> MemoRule:
    """What the memo field of this network is called and may hold."""
    code = network_code(currency, network)
    return UNKNOWN_MEMO if code is None else MEMOS.get(code, NO_MEMO)


def validate(currency: str, network: str, address: str, memo: str | None = None) -> Verdict:
    """Whether a payout may be sent to `address` with `memo`. Never raises; anything but text is invalid.

    A missing memo never makes an address invalid: whether one is needed is up to the instrument and the receiver.
    """
    code, unresolved = resolve(currency, network) if _is_text(currency) and _is_text(network) else (None, None)
    if code is None:
        if not _is_text(address):
            return _invalid("address", InvalidAddress("not_text"), None, UNKNOWN_MEMO)
        if memo is not None and not _is_text(memo):
            return _invalid("memo", InvalidAddress("memo_not_text"), None, UNKNOWN_MEMO)
        try:
            if memo:
                memos.check_written(memo)
        except InvalidAddress as refusal:
            return _invalid("memo", refusal, None, UNKNOWN_MEMO)
        reason = unresolved or "network_unknown"
        return Verdict("unchecked", reason, MESSAGES[reason], send_address=address, send_memo=memo)
    rule = MEMOS.get(code, NO_MEMO)
    try:
        _check_text(address)
        payable = NETWORKS[code].rule(address)
        if "no_checksum" in payable.warnings:
            elsewhere = certainly_elsewhere(code, address)
            if elsewhere is not None:
                raise elsewhere
    except InvalidAddress as refusal:
        return _invalid(
            "address", explain(code, address, refusal) if refusal.reason in REFINABLE else refusal, code, rule
        )
    warnings = payable.warnings
    if memo is not None:
        try:
            if not _is_text(memo):
                raise InvalidAddress("memo_not_text")
            if not memo:
                raise InvalidAddress("memo_empty")
            if payable.separate_memo == "refused":
                raise InvalidAddress("memo_conflict")
            warnings += memos.check(code, rule, memo)
            if payable.separate_memo == "same" and memo != payable.embedded_memo:
                raise InvalidAddress("memo_conflict")
        except InvalidAddress as refusal:
            return _invalid("memo", refusal, code, rule)
    if shares_form_with_usual(currency, code):
        warnings += ("same_form_elsewhere",)
    return Verdict(
        "valid",
        network=code,
        normalised=payable.normalised,
        embedded_memo=payable.embedded_memo,
        warnings=warnings,
        memo_rule=rule,
        send_address=payable.send_as or address,
        send_memo=payable.embedded_memo if payable.send_as else memo,
        invoice=payable.invoice,
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _check_text(address: object) -> None:
    """Everything that no address of any network is. ASCII early: it ends the whole matter of look-alikes at once."""
    if not isinstance(address, str):
        raise InvalidAddress("not_text")
    if not address:
        raise InvalidAddress("empty")
    # Length before everything that looks at each character.
    if len(address) > LONGEST:
        raise InvalidAddress("too_long")
    if not address.isascii():
        raise InvalidAddress("non_ascii", explain_unclean(address))
    if " " in address or not address.isprintable():
        raise InvalidAddress(*explain_whitespace(address))


def _invalid(field: str, refusal: InvalidAddress, code: str | None, rule: MemoRule) -> Verdict:
    return Verdict(
        "invalid",
        refusal.reason,
        MESSAGES[refusal.reason],
        "memo" if field == "memo" else "address",
        code,
        memo_rule=rule,
        hint=refusal.hint or (rule.description if refusal.reason in _LIMITS else None),
    )
