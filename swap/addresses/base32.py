"""Base-32 in its many alphabets: each character is five bits, most significant first.

RFC 4648 section 6 (Stellar SEP-23, Algorand, NEM; Filecoin in small letters), Nano's and Stacks' own orders, and the
characters of Bech32 (BIP-173) and of Conflux (CIP-37). Five bits do not divide eight: the bits left over at the end
must be zero, or one byte string would have several spellings.
"""

from __future__ import annotations

from swap.addresses.refusals import InvalidAddress

# Python reads this order itself, in C, so every alphabet is translated into it.
_PYTHON_DIGITS = b"0123456789abcdefghijklmnopqrstuv"
_NO_DIGIT = 255


class Alphabet:
    """One ordering of the 32 characters."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        words = bytearray([_NO_DIGIT]) * 256
        digits = bytearray(b"?") * 256
        for value, character in enumerate(characters):
            words[ord(character)] = value
            digits[ord(character)] = _PYTHON_DIGITS[value]
        self._words = bytes(words)
        self._digits = bytes(digits)

    def words(self, text: str) -> bytes:
        """One byte of value 0..31 per character."""
        words = text.encode("ascii", "replace").translate(self._words)
        if b"\xff" in words:
            raise InvalidAddress("bad_characters")
        return words

    def number(self, text: str) -> int:
        """The whole text as one big number."""
        if not text:
            return 0
        digits = text.encode("ascii", "replace").translate(self._digits)
        if b"?" in digits:
            raise InvalidAddress("bad_characters")
        return int(digits, 32)

    def decode(self, text: str) -> bytes:
        """Whole bytes; the spare bits at the end are fewer than five and zero."""
        bits = 5 * len(text)
        spare = bits % 8
        if spare >= 5:
            raise InvalidAddress("wrong_length")
        number = self.number(text)
        if number & ((1 << spare) - 1):
            raise InvalidAddress("bad_checksum")
        return (number >> spare).to_bytes(bits // 8, "big")

    def encode(self, data: bytes) -> str:
        """Bytes as text, spare bits zero, no padding characters."""
        spare = -8 * len(data) % 5
        return self.text(int.from_bytes(data, "big") << spare, (8 * len(data) + spare) // 5)

    def text(self, number: int, length: int) -> str:
        """A number in exactly `length` characters."""
        return "".join(self.characters[number >> shift & 31] for shift in range(5 * (length - 1), -1, -5))


RFC4648 = Alphabet("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
RFC4648_LOWER = Alphabet("abcdefghijklmnopqrstuvwxyz234567")
BECH32 = Alphabet("qpzry9x8gf2tvdw0s3jn54khce6mua7l")
CONFLUX = Alphabet("abcdefghjkmnprstuvwxyz0123456789")
NANO = Alphabet("13456789abcdefghijkmnopqrstuwxyz")
CROCKFORD = Alphabet("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
