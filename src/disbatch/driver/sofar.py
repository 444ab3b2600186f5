"""What a run has recorded so far, for a driver that takes it over: its status file is theirs together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from disbatch.driver.former import Former
from disbatch.driver.told import Told
from disbatch.model.snippet import unquoted
from disbatch.model.status import Mark, Record
from disbatch.model.task import Barrier, Item, Task
from disbatch.plan.events import Recorded
from disbatch.plan.ids import IdSet


class Line(NamedTuple):
    """A line of the run: in its status file, or (`written` False) in a file that an engine left, which no
    driver had answered."""

    record: Record
    written: bool


class SoFar:
    """Tells of each task and barrier whether the run is done with it. `source`: what messages call the task
    file. `asides`: hashes of the lines that are about neither."""

    def __init__(self, former: Former, source: str) -> None:
        self._former = former
        self.source = source
        self.asides = former.asides

    @classmethod
    def read(cls, status: Path, source: str, *, forced: bool = False) -> SoFar:
        """Read the status file, which this process holds, and what engines left beside it; `forced`: tasks
        were skipped in it whatever their commands. ResumeError."""
        return cls(Former.read([str(status)], source=source, force=forced, whole=True), source)

    @property
    def count(self) -> int:
        """How many tasks and barriers the run is done with."""
        return self._former.count

    def has(self, id: int) -> bool:
        """The run is done with that task or barrier."""
        return self._former.has(id)

    def beyond(self, ids: int) -> list[str]:
        """As `Former.beyond`."""
        return self._former.beyond(ids)

    def verify(self, items: Iterable[Item], ids: int) -> list[str]:
        """As `Former.verify`."""
        return self._former.verify(items, ids)

    def look_beside(self) -> None:
        """Engines may have left more beside the status file since. ResumeError."""
        self._former.look_beside()

    def counting(self, told: Told) -> dict[str, IdSet]:
        """The tasks that count for the limit of a context, by context: of those that were about to be
        recorded the ones that were; and those whose results engines had to leave beside the status file. By
        the name of its node such an engine is known: where two contexts have one of that name, it counts for
        both."""
        counting = {context: self._ours_of(ids) for context, ids in told.counted.items()}
        contexts: dict[str, set[str]] = {}
        for here in (*told.engines.values(), *told.lost.values()):
            contexts.setdefault(here.name, set()).add(here.context)
        for record in self._former.others():
            for context in contexts.get(record.node, ()):
                if record.mark is Mark.TASK:
                    counting.setdefault(context, IdSet()).add(record.id, record.id)
        return counting

    def _ours_of(self, ids: IdSet) -> IdSet:
        each = (id for first, last in ids for id in range(first, last + 1))
        return IdSet((id, id) for id in each if self._former.is_ours(id))

    def recorded(self, item: Task | Barrier) -> Recorded | None:
        """What there is of that. ResumeError if it is not the same that it was."""
        found = self._former.line(item)
        if found is None:
            return None
        record, written = found
        failed = record.failed and record.mark in (Mark.TASK, Mark.SKIPPED)
        return Recorded(item, failed, Line(record, written))

    def tasks_from(self, first: int) -> Iterator[tuple[Task, Record]]:
        """The tasks from that id on that the run is done with."""
        for record in self._former.lines_from(first):
            if record.mark is not Mark.BARRIER:
                command = unquoted(record.command) or record.command
                yield Task(record.id, record.line, record.repeat, command), record

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._former.close()
