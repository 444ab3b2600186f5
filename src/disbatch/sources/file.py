"""Tasks from a regular file, read just ahead of need."""

from __future__ import annotations

import os
import stat

from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.sources.items import ItemQueue
from disbatch.sources.lines import LineSplitter

CHUNK = 1 << 20
"""Bytes read at a time."""
TAIL = 1 << 12
"""Bytes before the next read that are looked at again, to notice that the file was changed under us."""


def unreadable(name: str, error: OSError) -> UsageError:
    """The one line for input that cannot be opened or read."""
    return UsageError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


class FileSource:
    """A `Source` that reads whenever it needs more: a regular file, or a device that has no readiness.

    It owns `descriptor` and reads on from where that stands. If the file goes bad while it is read (it was
    checked, but it may change), the source ends with `error` after the good items, as a stream does.

    A regular file may grow. If it became shorter, or was written over, the line at the seam would be half an
    old one and half a new one, a command that nobody wrote; so before each read the last bytes that were read
    must still be there. Once all that the file held at first is read, a change is no matter: it is the end.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor: int | None = descriptor
        self._splitter = LineSplitter()
        self._items = ItemQueue(name)
        self._read_error: UsageError | None = None
        status = os.fstat(descriptor)
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._tail = b""
        self._fill()

    @property
    def name(self) -> str:
        return self._name

    @property
    def ended(self) -> bool:
        return self._items.empty

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
        if self._size is None:
            return os.read(descriptor, CHUNK)
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        before = self._tail
        changed = os.pread(descriptor, len(before), at - len(before)) != before
        data = b"" if changed else os.read(descriptor, CHUNK)
        if not data and at < self._size:
            number = self._splitter.number
            raise TaskFileError(self._name, number, "the file was changed here while it was read")
        self._tail = data[-TAIL:]
        return data
