"""The lock of a living run on its status file, so that nobody resumes a run that is still going on.

The kernel releases the lock with the process, however that ends. A file system without locks has none, and no
correctness depends on it.
"""

from __future__ import annotations

import fcntl
import os


def hold(descriptor: int) -> bool:
    """Lock the file for this process, until it closes it or ends; False if another process has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_held(descriptor: int) -> bool:
    """True if another process has locked the file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def is_held_at(path: str | os.PathLike[str]) -> bool:
    """The same of the file at this path; False if it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return is_held(descriptor)
    finally:
        os.close(descriptor)
