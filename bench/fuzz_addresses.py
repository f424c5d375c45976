"""Fuzzing the address validator: `python -m bench.fuzz_addresses --count 1000000`.

Every input is a network, a text and perhaps a memo: mutated vectors, addresses of another network, bodies of any shape
under a checksum that holds (which is what gets past the first line of every rule), random text of ASCII and of all
Unicode, and texts of up to a million characters. Nothing may raise, every verdict must keep its promises, and no
single answer may take longer than SLOWEST. The same seed makes the same inputs.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import sys
import time
from base64 import urlsafe_b64encode
from binascii import crc_hqx
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any
from zlib import crc32

from swap.addresses import WARNINGS, base58, bech32, cashaddr, monero, own_checksums, ss58, validate
from swap.addresses.base32 import BECH32, CONFLUX, CROCKFORD, NANO, RFC4648, RFC4648_LOWER
from swap.addresses.blake256 import blake256d
from swap.addresses.digests import blake2b_256, keccak256, sha512_256
from swap.addresses.networks import NETWORKS
from swap.addresses.refusals import MESSAGES

SLOWEST = 0.25  # seconds of processor time for one verdict; the usual one takes 0.00003
CODES = tuple(sorted(NETWORKS))
VECTORS = Path(__file__).parent.parent / "tests" / "vectors"

Input = tuple[str, str, str | None]


def vectors() -> list[dict[str, Any]]:
    """The rows of every file of addresses."""
    return [
        row for path in sorted(VECTORS.glob("*addresses.json")) for row in json.loads(path.read_text(encoding="utf-8"))
    ]


# --- texts

_LONG = (100, 1_000, 2_048, 7_089, 7_090, 20_000)
_ODD = "\u200b\ufeff\u00a0\u0430\uff11\u2028\u00b2\u0661\x00\x7f\n\t =-_.:/+?@#~'\"<>"
_ALPHABETS = (
    base58.BITCOIN.characters, base58.RIPPLE.characters, BECH32.characters, RFC4648.characters, CROCKFORD.characters,
    NANO.characters, CONFLUX.characters, "0123456789abcdef", string.digits, string.printable, "1", "0", "q", "A", "a1.",
)  # fmt: skip
_STARTS = tuple(sorted({start for network in NETWORKS.values() for start in network.starts} | {"0.0.", "0x", "T", "s"}))


def _unicode(chance: random.Random, length: int) -> str:
    # Half a surrogate pair is a legal str and no legal UTF-8.
    return "".join(chr(chance.randrange(0x110000 if chance.random() < 0.5 else 0x3000)) for _ in range(length))


def _mutated(chance: random.Random, text: str) -> str:
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(text) + 1)
        other = chance.choice(chance.choice(_ALPHABETS) if chance.random() < 0.8 else _ODD)
        text = chance.choice((
            lambda t, p, o: t[:p] + o + t[p + 1 :],
            lambda t, p, o: t[:p] + o + t[p:],
            lambda t, p, o: t[:p] + t[p + 1 :],
            lambda t, p, o: t[:p],
            lambda t, p, o: t[p:] + t[:p],
            lambda t, p, o: t[:p] + t[p : p + 1].swapcase() + t[p + 1 :],
            lambda t, p, o: t.upper(),
            lambda t, p, o: t.swapcase(),
            lambda t, p, o: t + o * p,
        ))(text, place, other)  # fmt: skip
    return text


def _body(chance: random.Random) -> bytes:
    """Payload bytes of a likely or an unlikely size, with a likely first byte, random, all zero, or all ones."""
    size = chance.choice((20, 20, 21, 28, 29, 32, 32, 33, 34, 40, 48, 57, 65, 73, chance.randrange(120), 0, 1))
    rest = chance.choice((chance.randbytes(size), bytes(size), b"\xff" * size))
    return chance.choice((b"", bytes([chance.randrange(256)]), chance.randbytes(2), chance.randbytes(3))) + rest


def _base58(chance: random.Random, body: bytes) -> str:
    return chance.choice((
        lambda: base58.encode_check(body),
        lambda: base58.encode_check(body, base58.RIPPLE),
        lambda: base58.encode_check(body[:51], double_hash=blake256d),
        lambda: base58.encode(body + ss58._checksum(body)),
        lambda: base58.encode(body + blake2b_256(body)[:4]),
        lambda: base58.encode(body + keccak256(blake2b_256(body))[:4]),
        lambda: base58.encode(body),
        lambda: monero.encode(body + keccak256(body)[:4]),
        lambda: "ak_" + base58.encode_check(body),
        lambda: _byron(body),
    ))()  # fmt: skip


def _byron(body: bytes) -> str:
    head = b"\x58" + bytes([len(body)])
    return base58.encode(b"\x82\xd8\x18" + head + body + b"\x1a" + crc32(body).to_bytes(4, "big"))


_HRPS = (
    *sorted({s[:-1] for n in NETWORKS.values() for s in n.starts if s.endswith("1") and s[:-1].islower()}),
    *("lnbc", "lnbc25m", "lnbc1p", "u", "zs", "tex", "avax", "tb", "stake", "cosmosvaloper"),
)


def _bech32(chance: random.Random, body: bytes) -> str:
    hrp, constant = chance.choice(_HRPS), chance.choice((bech32.BECH32, bech32.BECH32M))
    data = chance.choice((
        lambda: BECH32.encode(body),
        lambda: chance.choice("qpzry") + BECH32.encode(body),
        lambda: "".join(chance.choices(BECH32.characters, k=chance.choice((0, 1, 8, 111, 300, 6000)))),
    ))()  # fmt: skip
    text = bech32.encode(hrp, data, constant)
    return chance.choice((text, text, text, text.upper(), "X-" + text))


def _others(chance: random.Random, body: bytes) -> str:
    prefix = chance.choice(("bitcoincash", "ecash", "kaspa", "cfx", "bchtest", "cfxtest"))
    protocol = str(chance.randrange(10))
    strkey = body + crc_hqx(body, 0).to_bytes(2, "little")
    return chance.choice((
        lambda: cashaddr.encode(prefix, body or b"\0", CONFLUX if prefix.startswith("cfx") else BECH32),
        lambda: RFC4648.encode(strkey),
        lambda: RFC4648.encode(body + sha512_256(body)[-4:]),
        lambda: RFC4648.encode(body[:21] + keccak256(body[:21])[:4]),
        lambda: urlsafe_b64encode(body + crc_hqx(body, 0).to_bytes(2, "big")).decode(),
        lambda: own_checksums.nano_encode(body[:32].rjust(32)),
        lambda: own_checksums.stacks_encode(chance.randrange(32), body[:20]),
        lambda: "f" + protocol + RFC4648_LOWER.encode(
            body + blake2b(bytes([int(protocol)]) + body, digest_size=4).digest()),
        lambda: crc32(body).to_bytes(4, "big").hex() + body.hex(),
        lambda: (body + blake2b_256(body)[:6]).hex(),
        lambda: chance.choice(("0x", "hx", "cx", "01", "02", "xdc", "")) + body.hex(),
        lambda: f"0.0.{int.from_bytes(body, 'big')}",
    ))()  # fmt: skip


def _memo(chance: random.Random, known: list[str]) -> str | None:
    return chance.choice((
        lambda: None,
        lambda: None,
        lambda: chance.choice(known),
        lambda: _mutated(chance, chance.choice(known)[:300]),
        lambda: str(chance.choice((0, 1, 2**32 - 1, 2**32, 2**64 - 1, 2**64, chance.randrange(10**25)))),
        lambda: _unicode(chance, chance.randrange(40)),
        lambda: chance.choice(("x", "é", "日", "9", "\u200b", " ")) * chance.choice((1, 28, 34, 129, 256, *_LONG)),
    ))()  # fmt: skip


def _fitting(address: str) -> list[str]:
    """The networks whose addresses begin so, or have no telling beginning."""
    return [code for code in CODES if not NETWORKS[code].starts or address.startswith(NETWORKS[code].starts)]


def inputs(seed: int) -> Iterator[Input]:
    """Endless (code, address, memo)."""
    chance = random.Random(seed)
    rows = vectors()
    payable = [row for row in rows if row["valid"]]
    memos = [row["memo"] for row in rows if row.get("memo")]
    while True:
        kind = chance.random()
        row = chance.choice(payable if chance.random() < 0.7 else rows)
        code = row["network"] if kind < 0.52 else chance.choice(CODES)
        if kind < 0.30:
            address = _mutated(chance, row["address"][:1200])
        elif kind < 0.55:
            address = row["address"]
        elif kind < 0.68:
            address = _base58(chance, _body(chance))
        elif kind < 0.80:
            address = _bech32(chance, _body(chance))
        elif kind < 0.92:
            address = _others(chance, _body(chance))
        elif kind < 0.95:
            address = _unicode(chance, chance.randrange(80))
        elif kind < 0.99:
            alphabet = chance.choice(_ALPHABETS)
            address = chance.choice(_STARTS) + "".join(chance.choices(alphabet, k=chance.randrange(120)))
        else:
            letter = chance.choice(chance.choice((*_ALPHABETS, _ODD)))
            address = chance.choice(("", *_STARTS)) + letter * chance.choice(_LONG)
        if 0.55 <= kind < 0.92:
            code = chance.choice([code, *_fitting(address)])
        yield code, address, _memo(chance, memos) if chance.random() < 0.4 else None


def longest(sizes: tuple[int, ...] = (7_000, 1_000_000)) -> Iterator[Input]:
    """For every network the texts that would cost most if work grew with the square of the length."""
    for code in CODES:
        for start in ("", *NETWORKS[code].starts):
            for size in sizes:
                for letter in ("1", "q", "A", " ", "a1.", "\u0430", "0"):
                    yield code, start + letter * (size // len(letter)), None
        for memo in ("9" * sizes[-1], "é" * sizes[-1], "\u200b" * sizes[-1]):
            yield code, "x", memo
            yield code, _VALID[code], memo


_VALID = {row["network"]: row["address"] for row in vectors() if row["valid"]} | {"LYX": "0x" + "1" * 40}


# --- what a verdict promises


def broken_promise(code: str, address: str, memo: str | None) -> str | None:
    """What is wrong with the answer to one input, or None."""
    verdict = validate(code, code, address, memo)
    if verdict.status == "unchecked":
        verdict = validate("another coin" if code in ("BNB", "AVAX") else code, code, address, memo)
    if not set(verdict.warnings) <= set(WARNINGS):
        return "unknown warning"
    if verdict.status == "invalid":
        if verdict.reason not in MESSAGES or verdict.field not in ("address", "memo"):
            return "a refusal without reason or field"
        if (verdict.normalised, verdict.send_address, verdict.send_memo) != (None, None, None):
            return "a refusal with something to send"
    elif verdict.status == "valid":
        if not address.isascii() or not verdict.send_address or not verdict.normalised:
            return "an acceptance without what to send"
        if memo is not None and verdict.send_memo != memo:
            return "the memo was dropped or changed"
        again = validate(code, code, verdict.normalised)
        if again.status != "unchecked" and (again.status, again.normalised) != ("valid", verdict.normalised):
            return "normalising twice changed something"
    return None


@dataclass
class Report:
    """What happened; `faults` are (what, input) and empty when all is well."""

    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[tuple[str, Input]] = field(default_factory=list)
    slowest: float = 0.0
    slowest_input: Input | None = None
    spent: float = 0.0

    def ask(self, asked: Input, clock: Callable[[], float] = time.thread_time) -> None:
        begun = clock()
        try:
            verdict = validate(asked[0], *asked)
        except Exception as error:
            self.faults.append((f"raised {type(error).__name__}: {error}", asked))
            return
        spent = clock() - begun
        self.spent += spent
        if spent > self.slowest:
            self.slowest, self.slowest_input = spent, asked
        if spent > SLOWEST:
            self.faults.append((f"took {spent:.2f} s", asked))
        self.verdicts[verdict.status] += 1
        self.reasons[verdict.reason or "valid"] += 1
        if verdict.status == "valid" or self.verdicts.total() % 16 == 0:
            what = broken_promise(*asked)
            if what is not None:
                self.faults.append((what, asked))


def fuzz(count: int, seed: int) -> Report:
    report = Report()
    for _, asked in zip(range(count), inputs(seed), strict=False):
        report.ask(asked)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = Report()
    for asked in longest():
        report.ask(asked)
    print(f"{report.verdicts.total():,} texts of up to a million characters: slowest {1000 * report.slowest:.2f} ms")
    mixed = fuzz(arguments.count, arguments.seed)
    print(f"{mixed.verdicts.total():,} inputs, seed {arguments.seed}, {mixed.spent:.0f} s of processor time")
    print(", ".join(f"{status} {count:,}" for status, count in sorted(mixed.verdicts.items())))
    for reason, count in mixed.reasons.most_common():
        print(f"  {count:>9,} {reason}")
    if mixed.slowest_input is not None:
        code, address, memo = mixed.slowest_input
        print(f"slowest {1000 * mixed.slowest:.2f} ms: {code}, {len(address)} characters, memo {len(memo or '')}")
    faults = report.faults + mixed.faults
    for what, (code, address, memo) in faults[:20]:
        print(f"FAULT {what}: {code} {ascii(address)[:200]} memo={ascii(memo)[:60]}")
    print("no fault" if not faults else f"{len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
