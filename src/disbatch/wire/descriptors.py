"""The limit on open files of this process (`ulimit -n`), and the number that are open."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

_MACOS_MOST = 10240
"""The actual limit on macOS where it reports no hard limit."""


def raise_limit() -> int | None:
    """Raise our soft limit to the hard one; return the former soft limit, or None if nothing has changed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (hard, _MACOS_MOST):
        if soft in (most, resource.RLIM_INFINITY) or (most != resource.RLIM_INFINITY and most < soft):
            return None
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return soft
    return None


def limit() -> int:
    """The number of descriptors that this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def in_use() -> int:
    """The number of descriptors that this process has."""
    try:
        return sum(1 for _ in Path("/dev/fd").iterdir()) - 1  # one is the directory itself
    except OSError:
        return 0


def reserve() -> int:
    """The number of descriptors to keep free: for files, and for commands that run beside the run."""
    return min(128, limit() // 4)
