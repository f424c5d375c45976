"""States and facts. Times in the examples are minutes after an arbitrary start."""

from __future__ import annotations

import itertools
import json
import random
import runpy
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swap.domain import facts as facts_module
from swap.domain import lifecycle
from swap.domain.expiry import ToldExpiry
from swap.domain.facts import Kind
from swap.domain.lifecycle import (
    Decision,
    Facts,
    Status,
    Transfer,
    UpstreamEvent,
    can_move,
    funds,
    is_final,
    next_status,
)
from swap.domain.lifecycle import public_name as shown

S = Status
START = datetime(2025, 10, 9, 8, 0, tzinfo=UTC)
ROOT = Path(__file__).resolve().parent.parent

CREATED = "CREATION_END"
DETECTED = "INCOMING_FUNDS_DETECTED"
REGISTERED = "DEPOSIT_REGISTERED"
SENDING = "FUNDS_WITHDRAWAL_START"
SENT = "WITHDRAWAL_COMPLETED"
FROZEN = "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER"
REFUNDING = "REFUND_REQUESTED"
REFUNDED = "REFUND_COMPLETED"
KINDS = [CREATED, DETECTED, REGISTERED, SENDING, SENT, FROZEN, REFUNDING, REFUNDED, "KYC_REQUIRED", "SOMETHING_NEW"]

NOTHING_TOLD = ToldExpiry()
BEFORE_PAYMENT = (S.CREATING, S.IN_DOUBT)
LINE = [S.AWAITING_DEPOSIT, S.CONFIRMING, S.EXCHANGING, S.SENDING, S.COMPLETED]


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def told(*kinds: str, **more: Any) -> Facts:
    """The kinds one minute after the other, the first at minute 0."""
    return Facts(events=frozenset(UpstreamEvent(kind, at(n)) for n, kind in enumerate(kinds)), **more)


def deposit(
    tx_id: str | None = "dep1", minutes: float | None = 1, amount: str | None = "0.0125", **more: Any
) -> Transfer:
    when = None if minutes is None else at(minutes)
    return Transfer("deposit", None if amount is None else Decimal(amount), tx_id, when, **more)


def payout(tx_id: str | None = "out1", minutes: float = 4) -> Transfer:
    return Transfer("withdrawal", Decimal("261.9"), tx_id, at(minutes), pending=True)


def decide(current: Status, facts: Facts, minutes: float = 60, told: ToldExpiry = NOTHING_TOLD) -> Decision:
    return next_status(current, facts, at(minutes), created_at=START, told=told)


def told_expired(*minutes: float) -> ToldExpiry:
    """After looks at these minutes that said expired."""
    return reduce(lambda told, minute: told.told(at(minute)), minutes, NOTHING_TOLD)


# --- strategies -----------------------------------------------------------------------------------------------------

moments = st.integers(0, 40).map(lambda n: at(n))
amounts = st.sampled_from([None, Decimal("0.1"), Decimal("0.10"), Decimal("1E-18"), Decimal("1E+3"), Decimal("7.5")])
transfers = st.builds(
    Transfer,
    direction=st.sampled_from(["deposit", "withdrawal"]),
    amount=amounts,
    tx_id=st.sampled_from([None, "", "a", "b"]),
    at=st.none() | st.integers(0, 3).map(lambda n: at(n)),
    confirmations=st.none() | st.integers(0, 9),
    pending=st.booleans(),
)
any_facts = st.builds(
    Facts,
    events=st.frozensets(st.builds(UpstreamEvent, kind=st.sampled_from(KINDS), at=moments), max_size=8),
    transfers=st.lists(transfers, max_size=4).map(tuple),
    completed=st.integers(0, 4).map(lambda n: n == 0),
    failed_to_create=st.integers(0, 4).map(lambda n: n == 0),
    pending_to_create=st.booleans(),
    kyc_link=st.sampled_from([None, None, "https://kyc.invalid/1", "https://kyc.invalid/2"]),
    state=st.sampled_from([None, "created", "waiting", "exchanging", "refunded", "expired", "odd"]),
)
any_told = st.builds(
    ToldExpiry,
    since=st.none() | moments,
    confirmed=st.booleans(),
    good_since=st.none() | moments,
    doubted=st.booleans(),
    withdrawn=st.booleans(),
)
statuses = st.sampled_from(list(Status))
quick = settings(deadline=None, max_examples=100)


