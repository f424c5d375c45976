"""A pytest plugin: the sandbox as a fixture, for anyone who integrates with the v2 upstream. PYTEST_DONT_REWRITE

    # conftest.py (or the test module itself)
    pytest_plugins = ["swap.sandbox.fixture"]

    # test_checkout.py
    def test_a_lost_answer_is_not_a_failed_order(swap_sandbox):
        swap_sandbox.fail_next("create.accept_then_drop")
        ...                                     # let your own code place an order at swap_sandbox.base_url
        (order,) = swap_sandbox.truth()
        assert order["createFault"] == "create.accept_then_drop" and not order["wasAnswered"]

Names of faults and fields of the truth: docs/sandbox.md. Needs pytest, which the service itself does not. The server
runs in a thread on a free port of 127.0.0.1 and forgets everything after the test.
"""

# The marker word above: this module is usually imported for `SwapSandbox`, too, and pytest would warn that it came too
# late to rewrite its assertions. It has none.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from swap.sandbox.control import truth
from swap.sandbox.server import running
from swap.sandbox.world import World

PUBLIC_KEY, SECRET_KEY = "pk_sandbox_fixture", "sk_sandbox_fixture"


@dataclass(frozen=True)
class SwapSandbox:
    """A running sandbox. `base_url` such as `http://127.0.0.1:40123`, without `/api`; the key pair is what requests must
    be signed with; `world` is everything else, in this process."""

    base_url: str
    public_key: str
    secret_key: str
    world: World

    def fail_next(self, fault: str, count: int = 1) -> None:
        """The next `count` requests (orders, answers) where the fault is possible get it. ValueError for a name that
        does not exist."""
        self.world.chaos.force(fault, count)

    def set_faults(self, changes: dict[str, Any]) -> None:
        """As `PUT /sandbox/faults`: `{"profile": "chaos", "create.drop": 0.5, "delay_seconds": 0.1}`."""
        self.world.chaos.change(changes)

    def fired(self, fault: str) -> int:
        """How often it has happened."""
        return int(self.world.chaos.report()["fired"][fault])

    def truth(self, destination: str | None = None) -> list[dict[str, Any]]:
        """As `GET /sandbox/orders`: every order there is, oldest first."""
        return truth(self.world, destination)

    def advance(self, seconds: float) -> None:
        """Moves the world's time forward: deposits arrive, orders complete or expire."""
        self.world.advance(seconds)


@pytest.fixture
def swap_sandbox_options() -> dict[str, Any]:
    """Override it to change the world: keyword arguments of `World`, such as `{"speed": 60, "seed": 3}` or
    `{"chaos": Chaos("chaos", seed=3)}`."""
    return {}


@pytest.fixture
def swap_sandbox(swap_sandbox_options: dict[str, Any]) -> Iterator[SwapSandbox]:
    """A clean, empty sandbox of the test's own; nothing goes wrong unless the test asks for it."""
    world = World(PUBLIC_KEY, SECRET_KEY, **swap_sandbox_options)
    with running(world) as base_url:
        yield SwapSandbox(base_url, PUBLIC_KEY, SECRET_KEY, world)
