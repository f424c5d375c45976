"""File descriptors: every open connection is one, and the usual limit of 1,024 would be reached long before any of ours."""

from __future__ import annotations

import resource
from contextlib import suppress

_MOST = 65_536


def raise_limit() -> int:
    """Let this process, and those that it starts, open as many as the hard limit allows, 65,536 at most.

    Returns how many that is.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
