"""Limited resources of a node: file descriptors, and room for processes.

When a node has no processes, memory or descriptors left, tasks wait for room instead of failing. Such a
shortage usually ends when one of the running tasks ends; if none of ours runs, it ends by a process that we
do not see, so a timer tries again. After PATIENCE without a single start, and with nothing running, the
engine leaves, and its tasks run elsewhere or when the run is resumed: they have not failed.

A task needs two descriptors, and most tasks are short, so the bookkeeping of `loop.add_reader` would cost
more than the system calls. Hence the pipes of tasks have an epoll set of their own, which the loop sees as
one readable descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from disbatch.engine.capture import READ_SIZE

SHORT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
RETRY = 1.0
"""Seconds until the next try if no task of ours ends before."""
PATIENCE = 60.0
"""Seconds without a single start after which the node is unfit for tasks."""


class Shortage:
    """Whether starts must wait for room. `retry` is called when they may be tried again; `trouble` is called
    once, with a message for the user; `hopeless(reason)` when there was no room for too long."""

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
        """A start failed: True if for want of room; starts wait from now on. `idle`: no task runs."""
        if not isinstance(error, OSError) or error.errno not in SHORT:
            return False
        now = self._loop.time()
        if self._since is None:
            self._since = now
            if not self._told:
                self._told = True
                self._trouble(f"no room for another task ({error.strerror}); tasks wait until there is room")
        elif now - self._since > PATIENCE and idle:
            self._hopeless(f"no room for a task ({error.strerror})")
        if self._timer is None:
            self._timer = self._loop.call_later(RETRY, self._try_again)
        return True

    def _try_again(self) -> None:
        self._timer = None
        self._retry()

    def eased(self) -> None:
        """A task ended: there may be room now. The caller tries to start waiting tasks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def over(self) -> None:
        """A task was started."""
        self._since = None


EVENTS_A_TURN = 256


class Readiness:
    """Watches descriptors, each until `close` closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callbacks: dict[int, tuple[Callable[..., None], Any]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, descriptor: int, callback: Callable[..., None], *args: Any) -> None:
        """Call `callback(*args)` whenever `descriptor` is readable; replaces a former callback."""
        if self._epoll is None:
            self._loop.add_reader(descriptor, callback, *args)
            return
        if descriptor not in self._callbacks:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = (callback, args)

    def rest(self, descriptor: int) -> None:
        """Stop watching it, until `watch` is called again."""
        if self._epoll is None:
            self._loop.remove_reader(descriptor)
        elif self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self, descriptor: int) -> None:
        """Stop watching it, and close it."""
        # Closing alone would not remove it while a child between fork and exec still holds a copy.
        self.rest(descriptor)
        os.close(descriptor)

    def _turn(self) -> None:
        assert self._epoll is not None
        for descriptor, _ in self._epoll.poll(0, EVENTS_A_TURN):
            # Another callback of this turn may have closed it, and a new descriptor may have its number: its
            # read then finds nothing.
            entry = self._callbacks.get(descriptor)
            if entry is None:
                continue
            try:
                entry[0](*entry[1])
            except Exception as error:
                # The boundary of one task: the others continue.
                self._loop.call_exception_handler({"message": f"in {entry[0]}", "exception": error})


MOST_PARKED = 64
SPARE_DESCRIPTORS = 256
DESCRIPTORS_A_TASK = 2


def raise_descriptor_limit(slots: int) -> tuple[int, int] | None:
    """Raise the limit to what `slots` tasks need; the limits that tasks shall have, None if unchanged."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = slots * DESCRIPTORS_A_TASK + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return None
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return soft, hard


class Reserve:
    """A reserve of descriptors, to be released when there are no others, for work that cannot wait until
    tasks have ended."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[int] = []
        self._take()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while len(self._held) < self._count:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def release(self) -> None:
        """Release them: they are needed now."""
        while self._held:
            os.close(self._held.pop())

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Release them for a while. If tasks take them meanwhile, they are acquired again when these end."""
        self.release()
        try:
            yield
        finally:
            self._take()


class Parked:
    """Pipes of ended tasks that background children still hold: their data is discarded, so that these
    processes neither block nor get SIGPIPE. At most MOST_PARKED; beyond that the oldest is closed."""

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
