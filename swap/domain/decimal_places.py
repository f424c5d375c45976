"""How finely an amount can be sent at all: the digits after the point that a chain, a token or a bank can carry.

The catalog's precision is what the upstream's books hold, not what a wallet can send (docs/upstream.md T8: BTC with 11
digits, where a satoshi is the eighth). An amount in between could never be paid exactly. So of both the smaller counts.

Sources. Coins: the unit in which a node counts, from each chain's own documents (satoshi, wei, lamport, drop, stroop, ...).
Tokens: `decimals` of the issuer's contract on that network, which differs between networks (USDT: 6 on Ethereum, 18 on BNB
Smart Chain). Currencies: the minor unit of ISO 4217. What is not in a table is not guessed: then the catalog alone decides.

Pure: no input or output.
"""

from __future__ import annotations

from types import MappingProxyType

from swap import addresses

# Digits -> coin@network code (swap.addresses.networks), with the coin's symbols where it has two.
_COINS = MappingProxyType(
    {
        0: ("NEO@NEO3",),
        2: ("XEC@XEC",),
        3: ("HIVE@HIVE", "HBD@HIVE", "STEEM@STEEM", "SBD@STEEM"),
        4: ("EOS@EOS", "A@EOS"),
        6: (
            *("XVG@XVG", "TRX@TRC20", "XTZ@XTZ", "XRP@XRP", "ALGO@ALGO", "XEM@XEM", "STX@STX", "ADA@ADA"),
            *("ATOM@ATOM", "OSMO@OSMO", "KAVA@KAVA", "SEI@SEI", "TIA@TIA", "LUNA@LUNA", "SCRT@SCRT", "AXL@AXL"),
            *("BAND@BAND", "AKT@AKT"),
        ),
        8: (
            *("BTC@BTC", "LTC@LTC", "DOGE@DOGE", "DASH@DASH", "BCH@BCH", "BSV@BSV", "BTG@BTG", "DGB@DGB", "VTC@VTC"),
            *("RVN@RVN", "KMD@KMD", "QTUM@QTUM", "FIRO@FIRO", "PIVX@PIVX", "ZEN@ZEN", "DCR@DCR", "ZEC@ZEC"),
            *("CKB@CKB", "GAS@NEO3", "RUNE@RUNE", "CRO@CRO", "BNB@BEP2", "WAX@WAX", "WAXP@WAX", "HBAR@HBAR"),
            *("ICP@ICP", "APT@APT", "KAS@KAS", "WAVES@WAVES"),
        ),
        9: (
            *("ROSE@ROSE", "AVAX@AVAXX", "TAO@TAO", "TON@TON", "GRAM@TON", "SOL@SOL", "SUI@SUI", "CSPR@CSPR"),
            *("MINA@MINA", "ERG@ERG", "ONT@ONT"),
        ),
        10: ("DOT@DOT",),
        11: ("BTC@LN",),  # BOLT-11: a millisatoshi is the finest amount of an invoice
        12: ("XCH@XCH", "ZIL@ZIL", "KSM@KSM", "XMR@XMR", "AR@AR"),
        18: (
            *("ETH@ERC20", "BNB@BEP20", "POL@MATIC", "MATIC@MATIC", "ETH@ARBITRUM", "ETH@OPTIMISM", "ETH@BASE"),
            *("AVAX@AVAXC", "ETC@ETC", "FTM@FTM", "CELO@CELO", "LYX@LYX", "VET@VET", "RBTC@RSK", "BTC@RSK", "XDC@XDC"),
            *("DYDX@DYDX", "INJ@INJ", "EGLD@EGLD", "ONE@ONE", "IOTX@IOTX", "ASTR@ASTR", "FIL@FIL", "CFX@CFX"),
            *("AE@AE", "ICX@ICX", "ONG@ONT"),
        ),
        24: ("NEAR@NEAR", "SC@SC"),
        30: ("NANO@NANO", "XNO@NANO"),
    }
)
_TOKENS = MappingProxyType(
    {
        2: ("GUSD@ERC20",),
        6: (
            *("USDT@ERC20", "USDT@TRC20", "USDT@MATIC", "USDT@ARBITRUM", "USDT@OPTIMISM", "USDT@AVAXC", "USDT@CELO"),
            *("USDT@SOL", "USDT@TON", "USDT@NEAR", "USDT@APT"),
            *("USDC@ERC20", "USDC@TRC20", "USDC@MATIC", "USDC@ARBITRUM", "USDC@OPTIMISM", "USDC@BASE", "USDC@AVAXC"),
            *("USDC@CELO", "USDC@SOL", "USDC@NEAR", "USDC@APT", "USDC@SUI", "USDC@ALGO", "USDC@HBAR"),
            *("EURC@ERC20", "EURC@BASE", "EURC@AVAXC", "EURC@SOL", "PYUSD@ERC20", "PYUSD@SOL"),
        ),
        8: (
            "WBTC@ERC20",
            "WBTC@MATIC",
            "WBTC@ARBITRUM",
            "WBTC@OPTIMISM",
            "CBBTC@ERC20",
            "CBBTC@BASE",
            "CBBTC@ARBITRUM",
        ),
        18: (
            *("USDT@BEP20", "USDC@BEP20", "DAI@ERC20", "DAI@BEP20", "DAI@MATIC", "DAI@ARBITRUM", "DAI@OPTIMISM"),
            *("DAI@BASE", "BTCB@BEP20", "ETH@BEP20", "FDUSD@ERC20", "FDUSD@BEP20", "TUSD@ERC20", "TUSD@TRC20"),
            *("LINK@ERC20", "UNI@ERC20", "SHIB@ERC20", "PEPE@ERC20", "WETH@ERC20", "AAVE@ERC20", "POL@ERC20"),
            *("MATIC@ERC20", "ARB@ARBITRUM", "OP@OPTIMISM", "CAKE@BEP20"),
        ),
    }
)
# Chains that count every asset in one unit, whatever its issuer wanted.
_EVERY_ASSET = MappingProxyType({"XLM": 7})

# Digits -> currencies, where ISO 4217 does not say two.
_CURRENCIES = MappingProxyType(
    {
        0: (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF"),
            "XPF",
        ),
        3: ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"),
    }
)
_USUAL_MINOR_UNIT = 2


def _by_name(table: MappingProxyType[int, tuple[str, ...]]) -> dict[str, int]:
    return {name: digits for digits, names in table.items() for name in names}


_PLACES = MappingProxyType(_by_name(_COINS) | _by_name(_TOKENS))
_MINOR_UNITS = MappingProxyType(_by_name(_CURRENCIES))


def chain_places(currency: str, network: str) -> int | None:
    """The digits after the point of the finest amount of a coin or token on this network; None where it is not known.
    `currency`, `network`: the catalog's titles, in any case."""
    code = addresses.network_code(currency, network)
    if code is None:
        return None
    return _EVERY_ASSET.get(code, _PLACES.get(f"{currency.upper()}@{code}"))


def sendable_places(currency: str, network: str, precision: int, *, is_fiat: bool) -> int:
    """How many digits after the point a customer's amount may have. `precision`: the catalog's."""
    if is_fiat:
        return min(precision, _MINOR_UNITS.get(currency.upper(), _USUAL_MINOR_UNIT))
    places = chain_places(currency, network)
    return precision if places is None else min(precision, places)