# --- tables ---------------------------------------------------------------------------------------------------------


def test_every_status_is_in_every_table() -> None:
    assert set(lifecycle.TRANSITIONS) == set(lifecycle.PROFILES) == set(Status)
    for status in Status:
        assert shown(status) in lifecycle.PUBLIC
        assert funds(status, False)
        assert is_final(status, deposit_seen=False, watched=False) in (True, False)
    assert set().union(*lifecycle.TRANSITIONS.values()) | {S.CREATING} == set(Status)


def test_no_status_leads_to_itself() -> None:
    assert not any(can_move(status, status) for status in Status)


def test_the_public_never_sees_a_doubt_or_a_review() -> None:
    assert frozenset(Status) - {S.IN_DOUBT, S.NEEDS_REVIEW} == lifecycle.PUBLIC
    assert shown(S.IN_DOUBT) is S.CREATING
    assert shown(S.NEEDS_REVIEW, S.SENDING) is S.SENDING
    assert shown(S.NEEDS_REVIEW, S.NEEDS_REVIEW) is S.ON_HOLD
    assert shown(S.NEEDS_REVIEW) is S.ON_HOLD


def test_terminal_and_watched_are_what_the_design_says() -> None:
    assert {S.COMPLETED, S.REFUNDED} == lifecycle.TERMINAL
    assert frozenset(Status) - {S.CREATING, S.IN_DOUBT} == lifecycle.WATCHED


def test_final_states_are_only_left_as_documented() -> None:
    another_deposit = {S.EXCHANGING, S.SENDING, S.ON_HOLD, S.REFUNDING, S.COMPLETED}
    assert lifecycle.TRANSITIONS[S.REFUNDED] == another_deposit | {S.NEEDS_REVIEW}
    assert lifecycle.TRANSITIONS[S.COMPLETED] == {S.REFUNDED, S.NEEDS_REVIEW}
    assert lifecycle.TRANSITIONS[S.FAILED] == {S.REFUNDING, S.REFUNDED, S.COMPLETED, S.NEEDS_REVIEW}
    assert not lifecycle.TRANSITIONS[S.EXPIRED] & {S.CREATING, S.FAILED}


def test_the_table_itself_has_no_way_back_along_the_line() -> None:
    for earlier, later in itertools.combinations(LINE, 2):
        assert not can_move(later, earlier)
        assert can_move(earlier, later)


def test_nothing_but_a_creation_leads_to_states_without_an_address() -> None:
    for status in Status:
        assert not lifecycle.TRANSITIONS[status] & set(BEFORE_PAYMENT) or status in BEFORE_PAYMENT


def test_review_is_only_for_orders_whose_address_was_shown() -> None:
    assert not any(can_move(status, S.NEEDS_REVIEW) for status in BEFORE_PAYMENT)
    assert not any(can_move(S.NEEDS_REVIEW, status) for status in BEFORE_PAYMENT)


@pytest.mark.parametrize(
    ("status", "deposit_seen", "watched", "final"),
    [
        (S.AWAITING_DEPOSIT, False, True, False),
        (S.EXPIRED, False, True, False),
        (S.EXPIRED, False, False, True),
        (S.FAILED, False, False, True),
        (S.FAILED, False, True, False),
        (S.FAILED, True, True, False),
        (S.FAILED, True, False, False),
        (S.COMPLETED, True, True, True),
        (S.REFUNDED, True, False, True),
        (S.NEEDS_REVIEW, True, True, False),
    ],
)
def test_final_means_nothing_is_owed_or_expected(
    status: Status, deposit_seen: bool, watched: bool, final: bool
) -> None:
    assert is_final(status, deposit_seen, watched) is final


def test_money_is_named_in_public_words() -> None:
    assert funds(S.CREATING, False) == "none"
    assert funds(S.AWAITING_DEPOSIT, False) == "with_user"
    assert funds(S.CONFIRMING, True) == "seen_on_chain"
    assert funds(S.ON_HOLD, True) == "held"
    assert funds(S.ON_HOLD, False) == "with_user"
    assert funds(S.FAILED, False) == "none"
    assert funds(S.FAILED, True) == "with_upstream"
    assert funds(S.NEEDS_REVIEW, True, S.SENDING) == "on_its_way"
    assert funds(S.NEEDS_REVIEW, True) == "held"
    assert funds(S.EXPIRED, False) == "not_seen_in_time"


