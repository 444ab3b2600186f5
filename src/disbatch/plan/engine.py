"""One engine as the plan knows it: its state, its capacity and its attempts.

    STARTING --START commands done--> ACTIVE --no more tasks, or drained--> STOPPING --STOP done--> LEAVING
        any of them --silent--> LOST --heard again--> STARTING, ACTIVE, or STOPPING if it was to leave

An ACTIVE engine that is drained is DRAINING until it has no attempts; then it is STOPPING. An engine that is
stopped is drained, too, and its attempts are ended.

An attempt is `running` if the engine has capacity for it, else it is `queued`; the engine starts queued
attempts in order. Attempts that it was told to end (`adrift`), and those of a former driver (`claims`), take
capacity until they have ended.
"""

from __future__ import annotations

import enum
from itertools import islice

from disbatch.model.task import NO_DEMAND, Demand, Outcome, PerEngine, Phase, Task
from disbatch.plan.capacity import Capacity

QUEUE_SECONDS = 0.25
"""Seconds of work in an engine's queue, so that it need not wait for the driver's next message."""
QUEUE_TASK_LIMIT = 1.0
"""Tasks that take longer than so many seconds on average are not queued: waiting for the next one costs
nothing then."""
QUEUE_MOST = 512
"""The most tasks in the queue of one engine."""
SMOOTHING = 0.3
"""The weight of the newest batch in the running mean of task times."""


class State(enum.Enum):
    """The state of an engine."""

    STARTING = enum.auto()
    ACTIVE = enum.auto()
    DRAINING = enum.auto()
    STOPPING = enum.auto()
    LEAVING = enum.auto()
    LOST = enum.auto()


class Engine:
    """One engine. Its capacity follows from `running`, `adrift` and `claims`, which only its own methods and
    `dispatch` change."""

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
        """Attempts for which it has capacity."""
        self.queued: dict[int, Task] = {}
        """Attempts that wait for capacity, in the order in which they will start."""
        self.per_engine: dict[int, PerEngine] = {}
        self.adrift: dict[int, Task | None] = {}
        """Attempts that it had when it was lost: it may return with their results. After its return, those
        that it was told to end and has not reported. None: a task that is done."""
        self.claims: dict[int, int] = {}
        """Attempts of a former driver that have not ended, with the ids of tasks that are not read again
        yet."""
        self.commands: dict[tuple[Phase, int], int | Outcome | None] = {}
        """PERENGINE commands of a former driver that are not read again yet: the attempt; its outcome, if it
        has ended since; or None, if that is recorded."""
        self.kept = 0
        """The number of results that wait until their tasks are read again."""
        self.stops_given: set[int] = set()
        """STOP commands that a former driver sent to it."""
        self.draining = False
        """It is to leave as soon as it has no attempts."""
        self.stopped = False
        """Its attempts are to be ended, too."""
        self.at_once = False
        """... without the grace period, and it runs no STOP commands."""
        self.retired = False
        """It has got its STOP commands, or needs none, and leaves when they are done."""
        self.recalling = 0
        """The number of attempts that it was asked to return; 0 when it has answered."""
        self.mean: float | None = None
        self.depth = 0
        """The most tasks in its queue."""
        # As `Rotation.touch` found it last:
        self.place = 0
        """Its places in the rotation: IDLE, QUEUEING, both or neither."""
        self.room = 0
        """Its share of the plan's total room."""
        self.resting = False
        """It has no attempts."""
        self.recallable: Demand | None = None
        """The demand of the newest task in its queue, if that may be recalled."""

    @property
    def occupied(self) -> int:
        """The number of attempts that take capacity."""
        return len(self.running) + len(self.adrift) + len(self.claims)

    @property
    def busy(self) -> int:
        """The number of its attempts."""
        return self.occupied + len(self.queued)

    @property
    def assigned(self) -> dict[int, Task]:
        """Its valid attempts."""
        return self.running | self.queued

    def holds_tasks(self) -> bool:
        """True if it has valid attempts, or may have some."""
        return bool(self.running or self.queued or self.claims)

    @property
    def queue_room(self) -> int:
        """The number of tasks that its queue still takes; attempts beyond its capacity count as queued."""
        capacity = self.capacity
        return self.depth - len(self.queued) + min(0, capacity.free // capacity.slot)

    def newest(self, count: int) -> list[int]:
        """The last `count` attempts in its queue, in order."""
        return list(islice(reversed(self.queued), count))[::-1]

    def pop(self, attempt: int) -> Task | None:
        """Remove this valid attempt, and return its task; None if there is no such attempt."""
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
        """Start queued attempts, in order, as far as there is capacity."""
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
        """Add a valid attempt of a former driver, or of the time before it was lost. Older ones start
        first."""
        last = next(reversed(self.queued), 0)
        self.queued[attempt] = task
        for newer in [each for each in self.running if each > attempt]:
            last = newer
            self.queued[newer] = self.running.pop(newer)
            self.capacity.give(self.queued[newer].demand)
        if attempt < last:
            self.queued = dict(sorted(self.queued.items()))

    def claim(self, attempt: int, id: int) -> None:
        """Add an attempt of that task, which is not read again yet."""
        self.claims[attempt] = id
        self.capacity.take(NO_DEMAND)

    def pop_claim(self, attempt: int) -> int | None:
        """Remove this claim, and return the id of its task; None if there is no such claim."""
        id = self.claims.pop(attempt, None)
        if id is not None:
            self.capacity.give(NO_DEMAND)
        return id

    def set_adrift(self, attempt: int, task: Task | None) -> None:
        """Add an attempt that is not valid, until the engine has reported it."""
        self.adrift[attempt] = task
        self.capacity.take(NO_DEMAND if task is None else task.demand)

    def pop_adrift(self, attempt: int) -> Task | None:
        """Remove an attempt that is not valid, and return its task; None if that is done, or if there is no
        such attempt."""
        if attempt not in self.adrift:
            return None
        task = self.adrift.pop(attempt)
        self.capacity.give(NO_DEMAND if task is None else task.demand)
        return task

    def lose(self) -> tuple[list[Task], list[Task]]:
        """Set all its attempts adrift. Returns its running and its queued tasks."""
        running, queued = self.running, self.queued
        self.adrift |= running | queued
        self.running, self.queued = {}, {}
        self._recount()
        return list(running.values()), list(queued.values())

    def take_adrift(self) -> dict[int, Task | None]:
        """Remove and return the attempts that are adrift."""
        adrift, self.adrift = self.adrift, {}
        self._recount()
        return adrift

    def _recount(self) -> None:
        """Allot the capacity anew; nothing is running."""
        self.capacity.clear()
        for task in [*self.adrift.values(), *[None] * len(self.claims)]:
            self.capacity.take(NO_DEMAND if task is None else task.demand)

    def learn(self, elapsed: float) -> None:
        """Adapt the depth of the queue to the mean task time of a batch (seconds)."""
        mean = self.mean
        mean = elapsed if mean is None else mean + SMOOTHING * (elapsed - mean)
        self.mean = mean
        if mean > QUEUE_TASK_LIMIT:
            self.depth = 0
        else:
            self.depth = min(QUEUE_MOST, int(self.slots * QUEUE_SECONDS / max(mean, 1e-4)) + 1)
