"""Tasks from a regular file, read just ahead of need."""

from __future__ import annotations

import os

from disbatch.model.errors import UsageError
from disbatch.model.task import Item
from disbatch.sources.items import ItemQueue
from disbatch.sources.lines import LineSplitter

CHUNK = 1 << 20
"""Bytes read at a time."""


def unreadable(name: str, error: OSError) -> UsageError:
    """The one line for input that cannot be opened or read."""
    return UsageError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


class FileSource:
    """A `Source` that reads whenever it needs more: a regular file, or a device that has no readiness.

    It owns `descriptor` and reads on from where that stands. If the file goes bad while it is read (it was
    checked, but it may change), the source ends with `error` after the good items, as a stream does.
    """

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor: int | None = descriptor
        self._splitter = LineSplitter()
        self._items = ItemQueue(name)
        self._read_error: UsageError | None = None
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
                data = os.read(self._descriptor, CHUNK)
            except OSError as error:
                self._read_error = unreadable(self._name, error)
                self.close()
                return
            if data:
                self._items.add(*self._splitter.feed(data))
            else:
                self._items.add(*self._splitter.finish())
                self.close()
