"""One file that an attempt writes: made by it alone, closed when descriptors are scarce, and found again."""

from __future__ import annotations

import os

from disbatch.model.output import left_out
from disbatch.wire.ownfile import open_own


class Replaced(OSError):
    """What is at the file's path now is another file: a later attempt's, or nothing."""


class Sheet:
    """A new file at `path`; OSError if there is one, or it cannot be made. `aside`: it is not the plain one.
    `reached` is how far in its stream it goes."""

    __slots__ = ("_descriptor", "_identity", "_size", "aside", "path", "reached")

    def __init__(self, path: bytes, *, aside: bool) -> None:
        self.path = path
        self.aside = aside
        self.reached = 0
        self._size = 0
        self._descriptor = _create(path)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_dev, status.st_ino)

    @property
    def is_open(self) -> bool:
        """True if it holds a descriptor."""
        return self._descriptor >= 0

    def open(self) -> None:
        """Open it again. Replaced if that is not the one that was closed: it has the same identity, and all
        that was written to it."""
        descriptor = open_own(self.path, os.O_WRONLY | os.O_APPEND)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != self._identity or status.st_size != self._size:
            os.close(descriptor)
            raise Replaced
        self._descriptor = descriptor

    def put(self, position: int, data: bytes) -> None:
        """Append `data`, which stands at `position` of the stream; a gap before it is told of. OSError, with
        `reached` telling how much is there."""
        if position > self.reached:
            gap = left_out(position - self.reached)
            while gap:
                gap = gap[self._write(gap) :]
            self.reached = position
        rest = memoryview(data)
        while rest:
            written = self._write(rest)
            self.reached += written
            rest = rest[written:]

    def _write(self, data: bytes | memoryview) -> int:
        written = os.write(self._descriptor, data)
        self._size += written
        return written

    def date(self, seconds: float) -> None:
        """Make this its time, as a status line would have it: with microseconds."""
        when = round(seconds * 1e6) * 1000
        os.utime(self.path, ns=(when, when), follow_symlinks=False)

    def close(self) -> None:
        """Let the descriptor go. OSError if the system finds only now that something was not written."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """Remove it, as nothing could be written to it."""
        self.close()
        os.unlink(self.path)  # noqa: PTH108 - bytes


def _create(path: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        return os.open(path, flags, 0o666)
