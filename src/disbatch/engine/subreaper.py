"""Ask Linux to make orphans among this process's descendants its children, and to tell when a child ends."""

from __future__ import annotations

import os
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36
SIZE_OF_SIGSET = 128


def adopt_orphans() -> bool:
    """True if it is so from now on: what a task leaves behind can then always be found."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def watch_children() -> int | None:
    """A descriptor that can be read when a child has ended, which costs less than a signal handler in Python;
    None where there is no signalfd. SIGCHLD is blocked then, also in threads that are started later. Call it
    before any thread is started: one that has not blocked the signal may take it, and nobody would learn."""
    try:
        import ctypes

        library = ctypes.CDLL(None)
        wanted = ctypes.create_string_buffer(SIZE_OF_SIGSET)
        library.sigemptyset(wanted)
        library.sigaddset(wanted, int(signal.SIGCHLD))
        descriptor = int(library.signalfd(-1, wanted, os.O_NONBLOCK | os.O_CLOEXEC))
    except (ImportError, OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # What started us may ignore it: the kernel would then reap children, and nobody would learn of their end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return descriptor
