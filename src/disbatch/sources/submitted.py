"""Tasks that programs and `dbutil submit` submit while the run goes on.

Theory of operation
-------------------
Submitted lines are appended to a file, PREFIX_tasks.txt, before they are acknowledged: so they are not lost
if the driver is killed, and the file is a task file to resume from. One parser checks them on arrival, and
accepts all lines of a request or none; another one reads them back from the file when there is room for them,
so memory does not grow with the number of waiting tasks.

A comment that names the request follows its lines. A driver that takes the run over truncates the file after
the last such comment, since later lines were never acknowledged. A client that got no answer because the
driver was killed repeats its request, and is told what was accepted.

The file continues the run's own task file, if there is one: ids are counted on. If the tasks of the run come
from a program, submitted tasks are interleaved with those of the program.
"""

from __future__ import annotations

import copy
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from disbatch.model.errors import DisbatchError, TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.model.taskfile import TaskParser
from disbatch.sources.file import BLOCK, Checksums, Verifier, unreadable
from disbatch.sources.source import ItemQueue, LineSplitter, Source
from disbatch.wire.ownfile import open_own
from disbatch.wire.renamed_files import Sight, end_naming, look, name_again

CHUNK = 1 << 20
"""Bytes read at a time."""
RESET = b"\n#DISBATCH PREFIX\n#DISBATCH SUFFIX\n"
"""PREFIX and SUFFIX of the task file before it do not apply to this one; nor does its last line without an
end, if the two are concatenated."""
REQUESTS_KEPT = 1000
"""The latest requests to a former driver, whose answers may not have arrived."""
_ACCEPTED = re.compile(rb"# taken ([0-9a-zA-Z]{16,64})")
_LAST = re.compile(rb"\n# taken [0-9a-zA-Z]{16,64}\n")
_LONGEST_MARK = 80
"""The longest such comment, in bytes."""


class Batch(NamedTuple):
    """Accepted lines: the id of their first task, and how many ids a line has, and how many consecutive lines
    have so many."""

    first: int
    counts: list[tuple[int, int]]


class TaskIntake(Protocol):
    """Accepts submitted tasks."""

    @property
    def closed(self) -> bool:
        """True if no more tasks are accepted."""

    @property
    def is_unused(self) -> bool:
        """True if no submitted task is in a file from which it could be resumed."""

    @property
    def former(self) -> Mapping[str, Batch]:
        """What a former driver of the run accepted, by request."""

    def add(self, lines: list[bytes], request: str, source: str, number: int) -> Batch:
        """Accept these lines, which are all of one request. UsageError, and nothing is accepted, if one of
        them is invalid (errors name it by `source` and the `number` of the first line), or there is no
        room."""

    def close_soon(self) -> None:
        """Accept no more tasks."""


