"""What the plan knows of one engine: its room, what it has, and where it stands in its life.

    STARTING --START commands done--> ACTIVE --no more work, or drained--> STOPPING --STOP done--> LEAVING
        any of them --not heard--> LOST --heard again--> STARTING, ACTIVE, or STOPPING if it was
                                                             to leave already

An ACTIVE engine that was told to drain is DRAINING until it has nothing; then it is STOPPING. One that was
told to stop is drained, too, and what it has is ended.
"""

from __future__ import annotations

import enum
from itertools import islice

from disbatch.model.outcome import Outcome
from disbatch.model.task import PerEngine, Phase, Task

QUEUE_SECONDS = 0.25
"""An engine's queue holds about this much work, so that it never waits for the driver's next message."""
QUEUE_TASK_LIMIT = 1.0
"""Seconds: tasks that take longer on average are not queued at all; the wait between two is nothing then."""
QUEUE_MOST = 512
"""The deepest queue of one engine, tasks."""
SMOOTHING = 0.3
"""Weight of the newest batch in the running mean of task times."""


class State(enum.Enum):
    """Where an engine stands."""

    STARTING = enum.auto()
    ACTIVE = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()
    LEAVING = enum.auto()
    LOST = enum.auto()


class Engine:
    """One engine. `assigned` holds its attempts in the order it starts them: the first `slots` of them run,
    the others wait in its queue."""

    __slots__ = (
        "adrift",
        "assigned",
        "at_once",
        "claims",
        "commands",
        "context",
        "depth",
        "draining",
        "id",
        "kept",
        "mean",
        "per_engine",
        "recalling",
        "retired",
        "room",
        "slots",
        "state",
        "stopped",
        "stops_given",
    )

    def __init__(self, name: str, slots: int, context: str) -> None:
        self.id = name
        self.slots = slots
        self.context = context
        self.state = State.STARTING
        self.assigned: dict[int, Task] = {}
        self.per_engine: dict[int, PerEngine] = {}
        self.adrift: dict[int, Task | None] = {}
        """What it had when it was lost: it may come back with the results. Once it is back, what of that it
        was told to end and has not answered for; None stands for a task that is done."""
        self.claims: dict[int, int] = {}
        """What it has from a former driver and has not ended: ids of tasks that are not read again yet."""
        self.commands: dict[tuple[Phase, int], int | Outcome | None] = {}
        """PERENGINE commands that it has from a former driver, until they are read again: the attempt, or how
        that ended since, or None if that is recorded."""
        self.kept = 0
        """Results that wait for their tasks to be read again."""
        self.stops_given: set[int] = set()
        """STOP commands that a former driver had it run."""
        self.draining = False
        """It shall leave as soon as it has nothing."""
        self.stopped = False
        """What it has shall be ended, too."""
        self.at_once = False
        """... without grace, and it runs no STOP commands."""
        self.retired = False
        """It was given its STOP commands (or needs none): when they are done it leaves."""
        self.recalling = 0
        """Attempts that it was asked to give back; 0 when it has answered."""
        self.room = 0
        """How much of the plan's total room is its own."""
        self.mean: float | None = None
        self.depth = 0

    @property
    def busy(self) -> int:
        """What is in its slots or waits for one; what it was told to end takes a slot until it has ended."""
        return len(self.assigned) + len(self.adrift) + len(self.claims)

    @property
    def queued(self) -> int:
        """Assigned tasks that wait in its queue."""
        return max(0, min(self.busy - self.slots, len(self.assigned)))

    def newest(self, count: int) -> list[int]:
        """The `count` attempts that it would start last, in the order it would start them."""
        return list(islice(reversed(self.assigned), count))[::-1]

    def learn(self, elapsed: float) -> None:
        """Task times as they come in (mean seconds of a batch) decide how deep the queue is."""
        mean = self.mean
        mean = elapsed if mean is None else mean + SMOOTHING * (elapsed - mean)
        self.mean = mean
        if mean > QUEUE_TASK_LIMIT:
            self.depth = 0
        else:
            self.depth = min(QUEUE_MOST, int(self.slots * QUEUE_SECONDS / max(mean, 1e-4)) + 1)
