"""The interface of every source of tasks, and its inner part: cut bytes into numbered lines, parse them, hold
the items."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from disbatch.model.errors import DisbatchError, TaskFileError
from disbatch.model.task import Item
from disbatch.model.taskfile import MAX_COMMAND, TaskParser


class Source(Protocol):
    """Items in order, just ahead of need.

    A source without more items at the moment answers `take` with fewer than requested, and calls the `ready`
    that it was created with, on the loop, once there are more or it has ended.
    """

    @property
    def name(self) -> str:
        """Its name in messages: the file's name as the user gave it, or `stdin`."""

    @property
    def ended(self) -> bool:
        """True once no more items will come; known when the last one is taken, or earlier."""

    @property
    def error(self) -> DisbatchError | None:
        """Why it ended early: an invalid line, or input that cannot be read. Set after the valid items before
        it have been taken, or at once if these are useless; then `ended` is true."""

    def take(self, most: int) -> list[Item]:
        """At most `most` items. Never blocks except for a disk."""

    def close(self) -> None:
        """Stop reading; may be called twice."""


# A line may exceed MAX_COMMAND by one byte, as long as that byte may be the CR of a CRLF.
_MOST = MAX_COMMAND + 1


class LineSplitter:
    """Splits bytes into lines without their LF or CRLF; an unfinished line is kept for the next piece.

    Holds at most one line. A line longer than MAX_COMMAND is cut, but remains longer than MAX_COMMAND, so
    that the parser refuses it after the valid lines before it; what follows is useless then.
    """

    def __init__(self) -> None:
        self._number = 1
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def number(self) -> int:
        """The number of the next line."""
        return self._number

    def feed(self, data: bytes) -> tuple[int, list[bytes]]:
        """The lines that end in `data`, and the number (from 1) of the first."""
        end = data.rfind(b"\n")
        if end < 0:
            self._parts.append(data)
            self._size += len(data)
            return self._cut_off() if self._size > _MOST else (self._number, [])
        self._parts.append(data[:end])
        whole = b"".join(self._parts)
        self._parts = [data[end + 1 :]]
        self._size = len(self._parts[0])
        lines = whole.split(b"\n")
        if b"\r" in whole:
            lines = [line[:-1] if line.endswith(b"\r") else line for line in lines]
        return self._numbered(lines)

    def finish(self) -> tuple[int, list[bytes]]:
        """The last line, if it has no line end; call this once, at the end."""
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return self._numbered([rest] if rest else [])

    def _cut_off(self) -> tuple[int, list[bytes]]:
        line = b"".join(self._parts)[: _MOST + 1]
        self._parts, self._size = [], 0
        return self._numbered([line])

    def _numbered(self, lines: list[bytes]) -> tuple[int, list[bytes]]:
        first = self._number
        self._number += len(lines)
        return first, lines


class ItemQueue:
    """Batches of lines go in, items come out in order; lines are parsed when items are needed.

    One item is parsed ahead if there is one, so that `empty` takes lines into account that yield no item. The
    first invalid line ends the queue: `error` is set once all items before it are out, and later lines are
    dropped. `parser`: one that continues the count of another input; otherwise a new one.
    """

    def __init__(self, name: str, parser: TaskParser | None = None) -> None:
        self.error: TaskFileError | None = None
        self.waiting_bytes = 0
        """The size of the lines that have not been parsed."""
        self._parser = parser or TaskParser(name)
        self._batches: deque[tuple[int, list[bytes], int]] = deque()
        self._inserted: deque[Iterable[Item]] = deque()
        self._items: Iterator[Item] = iter(())
        self._next: Item | None = None

    @property
    def empty(self) -> bool:
        """True if no item can be taken now."""
        return self._next is None

    def add(self, number: int, lines: list[bytes]) -> None:
        """Append lines without their ends; `number` is that of the first."""
        if lines and self.error is None:
            size = sum(map(len, lines))
            self._batches.append((number, lines, size))
            self.waiting_bytes += size
            if self._next is None:
                self._look_ahead()

    def rename(self, name: str) -> None:
        """Set the name of the source in errors."""
        self._parser.source_name = name

    @property
    def next_id(self) -> int:
        """The id of the first item that will be parsed next."""
        return self._parser.next_id

    def insert(self, items: Iterable[Item], ids: int) -> None:
        """Insert these items, which have so many ids from `next_id` on, before everything that is not parsed
        yet."""
        self._parser.next_id += ids
        self._inserted.append(items)
        if self._next is None:
            self._look_ahead()

    def take(self, most: int) -> list[Item]:
        """At most `most` items, in order."""
        if self._next is None or most <= 0:
            return []
        taken = [self._next]
        self._next = None
        while True:
            taken += islice(self._items, most - len(taken))
            if len(taken) == most or not self._begin_batch():
                break
        self._look_ahead()
        return taken

    def _look_ahead(self) -> None:
        while True:
            self._next = next(self._items, None)
            if self._next is not None or not self._begin_batch():
                return

    def _begin_batch(self) -> bool:
        if self._inserted:
            self._items = self._take_inserted()
            return True
        if not self._batches:
            return False
        number, lines, size = self._batches.popleft()
        self.waiting_bytes -= size
        self._items = self._parse(number, lines)
        return True

    def _take_inserted(self) -> Iterator[Item]:
        while self._inserted:
            yield from self._inserted.popleft()

    def _parse(self, first: int, lines: list[bytes]) -> Iterator[Item]:
        parse = self._parser.parse
        try:
            for number, line in enumerate(lines, first):
                if self._inserted:
                    yield from self._take_inserted()
                yield from parse(number, line)
        except TaskFileError as error:
            self.error = error
            self._batches.clear()
            self.waiting_bytes = 0
