"""What a run has recorded so far, for a driver that takes it over: its status file is theirs together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from disbatch.driver.former import Former
from disbatch.model.status import Mark, Record
from disbatch.model.task import Barrier, Item, Task
from disbatch.plan.events import Recorded

_BLOCK = 1 << 16


class Line(NamedTuple):
    """A line of the run: in its status file, or (`written` False) in a file that an engine left, which no
    driver had answered."""

    record: Record
    written: bool


class SoFar:
    """Tells of each task and barrier whether the run is done with it. `asides`: hashes of the lines that are
    about neither."""

    def __init__(self, former: Former) -> None:
        self._former = former
        self.asides = former.asides

    @classmethod
    def read(cls, status: Path, source: str) -> SoFar:
        """Read the status file, which this process holds, and what engines left beside it. ResumeError."""
        return cls(Former.read([str(status)], source=source, whole=True))

    def verify(self, items: Iterable[Item], ids: int) -> list[str]:
        """As `Former.verify`."""
        return self._former.verify(items, ids)

    def recorded(self, item: Task | Barrier) -> Recorded | None:
        """What there is of that. ResumeError if it is not the same that it was."""
        found = self._former.line(item)
        if found is None:
            return None
        record, written = found
        failed = record.failed and record.mark in (Mark.TASK, Mark.SKIPPED)
        return Recorded(item, failed, Line(record, written))

    def count(self, tasks: Iterable[int]) -> int:
        """How many of these ids are recorded."""
        return sum(map(self._former.knows, tasks))

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._former.close()


def cut_torn_line(descriptor: int) -> int:
    """A driver that was killed may have written a part of a line: no engine was told that its result is safe,
    so that part is cut off. Returns the length of the file, bytes. OSError."""
    size = os.fstat(descriptor).st_size
    at = size
    while at > 0:
        begin = max(0, at - _BLOCK)
        found = os.pread(descriptor, at - begin, begin).rfind(b"\n")
        if found >= 0:
            at = begin + found + 1
            break
        at = begin
    if at < size:
        os.ftruncate(descriptor, at)
    return at
