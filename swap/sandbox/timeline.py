"""An order at a moment: a pure function of when it was created, its scenario, the speed and the time.

No thread moves anything. Asking twice about the same moment gives the same answer, and a clock that is advanced shows
the future at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from decimal import Decimal, localcontext

from swap.sandbox import faults, scenarios
from swap.sandbox.catalog import Pair
from swap.sandbox.deposits import DepositPlace, transaction_id
from swap.sandbox.scenarios import Scenario
from swap.sandbox.wire import MONEY, cut


@dataclass(frozen=True)
class Order:
    """What creation decided, for ever. Amounts are claims; what really moves is in the snapshot. `claimed_rate` is the
    claimedPublicRate as received, or None. `created_at` in Unix seconds, whole milliseconds."""

    number: int
    guid: str
    created_at: float
    scenario: Scenario
    pair: Pair
    rate_mode: str
    amount: Decimal
    amount_to_get: Decimal
    network_fee: Decimal
    price: Decimal
    destination: str
    destination_memo: str | None
    refund: str | None
    refund_memo: str | None
    place: DepositPlace
    claimed_rate: dict[str, object] | None
    referrer: str | None
    markup: Decimal | None
    seed: int


@dataclass(frozen=True)
class SeenDeposit:
    """`at` in Unix seconds; pending until the source network's confirmations are reached."""

    at: float
    amount: Decimal
    confirmations: int
    is_pending: bool
    tx_id: str


@dataclass(frozen=True)
class Payout:
    at: float
    amount: Decimal
    fee: Decimal
    tx_id: str


@dataclass(frozen=True)
class Snapshot:
    """Everything that can be seen of an order at one moment. `events` newest first."""

    events: tuple[tuple[str, float], ...]
    deposits: tuple[SeenDeposit, ...]
    payouts: tuple[Payout, ...]
    is_completed: bool
    is_expired: bool
    is_on_hold: bool
    updated_at: float

    @property
    def kinds(self) -> set[str]:
        return {kind for kind, _ in self.events}


def look(order: Order, *, now: float, speed: float, traits: Collection[str] = ()) -> Snapshot:
    """`speed` divides every time of the scenario. `traits`: the `deposits.` faults that the order lives with."""

    def moment(seconds: float) -> float:
        return order.created_at + seconds / speed

    scenario = order.scenario
    if faults.PARTLY_REFUNDED in traits:
        scenario = scenarios.with_one_sent_back(scenario)
    events = [(scenarios.CREATED, order.created_at)]
    events += [(kind, moment(at)) for kind, at in scenario.events if moment(at) <= now]
    deposits, changes = [], [at for _, at in events]
    for index, planned in enumerate(scenario.deposits):
        if moment(planned.seen) <= now:
            deposit, rises = _deposit(order, index, planned, moment_of=moment, now=now, traits=traits)
            deposits.append(deposit)
            changes += rises
    payouts = [
        Payout(
            at,
            _payout_amount(order),
            order.network_fee,
            transaction_id(order.pair.target, order.seed, order.number, "payout"),
        )
        for kind, at in events
        if kind == scenarios.SENT
    ]
    is_expired = not deposits and now >= moment(scenarios.DEPOSIT_WINDOW)
    if is_expired:
        changes.append(moment(scenarios.DEPOSIT_WINDOW))
    return Snapshot(
        events=tuple(reversed(events)),
        deposits=tuple(deposits),
        payouts=tuple(payouts),
        is_completed=bool(payouts),
        is_expired=is_expired,
        is_on_hold=events[-1][0] == scenarios.FROZEN,
        updated_at=max(changes),
    )


def _deposit(
    order: Order,
    index: int,
    planned: scenarios.Deposit,
    *,
    moment_of: Callable[[float], float],
    now: float,
    traits: Collection[str],
) -> tuple[SeenDeposit, list[float]]:
    """(what is seen of it, when that changed)"""
    label, dated, changes = f"deposit {index}", moment_of(planned.seen), []
    is_replaced = faults.REPLACED in traits
    if is_replaced:
        # Halfway: before, nobody has confirmed anything, and after it there is time to be confirmed.
        again = (planned.seen + planned.confirmed) / 2
        if moment_of(again) <= now:
            planned, label, dated = replace(planned, seen=again), f"{label} replaced", moment_of(again)
            is_replaced = False
        changes.append(moment_of(planned.seen))
    confirmations, rises = (0, []) if is_replaced else _confirmations(order, planned, moment_of=moment_of, now=now)
    with localcontext(MONEY):
        amount = cut(order.amount * planned.share, max(order.pair.source.precision, _places(order.amount)))
    is_pending = moment_of(planned.confirmed) > now
    if faults.REDATED in traits and not is_pending:
        dated = moment_of(planned.confirmed)
    tx_id = transaction_id(order.pair.source, order.seed, order.number, label)
    return SeenDeposit(dated, amount, confirmations, is_pending, tx_id), changes + rises


def _confirmations(
    order: Order, planned: scenarios.Deposit, *, moment_of: Callable[[float], float], now: float
) -> tuple[int, list[float]]:
    """How many there are, and when each was added. They rise evenly from 0 when seen to the network's number when
    confirmed, and stay there."""
    needed = order.pair.source.network.confirmations
    step = (planned.confirmed - planned.seen) / needed
    reached = [moment_of(planned.seen + step * count) for count in range(needed + 1)]
    passed = [at for at in reached if at <= now]
    return len(passed) - 1, passed


def _payout_amount(order: Order) -> Decimal:
    """The promised amount, in proportion to what arrived."""
    with localcontext(MONEY):
        return cut(order.amount_to_get * order.scenario.deposits[0].share, order.pair.target.precision)


def _places(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return -exponent if isinstance(exponent, int) and exponent < 0 else 0
