"""The instruments and directed pairs that the sandbox trades.

Titles, precisions and memo flags follow docs/upstream.md section 8. Where it gives a documented precision, that one is used
even when it differs from the chain's (BTC 11, USDT on TRC20 12, ADA 11, SOL 4, LTC 3: trap T8). Everything marked "-"
there is chosen here. HYDRA / Hydragon and BTC over Lightning are left out: no valid deposit address could be given.

Fiat rows exist upstream, but their literal `instrumentType`, networkTitle and order flow are UNKNOWN. Here the type is
`fiat`, the network title equals the currency title, and both are guesses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from decimal import Decimal

from swap.sandbox.networks import NETWORKS, Network, fiat_network

Key = tuple[str, str]


@dataclass(frozen=True)
class Instrument:
    """One row. `usd` is the reference price of one unit in USD; `precision` the digits after the point."""

    currency: str
    network: Network
    precision: int
    usd: Decimal
    name: str
    requires_memo: bool = False
    contract: str = ""
    is_fiat: bool = False

    @property
    def key(self) -> Key:
        return self.currency, self.network.title

    @property
    def is_native(self) -> bool:
        return not self.contract

    @property
    def slug(self) -> str:
        """`btc`, `usdttrc20`, `ethbase`: the currency alone on its home network."""
        if self.is_fiat or self.key in _HOME:
            return self.currency.lower()
        return "".join(character for character in (self.currency + self.network.title).lower() if character.isalnum())

    @property
    def has_fixed_rate(self) -> bool:
        return not self.is_fiat and self.currency not in _FLOATING_ONLY


@dataclass(frozen=True)
class Pair:
    """A direction. An inactive one is listed with `isActive: false` and cannot be traded."""

    source: Instrument
    target: Instrument
    is_active: bool = True

    @property
    def has_fixed_rate(self) -> bool:
        """Elsewhere a FIXED quote comes back FLOATING (trap T12)."""
        return self.source.has_fixed_rate and self.target.has_fixed_rate


# currency, network, precision, USD price, full name, requiresMemo, contract address
_CRYPTO: tuple[tuple[str, str, int, str, str, bool, str], ...] = (
    ("BTC", "BTC", 11, "65000", "Bitcoin", False, ""),
    ("ETH", "ERC20", 8, "2500", "Ethereum", False, ""),
    ("ETH", "BASE", 8, "2500", "Ethereum Base", False, ""),
    ("ETH", "ARBITRUM", 8, "2500", "Ethereum Arbitrum", False, ""),
    ("ETH", "OPTIMISM", 8, "2500", "Ethereum Optimism", False, ""),
    ("USDT", "TRC20", 12, "1", "Tether TRC20", False, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
    ("USDT", "ERC20", 6, "1", "Tether ERC20", False, "0xdAC17F958D2ee523a2206206994597C13D831ec7"),
    ("USDT", "BEP20", 6, "1", "Tether BEP20", False, "0x55d398326f99059fF775485246999027B3197955"),
    ("USDT", "TON", 6, "1", "Tether TON", True, "EQCxE6mUtQJKFnGfaROTKOt1lZbDiiX1kCixRv7Nw2Id_sDs"),
    ("USDC", "ERC20", 6, "1", "USD Coin ERC20", False, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"),
    ("USDC", "SPL", 6, "1", "USD Coin Solana", False, "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"),
    ("DAI", "ERC20", 8, "1", "Dai", False, "0x6B175474E89094C44Da98b954EedeAC495271d0F"),
    ("LTC", "LTC", 3, "80", "Litecoin", False, ""),
    ("XRP", "XRP", 6, "2.5", "XRP", True, ""),
    ("TRX", "TRC20", 6, "0.3", "TRON", False, ""),
    ("XMR", "XMR", 8, "320", "Monero", False, ""),
    ("ADA", "ADA", 11, "0.65", "Cardano", False, ""),
    ("SOL", "SOL", 4, "160", "Solana", False, ""),
    ("BNB", "BEP20", 8, "900", "BNB Smart Chain", False, ""),
    ("POL", "POLYGON", 8, "0.25", "Polygon", False, ""),
    ("AVAX", "AVAX C-Chain", 8, "22", "Avalanche", False, ""),
    ("DOT", "Asset Hub(Polkadot)", 8, "4", "Polkadot", False, ""),
    ("KSM", "KUSAMA", 8, "15", "Kusama", False, ""),
    ("KAS", "KASPA", 8, "0.06", "Kaspa", False, ""),
    ("XEM", "NEM", 6, "0.02", "NEM", True, ""),
    ("TAO", "Bittensor", 8, "350", "Bittensor", False, ""),
    ("TIA", "CELESTIA", 6, "1.5", "Celestia", True, ""),
    ("ROSE", "OASIS", 8, "0.03", "Oasis", False, ""),
    ("LYX", "LUKSO", 8, "0.7", "LUKSO", False, ""),
    ("RUNE", "RUNE", 8, "1.2", "THORChain", True, ""),
    ("ZEC", "ZEC", 8, "300", "Zcash", False, ""),
    ("DOGE", "DOGE", 8, "0.2", "Dogecoin", False, ""),
    ("DASH", "DASH", 8, "45", "Dash", False, ""),
    ("BCH", "BCH", 8, "500", "Bitcoin Cash", False, ""),
    ("XLM", "XLM", 7, "0.3", "Stellar", True, ""),
    ("TON", "TON", 8, "2.2", "Toncoin", True, ""),
    ("ATOM", "ATOM", 6, "3.2", "Cosmos", True, ""),
    ("ETC", "ETC", 8, "17", "Ethereum Classic", False, ""),
)

_FIAT: tuple[tuple[str, str, str], ...] = (
    ("EUR", "1.15", "Euro"),
    ("USD", "1", "US Dollar"),
    ("RON", "0.23", "Romanian Leu"),
    ("BGN", "0.59", "Bulgarian Lev"),
)

# fmt: off
_MORE_FIAT = (
    "AED", "ARS", "AUD", "BRL", "CAD", "CHF", "CLP", "CNY", "COP", "CZK", "DKK", "GBP",
    "GEL", "HKD", "HUF", "IDR", "ILS", "INR", "ISK", "JPY", "KES", "KRW", "KZT", "MAD",
    "MXN", "MYR", "NGN", "NOK", "NZD", "PEN", "PHP", "PLN", "SEK", "SGD", "THB", "TRY",
)
# fmt: on

_HOME = {(row[0], row[1]) for row in _CRYPTO if not row[6]} - {
    ("ETH", "BASE"),
    ("ETH", "ARBITRUM"),
    ("ETH", "OPTIMISM"),
}
_FLOATING_ONLY = {"XMR", "TAO", "XEM", "ROSE", "LYX", "KAS"}
_HUBS = {
    ("BTC", "BTC"),
    ("ETH", "ERC20"),
    ("USDT", "TRC20"),
    ("USDT", "ERC20"),
    ("USDC", "ERC20"),
    ("LTC", "LTC"),
    ("XRP", "XRP"),
    ("TRX", "TRC20"),
    ("SOL", "SOL"),
    ("BNB", "BEP20"),
    ("XMR", "XMR"),
}
_FIAT_PAYOUTS = {"EUR", "RON"}
_LARGE_FIAT, _LARGE_CRYPTO, _LARGE_PAIRS = 40, 160, 20_000
_TOKEN_NETWORKS = ("ERC20", "BEP20", "TRC20", "SPL", "POLYGON", "ARBITRUM", "BASE")


class Catalog:
    """All instruments and pairs of one profile: about 40 instruments, or with `large` exactly 200 of which 40 are
    fiat, and 20,000 directed pairs."""

    def __init__(self, *, large: bool = False) -> None:
        crypto = _crypto_instruments() + (_tokens(_LARGE_CRYPTO - len(_CRYPTO)) if large else [])
        fiat = [_fiat(currency, Decimal(usd), name) for currency, usd, name in _FIAT]
        if large:
            fiat += [_fiat(code, Decimal(1 + _number(code) % 400) / 400, code) for code in _MORE_FIAT]
            fiat = fiat[:_LARGE_FIAT]
        self.instruments: tuple[Instrument, ...] = (*crypto, *fiat)
        self.pairs: tuple[Pair, ...] = tuple(self._large_pairs() if large else self._pairs())
        self._by_key = {instrument.key: instrument for instrument in self.instruments}
        self._by_direction = {(pair.source.key, pair.target.key): pair for pair in self.pairs}

    def instrument(self, currency: str, network: str) -> Instrument | None:
        """By the catalog's own spelling: the upstream is not known to forgive another (docs/upstream.md T7)."""
        return self._by_key.get((currency, network))

    def pair(self, source: Instrument, target: Instrument) -> Pair | None:
        """The direction if it can be traded now."""
        pair = self._by_direction.get((source.key, target.key))
        return pair if pair is not None and pair.is_active else None

    def _pairs(self) -> list[Pair]:
        """Every instrument trades with a hub, both ways; two others only now and then; fiat buys hubs, and some fiat is
        paid out. A few directions are switched off."""
        pairs = []
        for source in self.instruments:
            for target in self.instruments:
                if source is target or (source.is_fiat and target.is_fiat):
                    continue
                hub = source.key in _HUBS or target.key in _HUBS
                chance = _number(f"{source.key}{target.key}")
                if source.is_fiat or target.is_fiat:
                    if hub and (source.is_fiat or target.currency in _FIAT_PAYOUTS):
                        pairs.append(Pair(source, target))
                elif hub or chance % 3 == 0:
                    pairs.append(Pair(source, target, is_active=hub or chance % 10 != 0))
        return pairs

    def _large_pairs(self) -> list[Pair]:
        """The normal pairs of all instruments, filled up with arbitrary directions to the exact number."""
        pairs = {(pair.source.key, pair.target.key): pair for pair in self._pairs()}
        rest = [
            Pair(source, target)
            for source in self.instruments
            for target in self.instruments
            if source is not target
            and not (source.is_fiat and target.is_fiat)
            and (source.key, target.key) not in pairs
        ]
        rest.sort(key=lambda pair: _number(f"fill {pair.source.key}{pair.target.key}"))
        return [*pairs.values(), *rest][:_LARGE_PAIRS]


def _crypto_instruments() -> list[Instrument]:
    return [
        Instrument(currency, NETWORKS[network], precision, Decimal(usd), name, requires_memo, contract)
        for currency, network, precision, usd, name, requires_memo, contract in _CRYPTO
    ]


def _fiat(currency: str, usd: Decimal, name: str) -> Instrument:
    return Instrument(currency, fiat_network(currency), 2, usd, name, is_fiat=True)


def _tokens(count: int) -> list[Instrument]:
    """Invented tokens on real networks, so that the large profile still has a valid address for each."""
    pattern = Instrument("", NETWORKS["ERC20"], 8, Decimal(1), "")
    tokens = []
    for index in range(count):
        network = NETWORKS[_TOKEN_NETWORKS[index % len(_TOKEN_NETWORKS)]]
        digest = hashlib.sha256(f"swap sandbox token {index}".encode()).digest()
        price = Decimal(1 + digest[0]) / 10
        contract = network.form.encode(digest)
        currency = f"TOK{index:03}"
        tokens.append(
            replace(pattern, currency=currency, network=network, usd=price, name=f"Token {index}", contract=contract)
        )
    return tokens


def _number(text: str) -> int:
    """A stable number for a text; Python's own hash changes with every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
