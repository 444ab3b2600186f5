"""Tasks from a stream: a pipe, a terminal, a socket.

Theory of operation
-------------------
The descriptor may be shared with other processes (standard input nearly always is), and O_NONBLOCK would
affect all of them; so it is never set. Instead, when the loop reports that there is data, exactly one
`os.read` is made, which cannot block. When HIGH bytes of lines wait to be parsed, the reader is removed from
the loop; it is added again when the driver has taken enough. So memory is bounded by HIGH, one read, and one
line.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from disbatch.model.errors import UsageError
from disbatch.model.task import Item
from disbatch.sources.file import unreadable
from disbatch.sources.source import ItemQueue, LineSplitter

READ = 1 << 16
"""Bytes asked for in one read."""
HIGH = 1 << 20
"""Bytes of waiting lines at which reading stops; it continues below half of that."""


class StreamSource:
    """A `Source` on `loop`; it owns `descriptor`, which the loop must be able to wait for.

    `ready()` is called on the loop when there are items, or the end, after `take` returned fewer than
    requested (or has not been called yet).
    """

    def __init__(
        self, name: str, descriptor: int, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]
    ) -> None:
        self._name = name
        self._descriptor: int | None = descriptor
        self._loop = loop
        self._ready = ready
        self._splitter = LineSplitter()
        self._items = ItemQueue(name)
        self._read_error: UsageError | None = None
        self._wants_more = True
        self._reading = False
        self._resume()

    @property
    def name(self) -> str:
        return self._name

    @property
    def ended(self) -> bool:
        return self._items.empty and (self._descriptor is None or self._items.error is not None)

    @property
    def error(self) -> UsageError | None:
        if not self._items.empty:
            return None
        return self._items.error or self._read_error

    def take(self, most: int) -> list[Item]:
        taken = self._items.take(most)
        self._wants_more = len(taken) < most
        if self._items.error is not None:
            self.close()
        elif self._items.waiting_bytes < HIGH // 2:
            self._resume()
        return taken

    def close(self) -> None:
        if self._descriptor is not None:
            self._pause()
            os.close(self._descriptor)
            self._descriptor = None

    def _resume(self) -> None:
        if not self._reading and self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._on_readable)
            self._reading = True

    def _pause(self) -> None:
        if self._reading and self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            self._reading = False

    def _on_readable(self) -> None:
        if self._descriptor is None:
            return
        try:
            data = os.read(self._descriptor, READ)
        except (BlockingIOError, InterruptedError):
            return  # another process that shares the descriptor was faster
        except OSError as error:
            self._read_error = unreadable(self._name, error)
            data = b""
        if data:
            self._items.add(*self._splitter.feed(data))
        else:
            if self._read_error is None:
                self._items.add(*self._splitter.finish())
            self.close()
        if self._items.error is not None:
            self.close()
        elif self._items.waiting_bytes >= HIGH:
            self._pause()
        if self._wants_more and (self.ended or not self._items.empty):
            self._wants_more = False
            self._ready()
