"""The hash functions that address formats use, bytes in and bytes out.

Keccak-256 is the original padding of Ethereum, Monero and NEM, not SHA3-256 of FIPS 202; the standard library lacks it.
"""

from __future__ import annotations

from hashlib import blake2b, sha256

from Crypto.Hash import SHA512, keccak


def sha256d(data: bytes) -> bytes:
    """SHA-256 twice (Bitcoin)."""
    return sha256(sha256(data).digest()).digest()


def keccak256(data: bytes) -> bytes:
    """Keccak-256."""
    digest: bytes = keccak.new(data=data, digest_bits=256).digest()
    return digest


def sha512_256(data: bytes) -> bytes:
    """SHA-512/256 of FIPS 180-4; from pycryptodome, since hashlib has it only where OpenSSL offers it."""
    digest: bytes = SHA512.new(data=data, truncate="256").digest()
    return digest


def blake2b_256(data: bytes) -> bytes:
    """BLAKE2b with a 32-byte digest (RFC 7693)."""
    return blake2b(data, digest_size=32).digest()
