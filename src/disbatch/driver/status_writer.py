"""Write the status file: every line once, in order, soon, and safely on disk; acknowledge results when their
lines are in it.

Theory of operation
-------------------
Lines are collected on the event loop and handed to one thread in batches (a line waits at most COMMIT_DELAY),
so that a slow or stuck file system never keeps the driver from hearing its engines. The thread writes each
batch and calls fsync at the latest SYNC_INTERVAL after the first byte that is not synced.

A disk may be full, a quota exceeded, a server away; a network file system may even report this only at fsync,
after it has discarded the data. So everything since the last successful fsync is kept in memory with its file
offset; after an error all of it is written again, at the same offsets, until that succeeds. Only this process
writes the file, so writing the same bytes to the same place twice is harmless.

A *mark* is called back once all lines added before it are in the file, and the file has its name: then an
engine is told that its results are safe. If this process is killed between writing and acknowledging, the
engine sends the result again, to a new driver that recognises it as a repeat, or the results are in the
status file that the next run resumes from.

If the file has lost its name, because it was removed, renamed or replaced, its text is written again, under
the old name or a similar one (`wire.renamed_files`); unless another driver has the run (see
`rundir.takeover`): then nothing is written or marked any more. Both are checked after each write, and when
`look` is called. As long as the file system does not answer, the file counts as one that cannot be written.
Overwritten data cannot be restored: further lines go to a new file, which is reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from disbatch.plan.plan import Mode, Plan
from disbatch.rundir.lock import hold
from disbatch.wire.driver_socket import Hub, Peer
from disbatch.wire.engine_protocol import Pulse
from disbatch.wire.renamed_files import Sight, is_continued, look, name_again

COMMIT_DELAY = 0.02
"""Seconds between two commits, so at most this long a line waits for company."""
SYNC_INTERVAL = 1.0
"""Seconds that a line may be written and not on disk."""
TAIL = 256
"""Bytes in front of the next line that must be those that were written."""
RETRY_INTERVAL = 1.0
"""Seconds between two attempts while the file cannot be written: no event tells that there is room again."""


class _Batch(NamedTuple):
    """What the thread gets. `touch`: let the file's time tell that we are alive. `beside`: what to do if all
    is well. `settled` is told what could not be written when nothing more can be done; `last`: then close
    the file."""

    text: bytes = b""
    marks: list[Callable[[], None]] = []  # noqa: RUF012 - never changed
    touch: bool = False
    beside: Callable[[], object] | None = None
    settled: asyncio.Future[bytes] | None = None
    last: bool = False


_NOTHING = _Batch()


class Record:
    """The status file of a run, open at `descriptor`, starting at byte `offset`. Its name is `path`, if that
    matters.

    `trouble(error)` is called when writing begins to fail, `recovered()` when it works again, `renamed(sight,
    path)` when the text was written again, as there was nothing or another file at its name, or begins anew
    there, as it was written over, `taken_over()` once if another driver has the run: all on the loop.
    `note(path)` is called in the thread before the file gets that name, and may raise OSError.
    `is_taken_over()` is asked in the thread, and may raise OSError. `abandon` ends a `settle` or `close` that
    waits for a disk that stays full.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        offset: int,
        *,
        trouble: Callable[[OSError], None],
        recovered: Callable[[], None],
        path: Path | None = None,
        is_taken_over: Callable[[], bool] = lambda: False,
        taken_over: Callable[[], None] = lambda: None,
        note: Callable[[Path], object] = lambda path: None,
        renamed: Callable[[Sight, Path], None] = lambda sight, path: None,
    ) -> None:
        self._loop = loop
        self.size = offset
        """Of the file, bytes, with all lines added so far."""
        self._descriptor = descriptor
        self._path = path
        self._is_taken_over = is_taken_over
        self._taken_over = taken_over
        self._note = note
        self._renamed = renamed
        self._trouble = trouble
        self._recovered = recovered
        self._lines: list[bytes] = []
        self._marks: list[Callable[[], None]] = []
        self._scheduled = False
        self._last_commit = 0.0
        self._queue: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._abandoned = False
        # The thread's own: where the last good fsync ended, what came after it, how much of that is written.
        self._synced = offset
        self._tail = b""
        """The end of what was synced."""
        self._unsynced = bytearray()
        self._written = 0
        self._unmarked: list[Callable[[], None]] = []
        self._failing = False
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
            self._queue.put(_Batch(b"".join(self._lines), self._marks))
            self._lines, self._marks = [], []

    def touch(self) -> None:
        """Let the time of the file's last change tell that we are alive."""
        self._queue.put(_Batch(touch=True))

    def look(self, beside: Callable[[], object] = lambda: None) -> None:
        """See whether the file has its name, and is ours, although nothing is written; if all is well, have
        the thread look for other files."""
        self._queue.put(_Batch(beside=beside))

    async def settle(self) -> bytes:
        """Write and sync everything. Returns what could not be written: empty, unless `abandon` was called
        while the disk was full."""
        return await self._settle(last=False)

    async def close(self) -> bytes:
        """The same, then close the file."""
        return await self._settle(last=True)

    async def _settle(self, *, last: bool) -> bytes:
        self._commit()
        settled: asyncio.Future[bytes] = self._loop.create_future()
        self._queue.put(_Batch(settled=settled, last=last))
        return await settled

    def abandon(self) -> None:
        """Do not wait any longer for a file that cannot be written."""
        self._abandoned = True
        self._queue.put(_NOTHING)

    def _call_marks(self, marks: list[Callable[[], None]]) -> None:
        for mark in marks:
            mark()

    def _tell(self, settled: asyncio.Future[bytes], rest: bytes) -> None:
        if not settled.done():
            settled.set_result(rest)

    # ---- on the thread ----

    def _run(self) -> None:
        sync_at: float | None = None
        settling, last = _NOTHING, False
        while not last or settling.settled is not None:
            now = time.monotonic()
            if self._failing:
                wait: float | None = RETRY_INTERVAL
            else:
                wait = None if sync_at is None else max(0.0, sync_at - now)
            try:
                batch = self._queue.get(timeout=wait)
            except queue.Empty:
                batch = _NOTHING
            if batch.touch:
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor)
            self._unsynced += batch.text
            self._unmarked += batch.marks
            if batch.settled is not None:
                settling, last = batch, batch.last
            now = time.monotonic()
            due = settling.settled is not None or self._failing or (sync_at is not None and now >= sync_at)
            written = self._write(sync=due)
            if written:
                sync_at = None if not self._unsynced else (sync_at or now + SYNC_INTERVAL)
                if batch.beside is not None:
                    batch.beside()
            if settling.settled is not None:
                settling = self._end(settling, written)

    def _write(self, *, sync: bool) -> bool:
        """Write what is not written, and sync if asked to. False if that failed."""
        if not self._ours:
            return False
        try:
            self._see_to_text()
            self._put(sync=sync)
            self._see_to_name()  # before anybody is told that his result is safe
        except OSError as error:
            self._written = 0
            with contextlib.suppress(OSError):
                self._see_whose()
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

    def _put(self, *, sync: bool) -> None:
        """Write what is not written. OSError."""
        with memoryview(self._unsynced) as view:
            while self._written < len(view):
                at = self._synced + self._written
                self._written += os.pwrite(self._descriptor, view[self._written :], at)
        if sync and self._unsynced:
            os.fsync(self._descriptor)
            self._synced += len(self._unsynced)
            self._tail = bytes(self._unsynced[-TAIL:])
            self._unsynced.clear()
            self._written = 0

    def is_continued(self) -> bool:
        """What has the file's name now is a copy of it to which lines were added. For the thread. OSError."""
        return self._path is not None and is_continued(self._descriptor, self._path, self._synced)

    def _see_whose(self) -> None:
        """Has another driver the run? OSError if that cannot be said."""
        if self._is_taken_over():
            self._ours = self._failing = False
            self._loop.call_soon_threadsafe(self._taken_over)

    def _see_to_text(self) -> None:
        """If somebody cut the file or wrote over it, what it told is lost, and what follows goes elsewhere.
        OSError."""
        if self._path is None or not self._tail:
            return
        if os.pread(self._descriptor, len(self._tail), self._synced - len(self._tail)) == self._tail:
            return
        path = self._name_again(self._path, 0)
        self._synced, self._tail = 0, b""
        self._go_on_at(Sight.OVERWRITTEN, path)

    def _see_to_name(self) -> None:
        """If the file has lost its name, write its text again under one. OSError."""
        self._see_whose()
        if self._path is None or not self._ours:
            return
        sight = look(self._descriptor, self._path)
        if sight is not Sight.ITSELF:
            self._go_on_at(sight, self._name_again(self._path, self._synced + self._written))

    def _name_again(self, path: Path, size: int) -> Path:
        return name_again(self._descriptor, path, size, note=self._note, hold=hold)

    def _go_on_at(self, sight: Sight, path: Path) -> None:
        """The descriptor is a new file now, with all that was synced. OSError."""
        self._path = path
        self._written = 0
        try:
            self._put(sync=True)
        finally:
            self._loop.call_soon_threadsafe(self._renamed, sight, path)

    def _end(self, batch: _Batch, written: bool) -> _Batch:
        """Tell who waits for all to be written, once nothing more can be done; what is still to be told."""
        if not (written or self._abandoned or not self._ours):
            return batch
        if not written and self._ours:
            self._rescue()
        rest = bytes(self._unsynced) if self._ours else b""
        if batch.last:
            os.close(self._descriptor)
        assert batch.settled is not None
        self._loop.call_soon_threadsafe(self._tell, batch.settled, rest)
        return _NOTHING

    def _rescue(self) -> None:
        """Nobody waits any longer: if the file has no name, its text goes where there may be room."""
        import tempfile

        try:
            if self._path is None or look(self._descriptor, self._path) is Sight.ITSELF:
                return
            there = Path(tempfile.mkdtemp(prefix="disbatch-")) / self._path.name
            self._go_on_at(Sight.NOTHING, self._name_again(there, self._synced + self._written))
        except OSError:
            pass  # what was not written is told


