"""What callers meet while the upstream is away: no waiting, no doubt, and all well once it is back."""

from __future__ import annotations

import pytest

from swap.sandbox.world import World
from swap.sdk import SwapApiError
from swap.wiring import Service
from tests.conftest import BITCOIN, XRP, Clock, Shop


def test_an_upstream_that_is_away_is_not_asked_again_by_everybody(
    shop: Shop, world: World, service: Service, clock: Clock
) -> None:
    quote = shop.api.quote(BITCOIN, XRP, "0.0125")
    # Addresses as well: on a slow machine the breaker's pause is over, and the check of one is the probe.
    world.chaos.change({"rate.error_500": 1.0, "address.error_500": 1.0})
    for _ in range(2):
        with pytest.raises(SwapApiError):
            shop.api.quote(BITCOIN, XRP, "0.0125")
    assert service.breaker.state == "away"

    with pytest.raises(SwapApiError) as refused:
        shop.place(quote_id=quote["quote_id"])
    assert (refused.value.status, refused.value.retry) == (503, "same_request")
    assert world.orders() == []
