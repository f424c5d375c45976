"""The networks of the sandbox: the form of their addresses, memos and transaction ids, and what a payout costs.

`accepts` is a referee's check, not a wallet's: checksum, length, version and network are judged, so a mistyped, cut or
foreign address is refused. Address forms that wallets convert before paying (X-addresses, M-addresses, legacy CashAddr)
are refused as well. Sources of the forms: the chains' own specifications, docs/addresses.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from swap.sandbox import codecs

MemoKind = Literal["none", "tag", "stellar", "comment", "text", "cosmos text"]
TxStyle = Literal["hex", "0xhex", "HEX", "base58", "reference"]


class AddressForm(Protocol):
    """How one family writes addresses."""

    def encode(self, seed: bytes) -> str:
        """A valid mainnet address made from a seed of 20 or 32 bytes; equal seeds give equal addresses."""

    def accepts(self, address: str) -> bool:
        """Whether this is a complete, correctly checksummed mainnet address of the family."""


def _stretched(seed: bytes, size: int) -> bytes:
    """`size` bytes; a seed that is long enough is used as it is, so that 20-byte scenario payloads stay visible."""
    return seed[:size] if len(seed) >= size else hashlib.sha512(seed).digest()[:size]


@dataclass(frozen=True)
class Base58Form:
    """Base58check over version + 20 bytes; optionally segwit under `hrp`. The first version is the one we issue."""

    versions: tuple[bytes, ...]
    hrp: str | None = None
    alphabet: str = codecs.BITCOIN_ALPHABET

    def encode(self, seed: bytes) -> str:
        if self.hrp:
            return codecs.bech32_encode(self.hrp, [0, *(codecs.regroup(seed[:20], 8, 5, pad=True) or [])])
        return codecs.base58check_encode(self.versions[0] + seed[:20], self.alphabet)

    def accepts(self, address: str) -> bool:
        payload = codecs.base58check_decode(address, self.alphabet)
        if payload is not None:
            return any(payload.startswith(v) and len(payload) == len(v) + 20 for v in self.versions)
        return self.hrp is not None and self._accepts_segwit(address, self.hrp)

    @staticmethod
    def _accepts_segwit(address: str, hrp: str) -> bool:
        decoded = codecs.bech32_decode(address)
        if decoded is None or decoded[0] != hrp or not decoded[1]:
            return False
        version, program = decoded[1][0], codecs.regroup(decoded[1][1:], 5, 8, pad=False)
        if version == 0:
            return decoded[2] == codecs.BECH32_CONSTANT and program is not None and len(program) in (20, 32)
        return version == 1 and decoded[2] == codecs.BECH32M_CONSTANT and program is not None and len(program) == 32


@dataclass(frozen=True)
class CashAddrForm:
    """CashAddr. `versions` maps the version byte to the payload length; `bare` allows leaving the prefix away."""

    prefix: str
    versions: dict[int, int]
    bare: bool

    def encode(self, seed: bytes) -> str:
        version, size = next(iter(self.versions.items()))
        text = codecs.cashaddr_encode(self.prefix, bytes([version]) + _stretched(seed, size))
        return text.partition(":")[2] if self.bare else text

    def accepts(self, address: str) -> bool:
        text = address.removeprefix(self.prefix + ":")
        if text == address and not self.bare:
            return False
        data = codecs.cashaddr_decode(self.prefix, text)
        return data is not None and len(data) > 1 and self.versions.get(data[0]) == len(data) - 1


class EvmForm:
    """0x + 40 hex digits, checksummed by EIP-55 when the case is mixed."""

    def encode(self, seed: bytes) -> str:
        return codecs.eip55(seed[:20])

    def accepts(self, address: str) -> bool:
        if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
            return False
        digits = address[2:]
        return digits in (digits.lower(), digits.upper()) or address == codecs.eip55(bytes.fromhex(digits))


@dataclass(frozen=True)
class Bech32Form:
    """Plain bech32 over `lead` + 20 bytes: Cosmos chains (no lead) and Oasis (one version byte)."""

    hrp: str
    lead: bytes = b""

    def encode(self, seed: bytes) -> str:
        return codecs.bech32_from_bytes(self.hrp, self.lead + seed[:20])

    def accepts(self, address: str) -> bool:
        data = codecs.bech32_bytes(address, self.hrp)
        return data is not None and len(data) == len(self.lead) + 20


class StellarForm:
    """G + Ed25519 key, base32 with CRC16."""

    def encode(self, seed: bytes) -> str:
        payload = bytes([6 << 3]) + codecs.ed25519_public(seed)
        return base64.b32encode(payload + codecs.crc16_xmodem(payload).to_bytes(2, "little")).decode()

    def accepts(self, address: str) -> bool:
        if not re.fullmatch(r"G[A-Z2-7]{55}", address):
            return False
        data = base64.b32decode(address)
        return codecs.crc16_xmodem(data[:-2]).to_bytes(2, "little") == data[-2:]


class SolanaForm:
    """Base58 of 32 bytes. No checksum exists; a point of the curve is demanded of wallets, not of addresses."""

    def encode(self, seed: bytes) -> str:
        return codecs.base58_encode(codecs.ed25519_public(seed))

    def accepts(self, address: str) -> bool:
        data = codecs.base58_decode(address) if 32 <= len(address) <= 44 else None
        return data is not None and len(data) == 32


class TonForm:
    """Friendly form of 48 base64url characters: tag, workchain, 32 bytes, CRC16. Issued as UQ (not bounceable)."""

    def encode(self, seed: bytes) -> str:
        payload = bytes([0x51, 0]) + _stretched(seed, 32)
        return base64.urlsafe_b64encode(payload + codecs.crc16_xmodem(payload).to_bytes(2, "big")).decode()

    def accepts(self, address: str) -> bool:
        if not re.fullmatch(r"[A-Za-z0-9_-]{48}|[A-Za-z0-9+/]{48}", address):
            return False
        data = base64.urlsafe_b64decode(address.replace("+", "-").replace("/", "_"))
        checksum = codecs.crc16_xmodem(data[:-2]).to_bytes(2, "big")
        return data[0] in (0x11, 0x51) and data[1] in (0, 0xFF) and checksum == data[-2:]


class CardanoForm:
    """Shelley `addr1` (CIP-19), issued as a base address of two key hashes; Byron texts by their CBOR CRC32."""

    def encode(self, seed: bytes) -> str:
        payment, stake = (hashlib.blake2b(seed + part, digest_size=28).digest() for part in (b"pay", b"stake"))
        return codecs.bech32_from_bytes("addr", b"\x01" + payment + stake)

    def accepts(self, address: str) -> bool:
        data = codecs.bech32_bytes(address, "addr")
        if data is None:
            return self._accepts_byron(address)
        kind, network = data[0] >> 4, data[0] & 15
        fits = len(data) == 57 if kind < 4 else len(data) == 29 if kind in (6, 7) else 29 < len(data) < 57
        return network == 1 and kind < 8 and fits

    @staticmethod
    def _accepts_byron(address: str) -> bool:
        data = codecs.base58_decode(address) if len(address) <= 128 else None
        if data is None or data[:4] != b"\x82\xd8\x18\x58" or len(data) < 6:
            return False
        payload, rest = data[5 : 5 + data[4]], data[5 + data[4] :]
        # CBOR writes the checksum as the shortest integer that holds it; 4 bytes is all but always the case.
        checked = rest == b"\x1a" + zlib.crc32(payload).to_bytes(4, "big")
        # [hash of 28 bytes, attributes, type 0]. Mainnet has no attributes, or the derivation path (key 1); key 2 is
        # the magic of another network.
        tail = payload[31:]
        mainnet = tail == b"\xa0\x00" or (tail.startswith(b"\xa1\x01") and tail.endswith(b"\x00"))
        return checked and payload.startswith(b"\x83\x58\x1c") and mainnet


@dataclass(frozen=True)
class Ss58Form:
    """Substrate accounts: one prefix byte, 32 bytes, 2 bytes of BLAKE2b."""

    prefix: int

    def encode(self, seed: bytes) -> str:
        return codecs.ss58_encode(self.prefix, _stretched(seed, 32))

    def accepts(self, address: str) -> bool:
        data = codecs.base58_decode(address) if len(address) <= 50 else None
        return data is not None and len(data) == 35 and codecs.ss58_encode(self.prefix, data[1:33]) == address


class MoneroForm:
    """Standard (18), integrated (19) and sub-addresses (42): two curve points and 4 bytes of Keccak."""

    def encode(self, seed: bytes) -> str:
        view = hashlib.sha256(b"view" + seed).digest()
        payload = bytes([18]) + codecs.ed25519_public(seed) + codecs.ed25519_public(view)
        return codecs.monero_base58_encode(payload + codecs.keccak256(payload)[:4])

    def accepts(self, address: str) -> bool:
        data = codecs.monero_base58_decode(address) if len(address) in (95, 106) else None
        if data is None or codecs.keccak256(data[:-4])[:4] != data[-4:]:
            return False
        fits = (data[0] in (18, 42) and len(data) == 69) or (data[0] == 19 and len(data) == 77)
        return fits and codecs.on_ed25519(data[1:33]) and codecs.on_ed25519(data[33:65])


class NemForm:
    """N + 39 base32 characters: 0x68, 20 bytes, 4 bytes of Keccak."""

    def encode(self, seed: bytes) -> str:
        payload = b"\x68" + seed[:20]
        return base64.b32encode(payload + codecs.keccak256(payload)[:4]).decode()

    def accepts(self, address: str) -> bool:
        if not re.fullmatch(r"N[A-Z2-7]{39}", address):
            return False
        data = base64.b32decode(address)
        return data[0] == 0x68 and codecs.keccak256(data[:-4])[:4] == data[-4:]


class BankForm:
    """IBAN with its mod-97 check (ISO 13616, check digits 02 to 98), for fiat. That the upstream pays fiat to IBANs is
    invented here."""

    def encode(self, seed: bytes) -> str:
        account = str(int.from_bytes(seed[:8], "big") % 10**18).rjust(18, "0")
        return f"DE{98 - int(account + '131400') % 97:02}{account}"

    def accepts(self, address: str) -> bool:
        if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", address) or address[2:4] in ("00", "01", "99"):
            return False
        return int("".join(str(int(character, 36)) for character in address[4:] + address[:4])) % 97 == 1


@dataclass(frozen=True)
class Network:
    """One networkTitle. `fee_usd` is what a payout costs, in USD; `confirmations` is when a deposit counts."""

    title: str
    form: AddressForm
    fee_usd: Decimal
    confirmations: int = 2
    memo: MemoKind = "none"
    tx: TxStyle = "hex"

    def address_problem(self, address: str) -> str | None:
        """Why the address is refused, or None."""
        if not address.isascii() or not address:
            return "Address is empty or has characters that no address has"
        try:
            return None if self.form.accepts(address) else f"Address is not valid for {self.title}"
        except (ValueError, binascii.Error):
            return f"Address is not valid for {self.title}"

    def memo_problem(self, memo: str) -> str | None:
        """Why a non-empty memo is refused, or None. Rules: docs/addresses.md."""
        if self.memo == "none":
            return f"Memo is not supported by {self.title}"
        if self.memo == "tag":
            number = re.fullmatch(r"0|[1-9][0-9]{0,9}", memo, re.ASCII)
            return None if number and int(memo) < 2**32 else "Memo must be a destination tag, 0 to 4294967295"
        size, limit = (
            len(memo.encode(errors="replace")),
            {"stellar": 28, "comment": 120, "text": 256, "cosmos text": 512}[self.memo],
        )
        if self.memo == "stellar" and re.fullmatch(r"[0-9a-fA-F]{64}", memo):
            return None
        return None if size <= limit else f"Memo is longer than {limit} bytes"


_EVM = EvmForm()


def _network(
    title: str,
    form: AddressForm,
    fee_usd: str,
    confirmations: int = 2,
    memo: MemoKind = "none",
    tx: TxStyle = "hex",
) -> Network:
    return Network(title, form, Decimal(fee_usd), confirmations, memo, tx)


NETWORKS: dict[str, Network] = {
    network.title: network
    for network in (
        _network("BTC", Base58Form((b"\x00", b"\x05"), "bc"), "1.5"),
        _network("LTC", Base58Form((b"\x30", b"\x32"), "ltc"), "0.05", 6),
        _network("DOGE", Base58Form((b"\x1e", b"\x16")), "0.4", 10),
        _network("DASH", Base58Form((b"\x4c", b"\x10")), "0.05", 6),
        _network("ZEC", Base58Form((b"\x1c\xb8", b"\x1c\xbd")), "0.05", 10),
        _network("BCH", CashAddrForm("bitcoincash", {0: 20, 8: 20}, bare=True), "0.05", 6),
        _network("KASPA", CashAddrForm("kaspa", {0: 32, 1: 33, 8: 32}, bare=False), "0.02", 20),
        _network("XRP", Base58Form((b"\x00",), None, codecs.RIPPLE_ALPHABET), "0.2", 1, "tag", "HEX"),
        _network("XLM", StellarForm(), "0.01", 1, "stellar"),
        _network("TON", TonForm(), "0.05", 10, "comment"),
        _network("TRC20", Base58Form((b"\x41",)), "1.2", 19),
        _network("ERC20", _EVM, "2", 12, tx="0xhex"),
        _network("BEP20", _EVM, "0.15", 15, tx="0xhex"),
        _network("POLYGON", _EVM, "0.05", 64, tx="0xhex"),
        _network("ARBITRUM", _EVM, "0.1", 20, tx="0xhex"),
        _network("OPTIMISM", _EVM, "0.1", 20, tx="0xhex"),
        _network("BASE", _EVM, "0.1", 20, tx="0xhex"),
        _network("AVAX C-Chain", _EVM, "0.1", 12, tx="0xhex"),
        _network("LUKSO", _EVM, "0.05", 12, tx="0xhex"),
        _network("ETC", _EVM, "0.1", 40, tx="0xhex"),
        _network("SOL", SolanaForm(), "0.1", 32, tx="base58"),
        _network("SPL", SolanaForm(), "0.3", 32, tx="base58"),
        _network("ADA", CardanoForm(), "0.15", 15),
        _network("Asset Hub(Polkadot)", Ss58Form(0), "0.05", 12, tx="0xhex"),
        _network("KUSAMA", Ss58Form(2), "0.05", 12, tx="0xhex"),
        _network("Bittensor", Ss58Form(42), "0.05", 12, tx="0xhex"),
        _network("XMR", MoneroForm(), "0.05", 10),
        _network("RUNE", Bech32Form("thor"), "0.05", 1, "text", "HEX"),
        _network("ATOM", Bech32Form("cosmos"), "0.03", 1, "cosmos text", "HEX"),
        _network("CELESTIA", Bech32Form("celestia"), "0.03", 1, "text", "HEX"),
        _network("OASIS", Bech32Form("oasis", b"\x00"), "0.02", 1),
        _network("NEM", NemForm(), "0.05", 10, "text"),
    )
}


def fiat_network(currency: str) -> Network:
    """The network of a fiat row. Its title is a guess (the currency's own, as for native coins): docs/upstream.md
    section 8."""
    return Network(currency, BankForm(), Decimal("0.5"), 1, "none", "reference")
