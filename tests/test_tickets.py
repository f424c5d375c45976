"""Signed tickets: what is opened was issued here, for this purpose, in this spelling. No database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.infra.tickets import ExpiredTicket, InvalidTicket, SignedTickets, binding
from swap.infra.vault import Vault

OLD = "the old text, of at least 32 characters"
NEW = "the new text, of at least 32 characters"
NOON = datetime(2026, 1, 1, 12, 0, 0, 123_000, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)
PARTS = st.lists(st.text(st.characters(codec="ascii", exclude_characters="."), max_size=20), max_size=4)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def tickets(*keys: str, purpose: str = "quote", now: datetime = NOON) -> SignedTickets:
    return SignedTickets(Vault(keys or (NEW,)), purpose, lambda: now)


@given(PARTS)
def test_what_was_issued_is_opened_with_its_parts_and_its_expiry(parts: list[str]) -> None:
    ticket = tickets().issue(*parts, expires_at=LATER)
    assert ticket.isascii()
    assert tickets().open(ticket) == (parts, LATER)


@given(PARTS, st.data())
def test_a_ticket_with_any_other_character_is_none(parts: list[str], data: st.DataObject) -> None:
    ticket = tickets().issue(*parts, expires_at=LATER)
    place = data.draw(st.integers(0, len(ticket) - 1), label="place")
    other = data.draw(st.sampled_from(ALPHABET + ".=+/ \n\x00é٣\ud800"), label="other")
    changed = ticket[:place] + other + ticket[place + 1 :]
    if changed != ticket:
        with pytest.raises(InvalidTicket):
            tickets().open(changed)


@given(PARTS, st.data())
def test_a_ticket_with_a_character_more_or_less_is_none(parts: list[str], data: st.DataObject) -> None:
    ticket = tickets().issue(*parts, expires_at=LATER)
    place = data.draw(st.integers(0, len(ticket)), label="place")
    more = ticket[:place] + data.draw(st.sampled_from(ALPHABET + ".=\né\ud800")) + ticket[place:]
    for changed in (more, ticket[:place] + ticket[place + 1 :]):
        if changed != ticket:
            with pytest.raises(InvalidTicket):
                tickets().open(changed)


@given(st.text())
def test_any_text_is_refused_and_breaks_nothing(text: str) -> None:
    with pytest.raises(InvalidTicket):
        tickets().open(text)


def test_idle_bits_and_padding_make_no_second_name_for_a_ticket() -> None:
    ticket = tickets().issue("a", expires_at=LATER)
    last = ALPHABET.index(ticket[-1])
    siblings = [ticket[:-1] + ALPHABET[last ^ bits] for bits in (1, 2, 3)]
    for changed in (*siblings, ticket + "=", ticket + "==", ticket.replace(".", ".é", 1)):
        with pytest.raises(InvalidTicket):
            tickets().open(changed)


def test_a_ticket_ends_with_its_expiry() -> None:
    ticket = tickets().issue("a", expires_at=LATER)
    assert tickets(now=LATER - timedelta(milliseconds=1)).open(ticket) == (["a"], LATER)
    with pytest.raises(ExpiredTicket) as caught:
        tickets(now=LATER).open(ticket)
    assert caught.value.expires_at == LATER


def test_the_current_key_signs_and_every_key_verifies_until_it_is_taken_out() -> None:
    old = tickets(OLD).issue("a", expires_at=LATER)
    assert tickets(NEW, OLD).open(old)[0] == ["a"]
    with pytest.raises(InvalidTicket):
        tickets(NEW).open(old)
    assert tickets(NEW).open(tickets(NEW, OLD).issue("a", expires_at=LATER))[0] == ["a"]


def test_a_ticket_of_another_purpose_is_none() -> None:
    ticket = tickets(purpose="validation").issue("a", expires_at=LATER)
    with pytest.raises(InvalidTicket):
        tickets(purpose="quote").open(ticket)


@pytest.mark.parametrize("part", ["a.b", "ä", "\ud800"])
def test_parts_that_could_not_be_read_back_are_not_signed(part: str) -> None:
    with pytest.raises(ValueError):
        tickets().issue(part, expires_at=LATER)


FACTS = st.lists(st.none() | st.text(), max_size=4)


@given(FACTS, FACTS)
def test_a_binding_is_of_these_facts_alone(some: list[str | None], others: list[str | None]) -> None:
    assert (binding(*some) == binding(*others)) == (some == others)


def test_facts_cannot_run_into_each_other() -> None:
    assert len({binding("a\nb"), binding("a", "b"), binding("a", "", "b"), binding("a", None, "b"), binding("ab")}) == 5