DELAY = 0.1
"""Seconds that an acknowledgement may wait for a message to ride on."""


class Acknowledgements:
    """`lose(engine, why)` is called for an engine whose results cannot be recorded any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plan: Plan,
        record: Record,
        hub: Hub,
        lose: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._record = record
        self._hub = hub
        self._lose = lose
        self._owed: dict[str, Peer] = {}
        self._withheld: dict[str, tuple[Peer, int]] = {}
        """Messages of engines that are not acknowledged yet, as the plan keeps some of their results."""

    def mark(self, peer: Peer, number: int) -> None:
        """Acknowledge this message when all that it told is in the status file."""
        if self._plan.keeps(peer.name):
            self._withheld[peer.name] = (peer, number)
            if not self._plan.reads:
                self.look_at_withheld()
        else:
            self._record.mark(lambda: self._recorded(peer, number))

    def look_at_withheld(self) -> None:
        """The plan may have met some of the tasks whose results it kept."""
        if not self._withheld:
            return
        for name, (peer, number) in list(self._withheld.items()):
            if not self._plan.keeps(name):
                del self._withheld[name]
                self.mark(peer, number)
            elif not self._plan.reads:
                # Their tasks will not be read any more: the engine writes the results down itself.
                del self._withheld[name]
                self._hub.refuse(peer, "the run ends, and some of its results cannot be recorded")
                self._loop.call_soon(self._lose, name, "its last results are in a file beside its log")

    def _recorded(self, peer: Peer, number: int) -> None:
        """Everything up to this message of the engine is in the status file: let it know, soon. Mostly that
        rides on the next tasks; an engine that leaves waits for it."""
        if peer.session.acknowledge(number):
            if not self._owed:
                self._loop.call_later(DELAY, self.send)
            self._owed[peer.name] = peer
            if self._plan.mode is Mode.CLOSING or peer.name not in self._plan.engines:
                self._loop.call_soon(self.send)

    def send(self) -> None:
        """Tell now what no other message has told."""
        owed, self._owed = self._owed, {}
        for peer in owed.values():
            if peer.session.owes:
                peer.session.tell(Pulse())
