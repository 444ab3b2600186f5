"""Read a status file: blocks of whole lines, single lines again by offset, and the lines of certain tasks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from disbatch.model.errors import UsageError
from disbatch.model.idset import IdSet
from disbatch.model.statusline import Mark, Record, parse_line, scan_line
from disbatch.model.taskfile import MAX_COMMAND
from disbatch.model.text import valid
from disbatch.rundir.lock import is_held

BLOCK = 1 << 16


LONGEST_LINE = 6 * MAX_COMMAND + (1 << 16)
r"""The longest status line in bytes: a byte of the command may be written as \udcNN."""


class OpenStatusFile:
    """A status file that the user named, open for reading; to be closed. Raises `error`, with a word on what
    needs it (`purpose`), if it cannot be read."""

    def __init__(self, path: str, purpose: str, error: type[UsageError] = UsageError) -> None:
        self.path = path
        self._error = error
        try:
            # Without O_NONBLOCK, opening a named pipe would block.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as cause:
            raise self._unreadable(cause) from cause
        self.status = os.fstat(self.descriptor)
        if not stat.S_ISREG(self.status.st_mode):
            self.close()
            kind = "a directory" if stat.S_ISDIR(self.status.st_mode) else "not a regular file"
            raise error(f"{path}: is {kind}; {purpose}")

    def close(self) -> None:
        """No line can be read any more."""
        os.close(self.descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, or fewer at the end of the file."""
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as cause:
            raise self._unreadable(cause) from cause

    def _unreadable(self, cause: OSError) -> UsageError:
        return self._error(f"{self.path}: cannot be read: {(cause.strerror or str(cause)).lower()}")


class Source(OpenStatusFile):
    """A status file of a report; `name` is its path as valid text. `torn` is known at the end of `blocks`."""

    def __init__(self, path: str, run: int) -> None:
        super().__init__(path, "a report needs a status file")
        self.name = valid(path)
        self.run = run
        self.torn = False
        self.identity = (self.status.st_dev, self.status.st_ino)
        self.live = is_held(self.descriptor)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, 64 kB at a time, and the offset of each block."""
        at = 0
        rest = b""
        while data := self.read(at + len(rest), BLOCK):
            text = rest + data if rest else data
            done = text.rfind(b"\n") + 1
            if done:
                yield at, text[:done]
            elif len(text) > LONGEST_LINE:
                raise not_status(self.path, "a line of it never ends")
            at += done
            rest = text[done:]
        self.torn = bool(rest)

    def record(self, offset: int, size: int, number: int) -> Record | None:
        """A line of a block, counted from 0, read again; None if the file has changed."""
        lines = self.read(offset, size).split(b"\n")
        return parse_line(lines[number]) if number < len(lines) else None


def not_status(path: str, why: str) -> UsageError:
    """A file that is none."""
    return UsageError(f"{path}: is not a status file: {why}")


BYTES_A_TIME = 1 << 19
"""Of lines that are told at once, but for the last one."""
LONGEST_WITH_COMMAND = 1 << 14
"""Bytes of a line that is told with its command."""
SCAN_BLOCK = 1 << 20
"""Bytes of the file that are looked at at a time."""
COUNTS = (Mark.TASK, Mark.SKIPPED, Mark.BARRIER)
"""Marks of lines that tell how a task or barrier ended."""
_FIELDS = 14
"""Those before the command."""


def look_through(status: int, after: int, before: int, wanted: IdSet) -> tuple[list[bytes], int]:
    """The lines of the file that tell how these tasks ended, in a piece of it that begins at byte `after` and
    ends at `before` or earlier; and where that is. OSError."""
    text = b""
    while after + len(text) < before and b"\n" not in text:
        more = os.pread(status, min(SCAN_BLOCK, before - after - len(text)), after + len(text))
        if not more:
            return [], before  # somebody has made it shorter
        text += more
    lines: list[bytes] = []
    size = at = 0
    end = text.rfind(b"\n") + 1
    while at < end and size <= BYTES_A_TIME:
        begin, at = at, text.index(b"\n", at) + 1
        told = scan_line(text, begin)
        if told is not None and told[1] in COUNTS and told[2] in wanted:
            lines.append(cut(text[begin:at]))
            size += len(lines[-1])
    return lines, after + at if end else before


def cut(line: bytes) -> bytes:
    """The line as it is told: without its end and, if it is very long, without its command."""
    return line[:-1] if len(line) <= LONGEST_WITH_COMMAND else without_command(line)


def without_command(line: bytes) -> bytes:
    """The line without its last field, and without its end."""
    return b"\t".join(line.rstrip(b"\n").split(b"\t", _FIELDS)[:_FIELDS])


def parse_told(line: bytes) -> Record | None:
    """The record in a line as it is told; its command is empty if it was told without."""
    return parse_line(line if line.count(b"\t") >= _FIELDS else line + b"\t")
