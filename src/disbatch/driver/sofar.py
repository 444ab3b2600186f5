"""What a run has recorded so far, for a driver that takes it over: its status file is theirs together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from disbatch.driver.former import Former
from disbatch.driver.runfile import Place
from disbatch.model.outcome import LOST_RETURN_CODE
from disbatch.model.status import Mark, Record, mark_of, node_field
from disbatch.model.task import Barrier, Item, Task
from disbatch.plan.events import Recorded

_BLOCK = 1 << 16
_PAST_CODE = 7
"""Index of the field behind the return code."""
_LOST = b"%d" % LOST_RETURN_CODE


class Line(NamedTuple):
    """A line of the run: in its status file, or (`written` False) in a file that an engine left, which no
    driver had answered."""

    record: Record
    written: bool


class SoFar:
    """Tells of each task and barrier whether the run is done with it."""

    def __init__(self, former: Former) -> None:
        self._former = former

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

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._former.close()


def completed(status: Path, places: Mapping[str, Place]) -> dict[str, int]:
    """How many tasks each of these contexts has completed: those that its nodes did while it was there. If
    another context has the same node at the same time, its tasks count for both. OSError."""
    counts = dict.fromkeys(places, 0)
    by_node: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for context, place in places.items():
        for node in place.nodes:
            by_node[node_field(node).encode()].append((context, place.begin))
    if not by_node:
        return counts
    at = 0
    with status.open("rb") as file:
        for line in file:
            fields = line.split(b"\t", _PAST_CODE)
            if len(fields) > _PAST_CODE and fields[4] in by_node and _counts(fields):
                for context, begin in by_node[fields[4]]:
                    counts[context] += at >= begin
            at += len(line)
    return counts


def _counts(fields: list[bytes]) -> bool:
    """It ran, and was not given up."""
    return mark_of(fields[0]) is Mark.TASK and fields[5] != b"0" and fields[6] != _LOST


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
