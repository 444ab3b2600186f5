"""Write the status file: every line once and in order, with bounded delay, and synced to disk; acknowledge
results when their lines are in it.

Theory of operation
-------------------
Lines are collected on the event loop and passed to a thread in batches (a line waits at most COMMIT_DELAY),
so that a slow or stuck file system never keeps the driver from its engines. The thread writes each batch and
calls fsync at most SYNC_INTERVAL after the first byte that is not synced.

A disk may be full, a quota exceeded, a server unavailable; a network file system may report this only at
fsync, after it has discarded the data. So everything since the last successful fsync is kept in memory with
its file offset; after an error all of it is written again, at the same offsets, until that succeeds. Only
this process writes the file, so writing the same bytes to the same place twice is harmless.

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
"""Seconds between two commits: the longest time that a line waits."""
SYNC_INTERVAL = 1.0
"""The most seconds between the write of a line and its fsync."""
TAIL = 256
"""Bytes before the next line that are compared with what was written."""
RETRY_INTERVAL = 1.0
"""Seconds between two attempts while the file cannot be written: no event reports that there is room."""


class _Batch(NamedTuple):
    """Work for the thread. `touch`: set the file's time. `beside`: called if the file could be written.
    `settled` gets what could not be written, when nothing more can be done; `last`: then close the file."""

    text: bytes = b""
    marks: list[Callable[[], None]] = []  # noqa: RUF012 - never changed
    touch: bool = False
    beside: Callable[[], object] | None = None
    settled: asyncio.Future[bytes] | None = None
    last: bool = False


_NOTHING = _Batch()


class StatusWriter:
    """The status file of a run, open at `descriptor`, which has `offset` bytes. `path`: its name, which is
    kept in place; None: it need not have one.

    Called on the loop: `trouble(error)` when writing begins to fail, `recovered()` when it works again,
    `renamed(sight, path)` when the text was written again at that path or, if it was overwritten, begins anew
    there, `taken_over()` once if another driver has the run. Called in the thread, and may raise OSError:
    `note(path)` before the file gets that name, and `is_taken_over()`.
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
        """Bytes of the file with all lines added so far."""
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
        # Used by the thread alone: where the last successful fsync ended, the text after that, and how much
        # of it is written.
        self._synced = offset
        self._tail = b""
        """The last bytes before `_synced`."""
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
        """Set the time of the file's last change, which shows others that the driver is alive."""
        self._queue.put(_Batch(touch=True))

    def look(self, beside: Callable[[], object] = lambda: None) -> None:
        """Check that the file has its name and that the run is still ours, although nothing is to be written;
        then call `beside` in the thread."""
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
        """Stop waiting for a file that cannot be written."""
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
        """Write what is not written, and sync it if asked to. False if that failed."""
        if not self._ours:
            return False
        try:
            self._check_text()
            self._put(sync=sync)
            self._check_name()  # before a result is acknowledged
        except OSError as error:
            self._written = 0
            with contextlib.suppress(OSError):
                self._check_owner()
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
        """True if a copy to which lines were added has the file's name. For the thread. OSError."""
        return self._path is not None and is_continued(self._descriptor, self._path, self._synced)

    def _check_owner(self) -> None:
        """Stop writing if another driver has the run. OSError if that cannot be determined."""
        if self._is_taken_over():
            self._ours = self._failing = False
            self._loop.call_soon_threadsafe(self._taken_over)

    def _check_text(self) -> None:
        """If the file was truncated or overwritten, its text is lost: write what follows to a new file.
        OSError."""
        if self._path is None or not self._tail:
            return
        if os.pread(self._descriptor, len(self._tail), self._synced - len(self._tail)) == self._tail:
            return
        path = self._name_again(self._path, 0)
        self._synced, self._tail = 0, b""
        self._continue_at(Sight.OVERWRITTEN, path)

    def _check_name(self) -> None:
        """If the file has lost its name, write its text again under that name or another. OSError."""
        self._check_owner()
        if self._path is None or not self._ours:
            return
        sight = look(self._descriptor, self._path)
        if sight is not Sight.ITSELF:
            self._continue_at(sight, self._name_again(self._path, self._synced + self._written))

    def _name_again(self, path: Path, size: int) -> Path:
        return name_again(self._descriptor, path, size, note=self._note, hold=hold)

    def _continue_at(self, sight: Sight, path: Path) -> None:
        """Write the rest to the new file behind the descriptor, which holds all that was synced. OSError."""
        self._path = path
        self._written = 0
        try:
            self._put(sync=True)
        finally:
            self._loop.call_soon_threadsafe(self._renamed, sight, path)

    def _end(self, batch: _Batch, written: bool) -> _Batch:
        """End a `settle`, if everything was written or nothing more can be done; else return it again."""
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
        """The driver ends: if the file has no name, write its text to a temporary directory."""
        import tempfile

        try:
            if self._path is None or look(self._descriptor, self._path) is Sight.ITSELF:
                return
            there = Path(tempfile.mkdtemp(prefix="disbatch-")) / self._path.name
            self._continue_at(Sight.NOTHING, self._name_again(there, self._synced + self._written))
        except OSError:
            pass  # the caller of `settle` gets what was not written


DELAY = 0.1
"""Seconds that an acknowledgement may wait for another message that carries it."""


class Acknowledgements:
    """Acknowledges messages of engines. `lose(engine, why)` is called for an engine whose results can no
    longer be recorded."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plan: Plan,
        record: StatusWriter,
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
        """By engine: the message that is not acknowledged yet, as the plan keeps results that were in it."""

    def mark(self, peer: Peer, number: int) -> None:
        """Acknowledge this message when all of its results are in the status file."""
        if self._plan.keeps(peer.name):
            self._withheld[peer.name] = (peer, number)
            if not self._plan.reads:
                self.look_at_withheld()
        else:
            self._record.mark(lambda: self._recorded(peer, number))

    def look_at_withheld(self) -> None:
        """Look again at the withheld messages: the plan may have read the tasks whose results it kept."""
        if not self._withheld:
            return
        for name, (peer, number) in list(self._withheld.items()):
            if not self._plan.keeps(name):
                del self._withheld[name]
                self.mark(peer, number)
            elif not self._plan.reads:
                # Their tasks will not be read any more: the engine writes the results to a file itself.
                del self._withheld[name]
                self._hub.refuse(peer, "the run ends, and some of its results cannot be recorded")
                self._loop.call_soon(self._lose, name, "its last results are in a file beside its log")

    def _recorded(self, peer: Peer, number: int) -> None:
        """Everything up to this message is in the status file: acknowledge it soon. Usually the next message
        to the engine carries that; an engine that leaves waits for it."""
        if peer.session.acknowledge(number):
            if not self._owed:
                self._loop.call_later(DELAY, self.send)
            self._owed[peer.name] = peer
            if self._plan.mode is Mode.CLOSING or peer.name not in self._plan.engines:
                self._loop.call_soon(self.send)

    def send(self) -> None:
        """Send the acknowledgements that no other message has carried."""
        owed, self._owed = self._owed, {}
        for peer in owed.values():
            if peer.session.owes:
                peer.session.tell(Pulse())
