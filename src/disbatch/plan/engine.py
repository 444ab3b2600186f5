"""One engine as the plan knows it, and the rotation of the engines that have room.

What the plan knows of one engine: its room, what it has, and where it stands in its life.

    STARTING --START commands done--> ACTIVE --no more work, or drained--> STOPPING --STOP done--> LEAVING
        any of them --not heard--> LOST --heard again--> STARTING, ACTIVE, or STOPPING if it was
                                                             to leave already

An ACTIVE engine that was told to drain is DRAINING until it has nothing; then it is STOPPING. One that was
told to stop is drained, too, and what it has is ended.

Engines that can take a task, in rotation.

Those of a context have their turns one after the other, then come those of the next context: each engine has
one turn a round. So a context that may take no more is passed over, and comes back, at once, however many
engines it has.

Which engines can take a task next, in rotation, and how many tasks there is room for in all.

Kept up to date engine by engine (`touch`), so that an event costs no more with ten thousand engines than with
two. A context may have a limit: once as many of its tasks are assigned or done, its engines take no more, and
when that many are done it is spent. What changes for all engines of a context then is not looked for among
them: it is known by context.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice

from disbatch.model.task import Outcome, PerEngine, Phase, Task

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


class Turns:
    """An engine that is added comes last in its context. It is the turn of the first engine of the first
    context in `open`. Only this class changes which engines there are."""

    __slots__ = ("_closed", "_left", "_whose", "contexts", "open")

    def __init__(self) -> None:
        self.contexts: defaultdict[str, OrderedDict[str, Engine]] = defaultdict(OrderedDict)
        """All of them."""
        self.open: OrderedDict[str, OrderedDict[str, Engine]] = OrderedDict()
        """Those of contexts that are not closed; no context without engines."""
        self._closed: set[str] = set()
        self._whose = ""
        """The context whose engines have their turns."""
        self._left = 0
        """How many of these turns are left."""

    def __iter__(self) -> Iterator[Engine]:
        for engines in self.open.values():
            yield from engines.values()

    def took(self, context: str) -> None:
        """An engine of that context has had its turn, and others wait for theirs."""
        if context != self._whose or not self._left:
            self._whose, self._left = context, len(self.contexts[context])
        self._left -= 1
        if not self._left and context in self.open:
            self.open.move_to_end(context)

    def add(self, engine: Engine) -> None:
        """It can take a task from now on."""
        context = engine.context
        engines = self.contexts[context]
        engines[engine.id] = engine
        if context not in self._closed:
            self.open[context] = engines

    def remove(self, engine: Engine) -> None:
        """It cannot take a task any more."""
        engines = self.contexts[engine.context]
        del engines[engine.id]
        if not engines:
            self.open.pop(engine.context, None)

    def close(self, context: str) -> None:
        """Its engines may take nothing."""
        self._closed.add(context)
        self.open.pop(context, None)

    def reopen(self, context: str) -> None:
        """They may again."""
        self._closed.discard(context)
        if self.contexts[context]:
            self.open[context] = self.contexts[context]


RESTING = (State.ACTIVE, State.DRAINING)


class Rotation:
    """`limits`: how many tasks a context may complete, by context."""

    __slots__ = ("_rooms", "budget", "going", "idle", "limits", "open", "queued", "resting", "room")

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.idle = Turns()
        """Engines with idle slots."""
        self.open = Turns()
        """Engines with any room, in slots or in the queue."""
        self.queued: OrderedDict[str, Engine] = OrderedDict()
        """Engines with something in their queue that may be asked for."""
        self.resting: OrderedDict[str, Engine] = OrderedDict()
        """Engines that have nothing and are asked for nothing: these may leave."""
        self.going: OrderedDict[str, Engine] = OrderedDict()
        """Those of them that shall leave, or whose context's limit is spent."""
        self.room = 0
        """How many tasks could be assigned now to contexts that may take any."""
        self._rooms: dict[str, int] = {}
        """How many there is room for in each context that has a limit, whether it may take any or not."""
        self.limits: dict[str, int] = {}
        """How many more tasks these contexts may complete."""
        self.budget: dict[str, int] = {}
        """How many more tasks they may be assigned."""
        for context, tasks in limits.items():
            self.limit(context, tasks)

    def limit(self, context: str, tasks: int) -> None:
        """That context may complete so many more tasks."""
        taken = self.limits.get(context, tasks) - self.budget.get(context, tasks)
        was_spent = self.is_spent(context)
        if context not in self._rooms:
            self._rooms[context] = sum(engine.room for engine in self.open.contexts[context].values())
        self.limits[context] = tasks
        self._allow(context, tasks - taken)
        if was_spent is not self.is_spent(context):
            self._touch_idle(context)

    def may_take(self, context: str) -> bool:
        """Its limit, if it has one, allows another task."""
        return self.budget.get(context, 1) > 0

    def is_spent(self, context: str) -> bool:
        """It had a limit, and has completed so many tasks."""
        return self.limits.get(context, 1) <= 0

    def count(self, context: str) -> None:
        """A task of that context is completed."""
        if context in self.limits:
            self.limits[context] -= 1
            if self.limits[context] == 0:
                self._touch_idle(context)

    def _touch_idle(self, context: str) -> None:
        """Those of its engines that have nothing shall leave, or need not after all."""
        for engine in list(self.idle.contexts[context].values()):
            self.touch(engine)

    def spend(self, engine: Engine, count: int) -> None:
        """`count` more tasks of the engine's context are assigned (or, negative, are not after all)."""
        if count and engine.context in self.budget:
            self._allow(engine.context, self.budget[engine.context] - count)

    def _allow(self, context: str, tasks: int) -> None:
        """It may be assigned so many more tasks."""
        before = self.may_take(context)
        self.budget[context] = tasks
        after = self.may_take(context)
        if before is not after:
            for turns in (self.idle, self.open):
                (turns.reopen if after else turns.close)(context)
            self.room += self._rooms[context] if after else -self._rooms[context]

    def touch(self, engine: Engine) -> None:
        """The engine changed: put it where it belongs."""
        name, context, busy = engine.id, engine.context, engine.busy
        active = engine.state is State.ACTIVE
        room = max(0, engine.slots + engine.depth - busy) if active else 0
        if more := room - engine.room:
            engine.room = room
            if context in self._rooms:
                self._rooms[context] += more
            if self.may_take(context):
                self.room += more
        vacant, takes, idle, open = active and busy < engine.slots, room > 0, self.idle, self.open
        if vacant is not (name in idle.contexts[context]):
            (idle.add if vacant else idle.remove)(engine)
        if takes is not (name in open.contexts[context]):
            (open.add if takes else open.remove)(engine)
        resting = not busy and not engine.per_engine and engine.state in RESTING
        for pool, member in (
            (self.queued, busy > engine.slots and not engine.recalling and engine.queued > 0),
            (self.resting, resting),
            (self.going, resting and (engine.draining or self.is_spent(context))),
        ):
            if member is not (name in pool):
                if member:
                    pool[name] = engine
                else:
                    del pool[name]

    def move(self, engine: Engine, state: State) -> None:
        """The engine stands there now."""
        engine.state = state
        self.touch(engine)
