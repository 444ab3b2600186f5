"""Cut bytes that come in pieces into numbered lines."""

from __future__ import annotations

from disbatch.model.taskfile import MAX_COMMAND

# A line may be one longer than MAX_COMMAND while its last byte may still turn out to be the CR of a CRLF.
_MOST = MAX_COMMAND + 1


class LineSplitter:
    """Feed it bytes, get lines without their LF or CRLF; what has no end yet is kept for the next piece.

    Holds at most a line. One that is longer than MAX_COMMAND comes out cut, yet longer than MAX_COMMAND, so
    that the parser refuses it in its turn, after the good lines before it; what follows is of no use then.
    """

    def __init__(self) -> None:
        self._number = 1
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def number(self) -> int:
        """The number of the line that comes next."""
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
        """The last line, if it has no line end; call it once, at the end."""
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
