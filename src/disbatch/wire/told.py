"""Finds the lines of a status file that tell how certain tasks ended, a piece of the file at a time."""

from __future__ import annotations

import os

from disbatch.model.status import Mark, Record, parse_line, scan_line
from disbatch.plan.ids import IdSet

BYTES_A_TIME = 1 << 19
"""Of lines that are told at once, but for the last one."""
LONGEST_LINE = 1 << 14
"""Bytes of a line that is told with its command."""
BLOCK = 1 << 20
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
        more = os.pread(status, min(BLOCK, before - after - len(text)), after + len(text))
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
    return line[:-1] if len(line) <= LONGEST_LINE else without_command(line)


def without_command(line: bytes) -> bytes:
    """The line without its last field, and without its end."""
    return b"\t".join(line.rstrip(b"\n").split(b"\t", _FIELDS)[:_FIELDS])


def parse_told(line: bytes) -> Record | None:
    """The record in a line as it is told; its command is empty if it was told without."""
    return parse_line(line if line.count(b"\t") >= _FIELDS else line + b"\t")
