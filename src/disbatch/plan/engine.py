"""One engine as the plan knows it: its capacity, the attempts it has, and the state it is in.

    STARTING --START commands done--> ACTIVE --no more work, or drained--> STOPPING --STOP done--> LEAVING
        any of them --not heard--> LOST --heard again--> STARTING, ACTIVE, or STOPPING if it was
                                                             to leave already

An ACTIVE engine that was told to drain is DRAINING until it has nothing; then it is STOPPING. One that was
told to stop is drained, too, and what it has is ended.

An attempt is `running` if the engine has capacity for it, else it is `queued`; the engine starts what is
queued in that order. Attempts that it was told to end (`adrift`), and those of a former driver (`claims`),
take capacity until they have ended.
"""

from __future__ import annotations

import enum
from itertools import islice

from disbatch.model.task import NO_DEMAND, Demand, Outcome, PerEngine, Phase, Task
from disbatch.plan.capacity import Capacity

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
    """One engine. Its capacity follows from `running`, `adrift` and `claims`: only its own methods and
    `dispatch` change these."""

    __slots__ = (
        "adrift", "at_once", "capacity", "claims", "commands", "context", "depth", "draining", "id", "kept",
        "mean", "per_engine", "place", "queued", "recallable", "recalling", "resting", "retired", "room",
        "running", "slots", "state", "stopped", "stops_given",
    )  # fmt: skip

    def __init__(self, name: str, capacity: Capacity, context: str) -> None:
        self.id = name
        self.slots = capacity.slots
        self.context = context
        self.state = State.STARTING
        self.capacity = capacity.unused()
        self.running: dict[int, Task] = {}
        """Attempts that it has capacity for."""
        self.queued: dict[int, Task] = {}
        """Attempts that wait for capacity, in the order in which it starts them."""
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
        self.mean: float | None = None
        self.depth = 0
        """How many tasks its queue may hold."""
        # As `Rotation.touch` found it last:
        self.place = 0
        """Where in the rotation it is: IDLE, QUEUEING, both or neither."""
        self.room = 0
        """How much of the plan's total room is its own."""
        self.resting = False
        """It has nothing."""
        self.recallable: Demand | None = None
        """The demand of the newest task in its queue, if that may be called back."""

    @property
    def occupied(self) -> int:
        """How many attempts take capacity."""
        return len(self.running) + len(self.adrift) + len(self.claims)

    @property
    def busy(self) -> int:
        """How many attempts it has."""
        return self.occupied + len(self.queued)

    @property
    def assigned(self) -> dict[int, Task]:
        """Its valid attempts."""
        return self.running | self.queued

    def holds_tasks(self) -> bool:
        """It has valid attempts, or may have."""
        return bool(self.running or self.queued or self.claims)

    @property
    def queue_room(self) -> int:
        """How many more tasks its queue takes; what it has beyond its capacity counts as queued."""
        capacity = self.capacity
        return self.depth - len(self.queued) + min(0, capacity.free // capacity.slot)

    def newest(self, count: int) -> list[int]:
        """The `count` attempts that it would start last, in the order it would start them."""
        return list(islice(reversed(self.queued), count))[::-1]

    def pop(self, attempt: int) -> Task | None:
        """It does not have this valid attempt any more; None if it has none of that number."""
        if attempt not in self.running:
            return self.queued.pop(attempt, None)
        task = self.running.pop(attempt)
        demand, capacity = task.demand, self.capacity
        if demand is NO_DEMAND:
            capacity.free += capacity.slot
        else:
            capacity.give(demand)
        return task

    def fill(self) -> None:
        """Start what is queued, in order, as far as there is capacity."""
        queued, capacity = self.queued, self.capacity
        while queued:
            attempt = next(iter(queued))
            task = queued[attempt]
            if not capacity.fits(task.demand):
                return
            del queued[attempt]
            capacity.take(task.demand)
            self.running[attempt] = task

    def inherit(self, attempt: int, task: Task) -> None:
        """It has this valid attempt, whatever else it has. Older ones start first."""
        last = next(reversed(self.queued), 0)
        self.queued[attempt] = task
        for newer in [each for each in self.running if each > attempt]:
            last = newer
            self.queued[newer] = self.running.pop(newer)
            self.capacity.give(self.queued[newer].demand)
        if attempt < last:
            self.queued = dict(sorted(self.queued.items()))

    def claim(self, attempt: int, id: int) -> None:
        """It has an attempt at that task, which is not read again yet."""
        self.claims[attempt] = id
        self.capacity.take(NO_DEMAND)

    def pop_claim(self, attempt: int) -> int | None:
        """The id of that attempt's task; None if there is no such claim."""
        id = self.claims.pop(attempt, None)
        if id is not None:
            self.capacity.give(NO_DEMAND)
        return id

    def set_adrift(self, attempt: int, task: Task | None) -> None:
        """It has this attempt, which is not valid, until it has answered for it."""
        self.adrift[attempt] = task
        self.capacity.take(NO_DEMAND if task is None else task.demand)

    def pop_adrift(self, attempt: int) -> Task | None:
        """It has not any more; None if its task is done, or if there is no such attempt."""
        if attempt not in self.adrift:
            return None
        task = self.adrift.pop(attempt)
        self.capacity.give(NO_DEMAND if task is None else task.demand)
        return task

    def lose(self) -> tuple[list[Task], list[Task]]:
        """All that it has is adrift. Returns its running and its queued tasks."""
        running, queued = self.running, self.queued
        self.adrift |= running | queued
        self.running, self.queued = {}, {}
        self._recount()
        return list(running.values()), list(queued.values())

    def take_adrift(self) -> dict[int, Task | None]:
        """Nothing is adrift any more: returns what was."""
        adrift, self.adrift = self.adrift, {}
        self._recount()
        return adrift

    def _recount(self) -> None:
        """When nothing is running here, only this takes capacity."""
        self.capacity.clear()
        for task in [*self.adrift.values(), *[None] * len(self.claims)]:
            self.capacity.take(NO_DEMAND if task is None else task.demand)

    def learn(self, elapsed: float) -> None:
        """Task times as they come in (mean seconds of a batch) decide how deep the queue is."""
        mean = self.mean
        mean = elapsed if mean is None else mean + SMOOTHING * (elapsed - mean)
        self.mean = mean
        if mean > QUEUE_TASK_LIMIT:
            self.depth = 0
        else:
            self.depth = min(QUEUE_MOST, int(self.slots * QUEUE_SECONDS / max(mean, 1e-4)) + 1)
