"""Which engine takes the next task: the engines that have room, in rotation.

Kept up to date engine by engine (`touch`). An engine with room for no ready task is passed over until it
changes, or a class that had no ready tasks has some that fit. So the cost of an event grows with the engines
that it names, and is the same with ten thousand engines, or a thousand classes, as with two.

A context may have a limit: once as many of its tasks are assigned or done, its engines take no more, and when
that many are done it is spent. This is stored once per context, so its engines are not updated one by one.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, islice

from disbatch.model.task import Demand, Task
from disbatch.plan.engine import Engine, State

RESTING = (State.ACTIVE, State.DRAINING)


class Turns:
    """Engines in rotation: the engines of one context, then those of the next, each once in a round. So a
    context is closed and reopened at once, however many engines it has.

    The next engine is the first one of the first context in `open`; an engine that is added comes last in its
    context. `queue`: these engines have room in their queues, for all tasks that fit into their whole
    capacity; otherwise they have free cores."""

    __slots__ = (
        "_changed", "_closed", "_hopeless", "_left", "_queue", "_whose", "contexts", "open", "passed",
    )  # fmt: skip

    def __init__(self, closed: set[str], *, queue: bool) -> None:
        self.contexts: defaultdict[str, OrderedDict[str, Engine]] = defaultdict(OrderedDict)
        """All engines but those in `passed`, by context."""
        self.open: OrderedDict[str, OrderedDict[str, Engine]] = OrderedDict()
        """The same without closed contexts, and without contexts that have no engines."""
        self.passed: dict[str, Engine] = {}
        """Engines that have room, but for no ready task."""
        self._hopeless: list[Demand] = []
        """Demands that fit none of these engines, but perhaps some of `_changed`."""
        self._changed: dict[str, Engine] = {}
        """Engines that got room since."""
        self._closed = closed
        self._queue = queue
        self._whose = ""
        """The context whose engines have their turns now."""
        self._left = 0
        """The number of these turns that are left."""

    def __iter__(self) -> Iterator[Engine]:
        """All engines of contexts that are not closed."""
        yield from chain.from_iterable(engines.values() for engines in self.open.values())
        yield from self._passed_open()

    def _passed_open(self) -> Iterator[Engine]:
        return (engine for engine in self.passed.values() if engine.context not in self._closed)

    def of_context(self, context: str) -> list[Engine]:
        """All engines of that context."""
        passed = (engine for engine in self.passed.values() if engine.context == context)
        return [*self.contexts[context].values(), *passed]

    def end_turn(self, engine: Engine) -> None:
        """The engine has had its turn."""
        context = engine.context
        engines = self.contexts[context]
        engines.move_to_end(engine.id)
        if len(self.open) > 1:
            if context != self._whose or not self._left:
                self._whose, self._left = context, len(engines)
            self._left -= 1
            if not self._left and context in self.open:
                self.open.move_to_end(context)

    def add(self, engine: Engine) -> None:
        """Add an engine that has room."""
        context = engine.context
        engines = self.contexts[context]
        engines[engine.id] = engine
        if len(engines) == 1 and context not in self._closed:
            self.open[context] = engines
        if self._hopeless:
            self._changed[engine.id] = engine

    def remove(self, engine: Engine) -> None:
        """Remove an engine that has no room."""
        self._changed.pop(engine.id, None)
        if self.passed.pop(engine.id, None) is not None:
            return
        engines = self.contexts[engine.context]
        del engines[engine.id]
        if not engines:
            self.open.pop(engine.context, None)

    def _fits(self, engine: Engine, demand: Demand) -> bool:
        return (engine.capacity.holds if self._queue else engine.capacity.fits)(demand)

    def pass_over(self, engine: Engine) -> None:
        """The engine has room for no ready task."""
        if engine.id in self._changed:
            self._check_hopeless(engine)
        self.remove(engine)
        self.passed[engine.id] = engine

    def changed(self, engine: Engine) -> None:
        """The room of the engine has changed."""
        if self.passed.pop(engine.id, None) is not None:
            self.add(engine)
        elif self._hopeless:
            self._changed[engine.id] = engine

    @property
    def remembers(self) -> bool:
        """`changed` has to be called even if the engine keeps its place."""
        return bool(self.passed or self._hopeless)

    def _check_hopeless(self, engine: Engine) -> None:
        self._hopeless = [demand for demand in self._hopeless if not self._fits(engine, demand)]

    def give_up(self, demand: Demand) -> None:
        """This demand, and each one for as much or more, fits none of these engines until one has more
        room."""
        others = [other for other in self._hopeless if not _needs_as_much(other, demand)]
        self._hopeless = [*others, demand][-MOST_HOPELESS:]

    def _is_hopeless(self, demand: Demand) -> bool:
        return any(_needs_as_much(demand, other) for other in self._hopeless)

    def vacancies(self, demand: Demand) -> Iterator[int]:
        """For each engine with room for such tasks, for how many."""
        for engine in self._changed.values():
            self._check_hopeless(engine)
        self._changed.clear()
        if self._is_hopeless(demand):
            return
        none = True
        for engine in self:
            if times := engine.capacity.times(demand):
                none = False
                yield times
        if none:
            self.give_up(demand)

    def reconsider(self, demand: Demand, tasks: Collection[Task]) -> bool:
        """These tasks of a class are ready that had none: return engines that have room for them to the
        rotation. True if there may be others."""
        if not self.passed or self._is_hopeless(demand):
            return False
        fitting = (engine for engine in self._passed_open() if self._fits(engine, demand))
        found = list(islice(fitting, len(tasks)))
        for engine in found:
            self.changed(engine)
        return len(found) == len(tasks)

    def close(self, context: str) -> None:
        """The engines of this context may take no tasks."""
        self.open.pop(context, None)

    def reopen(self, context: str) -> None:
        """The engines of this context may take tasks again."""
        self._hopeless.clear()
        for engine in [engine for engine in self.passed.values() if engine.context == context]:
            self.changed(engine)
        if self.contexts[context]:
            self.open[context] = self.contexts[context]


MOST_HOPELESS = 64
"""Demands of which one list knows that they fit nowhere."""


def _needs_as_much(demand: Demand, other: Demand) -> bool:
    """True if `demand` does not fit where `other` does not."""
    if (demand.cores is None) is not (other.cores is None) or (demand.cores or 0) < (other.cores or 0):
        return False
    needs = dict(demand.resources)
    return all(needs.get(name, 0) >= amount for name, amount in other.resources)


IDLE, QUEUEING = 1, 2


class Rotation:
    """`limits`: how many tasks a context may complete, by context. `engines`: all engines, by name."""

    __slots__ = (
        "_closed", "_engines", "_rooms", "budget", "going", "idle", "limits", "queued", "queueing", "resting",
        "room",
    )  # fmt: skip

    def __init__(self, limits: Mapping[str, int], engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._closed: set[str] = set()
        """Contexts that may take no more tasks."""
        self.idle = Turns(self._closed, queue=False)
        """Engines that can start a task at once: they have free cores, and an empty queue."""
        self.queueing = Turns(self._closed, queue=True)
        """Engines that have room in their queues."""
        self.queued: dict[Demand, OrderedDict[str, Engine]] = {}
        """Engines whose queue can be recalled, by the class of its newest task."""
        self.resting: OrderedDict[str, Engine] = OrderedDict()
        """Engines without attempts, which may leave."""
        self.going: OrderedDict[str, Engine] = OrderedDict()
        """Those of them that are to leave, or whose context's limit is spent."""
        self.room = 0
        """The number of tasks of one slot that could be assigned now."""
        self._rooms: dict[str, int] = {}
        """The room in each context that has a limit, whether it is closed or not."""
        self.limits: dict[str, int] = {}
        """How many more tasks each context with a limit may complete."""
        self.budget: dict[str, int] = {}
        """How many more tasks may be assigned to it."""
        for context, tasks in limits.items():
            self.limit(context, tasks)

    # ---- limits of contexts ----

    def limit(self, context: str, tasks: int) -> None:
        """Limit that context to so many more tasks."""
        taken = self.limits.get(context, tasks) - self.budget.get(context, tasks)
        was_spent = self.is_spent(context)
        if context not in self._rooms:
            engines = [engine for engine in self._engines.values() if engine.context == context]
            self._rooms[context] = sum(engine.room for engine in engines)
        self.limits[context] = tasks
        self._allow(context, tasks - taken)
        if was_spent is not self.is_spent(context):
            self._touch_idle(context)

    def may_take(self, context: str) -> bool:
        """True if the context's limit, if it has one, allows another task."""
        return context not in self._closed

    def is_spent(self, context: str) -> bool:
        """True if the context has a limit, and has completed so many tasks."""
        return self.limits.get(context, 1) <= 0

    def count(self, context: str) -> None:
        """A task of that context is completed."""
        if context in self.limits:
            self.limits[context] -= 1
            if self.limits[context] == 0:
                self._touch_idle(context)

    def count_before(self, context: str, tasks: int) -> None:
        """Count so many tasks that the context completed for a former driver."""
        if tasks and context in self.limits:
            self.limit(context, self.limits[context] - tasks)

    def _touch_idle(self, context: str) -> None:
        """Its engines without attempts are to leave, or no longer."""
        for engine in self.idle.of_context(context):
            self.touch(engine)

    def spend(self, engine: Engine, count: int) -> None:
        """`count` more tasks of the engine's context are assigned (or, negative, are not after all)."""
        if count and engine.context in self.budget:
            self._allow(engine.context, self.budget[engine.context] - count)

    def _allow(self, context: str, tasks: int) -> None:
        """The context may be assigned so many more tasks."""
        self.budget[context] = tasks
        if (tasks > 0) is self.may_take(context):
            return
        (self._closed.discard if tasks > 0 else self._closed.add)(context)
        for turns in (self.idle, self.queueing):
            (turns.reopen if tasks > 0 else turns.close)(context)
        self.room += self._rooms[context] if tasks > 0 else -self._rooms[context]

    # ---- engines ----

    def touch(self, engine: Engine) -> None:
        """The engine has changed: update its places."""
        queued, capacity = engine.queued, engine.capacity
        if queued:
            engine.fill()
        slots = capacity.free // capacity.slot
        queue_room = engine.depth - len(queued)
        if slots < 0:
            queue_room += slots
        room = 0
        if engine.state is State.ACTIVE:
            if queue_room > 0:
                room = queue_room
            if slots > 0 and not queued:
                room += slots
        if room != engine.room:
            self._change_room(engine, room)
        self._place(engine, queue_room)
        if queued or engine.recallable is not None:
            self._place_queued(engine)
        if engine.resting or not engine.running:
            self._place_resting(engine)

    def _place(self, engine: Engine, queue_room: int) -> None:
        """Update its places in the rotation. `queue_room`: the number of tasks that its queue takes."""
        place = 0
        if engine.state is State.ACTIVE:
            if not engine.queued and engine.capacity.free > 0:
                place = IDLE
            if queue_room > 0:
                place |= QUEUEING
        before, engine.place = engine.place, place
        if place == before and not self.idle.remembers and not self.queueing.remembers:
            return
        for bit, turns in ((IDLE, self.idle), (QUEUEING, self.queueing)):
            if place & ~before & bit:
                turns.add(engine)
            elif before & ~place & bit:
                turns.remove(engine)
            elif place & bit:
                turns.changed(engine)

    def take_out(self, engine: Engine, turns: Turns) -> None:
        """Remove the engine from these turns."""
        engine.place &= ~(IDLE if turns is self.idle else QUEUEING)
        turns.remove(engine)

    def _change_room(self, engine: Engine, room: int) -> None:
        context, more = engine.context, room - engine.room
        engine.room = room
        if context in self._rooms:
            self._rooms[context] += more
        if context not in self._closed:
            self.room += more

    def _place_queued(self, engine: Engine) -> None:
        newest = None
        if engine.queued and not engine.recalling:
            newest = engine.queued[next(reversed(engine.queued))].demand
        before = engine.recallable
        if newest is before:
            return
        engine.recallable = newest
        if before is not None:
            del self.queued[before][engine.id]
            if not self.queued[before]:
                del self.queued[before]
        if newest is not None:
            self.queued.setdefault(newest, OrderedDict())[engine.id] = engine

    def _place_resting(self, engine: Engine) -> None:
        resting = not (engine.per_engine or engine.adrift or engine.claims or engine.queued or engine.running)
        resting = resting and engine.state in RESTING
        if not resting and not engine.resting:
            return
        engine.resting = resting
        going = resting and (engine.draining or self.is_spent(engine.context))
        for pool, member in ((self.resting, resting), (self.going, going)):
            if member:
                pool[engine.id] = engine
            else:
                pool.pop(engine.id, None)

    def move(self, engine: Engine, state: State) -> None:
        """Change the state of the engine."""
        engine.state = state
        self.touch(engine)
