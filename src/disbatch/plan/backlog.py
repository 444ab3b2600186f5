"""Items that were read or returned and are not assigned, and the state of the source."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable

from disbatch.model.task import Barrier, Item, PerEngine, Task
from disbatch.plan.classes import Ready
from disbatch.plan.events import Completed, Recorded

LOOKAHEAD = 64
"""Tasks that are kept ready beyond the room of the engines."""
READ_LEAST = LOOKAHEAD // 2
"""The fewest items that are read at once: reading costs about as much as a dispatch."""
READ_MOST = 4096
"""The most items that are read at once."""
PASSED_MOST = 16 * READ_MOST
"""The most ready tasks beyond which others are read, because the ready ones fit nowhere now."""


class Source(enum.Enum):
    """The state of the task source."""

    FLOWING = enum.auto()
    DRY = enum.auto()
    ENDED = enum.auto()


def plain(item: Item | Completed | Recorded) -> Item:
    """The item of the source itself."""
    if isinstance(item, Completed):
        return item.task
    return item.item if isinstance(item, Recorded) else item


class Backlog:
    """Items that are not assigned. A task is ready when it may be assigned; items behind a barrier stay
    unread."""

    __slots__ = ("again", "barrier", "read_to", "ready", "source", "unread")

    def __init__(self) -> None:
        self.source = Source.FLOWING
        self.unread: deque[Item | Completed | Recorded] = deque()
        self.barrier: Barrier | None = None
        self.ready = Ready()
        self.again: set[int] = set()
        """Ids of ready tasks that were assigned before: a late result of such an attempt counts."""
        self.read_to = 0
        """Ids below this one are read."""

    def add(self, items: list[Item | Completed | Recorded]) -> None:
        """Add items that were read, in order."""
        if self.source is Source.DRY:
            self.source = Source.FLOWING
        self.unread.extend(items)
        for item in map(plain, reversed(items)):
            if not isinstance(item, PerEngine):
                self.read_to = item.id + 1
                break

    def room(self, more: int, *, passed: bool) -> int:
        """The number of items to be read now, if the engines have room for `more`: 0, or READ_LEAST at least.
        `passed`: the ready tasks do not fit where there is room."""
        if self.barrier is not None or self.source is Source.ENDED:
            return 0
        waiting = self.ready.count
        if passed and waiting < PASSED_MOST:
            waiting = 0
        room = more + LOOKAHEAD - waiting - len(self.unread)
        return min(READ_MOST, room) if room >= READ_LEAST else 0

    @property
    def is_done(self) -> bool:
        """True if no items are left, and the source has ended."""
        ended = self.source is Source.ENDED and self.barrier is None
        return ended and not self.ready.count and not self.unread

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Make these tasks ready again, before all others."""
        for task in sorted(tasks, key=lambda task: -task.id):
            self.ready.put_back(task)

    def remove(self, task: Task) -> None:
        """Remove a ready task that is done after all; it was assigned before, so it is near the front."""
        self.ready.remove(task)
        self.again.discard(task.id)

    def remove_all(self, ids: set[int]) -> None:
        """Remove these ready tasks; looks at each ready task once."""
        self.ready.remove_all(ids)
        self.again -= ids

    def unread_tasks(self) -> set[int]:
        """The ids of tasks behind the barrier."""
        return {item.id for item in map(plain, self.unread) if isinstance(item, Task)}

    def items(self) -> Iterable[Task | Barrier]:
        """All tasks and barriers here."""
        yield from self.ready
        for item in map(plain, self.unread):
            if not isinstance(item, PerEngine):
                yield item
        if self.barrier is not None:
            yield self.barrier

    def clear(self) -> None:
        """Remove everything: nothing more will run."""
        self.ready.clear()
        self.unread.clear()
        self.barrier = None
