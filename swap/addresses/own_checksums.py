"""Networks with a text form of their own, each with its own checksum.

Sources: Algorand developer portal "Encoding", NEM NIS technical reference 3.1, Nano documentation "Account public key",
SIP-005 (Stacks, c32check), Filecoin specification "Address", Waves documentation "Address", Ergo documentation
"Address", aeternity "Encodings", Mina `Non_zero_curve_point` in base58check.
"""

from __future__ import annotations

from hashlib import blake2b

from swap.addresses import base58
from swap.addresses.base32 import CROCKFORD, NANO, RFC4648, RFC4648_LOWER
from swap.addresses.digests import blake2b_256, keccak256, sha256d, sha512_256
from swap.addresses.payable import Payable
from swap.addresses.refusals import InvalidAddress
from swap.addresses.secp256k1 import compressed


def _characters(address: str, length: int) -> None:
    if len(address) != length:
        raise InvalidAddress("wrong_length")


def algorand(address: str) -> Payable:
    """58 characters: 32 bytes and the last four of their SHA-512/256.

    A key off the curve is the account of an application; accepted (policy).
    """
    _characters(address, 58)
    data = RFC4648.decode(address)
    if sha512_256(data[:32])[-4:] != data[32:]:
        raise InvalidAddress("bad_checksum")
    if not any(data[:32]):
        raise InvalidAddress("burn_address")
    return Payable(address)


def nem(address: str) -> Payable:
    """`N` and 39 characters: network 0x68, 20 bytes, four of Keccak-256. The dashed form is refused (policy)."""
    if "-" in address:
        raise InvalidAddress(
            "unsupported_form" if len(address) in (46, 47) else "wrong_length", "Leave out the dashes."
        )
    _characters(address, 40)
    if not address.isupper() and address.upper().startswith("N"):
        raise InvalidAddress("wrong_case")
    data = RFC4648.decode(address)
    if keccak256(data[:21])[:4] != data[21:]:
        raise InvalidAddress("bad_checksum")
    if data[0] != 0x68:
        raise InvalidAddress("testnet" if data[0] in (0x98, 0x60) else "wrong_prefix")
    return Payable(address)


def nano_encode(key: bytes) -> str:
    """A 32-byte key as `nano_...`."""
    checksum = blake2b(key, digest_size=5).digest()[::-1]
    return "nano_" + NANO.text(int.from_bytes(key, "big"), 52) + NANO.encode(checksum)


def nano(address: str) -> Payable:
    """`nano_` or the older `xrb_`, 52 characters of key, 8 of BLAKE2b-40 written backwards."""
    for prefix in ("nano_", "xrb_"):
        if address.startswith(prefix):
            body = address[len(prefix) :]
            break
    else:
        raise InvalidAddress("wrong_prefix")
    _characters(body, 60)
    number = NANO.number(body[:52])
    if number >> 256:
        raise InvalidAddress("bad_checksum")
    key = number.to_bytes(32, "big")
    if blake2b(key, digest_size=5).digest()[::-1] != NANO.decode(body[52:]):
        raise InvalidAddress("bad_checksum")
    if not any(key):
        raise InvalidAddress("burn_address")
    return Payable("nano_" + body)


_STACKS_VERSIONS = {"P": 22, "M": 20}
_STACKS_TEST = "TN"


