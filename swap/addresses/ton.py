"""TON: the user-friendly form.

TEP-2: a tag byte (0x11 bounceable, 0x51 not; 0x80 added: test network only), the workchain (0, or -1 the masterchain),
a 32-byte account, CRC16-XModem big-endian; 36 bytes in 48 characters of base64 or base64url. The raw form `0:hex` has
no checksum and is refused (policy).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import crc_hqx

from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress

# Never both alphabets in one string, and no padding: the decoder of the standard library would skip what it dislikes.
_FORM = re.compile(r"[A-Za-z0-9+/]{48}|[A-Za-z0-9_-]{48}", re.ASCII)
_RAW = re.compile(r"-?[0-9]+:[0-9a-fA-F]{64}", re.ASCII)
_NOT_BOUNCEABLE = b"\x51"
_TOKEN_CONTRACTS = frozenset({"b113a994b5024a16719f69139328eb759596c38a25f59028b146fecdc3621dfe"})  # USDT


def encode(workchain: int, account: bytes, *, tag: bytes = _NOT_BOUNCEABLE) -> str:
    """An account in the user-friendly form, base64url."""
    data = tag + workchain.to_bytes(1, "big", signed=True) + account
    return urlsafe_b64encode(data + crc_hqx(data, 0).to_bytes(2, "big")).decode("ascii")


def ton(address: str) -> Payable:
    """`EQ`/`UQ`, or `Ef`/`Uf` on the masterchain. The bounce flag does not make another account."""
    if not _FORM.fullmatch(address):
        if _RAW.fullmatch(address):
            raise InvalidAddress(
                "unsupported_form", "The raw form has no checksum; use the one that starts with UQ or EQ."
            )
        raise InvalidAddress("wrong_length" if len(address) != 48 else "bad_characters")
    data = urlsafe_b64decode(address.replace("+", "-").replace("/", "_"))
    if crc_hqx(data[:-2], 0) != int.from_bytes(data[-2:], "big"):
        raise InvalidAddress("bad_checksum")
    tag, workchain, account = data[0], int.from_bytes(data[1:2], "big", signed=True), data[2:34]
    if tag in (0x91, 0xD1):
        raise InvalidAddress("testnet")
    if tag not in (0x11, 0x51):
        raise InvalidAddress("wrong_prefix")
    if workchain not in (0, -1):
        raise InvalidAddress("not_payable", "The workchain of this address is not in use.")
    if not any(account):
        raise InvalidAddress("burn_address")
    if account.hex() in _TOKEN_CONTRACTS:
        raise InvalidAddress("token_contract")
    return Payable(encode(workchain, account), ("masterchain",) if workchain else ())
