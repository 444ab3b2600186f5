"""Tasks that programs and `dbutil submit` hand in while the run goes on.

Theory of operation
-------------------
What is handed in is appended to a file, PREFIX_tasks.txt, before anybody is told that it was taken: so it is
not lost if the driver is killed, and the file is a task file to resume from. Lines are checked by one parser
when they come, all of a request or none of it, and read back from the file by another one when there is room
for them: memory does not grow with what waits.

The file goes on where the run's own task file ends, if it has one: ids are counted on.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.model.taskfile import TaskParser
from disbatch.sources.items import ItemQueue
from disbatch.sources.lines import LineSplitter
from disbatch.sources.source import Source

CHUNK = 1 << 20
"""Bytes read at a time."""
RESET = b"#DISBATCH PREFIX\n#DISBATCH SUFFIX\n"
"""What the task file before it has set does not reach into this one."""
_BLOCK = 1 << 16


class SubmittedFile:
    """The file at `path`, new or (`again`) that of a former driver of the run. `ids`: how many the task file
    before it has, None if there is none. UsageError if it cannot be opened."""

    def __init__(self, path: Path, ids: int | None, *, again: bool = False) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._descriptor = os.open(path, flags if again else flags | os.O_EXCL, 0o666)
            self._size = _cut_torn_line(self._descriptor)
        except OSError as error:
            raise UsageError(f"{path}: cannot be created: {error.strerror}") from error
        self.ids = ids or 0
        self._head = b"" if ids is None else RESET
        self._checker = TaskParser("submitted")
        self._checker.pass_over(self.ids)
        self._lines = 0
        if not self._size:
            self._append(self._head)
        self._count_on()

    def _count_on(self) -> None:
        """What the file holds was handed in before."""
        at, splitter = 0, LineSplitter()
        while data := os.pread(self._descriptor, CHUNK, at):
            at += len(data)
            number, lines = splitter.feed(data)
            for line in lines:
                self._checker.parse(number, line)
                number += 1
            self._lines = number - 1

    def add(self, lines: list[bytes]) -> tuple[int, list[int]]:
        """Take these lines: the id of the first task, and how many ids each line has. UsageError, and nothing
        is taken, if one of them is wrong or they cannot be written."""
        checker = copy.deepcopy(self._checker)
        first, counts = checker.next_id, []
        for number, line in enumerate(lines, 1):
            if b"\n" in line:
                raise UsageError(f"task {number} of these: a line end in it; write it as a script")
            before = checker.next_id
            try:
                checker.parse(number, line)
            except TaskFileError as error:
                raise UsageError(str(error)) from error
            counts.append(checker.next_id - before)
        try:
            self._append(b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._checker = checker
        self._lines += len(lines)
        return first, counts

    def _append(self, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def read(self, at: int) -> bytes:
        """The next bytes from there on."""
        return os.pread(self._descriptor, CHUNK, at)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def is_unused(self) -> bool:
        """Nothing was ever handed in."""
        return self._size == len(self._head)

    def close(self) -> None:
        """Take nothing more, and read nothing more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            if self.is_unused:
                self.path.unlink(missing_ok=True)


class SubmittedSource:
    """A `Source`: the items of `first`, if there is one, then those of `file`, as they come, until
    `close_soon`; or, unless it is to be `kept_open`, until `first` has ended. `ready` as in
    `sources.stream`."""

    def __init__(
        self, first: Source | None, file: SubmittedFile, ready: Callable[[], None], *, kept_open: bool
    ) -> None:
        self._first = first
        self._file = file
        self._ready = ready
        self._kept_open = kept_open
        self._splitter = LineSplitter()
        parser = TaskParser("submitted")
        parser.pass_over(file.ids)
        self._items = ItemQueue("submitted", parser)
        self._at = 0
        self._hungry = True
        self.closed = False

    @property
    def name(self) -> str:
        return self._file.path.name if self._first is None else self._first.name

    @property
    def is_unused(self) -> bool:
        """Nothing was ever handed in."""
        return self._file.is_unused

    @property
    def _first_ended(self) -> bool:
        return self._first is None or self._first.ended

    @property
    def ended(self) -> bool:
        if self.error is not None:
            return True
        if not (self._first_ended and self._items.empty and self._at == self._file.size):
            return False
        self.closed = self.closed or not self._kept_open
        return self.closed

    @property
    def error(self) -> UsageError | None:
        error = None if self._first is None else self._first.error
        return error or (self._items.error if self._items.empty else None)

    def add(self, lines: list[bytes]) -> tuple[int, list[int]]:
        """As `SubmittedFile.add`."""
        taken = self._file.add(lines)
        self._call()
        return taken

    def close_soon(self) -> None:
        """Nothing more will be handed in."""
        self.closed = True
        self._call()

    def take(self, most: int) -> list[Item]:
        taken = [] if self._first is None else self._first.take(most)
        if self._first_ended and (self._first is None or self._first.error is None):
            while len(taken) < most and self._fill():
                taken += self._items.take(most - len(taken))
        self._fill()
        self._hungry = len(taken) < most
        return taken

    def close(self) -> None:
        if self._first is not None:
            self._first.close()
        self._file.close()

    def _fill(self) -> bool:
        """Read until there is an item, or nothing more; true if there is one."""
        while self._items.empty and self._at < self._file.size and self._items.error is None:
            data = self._file.read(self._at)
            self._at += len(data)
            self._items.add(*self._splitter.feed(data))
        return not self._items.empty

    def _call(self) -> None:
        if self._hungry:
            self._hungry = False
            self._ready()


def _cut_torn_line(descriptor: int) -> int:
    """Nobody was told that a line without an end was taken. The size of what is left, bytes."""
    size = at = os.fstat(descriptor).st_size
    while at > 0:
        begin = max(0, at - _BLOCK)
        found = os.pread(descriptor, at - begin, begin).rfind(b"\n")
        if found >= 0:
            at = begin + found + 1
            break
        at = begin
    if at < size:
        os.ftruncate(descriptor, at)
    return at
