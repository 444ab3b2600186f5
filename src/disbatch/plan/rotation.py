"""Which engines can take a task next, in rotation, and how many tasks there is room for in all.

Kept up to date engine by engine (`touch`), so that an event costs no more with ten thousand engines than with
two. A context may have a limit: once as many of its tasks are assigned or done, its engines take no more, and
when that many are done it is spent. What changes for all engines of a context then is not looked for among
them: it is known by context.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from disbatch.plan.engines import Engine, State
from disbatch.plan.turns import Turns

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
