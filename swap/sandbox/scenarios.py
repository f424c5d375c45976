"""What happens to an order, chosen by the address it pays out to.

A scenario is a timeline in seconds after creation at speed 1. Any destination that is not listed here `completes`.
Deposits, holds and refunds are played by the sandbox itself: there is no customer to wait for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from decimal import Decimal

from swap.sandbox.networks import NETWORKS

DETECTED = "INCOMING_FUNDS_DETECTED"
REGISTERED = "DEPOSIT_REGISTERED"
SENDING = "FUNDS_WITHDRAWAL_START"
SENT = "WITHDRAWAL_COMPLETED"
FROZEN = "AMLBOT_AML_FROZEN_BY_LIQUIDITY_PROVIDER"
REFUNDING = "REFUND_REQUESTED"
REFUNDED = "REFUND_COMPLETED"
CREATED = "CREATION_END"

DEPOSIT_WINDOW = 900
"""Seconds without a deposit after which public-info answers 410. The upstream states none (trap T17); 15 minutes is what
some clients show."""


@dataclass(frozen=True)
class Deposit:
    """`seen` and `confirmed` in seconds after creation; `share` of the claimed amount."""

    seen: float
    confirmed: float
    share: Decimal = Decimal(1)


@dataclass(frozen=True)
class Scenario:
    """`events` after CREATION_END as (kind, seconds). A payout happens exactly when WITHDRAWAL_COMPLETED does, of the
    first deposit's share. A hold lasts from FROZEN to the next event and shows a KYC link.

    How a refund shows itself in `withdrawals` is UNKNOWN upstream; here it leaves no entry, only its events.
    """

    name: str
    meaning: str
    deposits: tuple[Deposit, ...]
    events: tuple[tuple[str, int], ...]

    def time_of(self, kind: str) -> int | None:
        return next((at for name, at in self.events if name == kind), None)


_USUAL = ((DETECTED, 60), (REGISTERED, 180), (SENDING, 300), (SENT, 360))

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("completes", "deposit, exchange, payout", (Deposit(60, 180),), _USUAL),
        Scenario(
            "refunded",
            "the deposit is sent back",
            (Deposit(60, 180),),
            ((DETECTED, 60), (REGISTERED, 180), (REFUNDING, 300), (REFUNDED, 360)),
        ),
        Scenario(
            "hold_then_completes",
            "frozen by an AML check, then released and paid out",
            (Deposit(60, 180),),
            ((DETECTED, 60), (FROZEN, 180), (REGISTERED, 480), (SENDING, 540), (SENT, 600)),
        ),
        Scenario(
            "hold_then_refunded",
            "frozen by an AML check, then sent back",
            (Deposit(60, 180),),
            ((DETECTED, 60), (FROZEN, 180), (REFUNDING, 480), (REFUNDED, 600)),
        ),
        Scenario("expires", "nobody ever pays", (), ()),
        Scenario(
            "late_deposit",
            "expires, then somebody pays after all and it completes",
            (Deposit(1800, 1920),),
            ((DETECTED, 1800), (REGISTERED, 1920), (SENDING, 2040), (SENT, 2100)),
        ),
        Scenario(
            "wrong_amount",
            "80 % of the claimed amount arrives and is paid out in proportion",
            (Deposit(60, 180, Decimal("0.8")),),
            _USUAL,
        ),
        Scenario(
            "second_deposit",
            "a second deposit arrives while the first is being paid out; it is listed, never exchanged, and has no event",
            (Deposit(60, 180), Deposit(320, 440)),
            _USUAL,
        ),
    )
}


def with_one_sent_back(scenario: Scenario) -> Scenario:
    """The same, but its last deposit, which is never exchanged, goes back to the customer when it was confirmed."""
    back = int(scenario.deposits[-1].confirmed) + 60
    return replace(scenario, events=(*scenario.events, (REFUNDING, back), (REFUNDED, back + 60)))


_ADDRESS_NETWORKS = ("XRP", "TRC20", "ERC20", "BTC", "LTC")


def scenario_addresses() -> dict[str, dict[str, str]]:
    """{scenario: {network: address}}. Valid mainnet forms over sha256("swap sandbox scenario " + name)[:20]: whoever
    knows the rule can compute them, nobody holds a key for them. The ERC20 one serves every EVM network."""
    return {
        name: {
            network: NETWORKS[network].form.encode(
                hashlib.sha256(f"swap sandbox scenario {name}".encode()).digest()[:20]
            )
            for network in _ADDRESS_NETWORKS
        }
        for name in SCENARIOS
    }


def _comparable(address: str) -> str:
    """Hex and bech32 are the same address in any case; base58 is not."""
    return address.lower() if address.lower().startswith(("0x", "bc1", "ltc1")) else address


_BY_ADDRESS = {
    _comparable(address): SCENARIOS[name]
    for name, addresses in scenario_addresses().items()
    for address in addresses.values()
}


def scenario_for(destination_address: str) -> Scenario:
    return _BY_ADDRESS.get(_comparable(destination_address), SCENARIOS["completes"])
