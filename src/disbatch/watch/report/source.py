"""One status file, open for reading: blocks of whole lines, and single lines again later."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from disbatch.driver.former import LONGEST_LINE
from disbatch.driver.held import is_held
from disbatch.model.errors import UsageError
from disbatch.model.status import Record, parse_line
from disbatch.model.text import valid

BLOCK = 1 << 16


class Source:
    """A status file; `name` is its path as valid text. `torn` is known at the end of `blocks`. UsageError if
    it cannot be read."""

    def __init__(self, path: str, run: int) -> None:
        self.path = path
        self.name = valid(path)
        self.run = run
        self.torn = False
        try:
            # Without O_NONBLOCK a named pipe would keep us here.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise _unreadable(path, error) from error
        status = os.fstat(self._descriptor)
        self.identity = (status.st_dev, status.st_ino)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise UsageError(f"{path}: is {kind}; a report needs a status file")
        self.live = is_held(self._descriptor)

    def close(self) -> None:
        """No line can be read any more."""
        os.close(self._descriptor)

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Whole lines, 64 kB at a time, and the offset of each block."""
        at = 0
        rest = b""
        while data := self._read(at + len(rest), BLOCK):
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
        lines = self._read(offset, size).split(b"\n")
        return parse_line(lines[number]) if number < len(lines) else None

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error


def not_status(path: str, why: str) -> UsageError:
    """A file that is none."""
    return UsageError(f"{path}: is no status file: {why}")


def _unreadable(path: str, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}")