def stacks_encode(version: int, body: bytes) -> str:
    """20 bytes as `S...`; leading zero bytes are written one character each."""
    data = body + sha256d(bytes([version]) + body)[:4]
    zeros = len(data) - len(data.lstrip(b"\x00"))
    number = int.from_bytes(data, "big")
    return "S" + CROCKFORD.characters[version] + "0" * zeros + CROCKFORD.text(number, -(-number.bit_length() // 5))


def stacks(address: str) -> Payable:
    """`SP` single-signature and `SM` multi-signature accounts, c32check (SIP-005).

    Contract principals (`.name`) are refused (policy). The encoding is not unique by itself, so it is repeated and
    compared.
    """
    if "." in address:
        raise InvalidAddress("unsupported_form", "This is a contract or a name; use the wallet's address.")
    if address[0] != "S" or not 28 <= len(address) <= 41:
        raise InvalidAddress("wrong_prefix" if address[0] != "S" else "wrong_length")
    version = _STACKS_VERSIONS.get(address[1])
    if version is None:
        raise InvalidAddress("testnet" if address[1] in _STACKS_TEST else "wrong_prefix")
    body = address[2:]
    zeros = len(body) - len(body.lstrip("0"))
    number = CROCKFORD.number(body)
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(data) != 24 or stacks_encode(version, data[:20]) != address:
        raise InvalidAddress("bad_checksum")
    if not any(data[:20]):
        raise InvalidAddress("burn_address")
    return Payable(address)


# Protocol -> payload bytes: secp256k1 and actor hashes, BLS public key, 20-byte delegated account.
_FILECOIN_SIZES = {"1": 20, "2": 20, "3": 48}
_FILECOIN_ETHEREUM = b"\x04\x0a"
# The BLS point at infinity; the chain calls it the zero address.
_FILECOIN_NO_KEY = b"\xc0" + bytes(47)


def filecoin_encode(protocol: str, payload: bytes) -> str:
    """`f1`, `f2`, `f3`, or `f410f` for protocol "4"."""
    if protocol == "4":
        return "f410f" + RFC4648_LOWER.encode(payload + _filecoin_checksum(_FILECOIN_ETHEREUM + payload))
    return f"f{protocol}" + RFC4648_LOWER.encode(payload + _filecoin_checksum(bytes([int(protocol)]) + payload))


def _filecoin_checksum(data: bytes) -> bytes:
    return blake2b(data, digest_size=4).digest()


def filecoin(address: str) -> Payable:
    """`f1`, `f2`, `f3` and `f410f` (Ethereum-type). `f0` ids, `t` test addresses and `0x` are refused (policy)."""
    if address[0] != "f":
        if address[0] == "t" and address[1:2] in tuple("01234"):
            raise InvalidAddress("testnet")
        raise InvalidAddress("wrong_prefix")
    if address.startswith("f410f"):
        protocol, body, size, head = "4", address[5:], 20, _FILECOIN_ETHEREUM
    else:
        protocol, body = address[1:2], address[2:]
        if protocol == "0":
            raise InvalidAddress("unsupported_form", "This is an actor id; use the wallet's f1 address.")
        if protocol not in _FILECOIN_SIZES:
            raise InvalidAddress("not_payable")
        size, head = _FILECOIN_SIZES[protocol], bytes([int(protocol)])
    if len(body) != -(-8 * (size + 4) // 5):
        raise InvalidAddress("wrong_length")
    data = RFC4648_LOWER.decode(body)
    payload = data[:-4]
    if _filecoin_checksum(head + payload) != data[-4:]:
        raise InvalidAddress("bad_checksum")
    if protocol == "4" and payload[:12] == b"\xff" + bytes(11):
        raise InvalidAddress("not_payable")  # an actor id in disguise
    if not any(payload) or payload == _FILECOIN_NO_KEY:
        raise InvalidAddress("burn_address")
    return Payable(address)


def _waves_hash(data: bytes) -> bytes:
    return keccak256(blake2b_256(data))


def waves_encode(body: bytes) -> str:
    """20 bytes as a main network address."""
    data = b"\x01W" + body
    return base58.encode(data + _waves_hash(data)[:4])


def waves(address: str) -> Payable:
    """Version 1, chain `W`, 20 bytes, four of Keccak-256 over BLAKE2b-256; always begins with `3P`."""
    _characters(address, 35)
    data = base58.decode(address)
    if len(data) != 26 or data[0] != 1:
        raise InvalidAddress("wrong_form")
    if data[1] != ord("W"):
        raise InvalidAddress("testnet" if chr(data[1]) in "TS" else "wrong_prefix")
    if _waves_hash(data[:-4])[:4] != data[-4:]:
        raise InvalidAddress("bad_checksum")
    return Payable(address)


def ergo_encode(key: bytes) -> str:
    """A compressed public key as a main network address."""
    data = b"\x01" + key
    return base58.encode(data + blake2b_256(data)[:4])


def ergo(address: str) -> Payable:
    """Pay-to-public-key (header 0x01, begins with `9`); the two script forms are refused (policy)."""
    if not 30 <= len(address) <= 64:
        raise InvalidAddress("wrong_length")
    data = base58.decode(address)
    if blake2b_256(data[:-4])[:4] != data[-4:]:
        raise InvalidAddress("bad_checksum")
    if data[0] >> 4:
        raise InvalidAddress("testnet")
    if data[0] in (2, 3):
        raise InvalidAddress("unsupported_form", "This is a script, not a wallet; wallets begin with 9.")
    if data[0] != 1 or len(data) != 38:
        raise InvalidAddress("wrong_form")
    if not compressed(data[1:34]):
        raise InvalidAddress("not_payable", "The key inside this address is not a valid key.")
    return Payable(address)


def aeternity(address: str) -> Payable:
    """`ak_` and the Base58Check of 32 bytes."""
    if not address.startswith("ak_"):
        raise InvalidAddress("not_payable" if address[:3] in ("ok_", "ct_", "nm_", "cb_") else "wrong_prefix")
    if not 40 <= len(address) <= 56:
        raise InvalidAddress("wrong_length")
    if len(base58.decode_check(address[3:])) != 32:
        raise InvalidAddress("wrong_length")
    return Payable(address)


_MINA_HEAD = b"\xcb\x01\x01"
# The field of the Pallas curve, in which x lives.
_PALLAS = 0x40000000000000000000000000000000224698FC094CF91B992D30ED00000001


def mina(address: str) -> Payable:
    """`B62q...`: version 0xCB, two tag bytes, x (little-endian, in the field), parity; Base58Check."""
    _characters(address, 55)
    data = base58.decode_check(address)
    if data[:3] != _MINA_HEAD:
        raise InvalidAddress("wrong_prefix")
    if len(data) != 36 or data[35] > 1 or int.from_bytes(data[3:35], "little") >= _PALLAS:
        raise InvalidAddress("wrong_form")
    return Payable(address)
