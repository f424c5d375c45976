"""Amounts survive every way in and out, and floats never get in."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swap.domain import money

AMOUNTS = st.decimals(min_value=0, max_value=Decimal(10) ** 20 - 1, places=24, allow_nan=False) | st.decimals(
    min_value=0, max_value=Decimal(10) ** 20 - 1, allow_nan=False, allow_infinity=False
).filter(lambda d: money.decimals(d) <= 24)


@given(AMOUNTS)
def test_what_is_written_plainly_is_read_back_the_same(amount: Decimal) -> None:
    assert money.parse(money.plain(amount)) == amount


@given(st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 500))
def test_plain_notation_has_no_exponent_and_no_needless_zeros(amount: Decimal) -> None:
    text = money.plain(amount)
    assert set(text) <= set("-0123456789.")
    assert Decimal(text) == amount
    assert not text.startswith(("+", "."))
    assert text != "-0"
    if "." in text:
        assert text[-1] not in "0."


@pytest.mark.parametrize(
    ("amount", "text"),
    [("1E-7", "0.0000001"), ("1E+3", "1000"), ("0E+10", "0"), ("-0.00", "0"), ("1.50", "1.5"), ("100", "100")],
)
def test_plain_notation_of_known_amounts(amount: str, text: str) -> None:
    assert money.plain(Decimal(amount)) == text


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_never_written(amount: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        money.plain(Decimal(amount))


@pytest.mark.parametrize(
    "bad",
    [
        *(
            "",
            " ",
            "1 ",
            " 1",
            "+1",
            "-1",
            "-0",
            "1e5",
            "1E-7",
            ".5",
            "5.",
            "01",
            "00.1",
            "1,5",
            "1_0",
            "0x1",
            "1\n",
            "\n1",
        ),
        *("NaN", "Infinity", "１", "٣", "1.٣", "1.2.3", "1" * 21, "0." + "1" * 25, "1" * 100_000),
        *(1, 1.5, True, None, [], {}, b"1", Decimal(1)),
    ],
)
def test_what_is_no_decimal_string_is_refused_with_a_sentence(bad: object) -> None:
    with pytest.raises(ValueError, match="decimal string"):
        money.parse(bad)


@given(st.text(max_size=30) | st.floats() | st.integers())
def test_parsing_answers_or_refuses_and_what_it_takes_is_what_it_writes(anything: object) -> None:
    try:
        amount = money.parse(anything)
    except ValueError:
        return
    assert isinstance(anything, str)
    assert amount == Decimal(anything)
    assert not amount.is_signed()


@given(AMOUNTS, AMOUNTS)
def test_within_no_tolerance_is_at_least(actual: Decimal, expected: Decimal) -> None:
    assert money.within(actual, expected, Decimal(0)) is (actual >= expected)


def test_tolerance_is_relative_and_its_edge_is_inside() -> None:
    hundredth = Decimal("0.01")
    assert money.within(Decimal("99"), Decimal("100"), hundredth)
    assert not money.within(Decimal("98.999999999999999999"), Decimal("100"), hundredth)
    assert money.within(Decimal("1000"), Decimal("100"), hundredth)
    # 40 significant digits: the default context of 28 would round the edge away.
    expected = Decimal("12345678901234567890.123456789012345678")
    assert money.within(Decimal("12222222112222222211.22222222112222222122"), expected, hundredth)
    assert not money.within(Decimal("12222222112222222211.22222222112222222121"), expected, hundredth)


@given(AMOUNTS)
def test_decimals_counts_what_is_needed(amount: Decimal) -> None:
    needed = money.decimals(amount)
    with localcontext(prec=60):
        assert round(amount, needed) == amount
        assert needed == 0 or round(amount, needed - 1) != amount
