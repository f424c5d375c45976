"""What the faults of the wire must know about a connection, and what the server must know about them."""

from __future__ import annotations

from dataclasses import dataclass, field

CONNECTION = "swap.sandbox.connection"
"""In the WSGI environ, where the server can play them."""


@dataclass
class Connection:
    """A client's connection while one request is answered. `faults`: the `wire.` faults that the answer gets."""

    is_kept: bool
    has_answered: bool
    faults: set[str] = field(default_factory=set)
