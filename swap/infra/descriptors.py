"""File descriptors: every open connection is one, and the usual limit of 1,024 would be reached long before any of ours."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable
from contextlib import suppress

_MOST = 65_536
_USED_UP = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> int:
    """Let this process, and those that it starts, open as many as the hard limit allows, 65,536 at most.

    Returns how many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def used_up(errors: Iterable[BaseException]) -> bool:
    """Whether one of these says that no descriptor was to be had, in this process or on this machine."""
    return any(isinstance(error, OSError) and error.errno in _USED_UP for error in errors)


def none_left() -> bool:
    """Whether no descriptor is to be had right now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return used_up([error])
    return False
