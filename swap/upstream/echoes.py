"""What was asked, held against what the answer repeats of it.

Answers carry no number of the request, so an answer that belongs to another one (a cache that forgets the query, a
connection that is one answer late) looks right by itself. Whatever it repeats has to be what was asked, in a success
and in a refusal alike; what it does not repeat says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from swap.upstream.decode import titles
from swap.upstream.fields import number, string, text

Titles = tuple[str, str]
"""Currency and network."""

# `id` and `reference` are left out: in a refusal they may name the request.
_ORDER_IDS = ("orderId", "legacyOrderId")


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer may repeat. None: not asked, so nothing to compare. `amount`: on the deposit side of `pair`.
    `instrument` and `address`: of a question about an address; `order_id` and `destination`: about an order, whose pair,
    where it is known, is `order_pair`."""

    pair: tuple[Titles, Titles] | None = None
    amount: Decimal | None = None
    instrument: Titles | None = None
    address: str | None = None
    order_id: str | None = None
    destination: str | None = None
    order_pair: tuple[Titles, Titles] | None = None

    @property
    def subject(self) -> str:
        """What may be sick at the upstream while the rest is well: the pair or the instrument; empty for a whole list."""
        if self.order_id is not None and self.order_pair is None:
            return "orders of unknown pairs"
        sides = self.pair or self.order_pair or ((self.instrument,) if self.instrument else ())
        return " ".join("/".join(side) for side in sides).casefold()

    def contradicted_by(self, answer: object) -> str | None:
        """What the parsed `answer` repeats wrongly, one word or two; None where it contradicts nothing.

        An order that was found is not compared here: it need not repeat the id that it was asked by, and whose order it
        is has rules of its own.
        """
        row = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
        if not isinstance(row, dict):
            return None
        found = (*self._of_a_rate(row), *self._of_an_amount(row), *self._of_an_address(row))
        return next(filter(None, found), None)

    def contradicted_by_refusal(self, answer: object) -> str | None:
        """As `contradicted_by`, for an answer that is no success: it may also name the order that it is about."""
        if not isinstance(answer, dict):
            return None
        holders = [holder for holder in (answer, answer.get("data")) if isinstance(holder, dict)]
        return self.contradicted_by(answer) or next(filter(None, map(self._of_an_order, holders)), None)

    def _of_a_rate(self, row: dict[str, Any]) -> Iterator[str | None]:
        if self.pair is None:
            return
        told = (*titles(row, "From"), *titles(row, "To"))
        yield "another pair" if _differ(told, (*self.pair[0], *self.pair[1])) else None
        # The amount may be named for either side (E5); this is the currency that ours was in.
        currency = string(row.get("amountToGiveCurrencyTitle"))
        yield "an amount in another currency" if _differ((currency,), self.pair[0][:1]) else None

    def _of_an_amount(self, row: dict[str, Any]) -> Iterator[str | None]:
        if self.amount is None:
            return
        repeated = [row.get("amountToGive"), row.get("claimedDepositAmount")]
        for holder in (row, row.get("data")):
            details = holder.get("details") if isinstance(holder, dict) else None
            if isinstance(details, dict) and details.get("field") == "claimedDepositAmount":
                repeated.append(details.get("value"))
        for told in map(number, repeated):
            # A sentinel, 0 or less, tells nothing (T9).
            yield "another amount" if told is not None and told > 0 and told != self.amount else None

    def _of_an_address(self, row: dict[str, Any]) -> Iterator[str | None]:
        if self.instrument is None:
            return
        told = (string(row.get("currencyTitle")), string(row.get("networkTitle")))
        yield "another instrument" if _differ(told, self.instrument) else None
        address = string(row.get("address"))
        yield "another address" if address is not None and not same_text(address, self.address) else None

    def _of_an_order(self, row: dict[str, Any]) -> str | None:
        if self.order_id is None:
            return None
        named = {name: text(row.get(name)) for name in _ORDER_IDS}
        if self.order_id in named.values():
            return None
        # An id of the other form may well be the same order's.
        number_asked = self.order_id.isascii() and self.order_id.isdigit()
        if named["orderId" if number_asked else "legacyOrderId"] is not None:
            return "another order"
        destination = string(row.get("destinationAddress"))
        return (
            "another destination" if destination is not None and not same_text(destination, self.destination) else None
        )


NOTHING_ASKED = Asked()


def same_text(one: str, other: str | None) -> bool:
    """Whether two spellings may be of the same address: networks differ in whether case counts."""
    return other is not None and one.strip().casefold() == other.strip().casefold()


def _differ(told: tuple[str | None, ...], asked: tuple[str, ...]) -> bool:
    return any(a is not None and a.strip().casefold() != b.casefold() for a, b in zip(told, asked, strict=True))