# --- the mapping, row by row ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("current", [S.AWAITING_DEPOSIT, S.CONFIRMING, S.ON_HOLD])
def test_row_1_an_expiry_counts_once_it_was_told_twice_ten_minutes_apart(current: Status) -> None:
    assert decide(current, told(CREATED), told=told_expired(30)).status is not S.EXPIRED
    assert decide(current, told(CREATED), told=told_expired(30, 35, 39.9)).status is not S.EXPIRED
    assert decide(current, told(CREATED), told=told_expired(30, 40)) == Decision(S.EXPIRED)


def test_row_1_money_that_was_detected_but_is_never_listed_may_still_expire() -> None:
    assert decide(S.CONFIRMING, told(CREATED, DETECTED), told=told_expired(30, 40)) == Decision(S.EXPIRED)
    assert decide(S.EXPIRED, told(CREATED, DETECTED), told=told_expired(30, 40)) == Decision(S.EXPIRED)


def test_row_1_no_expiry_counts_against_a_deposit_that_is_listed() -> None:
    facts = told(CREATED, DETECTED, transfers=(deposit(),))
    assert decide(S.AWAITING_DEPOSIT, facts, told=told_expired(30, 50)).status is S.CONFIRMING
    assert decide(S.CONFIRMING, facts, told=told_expired(30, 50)) == Decision(S.CONFIRMING)
    assert decide(S.EXCHANGING, told(CREATED, DETECTED, REGISTERED), told=told_expired(30, 50)).status is S.EXCHANGING


def test_an_expiry_that_the_upstream_takes_back_is_taken_back_once() -> None:
    gone = told_expired(30, 40)
    assert decide(S.EXPIRED, told(CREATED), told=gone.good(at(41))) == Decision(S.EXPIRED)
    assert decide(S.EXPIRED, told(CREATED), told=gone.good(at(41)).good(at(50.9))) == Decision(S.EXPIRED)
    assert decide(S.EXPIRED, told(CREATED), told=gone.good(at(41)).told(at(45)).good(at(51))) == Decision(S.EXPIRED)
    back = gone.good(at(41)).good(at(51))
    assert decide(S.EXPIRED, told(CREATED), told=back) == Decision(S.AWAITING_DEPOSIT, reason="expiry_taken_back")
    assert decide(S.AWAITING_DEPOSIT, told(CREATED), told=back) == Decision(S.AWAITING_DEPOSIT)
    again = back.told(at(60)).told(at(70))
    assert decide(S.AWAITING_DEPOSIT, told(CREATED), told=again) == Decision(S.EXPIRED)
    for_good = again.good(at(80)).good(at(100)).good(at(200))
    assert decide(S.EXPIRED, told(CREATED), told=for_good) == Decision(S.EXPIRED)


def test_an_expiry_by_age_is_not_taken_back_with_one_that_was_told() -> None:
    back = told_expired(30, 40).good(at(41)).good(at(51))
    assert decide(S.EXPIRED, told(CREATED), 7 * 24 * 60, told=back) == Decision(S.EXPIRED)


def test_a_new_deposit_makes_what_was_told_before_it_void() -> None:
    before = told_expired(30, 40)
    facts = told(CREATED, DETECTED)
    assert decide(S.EXPIRED, facts, told=before.after_deposit()).status is S.CONFIRMING
    assert decide(S.CONFIRMING, facts, told=before.after_deposit().told(at(50))).status is S.CONFIRMING
    assert decide(S.CONFIRMING, facts, told=before.after_deposit().told(at(50)).told(at(60))).status is S.EXPIRED


def test_row_2_a_completed_refund_is_refunded() -> None:
    assert decide(S.REFUNDING, told(CREATED, DETECTED, REGISTERED, REFUNDING, REFUNDED)) == Decision(S.REFUNDED)


def test_row_2_refund_and_completion_together_are_refunded_and_flagged() -> None:
    decision = decide(S.EXCHANGING, told(CREATED, DETECTED, REGISTERED, REFUNDED, completed=True))
    assert decision == Decision(S.REFUNDED, reason="refund_conflict", review="refund_conflict")


