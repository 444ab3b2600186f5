"""Descriptors are scarce: how many an engine may have, and the pipes that nobody listens to any more."""

from __future__ import annotations

import contextlib
import os
import resource
from collections import OrderedDict
from collections.abc import Iterator

from disbatch.engine.capture import READ_SIZE
from disbatch.engine.readiness import Readiness

MOST_PARKED = 64
SPARE_DESCRIPTORS = 256
DESCRIPTORS_A_TASK = 2


def raise_descriptor_limit(slots: int) -> tuple[int, int] | None:
    """Make room for the descriptors of `slots` tasks; the limits that tasks shall have, None if unchanged."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = slots * DESCRIPTORS_A_TASK + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return soft, hard


class Reserve:
    """Some descriptors that are taken while there are any, to be spent when there are no others: for work
    that cannot wait until tasks have ended."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self._take()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> None:
        """Let them go: now they are needed."""
        while self._held:
            os.close(self._held.pop())

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Let them go for a while. Tasks may take them meanwhile, then they are back when these end."""
        self.release()
        try:
            yield
        finally:
            self._take()


class Parked:
    """Pipes of ended tasks that background children still hold: what comes is thrown away, so that these
    neither wait nor get SIGPIPE. At most MOST_PARKED; then the oldest is closed."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._descriptors: OrderedDict[int, None] = OrderedDict()

    def park(self, descriptor: int) -> None:
        """Take over a pipe's reading end, which must not block."""
        while len(self._descriptors) >= MOST_PARKED:
            self._close(next(iter(self._descriptors)))
        self._descriptors[descriptor] = None
        self._readiness.watch(descriptor, self._discard, descriptor)

    def _discard(self, descriptor: int) -> None:
        try:
            if os.read(descriptor, READ_SIZE):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        del self._descriptors[descriptor]
        self._readiness.close(descriptor)
