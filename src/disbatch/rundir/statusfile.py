"""Read status files: whole lines in blocks, from the beginning or from the end; single lines again by offset;
and the lines of certain tasks.

Every reader uses `blocks` or `blocks_before`, which copy each byte a bounded number of times and never hold
more than a block and the longest line. A last line without a line end (torn, or being written) is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator

from disbatch.model.errors import UsageError
from disbatch.model.idset import IdSet
from disbatch.model.statusline import Mark, Record, parse_line, scan_line
from disbatch.model.taskfile import MAX_COMMAND
from disbatch.model.text import valid
from disbatch.rundir.lock import is_held

BLOCK = 1 << 20
"""The usual number of bytes that are read at a time."""
LONGEST_LINE = 6 * MAX_COMMAND + (1 << 16)
r"""The longest status line in bytes: a byte of the command may be written as \udcNN."""


class EndlessLineError(OSError):
    """A line is longer than LONGEST_LINE: the file is not a status file."""

    def __init__(self) -> None:
        super().__init__(errno.EFBIG, "a line of it never ends")


def blocks(
    descriptor: int, begin: int = 0, end: int | None = None, size: int = BLOCK
) -> Generator[tuple[int, bytes], None, bool]:
    """Whole lines and their offset, about `size` bytes at a time: from byte `begin`, where a line begins, to
    byte `end`, or to the end of the file. Returns whether a torn line follows. OSError, EndlessLineError."""
    at = place = begin
    torn: list[bytes] = []
    """The parts of a line whose end was not read yet; it begins at `at`."""
    while data := os.pread(descriptor, size if end is None else min(size, end - place), place):
        place += len(data)
        whole = data.rfind(b"\n") + 1
        if whole:
            block = b"".join((*torn, data[:whole]))
            yield at, block
            at += len(block)
            torn = []
        if whole < len(data):
            torn.append(data[whole:])
        if place - at > LONGEST_LINE:
            raise EndlessLineError
    return bool(torn)


def blocks_before(descriptor: int, end: int, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """The same from byte `end` back to the beginning of the file, the last block first; that one may end with
    a torn line, or with a part of one. A line that is too long is left out. OSError."""
    torn: list[bytes] = []
    """The parts of a line whose beginning was not read yet, the last part first."""
    while end > 0:
        begin = max(0, end - size)
        data = os.pread(descriptor, end - begin, begin)
        first = data.find(b"\n") + 1 if begin else 0
        if first or not begin:
            block = b"".join((data[first:], *reversed(torn)))
            if block:
                yield begin + first, block
            torn = [data[:first]]
        elif sum(map(len, torn)) < LONGEST_LINE:
            torn.append(data)
        else:
            torn = []
        end = begin


class OpenStatusFile:
    """A status file that the user named, open for reading; to be closed, or used in a with statement. Raises
    `error`, with a word on what needs it (`purpose`), if it cannot be read. `torn`: at the end of `blocks`,
    whether its last line is."""

    def __init__(self, path: str, purpose: str, error: type[UsageError] = UsageError) -> None:
        self.path = path
        self.torn = False
        self._error = error
        try:
            # Without O_NONBLOCK, opening a named pipe would block.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as cause:
            raise self._unreadable(cause) from cause
        self.status = os.fstat(self.descriptor)
        if not stat.S_ISREG(self.status.st_mode):
            os.close(self.descriptor)
            kind = "a directory" if stat.S_ISDIR(self.status.st_mode) else "not a regular file"
            raise error(f"{path}: is {kind}; {purpose}")
        self._file = os.fdopen(self.descriptor, "rb", buffering=0)

    def __enter__(self) -> OpenStatusFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; it can no longer be read."""
        self._file.close()

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end of the file."""
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as cause:
            raise self._unreadable(cause) from cause

    def blocks(self, end: int | None = None, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
        """As the function `blocks`, from the beginning of the file."""
        try:
            self.torn = yield from blocks(self.descriptor, 0, end, size)
        except OSError as cause:
            raise self._unreadable(cause) from cause

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line, without its line end, and its offset."""
        for at, block in self.blocks():
            place = at
            for line in block[:-1].split(b"\n"):
                yield place, line
                place += len(line) + 1

    def _unreadable(self, cause: OSError) -> UsageError:
        why = (cause.strerror or str(cause)).lower()
        what = "is not a status file" if isinstance(cause, EndlessLineError) else "cannot be read"
        return self._error(f"{self.path}: {what}: {why}")


class Source(OpenStatusFile):
    """A status file of a report; `name` is its path as valid text."""

    def __init__(self, path: str, run: int) -> None:
        super().__init__(path, "a report needs a status file")
        self.name = valid(path)
        self.run = run
        self.identity = (self.status.st_dev, self.status.st_ino)
        self.live = is_held(self.descriptor)

    def record(self, offset: int, size: int, number: int) -> Record | None:
        """A line of a block, counted from 0, read again; None if the file has changed."""
        lines = self.read(offset, size).split(b"\n")
        return parse_line(lines[number]) if number < len(lines) else None


def not_status(path: str, why: str) -> UsageError:
    """The error that a file is not a status file."""
    return UsageError(f"{path}: is not a status file: {why}")


BYTES_A_TIME = 1 << 19
"""The most bytes of lines that are sent at once, without the last line."""
LONGEST_WITH_COMMAND = 1 << 14
"""The most bytes of a line that is sent with its command."""
COUNTS = (Mark.TASK, Mark.SKIPPED, Mark.BARRIER)
"""Marks of lines that are results."""
_FIELDS = 14
"""Those before the command."""


def look_through(status: int, after: int, before: int, wanted: IdSet) -> tuple[list[bytes], int]:
    """The results of the wanted tasks in a part of the file that begins at byte `after` and ends at `before`
    or earlier, as they are sent (see `cut`); and the end of that part. OSError."""
    first, text = next(blocks(status, after, before), (before, b""))
    lines: list[bytes] = []
    size = at = 0
    while at < len(text) and size <= BYTES_A_TIME:
        begin, at = at, text.index(b"\n", at) + 1
        told = scan_line(text, begin)
        if told is not None and told[1] in COUNTS and told[2] in wanted:
            lines.append(cut(text[begin:at]))
            size += len(lines[-1])
    return lines, first + at


def cut(line: bytes) -> bytes:
    """The line as it is sent to a client: without its line end and, if it is long, without its command."""
    return line[:-1] if len(line) <= LONGEST_WITH_COMMAND else without_command(line)


def without_command(line: bytes) -> bytes:
    """The line without its last field and its line end."""
    return b"\t".join(line.rstrip(b"\n").split(b"\t", _FIELDS)[:_FIELDS])


def parse_told(line: bytes) -> Record | None:
    """Parse a line as it is sent; its command is empty if it was sent without."""
    return parse_line(line if line.count(b"\t") >= _FIELDS else line + b"\t")