def test_row_2_a_refund_of_the_same_millisecond_as_the_payout_counts_as_the_refund() -> None:
    facts = Facts(events=frozenset({UpstreamEvent(SENT, at(5)), UpstreamEvent(REFUNDED, at(5))}), transfers=(payout(),))
    assert decide(S.SENDING, facts).status is S.REFUNDED


def test_row_2_a_payout_later_than_the_refund_completes_and_is_flagged() -> None:
    decision = decide(S.REFUNDING, told(CREATED, DETECTED, REFUNDED, SENT, transfers=(payout(),)))
    assert (decision.status, decision.review) == (S.COMPLETED, "refund_conflict")
    assert decide(S.REFUNDING, told(CREATED, DETECTED, REFUNDED, SENT)).status is S.SENDING


def test_row_2_a_completed_order_that_is_refunded_is_a_reversal() -> None:
    facts = told(CREATED, DETECTED, REGISTERED, SENDING, SENT, REFUNDED, transfers=(payout(),))
    assert decide(S.COMPLETED, facts) == Decision(S.REFUNDED, reason="reversal", review="reversal")
    assert decide(S.COMPLETED, told(CREATED, REFUNDED)) == Decision(S.REFUNDED, reason="reversal", review="reversal")


def test_row_3_completed_wins_over_a_lagging_state_and_over_events() -> None:
    assert decide(S.SENDING, told(CREATED, DETECTED, SENDING, completed=True, state="created")) == Decision(S.COMPLETED)
    assert decide(S.AWAITING_DEPOSIT, Facts(completed=True)).status is S.COMPLETED
    assert decide(S.ON_HOLD, told(CREATED, DETECTED, FROZEN, completed=True)).status is S.COMPLETED


def test_row_4_a_payout_needs_the_event_and_a_transaction_id() -> None:
    events = (CREATED, DETECTED, REGISTERED, SENDING, SENT)
    assert decide(S.SENDING, told(*events, transfers=(payout(),))) == Decision(S.COMPLETED)
    assert decide(S.SENDING, told(*events)) == Decision(S.SENDING)
    assert decide(S.EXCHANGING, told(*events, transfers=(payout(tx_id=" "),))) == Decision(S.SENDING)
    assert decide(S.SENDING, told(*events[:-1], transfers=(payout(),))) == Decision(S.SENDING)


def test_row_5_a_creation_that_failed_ends_no_order_whose_address_was_shown() -> None:
    """The customer may pay at any moment; that payments end is the business of the reply check."""
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, failed_to_create=True)) == Decision(S.AWAITING_DEPOSIT)
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, DETECTED, failed_to_create=True)).status is S.CONFIRMING
    assert decide(S.AWAITING_DEPOSIT, Facts(failed_to_create=True, transfers=(deposit(),))).status is S.CONFIRMING


@pytest.mark.parametrize("kind", [FROZEN, "aml_check", "FUNDS_ON_HOLD", "KYC_REQUIRED", "Frozen_By_Provider"])
def test_row_6_a_newest_kind_of_holding_is_on_hold(kind: str) -> None:
    decision = decide(S.EXCHANGING, told(CREATED, DETECTED, REGISTERED, kind))
    assert decision == Decision(S.ON_HOLD)


def test_row_6_a_form_link_is_a_hold_as_long_as_it_is_told() -> None:
    link = "https://kyc.invalid/1"
    facts = told(CREATED, DETECTED, kyc_link=link)
    assert decide(S.CONFIRMING, facts) == Decision(S.ON_HOLD)
    later = facts.merge(told(CREATED, DETECTED, REGISTERED, kyc_link=link))
    assert decide(S.ON_HOLD, later) == Decision(S.ON_HOLD), "whether the link or the progress came first is not told"
    assert decide(S.ON_HOLD, later.merge(told(CREATED, DETECTED, REGISTERED))) == Decision(S.EXCHANGING)
    assert decide(S.ON_HOLD, facts.merge(told(CREATED, DETECTED, REFUNDING, kyc_link=link))).status is S.REFUNDING
    done = told(CREATED, DETECTED, REGISTERED, SENDING, SENT, kyc_link=link, transfers=(payout(),))
    assert decide(S.ON_HOLD, done) == Decision(S.COMPLETED)


