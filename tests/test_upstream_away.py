"""What callers meet while the upstream is away: no waiting, no doubt, and all well once it is back."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from swap.errors import TimedOut
from swap.market.quotes import Swap
from swap.sandbox.world import World
from swap.sdk import SwapApiError
from swap.tables import InstrumentRow
from swap.wiring import Service
from tests.conftest import BITCOIN, XRP, Clock, Shop
from tests.faults import Fault, Faults, Holding, answering, dropping
from tests.polling import place, watch_due


def test_a_list_that_hangs_stops_neither_creates_nor_looks(
    shop: Shop, service: Service, other_service: Callable[..., Service], faults: Faults
) -> None:
    faults["orders"] = holding = Holding(before=True)
    impatient = other_service(upstream_read_timeout=2)
    for _ in range(6):
        with pytest.raises(TimedOut):
            impatient.upstream.orders(deadline=0.1)
    assert impatient.upstream_access.state == "ok"
    assert impatient.quotes.rate(Swap(*_route(impatient), Decimal("0.0125"), "FLOATING"), 10)
    holding.let_go()


def _route(service: Service) -> tuple[InstrumentRow, InstrumentRow]:
    snapshot = service.catalog.usable()
    source, target = snapshot.instrument(*BITCOIN), snapshot.instrument(*XRP)
    assert source is not None and target is not None
    return source, target


def test_an_upstream_that_is_away_is_not_asked_again_by_everybody(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    quote = shop.api.quote(BITCOIN, XRP, "0.0125")
    # Addresses as well: on a slow machine the breaker's pause is over, and the check of one is the probe.
    world.chaos.change({"rate.error_500": 1.0, "address.error_500": 1.0})
    # Five pairs, for one that fails all the time says nothing about the rest.
    for pair in [pair for pair in world.catalog.pairs if pair.is_active][:5]:
        with pytest.raises(SwapApiError):
            shop.api.quote(
                (pair.source.currency, pair.source.network.title), (pair.target.currency, pair.target.network.title)
            )
    assert service.upstream_access.state == "away"

    with pytest.raises(SwapApiError) as refused:
        shop.place(quote_id=quote["quote_id"])
    assert (refused.value.status, refused.value.retry) == (503, "same_request")
    assert world.orders() == []


@pytest.mark.parametrize("fault", [answering(502, "bad gateway"), dropping], ids=["answered", "broken connection"])
def test_polls_of_one_sick_pair_stop_no_creates(
    shop: Shop, service: Service, clock: Clock, faults: Faults, fault: Fault
) -> None:
    sick = [place(shop, client_order_id=f"order-{number}") for number in range(6)]
    clock.advance(20)
    faults["order"] = fault
    assert sorted(watch_due(service)) == sorted(sick)
    assert service.upstream_access.state == "ok"
    assert shop.place("another")["status"] == "awaiting_deposit"
