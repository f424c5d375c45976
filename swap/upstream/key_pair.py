"""The key pair with which requests to the upstream are signed."""

from __future__ import annotations

from dataclasses import dataclass, field

from swap.domain.signing import sign_v2
from swap.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Orders belong to the public key that made them (docs/upstream.md E7). Its repr shows neither key.

    Raises ConfigurationError, which repeats no key, for one that cannot travel in a header.
    """

    public: str = field(repr=False)
    secret: str = field(repr=False)

    def __post_init__(self) -> None:
        mistakes = [
            f"The upstream's {name} key must be printable text without spaces."
            for name, key in (("public", self.public), ("secret", self.secret))
            if not key or not key.isascii() or not key.isprintable() or " " in key
        ]
        if mistakes:
            raise ConfigurationError(mistakes)

    def sign(self, timestamp: str, text: bytes) -> dict[str, str]:
        """The headers that sign `text`, the body or empty. `timestamp`: milliseconds since 1970, the upstream's clock."""
        return sign_v2(self.public, self.secret, timestamp, text)