class SubmittedFile:
    """The file at `path`, new or (`again`) that of a former driver of the run. `ids`: how many ids the task
    file before it has, None if there is none. UsageError if it cannot be opened."""

    def __init__(self, path: Path, ids: int | None, *, again: bool = False) -> None:
        self.path = path
        self.ids = ids or 0
        self._head = b"" if ids is None else RESET
        self._checker = _parser(path, ids)
        self.parser = _parser(path, ids)
        """For reading the file from its beginning."""
        self.former: OrderedDict[str, Batch] = OrderedDict()
        """What a former driver of the run accepted, by request."""
        self.checksums = Checksums()
        """Of everything that was written."""
        self._torn = False
        self.renamed: Callable[[Sight, Path], None] = lambda sight, path: None
        """Called when the file had lost its name, and has one again."""
        self.note: Callable[[Path], object] = lambda path: None
        """Called before it gets that name. OSError."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            if again:
                end_naming(path)
            self._descriptor = open_own(path, flags if again else flags | os.O_EXCL)
            self._size = _cut_unaccepted(self._descriptor)
            if self._size < len(self._head):
                self._append(self._head)
            else:
                self.checksums.add(os.pread(self._descriptor, len(self._head), 0))
            self._count_on()
        except OSError as error:
            raise UsageError(f"{path}: cannot be created: {error.strerror}") from error

    def _count_on(self) -> None:
        """Count what the file already holds."""
        counts: list[tuple[int, int]] = []
        first = self._checker.next_id
        for number, line in self._lines():
            before = self._checker.next_id
            self._checker.parse(number, line)
            mark = _ACCEPTED.fullmatch(line)
            if mark is None:
                count(counts, self._checker.next_id - before)
                continue
            self.former[mark[1].decode()] = Batch(first, counts)
            counts, first = [], self._checker.next_id
            if len(self.former) > REQUESTS_KEPT:
                self.former.popitem(last=False)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        at, splitter = len(self._head), LineSplitter()
        while data := self.read(at, min(BLOCK, self._size - at)):
            self.checksums.add(data)
            at += len(data)
            number, lines = splitter.feed(data)
            yield from enumerate(lines, number)

    def add(self, lines: list[bytes], request: str, source: str, number: int) -> Batch:
        """Accept these lines, which are all of one request. UsageError, and nothing is accepted, if one of
        them is invalid (errors name it by `source` and the `number` of the first line), or they cannot be
        written."""
        if not _ACCEPTED.fullmatch(mark := b"# taken " + request.encode(errors="replace")):
            raise UsageError("the request has no name")
        checker = copy.deepcopy(self._checker)
        checker.source_name = source
        batch = Batch(checker.next_id, [])
        for here, line in enumerate(lines, number):
            refuse_line_end(line, source, here)
            before = checker.next_id
            checker.parse(here, line)
            count(batch.counts, checker.next_id - before)
        if lines:
            self._take([b"#" if _ACCEPTED.fullmatch(line) else line for line in lines], mark)
        self._checker = checker
        return batch

    def _take(self, lines: list[bytes], mark: bytes) -> None:
        try:
            self.ensure_name()  # before anybody is told that they are safe
            self._append(b"".join(line + b"\n" for line in (*lines, mark)))
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be written: {error.strerror}") from error

    def _append(self, data: bytes) -> None:
        if self._torn:
            os.ftruncate(self._descriptor, self._size)
        self._torn = True
        written = 0
        while written < len(data):
            written += os.write(self._descriptor, data[written:])
        self._torn = False
        self._size += len(data)
        self.checksums.add(data)

    def ensure_name(self) -> None:
        """If the file has lost its name, write its text again under one. OSError."""
        sight = look(self._descriptor, self.path)
        if sight is not Sight.ITSELF:
            self.path = name_again(self._descriptor, self.path, self._size, note=self.note)
            self.renamed(sight, self.path)

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from there. OSError."""
        return os.pread(self._descriptor, size, at)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def next_id(self) -> int:
        """The id of the next submitted task or barrier."""
        return self._checker.next_id

    @property
    def tasks(self) -> int:
        """The number of submitted tasks."""
        return self._checker.tasks - self.ids

    @property
    def is_unused(self) -> bool:
        """True if no task was ever submitted."""
        return self._size == len(self._head)

    def close(self) -> None:
        """Accept nothing more, and read nothing more."""
        if self._descriptor >= 0:
            with suppress(OSError):
                if self.is_unused and look(self._descriptor, self.path) is Sight.ITSELF:
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = -1


