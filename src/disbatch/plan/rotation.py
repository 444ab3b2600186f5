"""Which engines can take a task next, in rotation, and how many tasks there is room for in all.

Kept up to date engine by engine (`touch`), so that an event costs no more with ten thousand engines than with
two. A context may have a limit: once as many of its tasks are assigned or done, its engines take no more, and
when that many are done it is spent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from disbatch.plan.engines import Engine, State

RESTING = (State.ACTIVE, State.DRAINING)


class Rotation:
    """`limits`: how many tasks a context may complete, by context."""

    __slots__ = ("_engines", "budget", "going", "idle", "limits", "open", "queued", "resting", "room")

    def __init__(self, engines: Mapping[str, Engine], limits: Mapping[str, int]) -> None:
        self._engines = engines
        self.idle: OrderedDict[str, Engine] = OrderedDict()
        """Engines with idle slots."""
        self.open: OrderedDict[str, Engine] = OrderedDict()
        """Engines with any room, in slots or in the queue."""
        self.queued: OrderedDict[str, Engine] = OrderedDict()
        """Engines with something in their queue that may be asked for."""
        self.resting: OrderedDict[str, Engine] = OrderedDict()
        """Engines that have nothing and are asked for nothing: these may leave."""
        self.going: OrderedDict[str, Engine] = OrderedDict()
        """Those of them that shall leave, or whose context's limit is spent."""
        self.room = 0
        """How many tasks could be assigned now, if no limit stood against it."""
        self.limits = dict(limits)
        """How many more tasks these contexts may complete."""
        self.budget = dict(limits)
        """How many more tasks they may be assigned."""

    def limit(self, context: str, tasks: int) -> None:
        """That context may complete so many more tasks."""
        taken = self.limits.get(context, tasks) - self.budget.get(context, tasks)
        self.limits[context] = tasks
        self.budget[context] = tasks - taken
        self._touch_all(context)

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
                self._touch_all(context)

    def _touch_all(self, context: str) -> None:
        for engine in self._engines.values():
            if engine.context == context:
                self.touch(engine)

    def spend(self, engine: Engine, count: int) -> None:
        """`count` more tasks of the engine's context are assigned (or, negative, are not after all)."""
        if not count or engine.context not in self.budget:
            return
        before = self.budget[engine.context]
        self.budget[engine.context] = before - count
        if (before > 0) != (before - count > 0):
            self._touch_all(engine.context)

    def touch(self, engine: Engine) -> None:
        """The engine changed: put it where it belongs."""
        name = engine.id
        active = engine.state is State.ACTIVE and self.budget.get(engine.context, 1) > 0
        busy = engine.busy
        room = max(0, engine.slots + engine.depth - busy) if active else 0
        resting = not busy and not engine.per_engine and engine.state in RESTING
        self.room += room - engine.room
        engine.room = room
        for pool, member in (
            (self.idle, active and busy < engine.slots),
            (self.open, room > 0),
            (self.queued, busy > engine.slots and not engine.recalling and engine.queued > 0),
            (self.resting, resting),
            (self.going, resting and (engine.draining or self.is_spent(engine.context))),
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
