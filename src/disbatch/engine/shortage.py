"""A node that is short of processes, memory or descriptors: tasks wait for room instead of failing.

Such a shortage is mostly over as soon as one of the running tasks has ended; if none of them is ours,
somebody else's must, and nothing tells us: then a timer tries again. After PATIENCE without a single start,
and with nothing running, the engine leaves, and its tasks run elsewhere, or when the run is resumed: they
have not failed.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

SHORT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
RETRY = 1.0
"""Seconds until the next attempt if no task of ours ends before."""
PATIENCE = 60.0
"""Seconds without a single start after which this is no place for tasks."""


class Shortage:
    """Whether starts wait for room. `retry` is called when they may be tried; `trouble` is told once;
    `hopeless(reason)` when there was none for too long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        retry: Callable[[], None],
        trouble: Callable[[str], None],
        hopeless: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._retry = retry
        self._trouble = trouble
        self._hopeless = hopeless
        self._told = False
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """True while nothing should be started."""
        return self._timer is not None

    def waits_for(self, error: Exception, *, idle: bool) -> bool:
        """A start failed: True if for want of room, for which it waits from now on. `idle`: no task runs."""
        if not isinstance(error, OSError) or error.errno not in SHORT:
            return False
        now = self._loop.time()
        if self._since is None:
            self._since = now
            if not self._told:
                self._told = True
                self._trouble(f"no room for another task ({error.strerror}); tasks wait until there is")
        elif now - self._since > PATIENCE and idle:
            self._hopeless(f"no room for a task ({error.strerror})")
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY, self._try_again)
        return True

    def _try_again(self) -> None:
        self._timer = None
        self._retry()

    def eased(self) -> None:
        """A task ended: there may be room now. The caller tries to start what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def over(self) -> None:
        """A task was started."""
        self._since = None
