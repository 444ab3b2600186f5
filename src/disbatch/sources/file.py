"""Tasks from a regular file, read just ahead of need."""

from __future__ import annotations

import os
from collections.abc import Callable

from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.sources.checksums import Checksums, Verifier
from disbatch.sources.items import ItemQueue
from disbatch.sources.lines import LineSplitter

CHUNK = 1 << 20
"""Bytes read at a time."""
TAIL = 1 << 12
"""Bytes before the next read that are looked at again once the file has grown."""

CHANGED = "the file was changed, here or further down, while it was read"


def unreadable(name: str, error: OSError) -> UsageError:
    """The one line for input that cannot be opened or read."""
    return UsageError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


class FileSource:
    """A `Source` that reads whenever it needs more: a regular file, or a device that has no readiness.

    It owns `descriptor` and reads on from where that stands. If the file goes bad while it is read (it was
    checked, but it may change), the source ends with `error` after the good items, as a stream does.

    `checksums` are those of a regular file when it was checked: if it became shorter or was written over, a
    command would run that nobody has checked, or half an old and half a new one that nobody wrote. So each
    block must be the one that was checked. The file may grow: then before each read the last bytes that were
    read must still be there. Once all that was checked is read, a change is no matter: it is the end.

    `again(error)`, if given, is told of a file system that fails, and sees to it that more is taken later; it
    is the end otherwise.
    """

    def __init__(
        self,
        name: str,
        descriptor: int,
        checksums: Checksums | None = None,
        again: Callable[[OSError], None] | None = None,
    ) -> None:
        self._name = name
        self._again = again
        self._descriptor: int | None = descriptor
        self._splitter = LineSplitter()
        self._items = ItemQueue(name)
        self._read_error: UsageError | None = None
        self._verifier = None if checksums is None else Verifier(checksums)
        self._tail = b""
        self._fill()

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
        self._fill()
        while len(taken) < most and not self._items.empty:
            taken += self._items.take(most - len(taken))
            self._fill()
        return taken

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fill(self) -> None:
        """Read until there is an item, the end, or an error."""
        while self._items.empty and self._descriptor is not None and self._items.error is None:
            try:
                data = self._read(self._descriptor)
            except OSError as error:
                if self._again is not None:
                    self._again(error)
                    return
                self._read_error = unreadable(self._name, error)
                self.close()
                return
            except TaskFileError as error:
                self._read_error = error
                self.close()
                return
            if data:
                self._items.add(*self._splitter.feed(data))
            else:
                self._items.add(*self._splitter.finish())
                self.close()

    def _read(self, descriptor: int) -> bytes:
        """The next bytes; none at the end. TaskFileError if the file lost or changed what was to come."""
        if self._verifier is None:
            return os.read(descriptor, CHUNK)
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        if room := self._verifier.room:
            data = _pread(descriptor, room, at)
            if not self._verifier.accept(data):
                raise TaskFileError(self._name, self._splitter.number, CHANGED)
        else:
            before = self._tail
            changed = os.pread(descriptor, len(before), at - len(before)) != before
            data = b"" if changed else os.pread(descriptor, CHUNK, at)
        os.lseek(descriptor, at + len(data), os.SEEK_SET)
        self._tail = data[-TAIL:]
        return data


def _pread(descriptor: int, size: int, at: int) -> bytes:
    """So many bytes from there, fewer only at the file's end: some file systems give less at a time."""
    parts: list[bytes] = []
    while size and (part := os.pread(descriptor, size, at)):
        parts.append(part)
        size, at = size - len(part), at + len(part)
    return b"".join(parts)
