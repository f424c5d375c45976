"""Which network a catalog title means.

Titles are matched without regard to case, nothing else: an unknown one stays unknown, since guessing from the currency
sends money to the wrong chain. Some titles mean two networks; those are answered only for the currencies that leave no
doubt.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

from swap.addresses.networks import NETWORKS

_TITLES = {
    "BTC": ("Bitcoin",),
    "LN": ("Lightning", "Lightning Network", "BTCLN", "BTC-LN"),
    "LTC": ("Litecoin",),
    "DOGE": ("Dogecoin",),
    "BCH": ("Bitcoin Cash",),
    "XEC": ("eCash",),
    "BSV": ("Bitcoin SV",),
    "BTG": ("Bitcoin Gold",),
    "DGB": ("DigiByte",),
    "VTC": ("Vertcoin",),
    "RVN": ("Ravencoin",),
    "KMD": ("Komodo",),
    "XVG": ("Verge",),
    "ZEN": ("Horizen",),
    "DCR": ("Decred",),
    "ZEC": ("Zcash",),
    "ERC20": ("ETH", "Ethereum"),
    "BEP20": ("BSC", "BNB Smart Chain", "BNB"),
    "MATIC": ("Polygon", "POL"),
    "ARBITRUM": ("ARB", "ARBONE", "Arbitrum One"),
    "OPTIMISM": ("OP",),
    "AVAXC": ("AVAX C-Chain", "AVAX"),
    "AVAXX": ("AVAX X-Chain",),
    "ETC": ("Ethereum Classic",),
    "FTM": ("Fantom",),
    "LYX": ("LUKSO",),
    "VET": ("VeChain",),
    "RSK": ("Rootstock",),
    "TRC20": ("TRX", "TRON"),
    "XTZ": ("Tezos",),
    "ONT": ("Ontology",),
    "ATOM": ("Cosmos",),
    "OSMO": ("Osmosis",),
    "RUNE": ("THORChain",),
    "INJ": ("Injective",),
    "TIA": ("Celestia",),
    "SCRT": ("Secret",),
    "AXL": ("Axelar",),
    "AKT": ("Akash",),
    "EGLD": ("MultiversX",),
    "XCH": ("Chia",),
    "CKB": ("Nervos",),
    "ROSE": ("Oasis",),
    "ZIL": ("Zilliqa",),
    "ONE": ("Harmony",),
    "IOTX": ("IoTeX",),
    "DOT": ("Asset Hub(Polkadot)", "Polkadot"),
    "KSM": ("Kusama",),
    "TAO": ("Bittensor",),
    "ASTR": ("Astar",),
    "XRP": ("Ripple", "XRPL"),
    "XLM": ("Stellar",),
    "TON": ("Toncoin", "Gram", "The Open Network"),  # the coin was renamed Gram in June 2026
    "EOS": ("A", "Vaulta"),
    "HBAR": ("Hedera",),
    "ALGO": ("Algorand",),
    "XEM": ("NEM",),
    "STX": ("Stacks",),
    "ICP": ("Internet Computer",),
    "CSPR": ("Casper",),
    "SOL": ("SPL", "Solana"),
    "ADA": ("Cardano",),
    "XMR": ("Monero",),
    "APT": ("Aptos",),
    "FIL": ("Filecoin",),
    "KAS": ("Kaspa",),
    "CFX": ("Conflux",),
    "NANO": ("XNO",),
    "ERG": ("Ergo",),
    "AE": ("aeternity",),
    "SC": ("Siacoin",),
    "ICX": ("ICON",),
    "AR": ("Arweave",),
}

ALIASES = MappingProxyType(
    {code: code for code in NETWORKS} | {title.upper(): code for code, titles in _TITLES.items() for title in titles}
)

# BNB as a network is BEP2 or BEP20, and AVAX the X or the C chain, when the coin itself is meant; a token lives on one
# only.
_DOUBTFUL_FOR = MappingProxyType({"BNB": "BNB", "AVAX": "AVAX"})
# Chains with a native and an Ethereum-type form of address: the title means the native one for the chain's own coin;
# for a token nobody knows.
_NATIVE_ONLY = frozenset({"KAVA", "SEI", "INJ", "CRO", "FIL", "ONE", "IOTX"})
_LONGEST_TITLE = 64


def resolve(currency: str, network: str) -> tuple[str | None, str | None]:
    """(code, None), or (None, reason) when the title is unknown or means two networks."""
    # Before the cache, which would hash and keep text of any length.
    if len(network) > _LONGEST_TITLE or len(currency) > _LONGEST_TITLE:
        return None, "network_unknown"
    return _resolve(currency, network)


@lru_cache(maxsize=4096)
def _resolve(currency: str, network: str) -> tuple[str | None, str | None]:
    title, coin = network.upper(), currency.upper()
    code = ALIASES.get(title)
    if code is None:
        return None, "network_unknown"
    if _DOUBTFUL_FOR.get(title) == coin or (code in _NATIVE_ONLY and ALIASES.get(coin) != code):
        return None, "network_ambiguous"
    return code, None


@lru_cache(maxsize=4096)
def shares_form_with_usual(currency: str, code: str) -> bool:
    """Whether the currency's own network is another one whose addresses look the same: ETH sent over Polygon."""
    usual = ALIASES.get(currency.upper()[:_LONGEST_TITLE])
    if usual is None or usual == code:
        return False
    form = NETWORKS[code].form
    return form is not None and NETWORKS[usual].form == form


def proposal(currency: str, network: str) -> str | None:
    """The code of the network that a title without rules may mean: that of the currency's own name, or of a title that
    contains the unknown one, or is contained in it. For an operator to judge; never for an address."""
    own = ALIASES.get(currency.upper()[:_LONGEST_TITLE])
    if own is not None:
        return own
    title = network.upper()[:_LONGEST_TITLE]
    alike = {
        code
        for known, code in ALIASES.items()
        if min(len(known), len(title)) > 3 and (known in title or title in known)
    }
    return alike.pop() if len(alike) == 1 else None
