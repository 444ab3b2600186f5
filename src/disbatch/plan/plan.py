"""The decisions of a run: which task goes to which engine and when, what counts, and when the run is over.

Theory of operation
-------------------
`handle(event)` changes the state and returns the actions that follow; there is no clock, socket or file in
here: the time comes as an event (`Tick`). A task is in exactly one of these places:

    unread --> ready --> assigned to one engine (an *attempt*, with a number of its own) --> done
                 ^              |
                 +--- returned, or its engine was lost

Every dispatch makes a new attempt. A result belongs to an attempt, never to a task: it counts if the attempt
is still assigned to the engine that sends it, or if the engine had been given up but nobody was given the
task since (then the task is taken out of `ready`). A result of an attempt that was replaced is superseded;
one of an attempt that is not known any more is a repeat. So each task is recorded exactly once as done.

An engine runs what its capacity allows and holds a short queue behind that (`Engine.depth`, from the task
times seen). Idle slots come first, in rotation over the engines; queues are filled with what is left. When
nothing is ready and nothing can be read, what waits in a queue is called back for slots that are idle
elsewhere: no slot is idle while a task could start. What a returned engine was told to end keeps its slot
until it has ended.

An engine that ends tasks although nobody here ordered it is being stopped by its node: it is drained. One
that is told to stop is drained and ends what it has, which runs again elsewhere as if it had never started:
that is no loss. Which engines are `spare` is known here; when they are let go is the driver's to say.

A task that the user cancels is done, and failed, as soon as nothing of it runs: at once if it is ready or
waits for a lost engine, when its attempt has ended if it is assigned, when its turn comes if it is unread.

A barrier stops the reading: items behind it stay unread until nothing is ready or assigned.

The run goes through modes: RUNNING; then either straight to CLOSING, or WINDING_DOWN (nothing new starts,
what runs finishes) or ENDING (what runs is ended) first. In CLOSING the engines run their PERENGINE STOP
commands and leave; when the last has gone, the run is OVER.

A plan that takes a run over begins without knowing what runs. Engines that join tell what they have
(`Joined.past`): claims to tasks, which become attempts when these are read (see `claims`). What the record
has already is read as `Recorded`. If the run is ended meanwhile, it waits for these engines (until `Heard`),
and reads on until the tasks of all claims are read: else their results could not be recorded.

Ready tasks of equal demand form a class. What a task needs is taken from its engine's `Capacity`. Each engine
in turn gets the first task that fits there, so one that fits nowhere does not keep others waiting.

Cost: each event touches only the engines that it names and those that get tasks, and an index finds the class
that fits; so ten thousand engines, or a thousand classes, cost about as much a task as two.

The parts
---------
    plan                    what a driver sees: an event in, actions out; and what it may ask
      dispatch              what follows from how things stand: ready tasks go to engines
        reading  joining    events: items are read; engines come and are lost
          attempts          events: attempts end; what that means for their tasks
            takeover        what engines have from a former driver
              departure     events: an engine shall go; the run shall end; recalls
                state       engines, `rotation` of those with room, `backlog` of tasks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from disbatch.model.idset import IdSet
from disbatch.model.task import Barrier
from disbatch.plan import attempts, departure, joining, reading
from disbatch.plan.backlog import READ_MOST
from disbatch.plan.dispatch import settle, tail_is_short
from disbatch.plan.engine import Engine
from disbatch.plan.events import (
    Action,
    Cancel,
    Conclusion,
    Drain,
    Event,
    Finished,
    Heard,
    Hold,
    Interrupt,
    Joined,
    Left,
    Limit,
    Lost,
    Read,
    Resume,
    Returned,
    SourceDry,
    SourceEnded,
    Stop,
    Tick,
)
from disbatch.plan.state import Board, Mode

__all__ = ["Mode", "Place", "Plan"]


def _on_tick(board: Board, event: Tick) -> None:
    board.timers.tick(event.now)


_HANDLERS: Final[dict[type, Callable[[Board, Any], None]]] = {
    Read: reading.on_read,
    SourceDry: reading.on_source_dry,
    SourceEnded: reading.on_source_ended,
    Joined: joining.on_joined,
    Heard: joining.on_heard,
    Limit: joining.on_limit,
    Finished: attempts.on_finished,
    Returned: attempts.on_returned,
    Lost: joining.on_lost,
    Left: joining.on_left,
    Drain: departure.on_drain,
    Stop: departure.on_stop,
    Cancel: attempts.on_cancel,
    Hold: departure.on_hold,
    Resume: departure.on_resume,
    Tick: _on_tick,
    Interrupt: departure.on_interrupt,
}


class Place(NamedTuple):
    """Where something is that is not done: in a slot of `engine`, or waiting (empty)."""

    engine: str
    barrier: bool = False


class Plan:
    """The state of a run's decisions.

    `max_losses`: how often a task is run again because its engine was lost; after one more loss it is given
    up. `fail_fast`: the first failed task ends the run. `limits`: how many tasks an engine's context may
    complete, by context. `first_attempt`: the attempts of former drivers of this run are below it; 1 if there
    was none.
    """

    def __init__(
        self,
        *,
        max_losses: int = 3,
        fail_fast: bool = False,
        limits: Mapping[str, int] | None = None,
        first_attempt: int = 1,
    ) -> None:
        self.board = Board(
            max_losses=max_losses, fail_fast=fail_fast, limits=limits or {}, first_attempt=first_attempt
        )
        """What the plan knows; nobody else changes it."""

    def handle(self, event: Event) -> list[Action]:
        """Take one event; the actions are to be performed in order."""
        board = self.board
        if board.mode is Mode.OVER:
            return []
        _HANDLERS[type(event)](board, event)
        settle(board)
        actions, board.actions = board.actions, []
        return actions

    @property
    def mode(self) -> Mode:
        """Where the run stands."""
        return self.board.mode

    @property
    def conclusion(self) -> Conclusion:
        """How the run ends, as far as that is known."""
        return self.board.conclusion

    @property
    def next_tick(self) -> float | None:
        """When the plan wants a Tick: None if nothing waits for a time, minus infinity if at once."""
        return self.board.timers.next

    @property
    def held(self) -> bool:
        """Nothing may start."""
        return self.board.held

    @property
    def room(self) -> int:
        """How many items the plan would take from the source now; never just a few, but 0 or READ_LEAST."""
        board = self.board
        if board.mode is Mode.RUNNING:
            room = board.rotation.room
            return board.backlog.room(room, passed=room > 0 and not board.held)
        return READ_MOST if board.reads else 0

    @property
    def reads(self) -> bool:
        """It takes items, when there is room; after the run was ended only as long as it is behind."""
        return self.board.reads

    @property
    def is_behind(self) -> bool:
        """What engines have from a former driver is not all known, or not all of its tasks are read."""
        return self.board.is_behind

    @property
    def read_to(self) -> int:
        """Ids below this one are read; those that `find` does not find are done."""
        return self.board.backlog.read_to

    @property
    def waiting(self) -> int:
        """Tasks that are read and not assigned."""
        return self.board.backlog.ready.count

    @property
    def reruns(self) -> int:
        """How many attempts did not come to their own end, and were or will be made again."""
        return self.board.reruns

    @property
    def barrier(self) -> Barrier | None:
        """What the reading waits at."""
        return self.board.backlog.barrier

    @property
    def live(self) -> int:
        """Attempts assigned to engines that are not lost."""
        return self.board.live

    @property
    def engines(self) -> dict[str, Engine]:
        """All engines that have joined and not left, by name."""
        return self.board.engines

    @property
    def present(self) -> int:
        """Engines that are not lost."""
        return self.board.present

    @property
    def spare(self) -> list[str]:
        """Engines that have nothing and, unless others are lost, never will: they may be told to drain."""
        resting = self.board.rotation.resting
        if not resting or not tail_is_short(self.board):
            return []
        return [name for name, engine in resting.items() if not engine.draining]

    @property
    def cancelled(self) -> IdSet:
        """Ids that the user does not want."""
        return self.board.cancelled

    @property
    def strays(self) -> set[int]:
        """Ids of tasks that engines have from a former driver and that are not read; if nothing more comes,
        there are none of these ids."""
        return self.board.claims.keys() - self.board.backlog.unread_tasks()

    def reruns_if_lost(self, engine: str) -> int:
        """How many tasks would run again elsewhere if this engine were lost."""
        known = self.board.engines.get(engine)
        return 0 if known is None else joining.reruns_if_lost(self.board, known)

    def keeps(self, engine: str) -> bool:
        """Results of this engine wait here for their tasks to be read: they are not recorded yet."""
        known = self.board.engines.get(engine)
        return known is not None and known.kept > 0

    @property
    def limits(self) -> Mapping[str, int]:
        """How many more tasks these contexts may complete."""
        return self.board.rotation.limits

    def has_reached_limit(self, context: str) -> bool:
        """It had a limit, and has completed so many tasks."""
        return self.board.rotation.is_spent(context)

    def find(self, wanted: IdSet) -> dict[int, Place]:
        """Where those of these ids are that are read and not done."""
        found: dict[int, Place] = {}
        for engine in self.board.engines.values():
            for tasks, place in ((engine.running, Place(engine.id)), (engine.queued, Place(""))):
                found |= {task.id: place for task in tasks.values() if task.id in wanted}
        for item in self.board.backlog.items():
            if item.id in wanted:
                found[item.id] = Place("", isinstance(item, Barrier))
        return found
