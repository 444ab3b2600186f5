"""The decisions of a run: which task goes to which engine and when, what counts, and when the run is over.

Theory of operation
-------------------
`handle(event)` changes the state and returns the actions that follow. There is no clock, socket or file; the
time comes as an event (`Tick`). A task is in exactly one of these places:

    unread --> ready --> assigned to one engine (an *attempt*, with a number of its own) --> done
                 ^              |
                 +--- returned, or its engine was lost

Every dispatch makes a new attempt. A result belongs to an attempt, never to a task: it counts if the attempt
is still assigned to the engine that sends it, or if that engine was given up but the task was not assigned
again (it is then removed from `ready`). The result of an attempt that was replaced is superseded; that of an
unknown attempt is a repeat. So each task is recorded as done exactly once.

An engine runs what fits into its capacity, and holds a short queue (`Engine.depth`, which follows from the
task times). Idle capacity is used first, in rotation over the engines; then queues are filled. When nothing
is ready and nothing can be read, queued attempts are recalled for capacity that is idle elsewhere, so that
none is idle while a task could start. An attempt that a returned engine was told to end takes its slot until
it has ended.

An engine that ends tasks without an order is being stopped by its node, so it is drained. An engine that is
told to stop is drained and ends its tasks, which run again elsewhere; this does not count as a loss. The plan
knows which engines are `spare`; the driver decides when they leave.

A cancelled task is done, and failed, as soon as no attempt of it runs: at once if it is ready or waits for a
lost engine; when its attempt has ended if it is assigned; when it is read if it is unread.

A barrier stops the reading: items behind it stay unread until no task is ready or assigned.

The modes of a run: RUNNING; then CLOSING, directly or after WINDING_DOWN (no task starts, running ones
finish) or ENDING (running tasks are ended). In CLOSING the engines run their PERENGINE STOP commands and
leave; when the last one has left, the run is OVER.

A plan that takes a run over does not know what runs. Engines that join report their attempts (`Joined.past`):
claims to tasks, which become attempts when these are read (see `takeover`). Tasks that are recorded already
are read as `Recorded`. If the run is ended meanwhile, it waits for these engines (until `Heard`), and reads
on until the tasks of all claims are read, so that their results can be recorded.

Ready tasks of equal demand form a class. What a task needs is taken from its engine's `Capacity`. Each engine
in turn gets the first task that fits there, so one that fits nowhere does not keep others waiting.

Cost: each event touches only the engines that it names and those that get tasks, and an index finds the class
that fits; so ten thousand engines, or a thousand classes, cost about as much a task as two.

The parts
---------
    plan                    the facade: an event in, actions out; queries
      dispatch              what follows from a change: ready tasks go to engines
        reading  joining    events: items are read; engines join, are lost, leave
          attempts          events: attempts end; what that means for their tasks
            takeover        attempts of a former driver
              departure     events: an engine is to leave, the run is to end; recalls
                state       engines, `rotation` of those with room, `backlog` of tasks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from disbatch.model.idset import IdSet
from disbatch.model.task import Barrier
from disbatch.plan import attempts, departure, events, joining, reading
from disbatch.plan.backlog import READ_MOST
from disbatch.plan.dispatch import settle, tail_is_short
from disbatch.plan.engine import Engine
from disbatch.plan.events import Action, Conclusion, Event
from disbatch.plan.state import Board, Mode

__all__ = ["Mode", "Place", "Plan"]


def _on_tick(board: Board, event: events.Tick) -> None:
    board.timers.tick(event.now)


_HANDLERS: Final[dict[type, Callable[[Board, Any], None]]] = {
    events.Read: reading.on_read,
    events.SourceDry: reading.on_source_dry,
    events.SourceEnded: reading.on_source_ended,
    events.Joined: joining.on_joined,
    events.Heard: joining.on_heard,
    events.Limit: joining.on_limit,
    events.Finished: attempts.on_finished,
    events.Returned: attempts.on_returned,
    events.Lost: joining.on_lost,
    events.Left: joining.on_left,
    events.Drain: departure.on_drain,
    events.Stop: departure.on_stop,
    events.Cancel: attempts.on_cancel,
    events.Hold: departure.on_hold,
    events.Resume: departure.on_resume,
    events.Tick: _on_tick,
    events.Interrupt: departure.on_interrupt,
}


class Place(NamedTuple):
    """Where a task is that is not done: running on `engine`, or waiting ("")."""

    engine: str
    barrier: bool = False


class Plan:
    """The decisions of one run.

    `max_losses`: how often a task runs again after its engine was lost; after one more loss it is given up.
    `fail_fast`: the first failed task ends the run. `limits`: how many tasks the engines of a context may
    complete, by context. `first_attempt`: greater than the attempts of former drivers of this run; 1 if there
    were none.
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
        """The state; only the plan changes it."""

    def handle(self, event: Event) -> list[Action]:
        """Handle one event. The actions are to be performed in order."""
        board = self.board
        if self.is_over:
            return []
        _HANDLERS[type(event)](board, event)
        settle(board)
        actions, board.actions = board.actions, []
        return actions

    @property
    def mode(self) -> Mode:
        """The mode of the run."""
        return self.board.mode

    @property
    def is_over(self) -> bool:
        """All engines have left, and nothing follows."""
        return self.board.mode is Mode.OVER

    @property
    def conclusion(self) -> Conclusion:
        """How the run ends, as far as known."""
        return self.board.conclusion

    @property
    def next_tick(self) -> float | None:
        """When the plan wants a Tick; None: not at all; minus infinity: at once."""
        return self.board.timers.next

    @property
    def held(self) -> bool:
        """True if no task may start."""
        return self.board.held

    @property
    def room(self) -> int:
        """The number of items that the plan takes from the source now: 0, or READ_LEAST at least."""
        board = self.board
        if board.mode is Mode.RUNNING:
            room = board.rotation.room
            return board.backlog.room(room, passed=room > 0 and not board.held)
        return READ_MOST if board.reads else 0

    @property
    def reads(self) -> bool:
        """True if it takes items when there is room; in a run that is ending, only while `is_behind`."""
        return self.board.reads

    @property
    def is_behind(self) -> bool:
        """True if not all attempts of a former driver are known, or not all of their tasks are read."""
        return self.board.is_behind

    @property
    def read_to(self) -> int:
        """Ids below this one are read; those that `find` does not find are done."""
        return self.board.backlog.read_to

    @property
    def waiting(self) -> int:
        """The number of tasks that are read and not assigned."""
        return self.board.backlog.ready.count

    @property
    def reruns(self) -> int:
        """The number of attempts that have no result and are repeated."""
        return self.board.reruns

    @property
    def barrier(self) -> Barrier | None:
        """The barrier that stops the reading, if one does."""
        return self.board.backlog.barrier

    @property
    def live(self) -> int:
        """The number of attempts that are assigned to engines that are not lost."""
        return self.board.live

    @property
    def engines(self) -> dict[str, Engine]:
        """All engines that have joined and not left, by name."""
        return self.board.engines

    @property
    def present(self) -> int:
        """The number of engines that are not lost."""
        return self.board.present

    @property
    def spare(self) -> list[str]:
        """Engines that have no tasks and will get none unless others are lost: they may be drained."""
        resting = self.board.rotation.resting
        if not resting or not tail_is_short(self.board):
            return []
        return [name for name, engine in resting.items() if not engine.draining]

    @property
    def cancelled(self) -> IdSet:
        """The cancelled ids."""
        return self.board.cancelled

    @property
    def strays(self) -> set[int]:
        """Ids of tasks that engines have from a former driver and that are not read; after the end of the
        source, no tasks have these ids."""
        return self.board.claims.keys() - self.board.backlog.unread_tasks()

    def reruns_if_lost(self, engine: str) -> int:
        """The number of tasks that would run again elsewhere if this engine were lost."""
        known = self.board.engines.get(engine)
        return 0 if known is None else joining.reruns_if_lost(self.board, known)

    def keeps(self, engine: str) -> bool:
        """True if results of this engine wait for their tasks to be read, so they are not recorded yet."""
        known = self.board.engines.get(engine)
        return known is not None and known.kept > 0

    def has_reached_limit(self, context: str) -> bool:
        """True if the context has a limit, and has completed so many tasks."""
        return self.board.rotation.is_spent(context)

    def find(self, wanted: IdSet) -> dict[int, Place]:
        """Where those of these tasks and barriers are that are read and not done."""
        found: dict[int, Place] = {}
        for engine in self.board.engines.values():
            for tasks, place in ((engine.running, Place(engine.id)), (engine.queued, Place(""))):
                found |= {task.id: place for task in tasks.values() if task.id in wanted}
        for item in self.board.backlog.items():
            if item.id in wanted:
                found[item.id] = Place("", isinstance(item, Barrier))
        return found
