"""Callbacks for descriptors that become readable, at a fraction of what `loop.add_reader` costs.

A task has two descriptors, and most tasks are short: the loop's own bookkeeping would cost more than the
system calls. So they have an epoll set of their own, which is one readable descriptor to the loop.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from typing import Any

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
        """Call `callback(*args)` whenever `descriptor` can be read; takes the place of a former callback."""
        if self._epoll is None:
            self._loop.add_reader(descriptor, callback, *args)
            return
        if descriptor not in self._callbacks:
            self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = (callback, args)

    def rest(self, descriptor: int) -> None:
        """Watch it no more, until `watch` is called again."""
        if self._epoll is None:
            self._loop.remove_reader(descriptor)
        elif self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self, descriptor: int) -> None:
        """Watch it no more, and close it."""
        # Closing alone would not take it out while a child between fork and exec still holds a copy.
        self.rest(descriptor)
        os.close(descriptor)

    def _turn(self) -> None:
        assert self._epoll is not None
        for descriptor, _ in self._epoll.poll(0, EVENTS_A_TURN):
            # A callback of this turn may have closed it, and another may have its number: it finds nothing.
            entry = self._callbacks.get(descriptor)
            if entry is None:
                continue
            try:
                entry[0](*entry[1])
            except Exception as error:
                # The boundary of one task: the others go on.
                self._loop.call_exception_handler({"message": f"in {entry[0]}", "exception": error})