def test_row_6_where_events_tell_of_holds_the_link_says_nothing_about_their_end() -> None:
    facts = told(CREATED, DETECTED, FROZEN, REGISTERED, kyc_link="https://kyc.invalid/1")
    assert decide(S.ON_HOLD, facts) == Decision(S.EXCHANGING)


def test_row_6_progress_told_together_with_the_link_does_not_end_the_hold() -> None:
    facts = told(CREATED, DETECTED, REGISTERED, SENDING, kyc_link="https://kyc.invalid/1")
    assert decide(S.CONFIRMING, facts).status is S.ON_HOLD


def test_row_6_progress_after_a_hold_is_progress() -> None:
    assert decide(S.ON_HOLD, told(CREATED, DETECTED, FROZEN, REGISTERED)) == Decision(S.EXCHANGING)
    assert decide(S.ON_HOLD, told(CREATED, DETECTED, FROZEN, REGISTERED, SENDING)) == Decision(S.SENDING)
    assert decide(S.ON_HOLD, told(CREATED, FROZEN, DETECTED)) == Decision(S.CONFIRMING)


def test_row_6_another_deposit_does_not_free_held_money() -> None:
    assert decide(S.ON_HOLD, told(CREATED, DETECTED, REGISTERED, FROZEN, DETECTED)) == Decision(S.ON_HOLD)


def test_row_6_a_hold_and_progress_of_one_millisecond_are_a_hold() -> None:
    events = frozenset({UpstreamEvent(FROZEN, at(3)), UpstreamEvent(REGISTERED, at(3))})
    assert decide(S.CONFIRMING, Facts(events=events)).status is S.ON_HOLD


def test_row_7_a_refund_request_is_refunding() -> None:
    assert decide(S.EXCHANGING, told(CREATED, DETECTED, REGISTERED, REFUNDING)) == Decision(S.REFUNDING)
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, DETECTED, REFUNDING, DETECTED)) == Decision(S.REFUNDING)


def test_row_7_a_refund_that_was_called_off_goes_on() -> None:
    assert decide(S.REFUNDING, told(CREATED, DETECTED, REFUNDING, REGISTERED)) == Decision(S.EXCHANGING)
    facts = told(CREATED, DETECTED, SENDING, REFUNDING, REGISTERED)
    assert decide(S.REFUNDING, facts) == decide(S.SENDING, facts) == Decision(S.SENDING)


def test_row_8_a_started_withdrawal_is_sending() -> None:
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, DETECTED, REGISTERED, SENDING)) == Decision(S.SENDING)


def test_row_9_a_registered_deposit_is_exchanging() -> None:
    assert decide(S.CONFIRMING, told(CREATED, DETECTED, REGISTERED)) == Decision(S.EXCHANGING)


def test_row_10_detected_money_is_confirming() -> None:
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, DETECTED)) == Decision(S.CONFIRMING)


@pytest.mark.parametrize("pending", [True, False])
def test_row_10_a_listed_deposit_is_confirming_while_events_lag(pending: bool) -> None:
    facts = told(CREATED, transfers=(deposit(pending=pending),))
    assert decide(S.AWAITING_DEPOSIT, facts) == Decision(S.CONFIRMING)


def test_row_10_a_second_deposit_does_not_take_the_first_one_back() -> None:
    facts = told(CREATED, DETECTED, REGISTERED, SENDING, DETECTED, transfers=(deposit(), deposit("dep2", 4)))
    assert decide(S.AWAITING_DEPOSIT, facts) == Decision(S.SENDING)


@pytest.mark.parametrize("facts", [told(CREATED), Facts(pending_to_create=True), Facts(), Facts(state="created")])
def test_row_11_nothing_but_the_creation_is_awaiting_deposit(facts: Facts) -> None:
    assert decide(S.AWAITING_DEPOSIT, facts) == Decision(S.AWAITING_DEPOSIT)


@pytest.mark.parametrize("current", [S.CONFIRMING, S.EXCHANGING, S.EXPIRED, S.COMPLETED, S.REFUNDED])
def test_row_11_missing_data_moves_nothing_and_is_no_refusal(current: Status) -> None:
    assert decide(current, Facts()) == decide(current, told(CREATED)) == Decision(current)


