"""What is read from the source, or was returned, and is not assigned; and what is known of the source."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable

from disbatch.model.task import Barrier, Item, PerEngine, Task
from disbatch.plan.classes import Ready
from disbatch.plan.events import Completed, Recorded

LOOKAHEAD = 64
"""Tasks kept ready beyond the room that the engines have."""
READ_LEAST = LOOKAHEAD // 2
"""Fewest items asked for at once: a reading costs about as much as a dispatch."""
READ_MOST = 4096
"""Most items asked for at once."""
PASSED_MOST = 16 * READ_MOST
"""Most ready tasks that are passed over for others behind them, because they fit nowhere now."""


class Source(enum.Enum):
    """What is known of the task source."""

    FLOWING = enum.auto()
    DRY = enum.auto()
    ENDED = enum.auto()


def plain(item: Item | Completed | Recorded) -> Item:
    """The item of the source itself."""
    if isinstance(item, Completed):
        return item.task
    return item.item if isinstance(item, Recorded) else item


class Backlog:
    """A task is ready when it may be assigned; behind a barrier it stays unread, as far as others see."""

    __slots__ = ("again", "barrier", "read_to", "ready", "source", "unread")

    def __init__(self) -> None:
        self.source = Source.FLOWING
        self.unread: deque[Item | Completed | Recorded] = deque()
        self.barrier: Barrier | None = None
        self.ready = Ready()
        self.again: set[int] = set()
        """Ids of tasks that were assigned and are not now: a late result of an old attempt still counts."""
        self.read_to = 0
        """Ids below this one are read."""

    def add(self, items: list[Item | Completed | Recorded]) -> None:
        """These were read, in order."""
        if self.source is Source.DRY:
            self.source = Source.FLOWING
        self.unread.extend(items)
        for item in map(plain, reversed(items)):
            if not isinstance(item, PerEngine):
                self.read_to = item.id + 1
                break

    def room(self, more: int, *, passed: bool) -> int:
        """How many items it would take from the source now, if the engines take `more`; never just a few, but
        0 or READ_LEAST. `passed`: what is ready does not fit where there is room."""
        if self.barrier is not None or self.source is Source.ENDED:
            return 0
        waiting = self.ready.count
        if passed and waiting < PASSED_MOST:
            waiting = 0
        room = more + LOOKAHEAD - waiting - len(self.unread)
        return min(READ_MOST, room) if room >= READ_LEAST else 0

    @property
    def is_done(self) -> bool:
        """Nothing is left, and no more will come."""
        ended = self.source is Source.ENDED and self.barrier is None
        return ended and not self.ready.count and not self.unread

    def put_back(self, tasks: Iterable[Task]) -> None:
        """These shall be assigned again, before all others."""
        for task in sorted(tasks, key=lambda task: -task.id):
            self.ready.put_back(task)

    def remove(self, task: Task) -> None:
        """A ready task that was assigned before is done without its turn; such tasks stand at the front."""
        self.ready.remove(task)
        self.again.discard(task.id)

    def remove_all(self, ids: set[int]) -> None:
        """These are assigned, or done, without their turn: looks at all that is ready, once."""
        self.ready.remove_all(ids)
        self.again -= ids

    def unread_tasks(self) -> set[int]:
        """Ids of tasks behind the barrier."""
        return {item.id for item in map(plain, self.unread) if isinstance(item, Task)}

    def items(self) -> Iterable[Task | Barrier]:
        """All that waits here and has an id of its own."""
        yield from self.ready
        for item in map(plain, self.unread):
            if not isinstance(item, PerEngine):
                yield item
        if self.barrier is not None:
            yield self.barrier

    def clear(self) -> None:
        """Nothing of this will run."""
        self.ready.clear()
        self.unread.clear()
        self.barrier = None
