"""Tasks that `dbutil submit` hands in to a run whose tasks come from a program: among the lines of that."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.model.taskfile import TaskParser
from disbatch.sources.items import ItemQueue
from disbatch.sources.submitted import Batch, count, refuse_line_end

MOST_BYTES = 64 << 20
"""Of lines that wait to be run."""


class Beside:
    """Puts lines into the queue of the program's, before those that are not parsed yet, so that their ids are
    known at once. What PREFIX and SUFFIX say there does not hold here, and the other way round."""

    def __init__(self) -> None:
        self._parser = TaskParser("")
        self._lines = 0
        self._waiting = 0

    def add(self, queue: ItemQueue, lines: list[bytes], source: str, number: int) -> Batch:
        """As `sources.submitted.Taking.add`."""
        size = sum(map(len, lines))
        if self._waiting + size > MOST_BYTES:
            raise UsageError(f"{self._waiting >> 20} MiB of tasks wait already; hand in more when some ran")
        parser = copy.copy(self._parser)
        parser.go_on_after(queue.next_id)
        batch = Batch(queue.next_id, [])
        found: list[Iterable[Item]] = []
        for at, line in enumerate(lines):
            refuse_line_end(line, source, number + at)
            before = parser.next_id
            try:
                found.append(parser.parse(self._lines + at + 1, line))
            except TaskFileError as error:
                raise TaskFileError(source, number + at, error.problem) from None
            count(batch.counts, parser.next_id - before)
        self._parser = parser
        self._lines += len(lines)
        self._waiting += size
        queue.insert(self._given(found, size), parser.next_id - batch.first)
        return batch

    def _given(self, found: list[Iterable[Item]], size: int) -> Iterable[Item]:
        for items in found:
            yield from items
        self._waiting -= size