def test_row_12_an_unknown_newest_kind_keeps_the_state_and_is_named() -> None:
    facts = told(CREATED, DETECTED, REGISTERED, "SOMETHING_NEW")
    assert decide(S.EXCHANGING, facts) == Decision(S.EXCHANGING, unknown_kinds=("SOMETHING_NEW",))
    for current in (S.AWAITING_DEPOSIT, S.SENDING):
        assert decide(current, told("SOMETHING_NEW")) == Decision(current, unknown_kinds=("SOMETHING_NEW",))


def test_row_12_older_known_kinds_still_count() -> None:
    facts = told(CREATED, DETECTED, "SOMETHING_NEW", "SOMETHING_NEWER", "SOMETHING_NEW")
    decision = next_status(S.AWAITING_DEPOSIT, facts, at(60 * 24 * 30), created_at=START)
    assert decision == Decision(S.CONFIRMING, review="uncovered", unknown_kinds=("SOMETHING_NEW", "SOMETHING_NEWER"))
    assert decide(S.SENDING, told(CREATED, DETECTED, FROZEN, "SOMETHING_NEW")).status is S.ON_HOLD


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("created", S.AWAITING_DEPOSIT),
        ("waiting", S.AWAITING_DEPOSIT),
        ("odd", S.AWAITING_DEPOSIT),
        ("confirmed", S.CONFIRMING),
        ("EXCHANGING", S.CONFIRMING),
        ("sending", S.CONFIRMING),
        ("aml_hold", S.CONFIRMING),
        ("completed", S.AWAITING_DEPOSIT),
        ("refunded", S.AWAITING_DEPOSIT),
        ("expired", S.AWAITING_DEPOSIT),
        ("processing_failed", S.AWAITING_DEPOSIT),
    ],
)
def test_row_13_a_guessed_word_never_says_more_than_confirming(state: str, status: Status) -> None:
    assert decide(S.AWAITING_DEPOSIT, Facts(state=state)) == Decision(status)
    assert decide(S.EXCHANGING, Facts(state=state)) == Decision(S.EXCHANGING)
    assert decide(S.EXPIRED, Facts(state=state)) == Decision(S.EXPIRED)


def test_row_13_a_word_is_not_read_when_there_are_events() -> None:
    assert decide(S.AWAITING_DEPOSIT, told(CREATED, state="exchanging")) == Decision(S.AWAITING_DEPOSIT)


# --- what no single row says ----------------------------------------------------------------------------------------


def test_an_order_expires_here_after_seven_days_without_any_sign_of_money() -> None:
    week = 7 * 24 * 60
    assert decide(S.AWAITING_DEPOSIT, told(CREATED), week - 0.1) == Decision(S.AWAITING_DEPOSIT)
    assert decide(S.AWAITING_DEPOSIT, told(CREATED), week) == Decision(S.EXPIRED, reason="local_expiry")
    assert decide(S.AWAITING_DEPOSIT, told("SOMETHING_NEW"), week).status is S.EXPIRED
    for sign in (told(CREATED, DETECTED), told(CREATED, transfers=(deposit(),)), told(CREATED, FROZEN)):
        assert decide(S.AWAITING_DEPOSIT, sign, week).status not in (S.AWAITING_DEPOSIT, S.EXPIRED)
    assert decide(S.CONFIRMING, told(CREATED), week).status is S.CONFIRMING


def test_the_time_until_local_expiry_is_a_setting() -> None:
    decision = next_status(S.AWAITING_DEPOSIT, Facts(), at(10), created_at=START, local_expiry=timedelta(minutes=10))
    assert decision.status is S.EXPIRED


def test_a_late_deposit_brings_an_expired_order_back() -> None:
    before = told(CREATED)
    late = Facts(events=frozenset({UpstreamEvent(DETECTED, at(50))}))
    assert decide(S.EXPIRED, before) == Decision(S.EXPIRED)
    back = decide(S.EXPIRED, before.merge(late))
    assert back == Decision(S.CONFIRMING, reason="late_deposit", late_deposit=True)
    assert decide(S.EXPIRED, before.merge(told(CREATED, completed=True))).status is S.COMPLETED


@pytest.mark.parametrize("facts", [told(CREATED, kyc_link="https://kyc.invalid"), told(CREATED, failed_to_create=True)])
def test_only_a_deposit_brings_an_expired_order_back(facts: Facts) -> None:
    assert decide(S.EXPIRED, facts) == Decision(S.EXPIRED)


