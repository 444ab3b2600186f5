"""Terminals and standard streams: width and properties, and streams that survive a closed terminal or pipe.

A terminal that is closed, or a pipe that nobody reads, must not end the run.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def columns_of(stream: TextIO) -> int:
    """The width of the terminal; 0 if it is none, or does not report it."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor as far as possible, and drops the rest."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        view = memoryview(data)
        rest = view
        with suppress(OSError):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        return len(view)


def lasting(stream: TextIO) -> TextIO:
    """A replacement for `stream` to which no write fails. `stream` itself if it has no descriptor."""
    try:
        raw = _Descriptor(stream.fileno())
    except (OSError, ValueError):
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )
