"""Which engine takes the next task of a class: the engines that have room, in rotation.

Kept up to date engine by engine (`touch`): the cost of an event grows with the engines that it names and with
the classes of demand among the ready tasks, and is the same with ten thousand engines as with two.

A context may have a limit: once as many of its tasks are assigned or done, its engines take no more, and when
that many are done it is spent. Then nothing is changed engine by engine: it is known by context.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Container, Iterator, Mapping

from disbatch.model.task import NO_DEMAND, Demand
from disbatch.plan.engine import Engine, State

POOLS_KEPT = 16
"""So many pools are kept, and as many more as there are classes of ready tasks: a new one looks at every
engine."""

RESTING = (State.ACTIVE, State.DRAINING)


class Turns:
    """Engines in rotation. Those of a context have their turns one after the other, then come those of the
    next context: each engine has one turn a round. So a context that may take no more is passed over, and
    comes back, at once, however many engines it has.

    An engine that is added comes last in its context. It is the turn of the first engine of the first
    context in `open`."""

    __slots__ = ("_closed", "_left", "_whose", "contexts", "open")

    def __init__(self, closed: set[str]) -> None:
        self.contexts: defaultdict[str, OrderedDict[str, Engine]] = defaultdict(OrderedDict)
        """All of them."""
        self.open: OrderedDict[str, OrderedDict[str, Engine]] = OrderedDict()
        """Those of contexts that are not closed; no context without engines."""
        self._closed = closed
        self._whose = ""
        """The context whose engines have their turns."""
        self._left = 0
        """How many of these turns are left."""

    def __iter__(self) -> Iterator[Engine]:
        for engines in self.open.values():
            yield from engines.values()

    def end_turn(self, engine: Engine) -> None:
        """It has had its turn, and others wait for theirs."""
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
        """It can take a task from now on."""
        context = engine.context
        engines = self.contexts[context]
        engines[engine.id] = engine
        if len(engines) == 1 and context not in self._closed:
            self.open[context] = engines

    def remove(self, engine: Engine) -> None:
        """It cannot take a task any more."""
        engines = self.contexts[engine.context]
        del engines[engine.id]
        if not engines:
            self.open.pop(engine.context, None)

    def close(self, context: str) -> None:
        """Its engines may take nothing."""
        self.open.pop(context, None)

    def reopen(self, context: str) -> None:
        """They may again."""
        if self.contexts[context]:
            self.open[context] = self.contexts[context]


IDLE, QUEUEING = 1, 2


class Pool:
    """The engines that can take a task of one class: `idle` are those that can start it at once, `queueing`
    those that have room in their queues."""

    __slots__ = ("demand", "idle", "places", "queueing")

    def __init__(self, demand: Demand, closed: set[str]) -> None:
        self.demand = demand
        self.idle = Turns(closed)
        self.queueing = Turns(closed)
        self.places: dict[str, int] = {}
        """Which of these two an engine is in, or both (IDLE | QUEUEING)."""

    def place(self, engine: Engine, queue_room: int) -> None:
        """Put the engine where it belongs; `queue_room`: how many tasks its queue takes."""
        place = 0
        if engine.state is State.ACTIVE:
            if not engine.queued and engine.capacity.fits(self.demand):
                place = IDLE
            if queue_room > 0 and (place or engine.capacity.holds(self.demand)):
                place |= QUEUEING
        changed = place ^ self.places.get(engine.id, 0)
        if changed:
            if changed & IDLE:
                (self.idle.add if place & IDLE else self.idle.remove)(engine)
            if changed & QUEUEING:
                (self.queueing.add if place & QUEUEING else self.queueing.remove)(engine)
            self.places[engine.id] = place

    def take_out(self, engine: Engine, turns: Turns) -> None:
        """It cannot take a task any more."""
        self.places[engine.id] &= ~(IDLE if turns is self.idle else QUEUEING)
        turns.remove(engine)


class Rotation:
    """`limits`: how many tasks a context may complete, by context. `engines`: all of them, by name."""

    __slots__ = (
        "_closed", "_engines", "_rooms", "base", "budget", "going", "limits", "pools", "queued", "resting",
        "room",
    )  # fmt: skip

    def __init__(self, limits: Mapping[str, int], engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._closed: set[str] = set()
        """Contexts that may take no more."""
        self.base = Pool(NO_DEMAND, self._closed)
        """For tasks that take a slot."""
        self.pools = {NO_DEMAND: self.base}
        self.queued: dict[Demand, OrderedDict[str, Engine]] = {}
        """Engines with something in their queue that may be asked for, by the class of its newest task."""
        self.resting: OrderedDict[str, Engine] = OrderedDict()
        """Engines that have nothing and are asked for nothing: these may leave."""
        self.going: OrderedDict[str, Engine] = OrderedDict()
        """Those of them that shall leave, or whose context's limit is spent."""
        self.room = 0
        """How many tasks that take a slot could be assigned now to contexts that may take any."""
        self._rooms: dict[str, int] = {}
        """How many there is room for in each context that has a limit, whether it may take any or not."""
        self.limits: dict[str, int] = {}
        """How many more tasks these contexts may complete."""
        self.budget: dict[str, int] = {}
        """How many more tasks they may be assigned."""
        for context, tasks in limits.items():
            self.limit(context, tasks)

    # ---- classes of demand ----

    def add_pool(self, demand: Demand, wanted: Container[Demand]) -> Pool:
        """The engines for tasks of a class that has no pool yet; `wanted`: the classes of all ready tasks."""
        if len(self.pools) >= POOLS_KEPT:
            kept = [each for each in self.pools if each in wanted or each == NO_DEMAND]
            self.pools = {each: self.pools[each] for each in kept}
        pool = self.pools[demand] = Pool(demand, self._closed)
        for engine in self._engines.values():
            pool.place(engine, engine.queue_room)
        return pool

    # ---- limits of contexts ----

    def limit(self, context: str, tasks: int) -> None:
        """That context may complete so many more tasks."""
        taken = self.limits.get(context, tasks) - self.budget.get(context, tasks)
        was_spent = self.is_spent(context)
        if context not in self._rooms:
            engines = self.base.idle.contexts[context] | self.base.queueing.contexts[context]
            self._rooms[context] = sum(engine.room for engine in engines.values())
        self.limits[context] = tasks
        self._allow(context, tasks - taken)
        if was_spent is not self.is_spent(context):
            self._touch_idle(context)

    def may_take(self, context: str) -> bool:
        """Its limit, if it has one, allows another task."""
        return context not in self._closed

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
        for engine in list(self.base.idle.contexts[context].values()):
            self.touch(engine)

    def spend(self, engine: Engine, count: int) -> None:
        """`count` more tasks of the engine's context are assigned (or, negative, are not after all)."""
        if count and engine.context in self.budget:
            self._allow(engine.context, self.budget[engine.context] - count)

    def _allow(self, context: str, tasks: int) -> None:
        """It may be assigned so many more tasks."""
        self.budget[context] = tasks
        if (tasks > 0) is self.may_take(context):
            return
        (self._closed.discard if tasks > 0 else self._closed.add)(context)
        for pool in self.pools.values():
            for turns in (pool.idle, pool.queueing):
                (turns.reopen if tasks > 0 else turns.close)(context)
        self.room += self._rooms[context] if tasks > 0 else -self._rooms[context]

    # ---- engines ----

    def touch(self, engine: Engine) -> None:
        """The engine changed: put it where it belongs."""
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
        for pool in self.pools.values():
            pool.place(engine, queue_room)
        if queued or engine.recallable is not None:
            self._place_queued(engine)
        if engine.resting or not engine.running:
            self._place_resting(engine)

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
        """The engine stands there now."""
        engine.state = state
        self.touch(engine)