def test_a_failed_order_with_a_deposit_is_only_refunded_or_completed() -> None:
    assert decide(S.FAILED, told(CREATED, DETECTED, REFUNDING)).status is S.REFUNDING
    assert decide(S.FAILED, told(CREATED, DETECTED, REFUNDED)).status is S.REFUNDED
    assert decide(S.FAILED, told(CREATED, completed=True)).status is S.COMPLETED
    assert decide(S.FAILED, told(CREATED, DETECTED, REGISTERED)) == Decision(S.FAILED, refused=S.EXCHANGING)


def test_on_hold_without_a_deposit_expires_by_age_and_with_one_never() -> None:
    week, link = 7 * 24 * 60, "https://kyc.invalid/1"
    assert decide(S.ON_HOLD, told(CREATED, kyc_link=link), week) == Decision(S.EXPIRED, reason="local_expiry")
    assert decide(S.ON_HOLD, told(CREATED, DETECTED, kyc_link=link), week) == Decision(S.ON_HOLD)


def test_what_would_move_backwards_is_named_as_refused() -> None:
    assert decide(S.SENDING, told(CREATED, DETECTED, REGISTERED)) == Decision(S.SENDING, refused=S.EXCHANGING)
    assert decide(S.COMPLETED, told(CREATED, DETECTED)) == Decision(S.COMPLETED, refused=S.CONFIRMING)


@pytest.mark.parametrize("current", [S.CREATING, S.IN_DOUBT, S.NEEDS_REVIEW])
def test_some_states_are_left_to_others_but_flags_are_still_told(current: Status) -> None:
    facts = told(CREATED, REFUNDED, "SOMETHING_NEW", completed=True, transfers=(deposit(),))
    decision = decide(current, facts, 60 * 24 * 30)
    assert decision == Decision(current, review="refund_conflict", unknown_kinds=("SOMETHING_NEW",))


# --- facts ----------------------------------------------------------------------------------------------------------


def test_times_are_utc_in_milliseconds_and_never_without_a_zone() -> None:
    local = datetime(2025, 10, 9, 10, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2)))
    assert UpstreamEvent(CREATED, local).at == datetime(2025, 10, 9, 8, 0, 0, 123000, tzinfo=UTC)
    assert UpstreamEvent(CREATED, local).at.tzinfo is UTC
    for build in (lambda t: UpstreamEvent(CREATED, t), lambda t: deposit().__class__("deposit", None, None, t)):
        with pytest.raises(ValueError, match="zone"):
            build(datetime(2025, 1, 1))  # noqa: DTZ001 - the very thing that is refused
    with pytest.raises(ValueError, match="finite"):
        deposit(amount="NaN")


def test_a_json_has_plain_amounts_and_iso_times() -> None:
    facts = told(CREATED, transfers=(deposit(amount="1E-18"),), kyc_link="https://kyc.invalid")
    data = facts.to_json()
    assert data["events"] == [{"kind": CREATED, "at": "2025-10-09T08:00:00.000Z"}]
    assert data["transfers"][0]["amount"] == "0.000000000000000001"
    assert Facts.from_json({}) == Facts()


@given(any_facts)
@quick
def test_facts_survive_json_exactly(facts: Facts) -> None:
    text = json.dumps(facts.to_json())
    back = Facts.from_json(json.loads(text))
    assert back == facts
    assert json.dumps(back.to_json()) == text


@given(any_facts)
@quick
def test_merging_the_same_again_changes_nothing(facts: Facts) -> None:
    assert facts.merge(facts) == facts == facts.merge(Facts()) == Facts().merge(facts)


# --- properties of moving -------------------------------------------------------------------------------------------


@given(statuses, any_facts, any_told, st.integers(0, 20_000))
@settings(deadline=None, max_examples=300)
def test_whatever_is_told_only_the_table_is_followed(
    current: Status, facts: Facts, told: ToldExpiry, minutes: int
) -> None:
    decision = decide(current, facts, minutes, told)
    assert decision.status is current or can_move(current, decision.status)
    assert decision.status is current or decision.refused is None
    assert decision.status is not S.NEEDS_REVIEW or current is S.NEEDS_REVIEW
    if current in (S.CREATING, S.IN_DOUBT, S.NEEDS_REVIEW):
        assert decision.status is current
    if decision.refused is not None:
        assert not can_move(current, decision.refused)
    if current is S.COMPLETED and decision.status is not current:
        assert (decision.status, decision.reason, decision.review) == (S.REFUNDED, "reversal", "reversal")
    if current is S.EXPIRED and decision.status is not current:
        assert decision.late_deposit is facts.deposit_seen
        assert decision.reason == ("late_deposit" if facts.deposit_seen else "expiry_taken_back")
        assert facts.deposit_seen or (decision.status is S.AWAITING_DEPOSIT and told.withdrawn)
    if decision.status is S.EXPIRED and current is not S.EXPIRED:
        assert not facts.transfers


