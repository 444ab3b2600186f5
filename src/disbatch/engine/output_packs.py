"""Write all output of an engine to one append-only file and its index: see `model.pack`.

Each record is written where the last complete one ended. So a write that failed half-way, on a full disk, is
overwritten by the next one; a reader that comes between finds a torn end and stops there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from disbatch.engine.limits import Reserve
from disbatch.engine.output_writer import Done
from disbatch.model import pack
from disbatch.model.pack import About, Piece

LONGEST_NODE = 100
"""The longest part of the node's name in the name of its pack: file systems allow 255 bytes."""


class _AppendOnlyFile:
    """A file that is created when something is first written to it."""

    def __init__(self, path: bytes, beginning: bytes) -> None:
        self._path = path
        self._beginning = beginning
        self.descriptor = -1
        self.end = len(beginning)
        """Where the next write goes, after the last complete one."""

    def append(self, data: bytes) -> None:
        """Write all of it, or raise OSError and count none of it."""
        if self.descriptor < 0:
            self._create()
        _write_at(self.descriptor, data, self.end)
        self.end += len(data)

    def _create(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_at(descriptor, self._beginning, 0)
        except OSError:
            os.close(descriptor)
            os.unlink(self._path)  # noqa: PTH108 - bytes
            raise
        self.descriptor = descriptor

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class PackWriter:
    """Writes the pack of one engine in `directory`. `failed(error)` is called for what could not be
    written."""

    clears = False

    def __init__(self, directory: bytes, about: About, failed: Callable[[OSError], None]) -> None:
        node = about.node.replace("/", "_")[:LONGEST_NODE]
        stem = directory + b"/" + os.fsencode(f"{node}_{about.engine}")
        self._pack = _AppendOnlyFile(stem + pack.PACK_END.encode(), pack.beginning(about))
        self._index = _AppendOnlyFile(stem + pack.INDEX_END.encode(), pack.INDEX_LINE)
        self._failed = failed
        self._reserve = Reserve(2)
        self._last: dict[int, int] = {}
        """The offset of the last record of each attempt that has not ended."""
        self._owed = b""
        """Entries that could not be written to the index: they must precede later ones."""

    def write(self, work: list[Piece | Done]) -> None:
        """Write these, in this order; if there is no room for all, write those for which there is."""
        try:
            self._append(work)
        except OSError as error:
            self._failed(error)
            for each in work if len(work) > 1 else []:
                with contextlib.suppress(OSError):
                    self._append([each])
        for each in work:
            if type(each) is Done:
                self._last.pop(each.attempt, None)
        try:
            if self._owed:
                self._index.append(self._owed)
                self._owed = b""
        except OSError as error:
            self._failed(error)

    def _append(self, work: list[Piece | Done]) -> None:
        at = self._pack.end
        last: dict[int, int] = {}
        tasks: dict[int, int] = {}
        records = []
        for each in work:
            attempt = each.attempt
            previous = last.get(attempt) or self._last.get(attempt, 0)
            if type(each) is Piece:
                record = pack.piece_record(at, previous, each)
            else:
                assert type(each) is Done
                record = pack.end_record(at, previous, each.task, attempt, each.how)
            # Only the last of them is found through the index, the others through it.
            last.pop(attempt, None)
            last[attempt] = at
            tasks[attempt] = each.task
            at += len(record)
            records.append(record)
        if self._pack.descriptor < 0:
            self._reserve.release()
        self._pack.append(b"".join(records))
        self._last |= last
        *others, final = last.items()
        entries = [pack.entry(tasks[attempt], attempt, offset, 0) for attempt, offset in others]
        attempt, offset = final
        entries.append(pack.entry(tasks[attempt], attempt, offset, at - offset))
        self._owed += b"".join(entries)

    def sync(self) -> None:
        """Force written data to the disk."""
        try:
            for file in (self._pack, self._index):
                if file.descriptor >= 0:
                    getattr(os, "fdatasync", os.fsync)(file.descriptor)
        except OSError as error:
            self._failed(error)

    def close(self) -> None:
        """Close both files."""
        try:
            self._reserve.release()
            self._pack.close()
            self._index.close()
        except OSError as error:
            self._failed(error)


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, at)
        rest, at = rest[written:], at + written
