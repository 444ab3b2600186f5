"""The part of a task's stream that is kept: collected from the pipe, and cut to the limit."""

from __future__ import annotations

from typing import Protocol

from disbatch.engine.capture import Capture
from disbatch.model.pack import Piece


class Sink(Protocol):
    """Where kept output goes, as `engine.output.Output`: `head` bytes of a stream's beginning, `tail` of its
    end."""

    head: int
    tail: int

    def collected(self, capture: KeptCapture) -> None:
        """The capture holds new output to keep."""

    def is_full(self, capture: KeptCapture) -> bool:
        """True while nothing more should be read."""


class KeptCapture(Capture):
    """Also collects what is to be kept: the beginning, and, of a stream beyond its limit, the end."""

    __slots__ = ("_output", "attempt", "kept", "parts", "pending", "size", "stream", "tail", "task")

    def __init__(self, output: Sink, task: int, attempt: int, stream: int) -> None:
        super().__init__(-1)
        self._output = output
        self.task = task
        self.attempt = attempt
        self.stream = stream
        self.parts: list[bytes] = []
        self.size = 0
        """Bytes in `parts`."""
        self.kept = 0
        """Bytes of the stream that were passed on; `parts` follow them."""
        self.pending = 0
        """Bytes passed on and not yet written."""
        self.tail = b""

    @property
    def full(self) -> bool:
        """True while nothing more should be read."""
        return self._output.is_full(self)

    def feed(self, data: bytes) -> None:
        """Count `data`, and keep it."""
        room = self._output.head - self.count
        super().feed(data)
        if room > 0:
            if len(data) > room:
                self._cut(data[room:])
                data = data[:room]
            self.parts.append(data)
            self.size += len(data)
            self._output.collected(self)
        else:
            self._cut(data)

    def _cut(self, data: bytes) -> None:
        """Data beyond the limit of the beginning: keep only the end of it."""
        most = self._output.tail
        self.tail = data[-most:] if len(data) >= most else (self.tail + data)[-most:]

    def take(self) -> Piece:
        """All parts, as one piece."""
        data = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        piece = Piece(self.task, self.attempt, self.stream, self.kept, data)
        self.kept += len(data)
        self.parts, self.size = [], 0
        return piece

    def last(self) -> Piece | None:
        """The end of a finished stream that exceeded its limit."""
        if not self.tail:
            return None
        return Piece(self.task, self.attempt, self.stream, self.count - len(self.tail), self.tail)
