"""Writes the status file: every line once, in order, soon, and safely on disk.

Theory of operation
-------------------
Lines are collected on the event loop and handed to one thread in batches (a line waits at most COMMIT_DELAY),
so that a slow or stuck file system never stops the driver from hearing its engines. The thread writes each
batch and calls fsync at the latest SYNC_INTERVAL after the first byte that is not synced.

A disk may be full, a quota used up, a server away; a network file system may even say so only at fsync, after
it threw the data away. So everything since the last good fsync is kept in memory with the file offset where
it belongs; after an error all of it is written again, at the same offsets, until that works. Only this
process writes the file, so writing the same bytes to the same place twice is harmless.

A *mark* is called back once all lines added before it are in the file: that is when an engine is told that
its results are safe. If this process is killed between writing and telling, the engine sends the result
again, to a driver that took the run over and reads it as a repeat, or the results are in the status file
that the next run resumes from. If this process lives, but another one has put a copy in the file's place
(see `seizure`), nothing is marked any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable

COMMIT_DELAY = 0.02
"""Seconds between two commits, so at most this long a line waits for company."""
SYNC_INTERVAL = 1.0
"""Seconds that a line may be written and not on disk."""
RETRY_INTERVAL = 1.0
"""Seconds between two attempts while the file cannot be written: no event tells that there is room again."""

_Batch = tuple[bytes, list[Callable[[], None]]]
_TOUCH: _Batch = (b"", [])


class Record:
    """The status file of a run, open at `descriptor`, starting at byte `offset`.

    `trouble(error)` is called when writing begins to fail, `recovered()` when it works again, `replaced()`
    once if the file is not ours any more, all on the loop; `is_ours()` is asked in the thread, when that may
    be. Nothing is written or marked after that. `abandon` ends a `close` that waits for a disk that stays
    full.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        offset: int,
        *,
        trouble: Callable[[OSError], None],
        recovered: Callable[[], None],
        is_ours: Callable[[], bool] = lambda: True,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        self._loop = loop
        self.size = offset
        """Of the file, bytes, with all lines added so far."""
        self._descriptor = descriptor
        self._is_ours = is_ours
        self._replaced = replaced
        self._trouble = trouble
        self._recovered = recovered
        self._lines: list[bytes] = []
        self._marks: list[Callable[[], None]] = []
        self._scheduled = False
        self._last_commit = 0.0
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._closed: asyncio.Future[bytes] = loop.create_future()
        self._abandoned = False
        # The thread's own: where the last good fsync ended, what came after it, how much of that is written.
        self._synced = offset
        self._unsynced = bytearray()
        self._written = 0
        self._unmarked: list[Callable[[], None]] = []
        self._failing = False
        self._closing = False
        self._ours = True
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    # ---- on the loop ----

    def add(self, line: bytes) -> None:
        """Append a line (with its line end)."""
        self._lines.append(line)
        self.size += len(line)
        if not self._scheduled:
            self._schedule()

    def mark(self, callback: Callable[[], None]) -> None:
        """Call back on the loop when every line added so far is in the file."""
        self._marks.append(callback)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        wait = self._last_commit + COMMIT_DELAY - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._commit)
        else:
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        self._last_commit = self._loop.time()
        if self._lines or self._marks:
            self._queue.put((b"".join(self._lines), self._marks))
            self._lines, self._marks = [], []

    def touch(self) -> None:
        """Let the time of the file's last change tell that we are alive."""
        self._queue.put(_TOUCH)

    async def close(self) -> bytes:
        """Write and sync everything, then close the file. Returns what could not be written: empty, unless
        `abandon` was called while the disk was full."""
        self._commit()
        self._queue.put(None)
        return await self._closed

    def abandon(self) -> None:
        """Do not wait any longer for a file that cannot be written."""
        self._abandoned = True
        self._queue.put((b"", []))

    def _call_marks(self, marks: list[Callable[[], None]]) -> None:
        for mark in marks:
            mark()

    def _finish(self, rest: bytes) -> None:
        if not self._closed.done():
            self._closed.set_result(rest)

    # ---- on the thread ----

    def _run(self) -> None:
        sync_at: float | None = None
        while True:
            now = time.monotonic()
            if self._failing:
                wait: float | None = RETRY_INTERVAL
            else:
                wait = None if sync_at is None else max(0.0, sync_at - now)
            try:
                batch = self._queue.get(timeout=wait)
            except queue.Empty:
                batch = (b"", [])
            if batch is _TOUCH:
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor)
                self._look()
            if batch is None:
                self._closing = True
            else:
                self._unsynced += batch[0]
                self._unmarked += batch[1]
            now = time.monotonic()
            due = self._closing or self._failing or (sync_at is not None and now >= sync_at)
            if self._write(sync=due):
                sync_at = None if not self._unsynced else (sync_at or now + SYNC_INTERVAL)
                if self._closing:
                    break
            elif self._closing and (self._abandoned or not self._ours):
                break
        rest = bytes(self._unsynced) if self._ours else b""
        os.close(self._descriptor)
        self._loop.call_soon_threadsafe(self._finish, rest)

    def _write(self, *, sync: bool) -> bool:
        """Write what is not written, and sync if asked to. False if that failed."""
        if not self._ours:
            return False
        try:
            with memoryview(self._unsynced) as view:
                while self._written < len(view):
                    at = self._synced + self._written
                    self._written += os.pwrite(self._descriptor, view[self._written :], at)
            if sync and self._unsynced:
                os.fsync(self._descriptor)
                self._synced += len(self._unsynced)
                self._unsynced.clear()
                self._written = 0
            if not os.fstat(self._descriptor).st_nlink:
                self._look()  # before anybody is told that his result is safe
        except OSError as error:
            self._written = 0
            self._look()
            if self._ours and not self._failing:
                self._failing = True
                self._loop.call_soon_threadsafe(self._trouble, error)
            return False
        if not self._ours:
            return False
        if self._failing:
            self._failing = False
            self._loop.call_soon_threadsafe(self._recovered)
        if self._unmarked:
            self._loop.call_soon_threadsafe(self._call_marks, self._unmarked)
            self._unmarked = []
        return True

    def _look(self) -> None:
        """Is the file still ours?"""
        if self._ours and not self._is_ours():
            self._ours = self._failing = False
            self._loop.call_soon_threadsafe(self._replaced)
