"""Take over the files and the record of a dead driver's run, so that no other process writes its record:
neither another takeover at the same time, nor the former driver, if it lives after all.

Theory of operation
-------------------
A living driver holds a lock on the status file (`lock`), also over NFS, and the kernel releases it with the
process. So if the former driver was on this host, the process that gets the lock is alone, whatever the file
system.

A driver on another host may be alive without a visible lock (on a file system without locks, or with locks
that hold on one host alone), and may only have been stopped, or cut off. Therefore the journal and the status
file are rewritten, and replace the old ones, in that order. The former driver then writes to files that no
longer have a name; it acknowledges nothing that went there, and abandons the run as soon as it notices.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from disbatch.model.errors import UsageError
from disbatch.model.statusline import Mark, Record, unquoted
from disbatch.model.task import Barrier, Item, Task
from disbatch.plan.events import Recorded
from disbatch.rundir.journal import JournalState
from disbatch.rundir.journal_file import JournalFile
from disbatch.rundir.lock import hold
from disbatch.rundir.paths import ClaimedFiles, RunFiles
from disbatch.rundir.resume import Former
from disbatch.rundir.statusfile import blocks_before
from disbatch.wire.ownfile import open_own
from disbatch.wire.renamed_files import copy_text, end_naming

NEW = ".new"
"""The end of the status file's name while it is copied."""


def seize(files: RunFiles) -> int:
    """Lock the status file; its descriptor. UsageError if another process has it, or it cannot be written."""
    try:
        if files.renamed.status is not None:
            end_naming(files.status)
        status = open_own(files.status, os.O_RDWR)
    except OSError as error:
        raise UsageError(f"{files.status}: cannot be written: {error.strerror}") from error
    if not hold(status):
        os.close(status)
        raise UsageError(f"{files.prefix}: a driver has this run: {files.status.name} is locked")
    return status


def claim_again(
    files: RunFiles, status: int, told: JournalState, *, apart: bool, own_log: bool
) -> ClaimedFiles:
    """Claim the files of the run for writing; `status` was seized. `apart`: the former driver was on another
    host. `own_log`: the user did not name the log. UsageError if they cannot be written."""
    try:
        if apart:
            JournalFile.go_on(files.run, told).close()
            status = _renewed(files, status)
        recorded = cut_torn_line(status)
        log = _log(files, own=own_log)
    except OSError as error:
        path = error.filename or files.status
        raise UsageError(f"{os.fsdecode(path)}: cannot be written: {error.strerror}") from error
    return ClaimedFiles(
        *(files, status, log),
        own_log=False,
        new=False,
        recorded=recorded,
    )


def _log(files: RunFiles, *, own: bool) -> int:
    """Open the log again: one that the user named with -l may be any file. OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if own:
        return open_own(files.log, flags)
    # Without O_NONBLOCK, opening a named pipe without a reader would block.
    log = os.open(files.log, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    os.set_blocking(log, True)
    return log


def _renewed(files: RunFiles, status: int) -> int:
    """Replace the status file by a copy; the copy's descriptor. OSError."""
    path = files.status.with_name(files.status.name + NEW)
    path.unlink(missing_ok=True)
    mode = os.fstat(status).st_mode & 0o777
    copy = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        hold(copy)
        copy_text(status, copy, os.fstat(status).st_size)
        os.fsync(copy)
        path.replace(files.status)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    os.close(status)
    return copy


def cut_torn_line(descriptor: int) -> int:
    """A driver that was killed may have written a part of a line: that result was never acknowledged, so the
    part is cut off. Returns the length of the file, bytes. OSError."""
    size = os.fstat(descriptor).st_size
    # Without a line end, all of the last block is torn.
    at = next((begin + block.rfind(b"\n") + 1 for begin, block in blocks_before(descriptor, size)), 0)
    if at < size:
        os.ftruncate(descriptor, at)
    return at


class Line(NamedTuple):
    """A line of the run: in its status file, or (`written` False) in a file that an engine left because no
    driver had acknowledged it."""

    record: Record
    written: bool


class SoFar:
    """Which tasks and barriers the run has completed. `source`: the task file's name in messages. `asides`:
    hashes of the lines that are about neither."""

    def __init__(self, former: Former, source: str) -> None:
        self._former = former
        self.source = source
        self.asides = former.asides

    @classmethod
    def read(cls, status: Path, source: str, *, forced: bool = False) -> SoFar:
        """Read the status file, which this process has locked, and what engines left beside it; `forced`:
        tasks were skipped in it whatever their commands. ResumeError."""
        return cls(Former.read([str(status)], source=source, force=forced, whole=True), source)

    @property
    def count(self) -> int:
        """The number of completed tasks and barriers."""
        return self._former.count

    def has(self, id: int) -> bool:
        """True if the run has completed that task or barrier."""
        return self._former.has(id)

    def beyond(self, ids: int) -> list[str]:
        """As `Former.beyond`."""
        return self._former.beyond(ids)

    def verify(self, items: Iterable[Item], ids: int) -> list[str]:
        """As `Former.verify`."""
        return self._former.verify(items, ids)

    def look_beside(self) -> None:
        """Engines may have left more beside the status file since: add it. ResumeError."""
        self._former.look_beside()

    def recorded(self, item: Task | Barrier) -> Recorded | None:
        """The record of that item. ResumeError if it is not the same item."""
        found = self._former.line(item)
        if found is None:
            return None
        record, written = found
        failed = record.failed and record.mark in (Mark.TASK, Mark.SKIPPED)
        return Recorded(item, failed, Line(record, written))

    def tasks_from(self, first: int) -> Iterator[tuple[Task, Record]]:
        """The completed tasks from that id on."""
        for record in self._former.lines_from(first):
            if record.mark is not Mark.BARRIER:
                command = unquoted(record.command) or record.command
                yield Task(record.id, record.line, record.repeat, command), record

    def close(self) -> None:
        """Close the files; nothing can be looked up any more."""
        self._former.close()
