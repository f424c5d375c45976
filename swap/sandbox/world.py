"""The sandbox's memory: one key pair, a clock, a catalog, a market and the orders made so far."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from swap.sandbox import faults
from swap.sandbox.catalog import Catalog, Instrument, Pair
from swap.sandbox.chaos import Chaos
from swap.sandbox.deposits import DepositPlace, deposit_place, shared_place
from swap.sandbox.load import Load
from swap.sandbox.rates import FIXED_MINUTES, Market, Quote, RateMode
from swap.sandbox.refusals import field_refused
from swap.sandbox.scenarios import scenario_for
from swap.sandbox.timeline import Order, Snapshot, look

_NUMBERS_FROM = 1_735_689_600  # 2025-01-01, Unix seconds
_NUMBERS_PER_SECOND = 1000


@dataclass(frozen=True)
class OrderRequest:
    """A create call after its JSON was read; amounts in the source currency, `markup` in percent."""

    pair: Pair
    rate_mode: RateMode
    amount: Decimal
    destination: str
    destination_memo: str | None
    refund: str | None
    refund_memo: str | None
    claimed_rate: dict[str, object] | None
    referrer: str | None
    markup: Decimal | None


class World:
    """Thread-safe; nothing is kept on disk, a new process starts empty.

    `speed` divides the times of every scenario: at 60 an order completes six seconds after creation. `seed` decides
    prices, addresses and ids, together with the moment the world began. `clock` gives Unix seconds. `chaos` is what goes
    wrong; without one nothing does, until it is asked for at run time.
    """

    def __init__(
        self,
        public_key: str,
        secret_key: str,
        *,
        speed: float = 1.0,
        seed: int = 0,
        large: bool = False,
        clock: Callable[[], float] = time.time,
        chaos: Chaos | None = None,
    ) -> None:
        if speed <= 0:
            raise ValueError("speed must be above 0")
        self.public_key = public_key
        self.secret_key = secret_key
        self.speed = speed
        self.seed = seed
        self.catalog = Catalog(large=large)
        self.market = Market(seed)
        self.chaos = chaos or Chaos(seed=seed)
        self.load = Load(clock)
        self._clock = clock
        self._advanced = 0.0
        self._lock = threading.Lock()
        # A service keeps its orders while the sandbox is started anew. With numbers from the seed alone, the second
        # process would hand out the ids and deposit addresses of the first again, which no upstream does.
        began = clock()
        self._last_number = max(0, int((began - _NUMBERS_FROM) * _NUMBERS_PER_SECOND))
        self._random = random.Random(f"swap sandbox {seed} {began}")  # noqa: S311 - ids repeat with seed and clock
        self._orders: list[Order] = []
        self._by_id: dict[str, Order] = {}

    def now(self) -> float:
        """The world's time in Unix seconds: the clock plus everything it was advanced by."""
        return self._clock() + self._advanced

    def clock_now(self) -> float:
        """The clock without what the world was advanced by: the time that budgets and rate limits live in."""
        return self._clock()

    def signing_clocks(self) -> tuple[float, ...]:
        """Times that a signature may be near to. The clock that was never advanced counts too: a client cannot know
        that a test moved the world, and must not be locked out by it."""
        return self._clock(), self.now()

    def advance(self, seconds: float) -> None:
        """Moves the world's time forward. Raises ValueError for a step back: what was seen cannot be unseen."""
        if not 0 <= seconds < float("inf"):
            raise ValueError("time only moves forward")
        with self._lock:
            self._advanced += seconds

    def create(self, request: OrderRequest) -> Order:
        """A new order, every time: there is no idempotency key upstream (trap T5). Refusals: the amount, the addresses,
        the memos."""
        _check_addresses(request)
        with self._lock:
            # The time is taken under the lock, so that a larger number never has an earlier time.
            now = round(self.now(), 3)
            quote = self.market.quote(
                request.pair,
                now=_rate_time(request, now),
                mode=request.rate_mode,
                amount=request.amount,
                markup=request.markup,
            )
            order, place_fault = self._made(request, quote, now)
            self.chaos.adopt(order, place_fault)
            self._orders.append(order)
            self._by_id[str(order.number)] = self._by_id[order.guid] = order
        return order

    def _made(self, request: OrderRequest, quote: Quote, now: float) -> tuple[Order, str | None]:
        """(order, what is wrong with where it is paid)"""
        # Other customers of the upstream place orders too, so numbers have gaps, and no client may count on the next one.
        self._last_number = number = self._last_number + self._random.randint(1, 9)
        fault, place = self._place(request, number, now) or (
            None,
            deposit_place(request.pair.source, self.seed, number),
        )
        order = Order(
            number=number,
            guid=str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            created_at=now,
            scenario=scenario_for(request.destination),
            pair=request.pair,
            rate_mode=quote.mode,
            amount=request.amount,
            amount_to_get=quote.amount_to_get,
            network_fee=quote.network_fee,
            price=quote.price,
            destination=request.destination,
            destination_memo=request.destination_memo,
            refund=request.refund,
            refund_memo=request.refund_memo,
            place=place,
            claimed_rate=request.claimed_rate,
            referrer=request.referrer,
            markup=request.markup,
            seed=self.seed,
        )
        return order, fault

    def _place(self, request: OrderRequest, number: int, now: float) -> tuple[str, DepositPlace] | None:
        """What a `place.` fault makes of where the order is paid."""
        source = request.pair.source

        def of_refund() -> DepositPlace | None:
            return self._earlier(source, lambda order: request.refund is not None and order.refund == request.refund)

        def of_expired() -> DepositPlace | None:
            # By the promised scenario too: one that is paid after all is not free again.
            return self._earlier(
                source, lambda order: not order.scenario.deposits and self.look(order, at=now).is_expired
            )

        return self.chaos.place(
            {
                faults.PER_REFUND: of_refund,
                faults.AFTER_EXPIRY: of_expired,
                faults.SHARED_MEMO: lambda: shared_place(source, self.seed, number),
            }
        )

    def _earlier(self, source: Instrument, fits: Callable[[Order], bool]) -> DepositPlace | None:
        """Where the newest order of the instrument that fits is paid."""
        rows = (order for order in reversed(self._orders) if order.pair.source == source and fits(order))
        return next((order.place for order in rows), None)

    def look(self, order: Order, *, at: float | None = None) -> Snapshot:
        """Now, or at another moment of the world in Unix seconds."""
        traits = self.chaos.record(order.number).traits
        return look(order, now=self.now() if at is None else at, speed=self.speed, traits=traits)

    def order(self, any_id: str) -> Order | None:
        """By number or GUID, as text."""
        with self._lock:
            return self._by_id.get(any_id)

    def orders(self) -> list[Order]:
        """Oldest first."""
        with self._lock:
            return list(self._orders)

    def listed_orders(self, *, at: float) -> list[Order]:
        """Those that the list of own orders has noticed by `at`, oldest first."""
        return [order for order in self.orders() if self.chaos.record(order.number).listed_at <= at]


def _rate_time(request: OrderRequest, now: float) -> float:
    """When the order's rate was made. A fixed rate that is claimed within its time is kept; any other is today's."""
    if request.rate_mode != "FIXED" or request.claimed_rate is None:
        return now
    try:
        claimed = datetime.fromisoformat(str(request.claimed_rate["updatedAt"])).timestamp()
    except (KeyError, ValueError, OverflowError):
        return now
    return claimed if 0 <= now - claimed <= FIXED_MINUTES * 60 else now


def _check_addresses(request: OrderRequest) -> None:
    """A missing memo is let through: whether the upstream refuses it is not known, and some wallets need none."""
    target, source = request.pair.target, request.pair.source
    if reason := target.network.address_problem(request.destination):
        raise field_refused("address", reason)
    if request.destination_memo is not None and (reason := target.network.memo_problem(request.destination_memo)):
        raise field_refused("memo", reason)
    if request.refund is not None and (reason := source.network.address_problem(request.refund)):
        raise field_refused("address", f"Refund: {reason}")
    if request.refund_memo is not None and (reason := source.network.memo_problem(request.refund_memo)):
        raise field_refused("memo", f"Refund: {reason}")