class SubmittedSource:
    """A `Source`: the items of `first`, if there is one, then those of `file`, as they arrive, until
    `close_soon`; or, if not `kept_open`, until `first` has ended. `ready` as in `sources.stream`."""

    def __init__(
        self, first: Source | None, file: SubmittedFile, ready: Callable[[], None], *, kept_open: bool
    ) -> None:
        self._first = first
        self._file = file
        self._ready = ready
        self._kept_open = kept_open
        self._splitter = LineSplitter()
        self._items = ItemQueue(file.path.name, file.parser)
        self._at = 0
        self._verifier = Verifier(file.checksums)
        self._read_error: UsageError | None = None
        self._wants_more = True
        self._closed = False

    @property
    def name(self) -> str:
        return self._file.path.name if self._first is None else self._first.name

    @property
    def is_unused(self) -> bool:
        """True if no task was ever submitted."""
        return self._file.is_unused

    @property
    def _first_ended(self) -> bool:
        return self._first is None or self._first.ended

    @property
    def closed(self) -> bool:
        """True if no more tasks are accepted."""
        return self._closed or (not self._kept_open and self._is_read)

    @property
    def _is_read(self) -> bool:
        return self._first_ended and self._items.empty and self._at == self._file.size

    @property
    def ended(self) -> bool:
        return self.error is not None or (self._is_read and self.closed)

    @property
    def error(self) -> DisbatchError | None:
        error = None if self._first is None else self._first.error
        return error or ((self._items.error or self._read_error) if self._items.empty else None)

    @property
    def former(self) -> Mapping[str, Batch]:
        """What a former driver of the run accepted, by request."""
        return self._file.former

    def add(self, lines: list[bytes], request: str, source: str, number: int) -> Batch:
        """As `SubmittedFile.add`."""
        taken = self._file.add(lines, request, source, number)
        self._notify()
        return taken

    def close_soon(self) -> None:
        """Accept no more tasks."""
        self._closed = True
        self._notify()

    def take(self, most: int) -> list[Item]:
        taken = [] if self._first is None else self._first.take(most)
        if self._first_ended and (self._first is None or self._first.error is None):
            while len(taken) < most and self._fill():
                taken += self._items.take(most - len(taken))
        self._fill()
        self._wants_more = len(taken) < most
        return taken

    def close(self) -> None:
        if self._first is not None:
            self._first.close()
        self._file.close()

    def _fill(self) -> bool:
        """Read until there is an item, or nothing more; true if there is one."""
        while self._items.empty and self._at < self._file.size and self.error is None:
            try:
                data = self._file.read(self._at, self._verifier.room)
            except OSError as error:
                self._read_error = unreadable(str(self._file.path), error)
                break
            shorter = len(data) < self._verifier.room
            if not self._verifier.accept(data):
                what = "made it shorter" if shorter else "changed it"
                self._read_error = UsageError(f"{self._file.path}: somebody has {what}")
                break
            self._at += len(data)
            self._items.add(*self._splitter.feed(data))
        return not self._items.empty

    def _notify(self) -> None:
        if self._wants_more:
            self._wants_more = False
            self._ready()


def _parser(path: Path, ids: int | None) -> TaskParser:
    parser = TaskParser(path.name)
    if ids is not None:
        parser.go_on_after(ids)
    return parser


def refuse_line_end(line: bytes, source: str, number: int) -> None:
    """TaskFileError if this is more than one line."""
    if b"\n" in line:
        raise TaskFileError(source, number, "a line end within the command; write it as a script")


def count(counts: list[tuple[int, int]], ids: int) -> None:
    """Count one more line, with so many ids."""
    if counts and counts[-1][0] == ids:
        counts[-1] = (ids, counts[-1][1] + 1)
    else:
        counts.append((ids, 1))


def _cut_unaccepted(descriptor: int) -> int:
    """Truncate the file after the last accepted request; the remaining size, bytes."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        begin = max(0, end - CHUNK)
        marks = list(_LAST.finditer(os.pread(descriptor, end - begin, begin)))
        if marks:
            end = begin + marks[-1].end()
            break
        end = 0 if begin == 0 else begin + _LONGEST_MARK
    if end < size:
        os.ftruncate(descriptor, end)
    return end


MOST_BYTES = 64 << 20
"""The most bytes of submitted lines that wait for their turn."""


class InterleavedTasks:
    """Submitted tasks among those of a program: inserts lines into the program's queue, before the lines
    that are not parsed yet, so that their ids are known at once. PREFIX and SUFFIX of the program do not
    apply to them, nor theirs to the program's lines."""

    def __init__(self) -> None:
        self._parser = TaskParser("")
        self._lines = 0
        self._waiting = 0

    def add(self, queue: ItemQueue, lines: list[bytes], source: str, number: int) -> Batch:
        """As `sources.submitted.TaskIntake.add`."""
        size = sum(map(len, lines))
        if self._waiting + size > MOST_BYTES:
            raise UsageError(
                f"{self._waiting >> 20} MiB of tasks wait already; submit more when some have run"
            )
        parser = copy.copy(self._parser)
        parser.go_on_after(queue.next_id)
        batch = Batch(queue.next_id, [])
        found: list[Iterable[Item]] = []
        for at, line in enumerate(lines):
            refuse_line_end(line, source, number + at)
            before = parser.next_id
            try:
                found.append(parser.parse(self._lines + at + 1, line))
            except TaskFileError as error:
                raise TaskFileError(source, number + at, error.problem) from None
            count(batch.counts, parser.next_id - before)
        self._parser = parser
        self._lines += len(lines)
        self._waiting += size
        queue.insert(self._given(found, size), parser.next_id - batch.first)
        return batch

    def _given(self, found: list[Iterable[Item]], size: int) -> Iterable[Item]:
        for items in found:
            yield from items
        self._waiting -= size