@given(st.lists(any_facts, min_size=1, max_size=5))
@settings(deadline=None, max_examples=120)
def test_more_facts_never_move_an_order_to_an_earlier_state(replies: list[Facts]) -> None:
    status, facts = S.AWAITING_DEPOSIT, Facts()
    for reply in replies:
        facts = facts.merge(reply)
        for _ in range(3):  # the same facts looked at again must not turn an order in circles either
            after = decide(status, facts, 5).status
            assert after is status or can_move(status, after)
            if status in LINE and after in LINE:
                assert LINE.index(after) >= LINE.index(status)
            status = after
        assert decide(status, facts, 5).status is status


@given(statuses, any_facts, st.integers(0, 2**32))
@quick
def test_the_order_in_which_things_are_listed_never_matters(current: Status, facts: Facts, seed: int) -> None:
    data, dice = facts.to_json(), random.Random(seed)
    for name in ("events", "transfers", "past"):
        dice.shuffle(data[name])
    assert decide(current, Facts.from_json(data)) == decide(current, facts)


def test_an_expired_order_that_was_paid_asks_for_no_money_again() -> None:
    unfinished = Transfer("withdrawal", None, None, None, pending=True)
    decision = decide(S.EXPIRED, told(CREATED, transfers=(unfinished,)))
    assert decision.status is S.EXPIRED


@given(any_facts)
@quick
def test_a_later_unknown_kind_changes_nothing_but_its_mention(facts: Facts) -> None:
    facts = replace(facts, events=facts.events | told(CREATED).events)
    newer = replace(facts, events=facts.events | {UpstreamEvent("NEVER_HEARD_OF", at(500))})
    for current in Status:
        before, after = decide(current, facts), decide(current, newer)
        assert after.status is before.status
        assert "NEVER_HEARD_OF" in after.unknown_kinds


def test_every_kind_has_one_meaning() -> None:
    assert [Kind.of(kind) for kind in KINDS] == [
        *(Kind.CREATION_END, Kind.INCOMING_FUNDS_DETECTED, Kind.DEPOSIT_REGISTERED, Kind.FUNDS_WITHDRAWAL_START),
        *(Kind.WITHDRAWAL_COMPLETED, Kind.HOLD, Kind.REFUND_REQUESTED, Kind.REFUND_COMPLETED, Kind.HOLD, Kind.UNKNOWN),
    ]
    assert Kind.of(" withdrawal_completed ") is Kind.WITHDRAWAL_COMPLETED


# --- the drawing ----------------------------------------------------------------------------------------------------


def test_the_drawing_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_lifecycle.py"))
    assert script["main"](["--check"]) == 0, capsys.readouterr().err


def test_the_drawing_names_every_status_and_every_row() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_lifecycle.py"))
    text = script["render"]()
    for status in Status:
        assert f"\n| {status} |" in text
    assert [number for number, _, _ in script["MAPPING"]] == [str(n) for n in range(1, 14)]


def test_a_stale_drawing_is_noticed(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_lifecycle.py"))
    main = script["main"]
    main.__globals__["TARGET"] = tmp_path / "lifecycle.md"
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "lifecycle.md").write_text("old", encoding="utf-8")
    assert main(["--check"]) == 1


@pytest.mark.process
def test_the_rules_import_nothing_that_talks_to_the_world() -> None:
    show = "print(sorted(m for m in sys.modules if m.startswith('swap.')))"
    code = f"import sys, swap.domain.schedules, swap.domain.lifecycle; {show}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names = ("expiry", "facts", "ledger", "lifecycle", "schedules", "times", "transfers")
    rules = [f"swap.domain.{name}" for name in names]
    assert done.stdout.strip() == str(["swap.domain", *rules])
    assert facts_module.Facts is lifecycle.Facts
