"""How answers about one order become one, and what that makes of its deposits and payouts."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swap.domain.facts import KEPT_EVENTS, KEPT_MISSED, KEPT_TRANSFERS, Facts, Kind, UpstreamEvent
from swap.domain.ledger import account
from swap.domain.lifecycle import Status, funds, is_final, next_status, review_due
from swap.domain.transfers import Transfer
from tests.histories import START, Story, at, looks, public, read, stories

S = Status
thorough = settings(deadline=None, max_examples=150)
quick = settings(deadline=None, max_examples=100)

CREATED, DETECTED, REGISTERED = "CREATION_END", "INCOMING_FUNDS_DETECTED", "DEPOSIT_REGISTERED"
SENDING, SENT, REFUNDING, REFUNDED = (
    *("FUNDS_WITHDRAWAL_START", "WITHDRAWAL_COMPLETED"),
    *("REFUND_REQUESTED", "REFUND_COMPLETED"),
)


def told(*kinds: str, asked: float | None = None, **more: Any) -> Facts:
    """The kinds one minute after the other, the first at minute 0."""
    events = frozenset(UpstreamEvent(kind, at(n)) for n, kind in enumerate(kinds))
    return Facts(events=events, asked_at=None if asked is None else at(asked), **more)


def deposit(tx_id: str | None, minutes: float = 1, *, pending: bool = False, amount: str = "1") -> Transfer:
    return Transfer("deposit", Decimal(amount), tx_id, at(minutes), 0 if pending else 2, pending=pending)


def payout(tx_id: str | None, minutes: float = 4) -> Transfer:
    return Transfer("withdrawal", Decimal("261.9"), tx_id, at(minutes), pending=True)


def ids(facts: Facts) -> list[str | None]:
    return [transfer.tx_id for transfer in facts.transfers]


# --- the same history, however it was read ---------------------------------------------------------------------------


@given(looks())
@thorough
def test_any_looks_in_any_order_end_like_the_last_one_that_is_not_stale(history: tuple[list[Facts], Facts]) -> None:
    answers, last = history
    assert public(*read(answers)) == public(*read([last]))


@given(looks(), st.data())
@thorough
def test_what_was_read_is_never_told_again(history: tuple[list[Facts], Facts], data: st.DataObject) -> None:
    answers, _ = history
    status, facts = read(answers)
    again = data.draw(st.sampled_from(answers))
    after = read([again, again], status, facts)
    assert public(*after) == public(status, facts)
    assert after[1].counted == facts.counted, "no deposit is told as a further one"
    assert account(after[1]) == account(facts)


@given(stories())
@thorough
def test_an_order_read_after_each_step_ends_like_one_that_is_read_once(story: Story) -> None:
    answers = [replace(facts, asked_at=at(100 + n)) for n, facts in enumerate(story.told)]
    assert public(*read(answers)) == public(*read(answers[-1:]))


@given(looks())
@quick
def test_facts_that_were_stored_between_two_looks_are_the_same_facts(history: tuple[list[Facts], Facts]) -> None:
    known = stored = Facts()
    for answer in history[0]:
        known, stored = known.merge(answer), Facts.from_json(json.loads(json.dumps(stored.merge(answer).to_json())))
        assert stored == known
        assert stored.to_json() == known.to_json()


# --- which answer is current -----------------------------------------------------------------------------------------


def test_an_answer_with_fewer_events_is_history_whenever_it_was_asked_for() -> None:
    known = told(CREATED, DETECTED, asked=10, transfers=(deposit("a", pending=True),))
    stale = told(CREATED, asked=20, transfers=(deposit("other", pending=True),), completed=True, state="odd")
    assert known.merge(stale) == known
    assert not stale.merge(known).completed


def test_an_answer_whose_update_is_older_is_history() -> None:
    known = told(CREATED, DETECTED, asked=10, updated_at=at(9), transfers=(deposit("b", pending=True),))
    stale = told(CREATED, DETECTED, asked=20, updated_at=at(8), transfers=(deposit("a", pending=True),))
    assert ids(known.merge(stale)) == ids(stale.merge(known)) == ["b"]


def test_an_answer_that_brings_nothing_new_and_lacks_an_event_of_before_is_history() -> None:
    """The upstream has dated an event anew, and a copy that lags still tells the old date."""
    old, new = told(CREATED, DETECTED, asked=1), told(CREATED, asked=2)
    new = replace(new, events=new.events | {UpstreamEvent(DETECTED, at(1.5))}, transfers=(deposit("a"),))
    lagging = replace(old, asked_at=at(3), transfers=(deposit("z", pending=True),))
    known = old.merge(new).merge(lagging)
    assert known.events == new.events
    assert ids(known) == ["a"]
    assert ids(known.merge(replace(new, asked_at=at(4), transfers=(deposit("b"),)))) == ["a", "b"], "it goes on"


def test_any_look_counts_more_than_the_answer_to_the_create() -> None:
    created = told(CREATED, DETECTED, completed=True)
    look = told("CREATION", asked=1)
    for merged in (created.merge(look), look.merge(created)):
        assert (merged.events, merged.completed) == (look.events, False)
        assert ids(merged.merge(told("CREATION", asked=2, transfers=(deposit("a"),)))) == ["a"]


# --- transfers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(deposit("a", pending=True), id="a fee bump"),
        pytest.param(deposit(None, 0, pending=True), id="no id yet, another time"),
        pytest.param(deposit(None, pending=True, amount="9"), id="no id yet, another amount"),
        pytest.param(deposit(None, 0), id="settled without an id, and dated anew"),
        pytest.param(deposit("b", 0, pending=True, amount="9"), id="the same id, all else anew"),
    ],
)
def test_a_deposit_told_anew_is_one_deposit(first: Transfer) -> None:
    one, other = told(CREATED, DETECTED, asked=1, transfers=(first,)), told(CREATED, DETECTED, asked=2)
    other = replace(other, transfers=(deposit("b"),))
    assert one.merge(other).deposits == other.merge(one).deposits == (deposit("b"),)


def test_a_pending_deposit_that_two_answers_left_out_returns_only_settled() -> None:
    facts = told(CREATED, asked=1, transfers=(deposit("a", pending=True),))
    for minute in (2, 3):
        assert ids(facts.merge(told(CREATED, asked=9, transfers=(deposit("a", pending=True),)))) == ["a"]
        facts = facts.merge(told(CREATED, asked=minute, transfers=(deposit("b", pending=True),)))
        assert ids(facts) == ["b"]
    both = (deposit("a", pending=True), deposit("b", 2, pending=True))
    assert ids(facts.merge(told(CREATED, asked=4, transfers=both))) == ["b"]
    assert ids(facts.merge(told(CREATED, asked=4, transfers=(deposit("a"), both[1])))) == ["a", "b"]


def test_a_settled_deposit_stays_although_newer_answers_leave_it_out() -> None:
    for kept in (deposit("a"), deposit(None)):
        facts = told(CREATED, asked=1, transfers=(kept,)).merge(told(CREATED, asked=2))
        assert facts.transfers == (kept,)
    assert ids(facts.merge(told(CREATED, asked=3, transfers=(deposit("b"),)))) == ["b"], "it may be the one without id"


def test_a_settled_deposit_whose_id_is_left_out_later_is_not_counted_twice() -> None:
    facts = told(CREATED, asked=1, transfers=(deposit("a"),))
    assert facts.merge(told(CREATED, asked=2, transfers=(deposit(None),))).transfers == (deposit("a"),)


def test_confirmations_only_rise_and_pending_only_ends() -> None:
    facts = told(CREATED, asked=1, transfers=(deposit("a"),))
    later = told(CREATED, asked=2, transfers=(replace(deposit("a"), confirmations=1, pending=True),))
    assert facts.merge(later).transfers == (deposit("a"),)


def test_a_payout_that_is_sent_again_is_one_payout_until_one_is_complete() -> None:
    begun = told(CREATED, DETECTED, REGISTERED, SENDING, asked=1, transfers=(deposit("d"), payout("a")))
    again = replace(begun, asked_at=at(2), transfers=(deposit("d"), payout("b", 5)))
    sent = told(CREATED, DETECTED, REGISTERED, SENDING, SENT, asked=3, transfers=(deposit("d"), payout("b", 5)))
    known = begun.merge(again).merge(sent)
    assert [w.tx_id for w in known.withdrawals] == ["b"]
    forgotten = told("SOMETHING_ELSE", asked=4, transfers=(deposit("d"),))
    for minute in (4, 5):
        known = known.merge(replace(forgotten, asked_at=at(minute)))
        assert [w.tx_id for w in known.withdrawals] == ["b"], "what was completed once stays"


def test_two_entries_without_ids_are_two_unless_time_and_amount_are_the_same() -> None:
    one = deposit(None)
    assert len(Facts(transfers=(one, one, deposit(None, amount="2"), deposit(None, 2))).deposits) == 3
    assert len(Facts(transfers=(one, replace(one, direction="withdrawal"))).transfers) == 2


# --- rows of before --------------------------------------------------------------------------------------------------


def old_row(*sightings: Transfer, **more: Any) -> dict[str, Any]:
    """As versions before this one wrote it: `transfers` holds each sighting of each transfer."""
    return {
        "events": [{"kind": CREATED, "at": "2025-10-09T08:00:00.000Z"}],
        "transfers": [sighting.to_json() for sighting in sightings],
        "completed": False,
        "kyc_link": "https://kyc.invalid/1",
        "kyc_since": "2025-10-09T08:00:00.000Z",
        **more,
    }


def test_a_row_of_before_is_read_with_each_transfer_once() -> None:
    other = deposit("b", 2)
    sightings = (deposit(None, pending=True), deposit("a"), deposit(None, 2, amount="9", pending=True), other)
    paid = replace(payout("out"), pending=False)
    assert Facts.from_json(old_row(paid)).transfers == (payout("out"),), "no event says that it is complete"
    row = old_row(*sightings, paid, completed=True)
    facts = Facts.from_json(row)
    assert facts.transfers == (deposit("a"), other, paid)
    assert (facts.counted, facts.kyc_link, facts.asked_at) == (2, "https://kyc.invalid/1", None)
    assert Facts.from_json(facts.to_json()) == facts
    assert Facts.from_json({}) == Facts()


def test_two_payments_of_one_block_in_a_row_of_before_stay_two() -> None:
    row = old_row(deposit(None, amount="1"), deposit(None, amount="2"), deposit("a", amount="1"))
    assert Facts.from_json(row).deposits == (deposit("a", amount="1"), deposit(None, amount="2"))


def test_a_doubled_deposit_in_a_row_of_before_is_one_after_the_next_look() -> None:
    known = Facts.from_json(old_row(deposit("a", 0, pending=True), deposit("b")))
    assert ids(known) == ["a", "b"]
    assert ids(known.merge(told(CREATED, asked=1, transfers=(deposit("b"),)))) == ["b"]


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_an_upstream_that_dates_everything_anew_cannot_make_the_facts_grow() -> None:
    facts = Facts()
    for n in range(150):
        facts = facts.merge(
            Facts(
                events=frozenset({UpstreamEvent(CREATED, at(n))}),
                transfers=(deposit(f"pending{n}", n, pending=True), deposit(f"settled{n}", n)),
                asked_at=at(n),
            )
        )
    assert len(facts.past) == KEPT_EVENTS
    assert len(facts.transfers) == 2 + KEPT_TRANSFERS
    assert len(facts.missed) <= KEPT_MISSED
    assert len(json.dumps(facts.to_json())) < 30_000


# --- deposits are counted --------------------------------------------------------------------------------------------

TWO = (deposit("d1", 1), deposit("d2", 3))


def ends(*kinds: str, transfers: tuple[Transfer, ...] = (*TWO, payout("out"))) -> tuple[Status, str, bool]:
    """Status, funds and finality of an order of which these are told, once it is looked at."""
    facts = told(*kinds, asked=50, transfers=transfers)
    status = next_status(S.AWAITING_DEPOSIT, facts, at(60), created_at=START).status
    left = account(facts).remaining
    return status, funds(status, True, left=left), is_final(status, True, True, left=left)


def test_a_payout_covers_the_deposits_registered_before_it_began() -> None:
    before = (CREATED, DETECTED, REGISTERED, DETECTED, REGISTERED)
    assert ends(*before, SENDING, SENT) == (S.COMPLETED, "delivered", True)
    between = (CREATED, DETECTED, REGISTERED, SENDING, REGISTERED, SENT)
    assert ends(*between) == (S.COMPLETED, "with_upstream", False)
    assert ends(*between, SENDING, SENT) == (S.COMPLETED, "delivered", True)


def test_one_of_two_deposits_refunded_is_no_refunded_order() -> None:
    begun = (CREATED, DETECTED, REGISTERED, DETECTED, REGISTERED, REFUNDING, REFUNDED)
    assert ends(*begun, transfers=TWO) == (S.EXCHANGING, "with_upstream", False)
    assert ends(*begun, REFUNDING, REFUNDED, transfers=TWO) == (S.REFUNDED, "returned", True)
    assert ends(*begun, SENDING, SENT) == (S.COMPLETED, "delivered", True)
    assert ends(*begun[:4], REFUNDED, transfers=TWO) == (S.REFUNDED, "with_upstream", False)


def test_a_deposit_that_comes_after_a_refund_is_exchanged() -> None:
    refunded = (CREATED, DETECTED, REFUNDED)
    pending = (TWO[0], deposit("d2", 3, pending=True))
    assert ends(*refunded, transfers=TWO[:1]) == (S.REFUNDED, "returned", True)
    assert ends(*refunded, DETECTED, transfers=pending) == (S.REFUNDED, "seen_on_chain", False)
    facts = told(CREATED, DETECTED, REGISTERED, REFUNDED, DETECTED, REGISTERED, asked=9, transfers=TWO)
    assert next_status(S.REFUNDED, facts, at(60), created_at=START).status is S.EXCHANGING


def test_a_completed_order_is_reversed_only_by_a_refund_that_no_other_deposit_explains() -> None:
    done = (CREATED, DETECTED, REGISTERED, SENDING, SENT)
    assert ends(*done, DETECTED, REGISTERED, REFUNDED) == (S.COMPLETED, "delivered", True)
    facts = told(*done, REFUNDED, asked=9, transfers=(TWO[0], payout("out")))
    decision = next_status(S.COMPLETED, facts, at(60), created_at=START)
    assert (decision.status, decision.reason, decision.review) == (S.REFUNDED, "reversal", "reversal")


def test_a_deposit_without_any_event_is_not_delivered_by_the_payout_of_another() -> None:
    assert ends(CREATED, DETECTED, REGISTERED, SENDING, SENT) == (S.COMPLETED, "with_upstream", False)


@pytest.mark.parametrize(("hours", "review"), [(23.9, None), (24, "uncovered")])
def test_a_deposit_that_lies_with_the_upstream_for_a_day_is_for_a_person(hours: float, review: str | None) -> None:
    facts = told(CREATED, DETECTED, REGISTERED, SENDING, SENT, asked=9, transfers=(*TWO, payout("out", 5)))
    assert account(facts).uncovered_since == at(5)
    for status in (S.COMPLETED, S.AWAITING_DEPOSIT):
        assert next_status(status, facts, at(5) + timedelta(hours=hours), created_at=START).review == review


@pytest.mark.parametrize(
    ("facts", "status", "hours"),
    [
        (told(CREATED, DETECTED, asked=9, transfers=(deposit("a", pending=True),)), S.CONFIRMING, 24),
        (told(CREATED, DETECTED, asked=9), S.CONFIRMING, 24),
        (
            told(CREATED, asked=9, transfers=(deposit("a", pending=True),)).merge(told(CREATED, asked=10)),
            S.CONFIRMING,
            24,
        ),
        (told(CREATED, DETECTED, REGISTERED, asked=9, transfers=(deposit("a"),)), S.EXCHANGING, 24),
        (told(CREATED, DETECTED, REGISTERED, SENDING, asked=9, transfers=(deposit("a"), payout("o"))), S.SENDING, 72),
        (told(asked=9, state="processing"), S.CONFIRMING, 7 * 24),
    ],
)
def test_nothing_is_on_the_move_for_ever(facts: Facts, status: S, hours: float) -> None:
    since = account(facts).moved_at or START
    for late, review in ((-0.1, None), (0.1, "uncovered")):
        assert review_due(status, facts, since + timedelta(hours=hours + late), created_at=START) == review
    assert review_due(S.NEEDS_REVIEW, facts, START + timedelta(days=99), created_at=START) is None, "a person has it"


def test_what_was_detected_and_expired_all_the_same_is_for_nobody() -> None:
    facts = told(CREATED, DETECTED, asked=9)
    assert review_due(S.EXPIRED, facts, START + timedelta(days=9), created_at=START) is None


def test_the_time_on_hold_by_a_form_link_does_not_count_as_uncovered() -> None:
    told_so = (CREATED, DETECTED, REGISTERED)
    held = told(*told_so, asked=9, transfers=TWO[:1], kyc_link="https://kyc.invalid")
    cleared = held.merge(told(*told_so, asked=30 * 60, transfers=TWO[:1]))
    again = cleared.merge(told(*told_so, asked=31 * 60, transfers=TWO[:1]))
    assert Facts.from_json(again.to_json()).unheld_at == at(30 * 60)
    for hours, review in ((31, None), (53.9, None), (54, "uncovered")):
        decision = next_status(S.ON_HOLD, again, at(hours * 60), created_at=START)
        assert (decision.status, decision.review) == (S.EXCHANGING, review)


def test_money_on_hold_and_money_that_is_paid_out_are_not_uncovered() -> None:
    month = START + timedelta(days=30)
    held = told(CREATED, DETECTED, REGISTERED, "AML_FROZEN", asked=9, transfers=TWO[:1])
    paid = told(CREATED, DETECTED, REGISTERED, SENDING, SENT, asked=9, transfers=(TWO[0], payout("out")))
    for facts in (held, paid):
        assert next_status(S.AWAITING_DEPOSIT, facts, month, created_at=START).review is None


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["THRESHOLD_REACHED", "SHAREHOLDER", "UNFROZEN", "PLACEHOLDER", "HOUSEHOLD", "UPHELD"])
def test_a_word_of_holding_inside_another_word_is_no_hold(kind: str) -> None:
    assert Kind.of(kind) is Kind.UNKNOWN


@pytest.mark.parametrize(
    "kind", ["FUNDS_ON_HOLD", "onHold", "kycRequired", "KYC_PASSED", "AMLBOT_CHECK", "Frozen", "FUNDS_HELD", "ON-HOLD"]
)
def test_a_whole_word_of_holding_is_a_hold(kind: str) -> None:
    assert Kind.of(kind) is Kind.HOLD


@pytest.mark.parametrize("state", ["unconfirmed", "not_received", "threshold", "unprocessed", "Not Confirmed"])
def test_a_state_that_denies_a_movement_is_not_read_as_one(state: str) -> None:
    assert next_status(S.AWAITING_DEPOSIT, Facts(state=state), at(1), created_at=START).status is S.AWAITING_DEPOSIT


@pytest.mark.parametrize(
    ("one", "other", "deposits"),
    [("AB" * 32, "0x" + "ab" * 32, 1), ("ab" * 32, "AB" * 32, 1), ("5Nf" * 20, "5nF" * 20, 2), ("0xAB", "0xab", 2)],
)
def test_a_transaction_hash_is_one_in_any_spelling_and_other_ids_are_as_they_are_written(
    one: str, other: str, deposits: int
) -> None:
    first, second = (Transfer("deposit", Decimal(1), id_, START) for id_ in (one, other))
    assert len(Facts(transfers=(first, second)).deposits) == deposits
    before, after = (Facts(transfers=(transfer,), asked_at=START) for transfer in (first, second))
    assert len(before.merge(after).deposits) == deposits
