"""Files and folders for the user of the service alone, whatever the umask: they hold orders, sealed secrets, addresses of
sockets. What an earlier version left open to others is closed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_OTHERS = 0o077


def folder(path: Path) -> None:
    """Make the folder where it is missing. Raises OSError."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        _close(path)
    else:
        path.chmod(0o700)


def file(path: Path) -> None:
    """Make an empty file where none is. Raises OSError."""
    try:
        made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        _close(path)
        return
    try:
        os.fchmod(made, 0o600)
    finally:
        os.close(made)


def _close(path: Path) -> None:
    # It may be another user's, who then decides.
    with suppress(OSError):
        mode = path.stat().st_mode
        if mode & _OTHERS:
            path.chmod(mode & 0o7777 & ~_OTHERS)
