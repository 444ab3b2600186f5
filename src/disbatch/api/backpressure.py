"""A limit on submitted tasks that have not ended: a program that wants to submit more waits until some
have."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future

MOST_BYTES = 64 << 20
"""The most bytes of commands that the driver has not accepted yet."""


class Room:
    """Limits the tasks that have not ended to `most`, and the commands that are not sent to MOST_BYTES; a
    line may enter if there is any room. Safe for threads."""

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self._most = most
        self._tasks = 0
        self._bytes = 0
        self._queue: deque[tuple[Future[None], int, int]] = deque()
        self._idle: list[Future[None]] = []
        self._shut = False

    def enter(self, tasks: int, size: int) -> None:
        """Enter with a line of so many tasks and bytes, as soon as there is room."""
        waiting = self.queue(tasks, size)
        if waiting is not None:
            try:
                waiting.result()
            except BaseException:
                self._give_up(waiting, tasks, size)
                raise

    async def aenter(self, tasks: int, size: int) -> None:
        """As `enter`, on an asyncio loop."""
        waiting = self.queue(tasks, size)
        if waiting is not None:
            try:
                await asyncio.wrap_future(waiting)
            except BaseException:
                self._give_up(waiting, tasks, size)
                raise

    def queue(self, tasks: int, size: int) -> Future[None] | None:
        """Enter if there is room, which returns None; else returns a future that ends when there is."""
        with self._lock:
            if self._shut or (not self._queue and self._has_room):
                self._tasks += tasks
                self._bytes += size
                return None
            waiting: Future[None] = Future()
            self._queue.append((waiting, tasks, size))
            return waiting

    def _give_up(self, waiting: Future[None], tasks: int, size: int) -> None:
        """The caller no longer waits for room."""
        if not waiting.cancel():
            self.leave(tasks, size)

    def force(self, tasks: int, size: int) -> None:
        """Enter even if there is no room: for callers that must not wait."""
        with self._lock:
            self._tasks += tasks
            self._bytes += size

    @property
    def _has_room(self) -> bool:
        return self._tasks < self._most and self._bytes < MOST_BYTES

    def leave(self, tasks: int, size: int = 0) -> None:
        """So many tasks have ended, and bytes were sent."""
        admitted: list[Future[None]] = []
        with self._lock:
            self._tasks -= tasks
            self._bytes -= size
            while self._queue and (self._has_room or self._shut):
                waiting, more, bytes_more = self._queue.popleft()
                if waiting.set_running_or_notify_cancel():
                    self._tasks += more
                    self._bytes += bytes_more
                    admitted.append(waiting)
            if not self._tasks:
                admitted += [idle for idle in self._idle if idle.set_running_or_notify_cancel()]
                self._idle.clear()
        for waiting in admitted:
            waiting.set_result(None)

    def idle(self) -> Future[None]:
        """A future that ends when no task is left."""
        waiting: Future[None] = Future()
        with self._lock:
            if self._tasks:
                self._idle.append(waiting)
                return waiting
        waiting.set_result(None)
        return waiting

    def shut(self) -> None:
        """End all waits: later tasks are refused elsewhere."""
        with self._lock:
            self._shut = True
        self.leave(0)

    @property
    def tasks(self) -> int:
        """The number of tasks that have not ended."""
        return self._tasks
