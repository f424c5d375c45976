"""Cursors of pages: what was encoded is decoded, and nothing else is. No database."""

from __future__ import annotations

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.errors import InvalidRequest
from swap.web import cursors

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)


def parts_of(cursor: str | None) -> list[str] | None:
    return cursors.decode(cursor, lambda parts: parts)


@given(st.lists(TEXTS, max_size=4))
def test_a_cursor_gives_back_its_parts(parts: list[str]) -> None:
    assert parts_of(cursors.encode(*parts)) == parts


@given(st.text() | st.binary(max_size=40).map(lambda content: urlsafe_b64encode(content).decode()))
def test_any_other_text_is_malformed_or_a_cursor_in_its_one_spelling(text: str) -> None:
    try:
        parts = parts_of(text)
    except InvalidRequest as error:
        assert error.fields["after"][0].code == "CURSOR_MALFORMED"
    else:
        assert parts is not None and cursors.encode(*parts) == text


def test_a_cursor_has_one_spelling() -> None:
    cursor = cursors.encode("a", "bc")
    assert cursor.endswith("=")
    for changed in (cursor + "=", cursor[:-1], cursor[:4] + "!" + cursor[4:], cursor[:4] + "\n" + cursor[4:]):
        with pytest.raises(InvalidRequest):
            parts_of(changed)
    for content in (
        b'["a", "bc"]',
        b'["a","b\\u0063"]',
        b'["a","\\u0000"]',
        b'["a",1]',
        b'{"a":"bc"}',
        b'"abc"',
        b"null",
    ):
        with pytest.raises(InvalidRequest):
            parts_of(urlsafe_b64encode(content).decode())


def test_no_cursor_is_no_position_and_what_cannot_be_read_is_malformed() -> None:
    def refuse(parts: list[str]) -> int:
        raise ValueError(parts)

    assert cursors.decode(None, refuse) is None
    with pytest.raises(InvalidRequest):
        cursors.decode(cursors.encode("a"), refuse)
