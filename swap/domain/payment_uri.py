"""Payment URIs: address, amount and, where the scheme has a parameter for it, memo as one text for a wallet.

A wallet that misreads a URI loses money. So there is a URI only where the scheme is settled and carries everything that the
deposit needs; otherwise the address stands alone. Amounts are exact, in plain notation.

- `bitcoin:` and its relatives: BIP-21 (address, `amount` in coins). Zcash: ZIP-321, the same for one transparent payment.
- `ethereum:`: EIP-681, the coin itself on Ethereum alone, `@1` written out, `value` in wei. No tokens: their URI names the
  contract first and the receiver as an argument, and wallets that read BIP-21 pay the contract. No other chains: wallets
  were seen to ignore the chain id and pay on Ethereum (metamask-mobile #2836, wallet-core #2363).
- `xrpl://`: Xaman's payment request link, after XLS-2 (`amount` in XRP, `dt` the destination tag).
- `web+stellar:pay`: SEP-7 (`amount` in lumens, `memo` with `memo_type`). A memo of digits can be a number or a text, which
  differ on the chain, and the upstream does not say which it is; then there is no URI.

Pure: no input or output.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable
from decimal import Decimal
from types import MappingProxyType
from urllib.parse import quote

from swap import addresses
from swap.domain.decimal_places import chain_places
from swap.domain.money import decimals, plain

# network code, which is also the coin's symbol -> the scheme
_BIP21 = MappingProxyType(
    {
        "BTC": "bitcoin",
        "LTC": "litecoin",
        "DOGE": "dogecoin",
        "DASH": "dash",
        "BCH": "bitcoincash",
        "ZEC": "zcash",
        "DGB": "digibyte",
    }
)
_TAG = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_HASH = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_DIGITS = re.compile(r"[0-9]+", re.ASCII)


def payment_uri(currency: str, network: str, address: str, amount: Decimal, memo: str | None) -> str | None:
    """The URI to pay `amount` (in coins, more than zero) to `address` with `memo`; None where no scheme can say all of that.
    `currency`, `network`: the catalog's titles; only a network's own coin has a URI."""
    code = addresses.network_code(currency, network)
    verdict = addresses.validate(currency, network, address, memo)
    places = chain_places(currency, network)
    if code is None or verdict.normalised is None or amount <= 0 or places is None or decimals(amount) > places:
        return None
    if code in _BIP21 and currency.upper() == code:
        return _bip21(_BIP21[code], verdict.normalised, amount, memo)
    build = _OTHERS.get((currency.upper(), code))
    return None if build is None else build(address, amount, memo)


def _bip21(scheme: str, address: str, amount: Decimal, memo: str | None) -> str | None:
    if memo is not None:
        return None
    # CashAddr writes its own prefix, which is the scheme.
    return f"{scheme}:{address.removeprefix(f'{scheme}:')}?amount={plain(amount)}"


def _ethereum(address: str, amount: Decimal, memo: str | None) -> str | None:
    if memo is not None:
        return None
    whole, _, fraction = plain(amount).partition(".")
    return f"ethereum:{address}@1?value={int(whole + fraction.ljust(18, '0'))}"


def _ripple(address: str, amount: Decimal, memo: str | None) -> str | None:
    if not address.startswith("r") or (memo is not None and not _TAG.fullmatch(memo)):
        return None
    return f"xrpl://{address}?amount={plain(amount)}" + ("" if memo is None else f"&dt={memo}")


def _stellar(address: str, amount: Decimal, memo: str | None) -> str | None:
    if not address.startswith("G"):
        return None
    uri = f"web+stellar:pay?destination={address}&amount={plain(amount)}"
    if memo is None:
        return uri
    if _DIGITS.fullmatch(memo):
        return None
    if _HASH.fullmatch(memo):
        return f"{uri}&memo={quote(b64encode(bytes.fromhex(memo)), safe='')}&memo_type=MEMO_HASH"
    return f"{uri}&memo={quote(memo, safe='')}&memo_type=MEMO_TEXT"


_OTHERS: MappingProxyType[tuple[str, str], Callable[[str, Decimal, str | None], str | None]] = MappingProxyType(
    {("ETH", "ERC20"): _ethereum, ("XRP", "XRP"): _ripple, ("XLM", "XLM"): _stellar}
)
