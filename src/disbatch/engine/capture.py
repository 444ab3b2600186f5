"""Capture a task's stdout or stderr: count its bytes, and keep the first and last of them."""

from __future__ import annotations

import os
from typing import Protocol

from disbatch.model.failure import last_line
from disbatch.model.task import SNIPPET_EDGE, Phase
from disbatch.wire.engine_protocol import Order

READ_SIZE = 65536
READS_WHEN_DRAINING = 32
"""A pipe holds 64 KiB (1 MiB at most unless root configured more): more reads than this mean that a process
is still writing."""


TAIL = 1024
"""Bytes kept of the end: enough for its last line."""


class Capture:
    """Reads one pipe (`descriptor`, not blocking) and keeps its first SNIPPET_EDGE and last TAIL bytes,
    however many come. `ended` is True once every writer has closed it."""

    __slots__ = ("_head", "_tail", "count", "descriptor", "ended")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.count = 0
        self.ended = False
        self._head = b""
        self._tail = b""

    @property
    def full(self) -> bool:
        """True while the pipe should not be read."""
        return False

    def read(self) -> bool:
        """Read once; False if there was nothing to read, now or ever."""
        try:
            data = os.read(self.descriptor, READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.ended = True
            return False
        self.feed(data)
        return True

    def drain(self) -> None:
        """Read everything that is there, without waiting for more."""
        for _ in range(READS_WHEN_DRAINING):
            if not self.read():
                return

    def feed(self, data: bytes) -> None:
        """Count `data`, and keep its part of both ends."""
        self.count += len(data)
        missing = SNIPPET_EDGE - len(self._head)
        if missing > 0:
            self._head += data[:missing]
            data = data[missing:]
        if len(data) >= TAIL:
            self._tail = data[-TAIL:]
        elif data:
            self._tail = (self._tail + data)[-TAIL:]

    def snippet(self) -> bytes:
        """Everything, or both ends with `...` between."""
        between = b"" if self.count <= 2 * SNIPPET_EDGE else b"..."
        return self._head + between + self._tail[-SNIPPET_EDGE:]

    def last_line(self) -> str:
        """As `model.failure.last_line`."""
        if self.count <= SNIPPET_EDGE + TAIL:
            return last_line(self._head + self._tail)
        return last_line(self._tail, cut=True)


class Captures(Protocol):
    """Makes the captures of the tasks' pipes. `full`: no task should be started."""

    @property
    def full(self) -> bool: ...

    def captures(self, order: Order, phase: Phase | None) -> tuple[Capture, Capture]:
        """The captures of stdout and stderr of one attempt; `phase`: of a PERENGINE command."""


class Counting:
    """Keeps only what a status line holds."""

    full = False

    def captures(self, order: Order, phase: Phase | None) -> tuple[Capture, Capture]:
        """As `Captures`."""
        return Capture(-1), Capture(-1)
