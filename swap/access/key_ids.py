"""What the ids of keys look like, and what they tell: of which kind a key is, and for which environment it was made."""

from __future__ import annotations

import re
import secrets
from typing import Literal

from swap.errors import NotAuthenticated

Environment = Literal["test", "live"]
"""What the keys of a service are made for: live in production, test elsewhere."""

# Keys from before there were environments begin with "swk_".
_ID = re.compile(r"(?:(?:live|test)_)?swk_[0-9a-f]{24}|pk_(?:live|test)_[0-9a-f]{24}")


def new_key(environment: Environment) -> str:
    """The id of a key with a secret, such as test_swk_0c09a08665a86b14b49b6b07."""
    return f"{environment}_swk_{secrets.token_hex(12)}"


def new_secret(environment: Environment) -> str:
    return f"{environment}_sws_{secrets.token_urlsafe(32)}"


def new_publishable_key(environment: Environment) -> str:
    """The id of a key without a secret, such as pk_test_0c09a08665a86b14b49b6b07."""
    return f"pk_{environment}_{secrets.token_hex(12)}"


def is_key_id(given: str) -> bool:
    """Whether it has the form of a key's id, of either kind. What has not may be a secret in the wrong place."""
    return _ID.fullmatch(given) is not None


def must_be_of(environment: Environment, key: str) -> None:
    """Raises NotAuthenticated (KEY_OF_OTHER_ENVIRONMENT) where the key was made for the other one."""
    other = "test" if environment == "live" else "live"
    if key.removeprefix("pk_").startswith(f"{other}_"):
        raise NotAuthenticated(
            f"This is a {other} key, and this service takes {environment} keys.", code="KEY_OF_OTHER_ENVIRONMENT"
        )
