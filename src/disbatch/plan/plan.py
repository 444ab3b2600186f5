"""The decisions of a run: which task goes to which engine and when, what counts, and when the run is over.

Theory of operation
-------------------
`handle(event)` changes the state and returns the actions that follow; there is no clock, socket or file in
here. A task is in exactly one of these places:

    unread --> ready --> assigned to one engine (an *attempt*, with a number of its own) --> done
                 ^              |
                 +--- returned, or its engine was lost

Every dispatch makes a new attempt. A result belongs to an attempt, never to a task: it counts if the attempt
is still assigned to the engine that sends it, or if the engine had been given up but nobody was given the
task since (then the task is taken out of `ready`). A result of an attempt that was replaced is superseded;
one of an attempt that is not known any more is a repeat. So each task is recorded exactly once as done.

An engine has room for its slots and for a short queue behind them (`Engine.depth`, from the task times
seen). Idle slots come first, in rotation over the engines; queues are filled with what is left. When nothing
is ready and nothing can be read, what waits in a queue is called back for slots that are idle elsewhere: no
slot is idle while a task could start. What a returned engine was told to end keeps its slot until it has
ended.

An engine that ends tasks although nobody here ordered it is being stopped by its node: it is drained. One
that is told to stop is drained and ends what it has, which runs again elsewhere as if it had never started:
that is no loss. Which engines are `spare` is known here; when they are let go is the driver's to say.

A task that the user cancels is done, and failed, as soon as nothing of it runs: at once if it is ready or
waits for a lost engine, when its attempt has ended if it is assigned, when its turn comes if it is unread.

A barrier stops the reading: items behind it wait in `_unread` until nothing is ready or assigned.

The run goes through modes: RUNNING; then either straight to CLOSING, or WINDING_DOWN (nothing new starts,
what runs finishes) or ENDING (what runs is ended) first. In CLOSING the engines run their PERENGINE STOP
commands and leave; when the last has gone, the run is OVER.

A plan that takes a run over begins without knowing what runs. Engines that join tell what they have
(`Joined.past`): for each attempt the id of its task, which is not read yet as a rule. Such a *claim* takes a
slot, and becomes an attempt like any other when its task is read; if it has ended by then, its outcome was
kept until now, and whoever asks is told that the engine must keep it, too (`keeps`). Of two claims to one
task the later attempt is the valid one. An engine that comes late, when its task was given to another engine
by this driver, has it back: it runs there longer. What the record has already is read as `Recorded`; a claim
to that is ended.

Cost: each event touches only the engines it names and those that get work, so ten thousand engines cost
no more a task than two.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from disbatch.model.outcome import Ending, Outcome
from disbatch.model.task import Barrier, Item, PerEngine, Phase, Task
from disbatch.plan.engines import Engine, State
from disbatch.plan.events import (
    Action,
    Assign,
    AssignPerEngine,
    Cancel,
    Completed,
    Conclusion,
    CountRecorded,
    Drain,
    End,
    Event,
    Finish,
    Finished,
    Hold,
    Interrupt,
    Joined,
    Left,
    Limit,
    Lost,
    Past,
    Read,
    Recall,
    RecordBarrier,
    RecordCancelled,
    Recorded,
    RecordLost,
    RecordPerEngine,
    RecordSkipped,
    RecordTask,
    Release,
    Resume,
    Returned,
    SourceDry,
    SourceEnded,
    Stop,
    Verdict,
)
from disbatch.plan.ids import IdSet

LOOKAHEAD = 64
"""Tasks kept ready beyond the room that the engines have."""
RESTING = (State.ACTIVE, State.DRAINING)
READ_LEAST = LOOKAHEAD // 2
"""Fewest items asked for at once: a reading costs about as much as a dispatch."""
READ_MOST = 4096
"""Most items asked for at once."""


class Mode(enum.Enum):
    """Where the run stands."""

    RUNNING = enum.auto()
    WINDING_DOWN = enum.auto()
    ENDING = enum.auto()
    CLOSING = enum.auto()
    OVER = enum.auto()


class Source(enum.Enum):
    """What is known of the task source."""

    FLOWING = enum.auto()
    DRY = enum.auto()
    ENDED = enum.auto()


def _plain(item: Item | Completed | Recorded) -> Item:
    """The item of the source itself."""
    if isinstance(item, Completed):
        return item.task
    return item.item if isinstance(item, Recorded) else item


class Place(NamedTuple):
    """Where something is that is not done: in a slot of `engine`, or waiting (empty)."""

    engine: str
    barrier: bool = False


class Claimed(NamedTuple):
    """An engine has this attempt of a task that is not read again yet; `outcome` once it has ended."""

    engine: Engine
    attempt: int
    outcome: Outcome | None = None


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
        self._max_losses = max_losses
        self._fail_fast = fail_fast
        self.mode = Mode.RUNNING
        self.held = False
        self.conclusion = Conclusion.COMPLETE
        self.engines: dict[str, Engine] = {}
        self.live = 0
        """Attempts assigned to engines that are not lost."""
        self._source = Source.FLOWING
        self._unread: deque[Item | Completed | Recorded] = deque()
        self._ready: deque[Task] = deque()
        self._again: set[int] = set()
        """Ids of tasks that were assigned and are not now: a late result of an old attempt still counts."""
        self._losses: dict[int, int] = {}
        self.cancelled = IdSet()
        self.read_to = 0
        """Ids below this one are read; those that `find` does not find are done."""
        self._barrier: Barrier | None = None
        self._failed_since_barrier = 0
        self._first_failed: Task | None = None
        self._commands: dict[Phase, list[PerEngine]] = {Phase.START: [], Phase.STOP: []}
        self._at_once = False
        self._first_attempt = self._next_attempt = first_attempt
        self._claims: dict[int, Claimed] = {}
        """By id of the task, which is not read yet, or waits behind a barrier."""
        self._nothing_read = first_attempt > 1
        """What engines may have to do before they leave is not known yet."""
        self._actions: list[Action] = []
        # Engines with idle slots, with any room, and with something in their queue; in rotation.
        self._idle: OrderedDict[str, Engine] = OrderedDict()
        self._open: OrderedDict[str, Engine] = OrderedDict()
        self._queued: OrderedDict[str, Engine] = OrderedDict()
        self._resting: OrderedDict[str, Engine] = OrderedDict()
        """Engines that have nothing and are asked for nothing: these may leave."""
        self._recalling = 0
        """Attempts that engines are asked to give back and have not answered for."""
        self._lost = 0
        self._draining = 0
        """How many engines were ever asked to leave; most runs have none."""
        self._room = 0
        self._limits = dict(limits or {})
        self._budget = dict(self._limits)
        """By context: how many more tasks may be assigned."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            Read: self._on_read,
            SourceDry: self._on_source_dry,
            SourceEnded: self._on_source_ended,
            Joined: self._on_joined,
            Limit: self._on_limit,
            Finished: self._on_finished,
            Returned: self._on_returned,
            Lost: self._on_lost,
            Left: self._on_left,
            Drain: self._on_drain,
            Stop: self._on_stop,
            Cancel: self._on_cancel,
            Hold: self._on_hold,
            Resume: self._on_resume,
            Interrupt: self._on_interrupt,
        }

    # ---- what a driver may ask ----

    @property
    def room(self) -> int:
        """How many items the plan would take from the source now; never just a few, but 0 or READ_LEAST."""
        if self.mode is not Mode.RUNNING or self._barrier is not None or self._source is Source.ENDED:
            return 0
        room = self._room + LOOKAHEAD - len(self._ready) - len(self._unread)
        return min(READ_MOST, room) if room >= READ_LEAST else 0

    @property
    def waiting(self) -> int:
        """Tasks that are read and not assigned."""
        return len(self._ready)

    @property
    def present(self) -> int:
        """Engines that are not lost."""
        return len(self.engines) - self._lost

    @property
    def spare(self) -> list[str]:
        """Engines that have nothing and, unless others are lost, never will: they may be told to drain."""
        if not self._resting or not self._tail_is_short():
            return []
        return [name for name, engine in self._resting.items() if not engine.draining]

    @property
    def claims(self) -> int:
        """Attempts of former drivers whose tasks are not read yet."""
        return len(self._claims)

    def keeps(self, engine: str) -> bool:
        """Results of this engine wait here for their tasks to be read: they are not recorded yet."""
        known = self.engines.get(engine)
        return known is not None and known.kept > 0

    def has_reached_limit(self, context: str) -> bool:
        """It had a limit, and has completed so many tasks."""
        return self._limits.get(context, 1) <= 0

    def find(self, wanted: IdSet) -> dict[int, Place]:
        """Where those of these ids are that are read and not done."""
        found = {}
        for engine in self.engines.values():
            for nth, task in enumerate(engine.assigned.values()):
                if task.id in wanted:
                    runs = nth < engine.slots - len(engine.adrift) - len(engine.claims)
                    found[task.id] = Place(engine.id if runs else "")
        for item in (*self._ready, *self._unread, *([] if self._barrier is None else [self._barrier])):
            task_or_barrier = _plain(item)
            if not isinstance(task_or_barrier, PerEngine) and task_or_barrier.id in wanted:
                found[task_or_barrier.id] = Place("", isinstance(task_or_barrier, Barrier))
        return found

    def handle(self, event: Event) -> list[Action]:
        """Take one event; the actions are to be performed in order."""
        if self.mode is Mode.OVER:
            return []
        self._handlers[type(event)](event)
        self._settle()
        actions, self._actions = self._actions, []
        return actions

    # ---- the source ----

    def _on_read(self, event: Read) -> None:
        if self.mode is not Mode.RUNNING:
            return
        if self._source is Source.DRY:
            self._source = Source.FLOWING
        self._nothing_read = False
        self._unread.extend(event.items)
        for item in map(_plain, reversed(event.items)):
            if not isinstance(item, PerEngine):
                self.read_to = item.id + 1
                break
        self._take_unread()

    def _take_unread(self) -> None:
        unread, ready, cancelled = self._unread, self._ready, self.cancelled
        while unread and self._barrier is None:
            item = unread.popleft()
            if type(item) is Task:
                if self._claims and item.id in self._claims:
                    self._take_claimed(item, self._claims.pop(item.id))
                elif cancelled and item.id in cancelled:
                    self._record_cancelled(item)
                else:
                    ready.append(item)
            elif type(item) is Completed:
                self._drop_claim(item.task.id)
                self._actions.append(RecordSkipped(item))
                if item.failed:
                    self._note_failure(item.task)
            elif type(item) is Recorded:
                self._take_recorded(item)
            elif type(item) is Barrier:
                self._barrier = item
            elif type(item) is PerEngine:
                self._add_command(item)

    def _take_recorded(self, recorded: Recorded) -> None:
        """This run was done with that before this plan began."""
        self._actions.append(CountRecorded(recorded))
        item = recorded.item
        if isinstance(item, Task):
            self._drop_claim(item.id)
            self._close_task(item, failed=recorded.failed)
        else:
            failed, self._failed_since_barrier, self._first_failed = self._failed_since_barrier, 0, None
            if item.check and failed:
                self._wind_down(Mode.WINDING_DOWN, Conclusion.CHECK_FAILED)

    def _add_command(self, command: PerEngine) -> None:
        self._commands[command.phase].append(command)
        for engine in self.engines.values():
            if engine.commands and self._inherit_command(engine, command):
                continue
            if command.phase is Phase.STOP:
                continue
            if engine.state in (State.STARTING, State.ACTIVE) and not engine.stopped:
                self._run_per_engine(engine, command)
                self._move(engine, State.STARTING)
            elif engine.state is State.LOST and not engine.retired:
                engine.per_engine[self._new_attempt()] = command  # sent if it comes back

    # ---- what a former driver left ----

    def _inherit(self, engine: Engine, past: Past) -> list[int]:
        """A new engine has this from a former driver. Returns the attempts that it shall end."""
        unwanted: list[int] = []
        engine.commands.update(past.commands)
        if past.leaving or any(phase is Phase.STOP for phase, _ in past.commands):
            self._drain(engine)
        unread = {item.id for item in map(_plain, self._unread) if isinstance(item, Task)}
        wanted = {id for id in past.tasks.values() if id < self.read_to and id not in unread}
        ready = {task.id: task for task in self._ready if task.id in wanted} if wanted else {}
        elsewhere: dict[int, tuple[Engine, int, Task]] = {}
        if wanted:
            for other in self.engines.values():
                elsewhere |= {t.id: (other, a, t) for a, t in other.assigned.items() if t.id in wanted}
        for attempt, id in sorted(past.tasks.items()):
            if id not in wanted:
                won = self._claim(engine, attempt, id)
            elif id in ready:
                won = True
                self._ready.remove(ready[id])
                self._again.discard(id)
                self._assign_inherited(engine, attempt, ready[id])
            else:
                won = id in elsewhere and self._win(engine, attempt, *elsewhere[id])
            if not won:
                engine.adrift[attempt] = None
                unwanted.append(attempt)
        return unwanted

    def _claim(self, engine: Engine, attempt: int, id: int) -> bool:
        """False if another engine has a later attempt of that task."""
        rival = self._claims.get(id)
        if rival is not None:
            if rival.attempt > attempt:
                return False
            self._give_up_claim(rival)
        self._claims[id] = Claimed(engine, attempt)
        engine.claims[attempt] = id
        return True

    def _win(self, engine: Engine, attempt: int, rival: Engine, theirs: int, task: Task) -> bool:
        """The task was given to `rival`: by this driver, when nobody knew that it runs on `engine`, or by a
        former one."""
        if attempt < theirs < self._first_attempt:
            return False
        del rival.assigned[theirs]
        self.live -= 1
        self._spend(rival, -1)
        self._end_replaced(rival, theirs, task)
        self._assign_inherited(engine, attempt, task)
        return True

    def _end_replaced(self, engine: Engine, attempt: int, task: Task | None) -> None:
        engine.adrift[attempt] = task
        if engine.state is not State.LOST:
            self._actions.append(End(engine.id, [attempt], self._at_once or engine.at_once))
        self._touch(engine)

    def _assign_inherited(self, engine: Engine, attempt: int, task: Task) -> None:
        engine.assigned[attempt] = task
        engine.assigned = dict(sorted(engine.assigned.items()))  # the order in which it starts them
        self.live += 1
        self._spend(engine, 1)
        if engine.state is not State.LOST and (engine.stopped or task.id in self.cancelled):
            self._actions.append(End(engine.id, [attempt], self._at_once or engine.at_once))

    def _take_claimed(self, task: Task, claimed: Claimed) -> None:
        """The task of a claim is read."""
        engine, attempt, outcome = claimed
        engine.claims.pop(attempt, None)
        if outcome is None and engine.state is State.LOST:
            engine.adrift[attempt] = task
            self._run_again([task])
            return
        self._assign_inherited(engine, attempt, task)
        if outcome is not None:
            engine.kept -= 1
            self._finish_attempts(engine, [outcome])
        self._touch(engine)

    def _drop_claim(self, id: int) -> None:
        """Its task is recorded already."""
        claimed = self._claims.pop(id, None) if self._claims else None
        if claimed is not None:
            self._give_up_claim(claimed)

    def _give_up_claim(self, claimed: Claimed) -> None:
        if claimed.outcome is None:
            del claimed.engine.claims[claimed.attempt]
            self._end_replaced(claimed.engine, claimed.attempt, None)
        else:
            claimed.engine.kept -= 1

    def _keep(self, engine: Engine, outcome: Outcome) -> bool:
        """Something ended that a former driver ordered and that is not read again: its outcome waits for
        that. False if it is not of that kind."""
        id = engine.claims.pop(outcome.attempt, None)
        if id is not None:
            self._claims[id] = Claimed(engine, outcome.attempt, outcome)
            engine.kept += 1
            return True
        for key, held in engine.commands.items():
            if held == outcome.attempt:
                engine.commands[key] = outcome
                engine.kept += 1
                return True
        return False

    def _inherit_command(self, engine: Engine, command: PerEngine) -> bool:
        """True if a former driver had this command run on the engine, or it is running there."""
        key = (command.phase, command.id)
        if key not in engine.commands:
            return False
        held = engine.commands.pop(key)
        if isinstance(held, Outcome):
            engine.kept -= 1
            self._actions.append(RecordPerEngine(engine.id, command, held))
        elif held is not None:
            engine.per_engine[held] = command
            if engine.state is State.ACTIVE and command.phase is Phase.START:
                self._move(engine, State.STARTING)
        if command.phase is Phase.STOP:
            engine.stops_given.add(command.id)
        self._touch(engine)
        return True

    def _on_source_dry(self, event: SourceDry) -> None:
        if self._source is Source.FLOWING:
            self._source = Source.DRY

    def _on_source_ended(self, event: SourceEnded) -> None:
        self._source = Source.ENDED
        self._nothing_read = False
        if not event.broken:
            known = {item.id for item in map(_plain, self._unread) if isinstance(item, Task)}
            for id in [id for id in self._claims if id not in known]:
                self._drop_claim(id)  # the source is not the one that it was
        if event.broken and self.mode is Mode.RUNNING:
            self._wind_down(Mode.WINDING_DOWN, Conclusion.SOURCE_BROKEN)
            self._recall_everything()

    # ---- engines come and go ----

    def _on_joined(self, event: Joined) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None and engine.state is not State.LOST:
            return  # the connection broke and came back; nothing is decided by that
        if engine is None:
            engine = self.engines[event.engine] = Engine(event.engine, event.slots, event.context)
            unwanted = event.holding
            if event.past is not None:
                unwanted = self._inherit(engine, event.past)
            known = [command for phase in Phase for command in self._commands[phase]]
            news = [command for command in known if not self._inherit_command(engine, command)]
            if self.mode is Mode.RUNNING:
                for command in news:
                    if command.phase is Phase.START:
                        self._run_per_engine(engine, command)
            else:
                unwanted = event.holding
                engine.retired = True  # nothing ran on it, so there is nothing to stop either
        else:
            self._lost -= 1
            unwanted = self._take_back(engine, event.holding)
        if unwanted:
            self._actions.append(End(engine.id, unwanted, self._at_once or engine.at_once))
        if engine.retired:
            self._move(engine, State.STOPPING)
            self._release_if_stopped(engine)
        elif engine.per_engine:
            self._move(engine, State.STARTING)
        else:
            self._activate(engine)

    def _on_limit(self, event: Limit) -> None:
        """Comes before the engines of that context do."""
        self._limits[event.context] = self._budget[event.context] = event.tasks

    def _activate(self, engine: Engine) -> None:
        self._move(engine, State.DRAINING if engine.draining else State.ACTIVE)
        self._recall_unwanted(engine)

    def _take_back(self, engine: Engine, holding: Iterable[int]) -> list[int]:
        """A lost engine is heard again: what it still has and nobody else was given is its own again, as long
        as the run goes on and it was not stopped. Returns the attempts that it shall end."""
        adrift, commands, unwanted = engine.adrift, engine.per_engine, []
        engine.adrift, engine.per_engine = {}, {}
        running = self.mode is Mode.RUNNING and not engine.stopped
        at_once = self._at_once or engine.at_once
        for attempt in sorted(holding):  # the order in which it starts them
            if attempt in engine.claims or attempt in engine.commands.values():
                continue
            task = adrift.get(attempt)
            command = commands.pop(attempt, None)
            if command is not None:
                engine.per_engine[attempt] = command
                if at_once or not (running or engine.retired):
                    unwanted.append(attempt)
            elif running and task is not None and task.id in self._again:
                self._again.discard(task.id)
                self._ready.remove(task)
                engine.assigned[attempt] = task
                self._spend(engine, 1)
                self.live += 1
            else:
                unwanted.append(attempt)
                if task is not None:
                    engine.adrift[attempt] = task
        if running or (engine.retired and not at_once):
            for command in commands.values():  # these never reached it
                self._run_per_engine(engine, command)
        return unwanted

    def _on_lost(self, event: Lost) -> None:
        engine = self.engines.get(event.engine)
        if engine is None or engine.state is State.LOST:
            return
        running = engine.slots - len(engine.adrift) - len(engine.claims)
        tasks = list(engine.assigned.values())
        engine.adrift.update(engine.assigned)
        self._strip(engine)
        self._lost += 1
        self._move(engine, State.LOST)
        self._run_again(
            [
                t
                for i, t in enumerate(tasks)
                if i >= running or t.id in self.cancelled or self._may_rerun(engine, t)
            ]
        )

    def _on_left(self, event: Left) -> None:
        engine = self.engines.get(event.engine)
        if engine is None:
            return
        if engine.state is State.LOST:
            self._lost -= 1
        tasks = list(engine.assigned.values())
        self._strip(engine)
        for id in engine.claims.values():
            del self._claims[id]
        engine.claims = {}
        self._move(engine, State.LEAVING)
        del self.engines[engine.id]
        self._run_again(tasks)

    def _strip(self, engine: Engine) -> None:
        self.live -= len(engine.assigned)
        self._spend(engine, -len(engine.assigned))
        engine.assigned = {}
        self._recall_answered(engine)

    def _may_rerun(self, engine: Engine, task: Task) -> bool:
        """Counts a loss of a task that ran (or could not be started); False if that was one too many."""
        if self.mode is not Mode.RUNNING:
            return True
        losses = self._losses.get(task.id, 0) + 1
        self._losses[task.id] = losses
        if losses <= self._max_losses:
            return True
        self._actions.append(RecordLost(engine.id, task))
        self._close_task(task, failed=True)
        return False

    def _run_again(self, tasks: list[Task]) -> None:
        if self.cancelled:
            for task in tasks:
                if task.id in self.cancelled:
                    self._record_cancelled(task)
            tasks = [task for task in tasks if task.id not in self.cancelled]
        self._again.update(task.id for task in tasks)
        if self.mode is Mode.RUNNING:
            self._ready.extendleft(sorted(tasks, key=lambda task: -task.id))

    def _on_drain(self, event: Drain) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None:
            self._drain(engine)

    def _drain(self, engine: Engine) -> None:
        if not engine.draining:
            engine.draining = True
            self._draining += 1
            if engine.state is State.ACTIVE:
                self._activate(engine)

    def _on_stop(self, event: Stop) -> None:
        engine = self.engines.get(event.engine)
        if engine is None:
            return
        engine.stopped = True
        engine.at_once |= event.at_once
        if engine.state is not State.LOST:
            # Its STOP commands are part of leaving in order.
            stopping = engine.state is State.STOPPING and not engine.at_once
            attempts = [*engine.assigned, *engine.claims, *([] if stopping else engine.per_engine)]
            if attempts:
                self._actions.append(End(engine.id, attempts, engine.at_once))
        self._drain(engine)

    # ---- cancelling ----

    def _on_cancel(self, event: Cancel) -> None:
        new = IdSet(event.ranges)
        for engine in self.engines.values():
            attempts = [a for a, t in engine.assigned.items() if t.id in new and t.id not in self.cancelled]
            if attempts:
                self._actions.append(End(engine.id, attempts, engine.at_once))
        for first, last in new:
            self.cancelled.add(first, last)
        ready = list(self._ready)
        self._ready.clear()
        for task in ready:
            if task.id in new:
                self._again.discard(task.id)
                self._record_cancelled(task)
            else:
                self._ready.append(task)

    def _record_cancelled(self, task: Task) -> None:
        """Nothing of it runs."""
        self._actions.append(RecordCancelled(task))
        self._close_cancelled(task)

    def _close_cancelled(self, task: Task) -> None:
        """It failed, but that is what the user wanted: no reason to end the run."""
        self._losses.pop(task.id, None)
        self._note_failure(task)

    # ---- results ----

    def _on_finished(self, event: Finished) -> None:
        engine = self.engines.get(event.engine)
        if engine is not None and self._finish_attempts(engine, event.outcomes):
            self._drain(engine)  # nobody here ordered it: the engine's node makes it stop

    def _finish_attempts(self, engine: Engine, outcomes: list[Outcome]) -> bool:
        """True if the engine seems to be stopped by its node."""
        assigned, counted, elapsed, stopping = engine.assigned, 0, 0.0, False
        for outcome in outcomes:
            task = assigned.pop(outcome.attempt, None)
            if task is None:
                self._odd_result(engine, outcome)
                continue
            self.live -= 1
            if outcome.ending is Ending.OWN:
                counted += 1
                elapsed += outcome.elapsed
                self._count(engine, task, outcome)
            else:
                unordered = outcome.ending is Ending.ORDERED and task.id not in self.cancelled
                unordered &= outcome.attempt >= self._first_attempt  # that a former driver may have ordered
                stopping |= unordered and self.mode is Mode.RUNNING
                self._not_run(engine, task, outcome)
        if counted:
            engine.learn(elapsed / counted)
        self._touch(engine)
        return stopping

    def _count(self, engine: Engine, task: Task, outcome: Outcome) -> None:
        self._actions.append(RecordTask(engine.id, task, outcome, Verdict.COUNTS))
        if engine.context in self._limits:
            self._limits[engine.context] -= 1
        self._close_task(task, failed=outcome.return_code != 0)

    def _close_task(self, task: Task, *, failed: bool) -> None:
        if self._losses:
            self._losses.pop(task.id, None)
        if not failed:
            return
        self._note_failure(task)
        if self._fail_fast and self.mode is Mode.RUNNING:
            self._wind_down(Mode.ENDING, Conclusion.FAILED_FAST)
            self._end_everything(at_once=False)

    def _note_failure(self, task: Task) -> None:
        self._failed_since_barrier += 1
        if self._first_failed is None:
            self._first_failed = task

    def _not_run(self, engine: Engine, task: Task, outcome: Outcome) -> None:
        """The attempt did not come to its own end: it was ended on purpose, or could not be started."""
        if task.id in self.cancelled:
            self._spend(engine, -1)
            if outcome.pid:
                self._actions.append(RecordTask(engine.id, task, outcome, Verdict.CANCELLED))
                self._close_cancelled(task)
            else:
                self._record_cancelled(task)
            return
        if outcome.ending is Ending.UNSTARTED and self._losses.get(task.id, 0) >= self._max_losses:
            self._count(engine, task, outcome)
            return
        self._spend(engine, -1)
        if outcome.pid:
            self._actions.append(RecordTask(engine.id, task, outcome, Verdict.ENDED))
        if outcome.ending is Ending.ORDERED or self._may_rerun(engine, task):
            self._run_again([task])

    def _odd_result(self, engine: Engine, outcome: Outcome) -> None:
        """A result of something that is not assigned to this engine now."""
        if (engine.claims or engine.commands) and self._keep(engine, outcome):
            return
        command = engine.per_engine.pop(outcome.attempt, None)
        if command is not None:
            self._per_engine_done(engine, command, outcome)
            return
        task = engine.adrift.pop(outcome.attempt, None)
        if task is None:
            return  # a repeat
        if outcome.ending is not Ending.OWN:
            return
        if task.id in self._again:
            self._again.discard(task.id)
            if self.mode is Mode.RUNNING:
                self._ready.remove(task)
            self._spend(engine, 1)
            self._count(engine, task, outcome)
        else:
            self._actions.append(RecordTask(engine.id, task, outcome, Verdict.SUPERSEDED))

    def _on_returned(self, event: Returned) -> None:
        engine = self.engines.get(event.engine)
        if engine is None or engine.state is State.LOST:
            return
        self._recall_answered(engine)
        back = [engine.assigned.pop(attempt) for attempt in event.attempts if attempt in engine.assigned]
        self.live -= len(back)
        self._spend(engine, -len(back))
        self._run_again(back)
        self._touch(engine)
        if back:
            self._recall_unwanted(engine)

    # ---- PERENGINE ----

    def _run_per_engine(self, engine: Engine, command: PerEngine) -> None:
        attempt = self._new_attempt()
        engine.per_engine[attempt] = command
        self._actions.append(AssignPerEngine(engine.id, attempt, command))

    def _new_attempt(self) -> int:
        attempt = self._next_attempt
        self._next_attempt = attempt + 1
        return attempt

    def _per_engine_done(self, engine: Engine, command: PerEngine, outcome: Outcome) -> None:
        self._actions.append(RecordPerEngine(engine.id, command, outcome))
        if engine.state is State.STARTING and not engine.per_engine:
            self._activate(engine)
        elif engine.state is State.STOPPING:
            self._release_if_stopped(engine)

    def _retire(self, engine: Engine) -> None:
        """Nothing is left for this engine: its STOP commands, then off it goes."""
        self._move(engine, State.STOPPING)
        engine.retired = True
        if not (self._at_once or engine.at_once):
            for command in self._commands[Phase.STOP]:
                if command.id not in engine.stops_given:
                    self._run_per_engine(engine, command)
        self._release_if_stopped(engine)

    def _release_if_stopped(self, engine: Engine) -> None:
        if not engine.per_engine:
            self._move(engine, State.LEAVING)
            self._actions.append(Release(engine.id))

    def _move(self, engine: Engine, state: State) -> None:
        engine.state = state
        self._touch(engine)

    # ---- holding, ending ----

    def _on_hold(self, event: Hold) -> None:
        self.held = True
        self._recall_everything()

    def _on_resume(self, event: Resume) -> None:
        self.held = False

    def _on_interrupt(self, event: Interrupt) -> None:
        if self.mode in (Mode.RUNNING, Mode.WINDING_DOWN):
            self._wind_down(Mode.ENDING, Conclusion.INTERRUPTED)
        self._at_once |= event.at_once
        if self.mode is not Mode.OVER:
            self._end_everything(at_once=event.at_once)

    def _wind_down(self, mode: Mode, conclusion: Conclusion) -> None:
        self.mode = mode
        self.conclusion = conclusion
        for claimed in self._claims.values():
            if claimed.outcome is None and mode is not Mode.ENDING and claimed.engine.state is not State.LOST:
                self._actions.append(End(claimed.engine.id, [claimed.attempt], at_once=False))
        self._ready.clear()
        self._unread.clear()
        self._barrier = None

    def _end_everything(self, *, at_once: bool) -> None:
        for engine in self.engines.values():
            if engine.state is not State.LOST:
                attempts = [*engine.assigned, *engine.claims, *engine.per_engine]
                if attempts:
                    self._actions.append(End(engine.id, attempts, at_once))

    # ---- what follows from the state ----

    def _touch(self, engine: Engine) -> None:
        """The engine changed: put it into the rotations where it belongs."""
        name = engine.id
        active = engine.state is State.ACTIVE and self._budget.get(engine.context, 1) > 0
        busy = engine.busy
        room = max(0, engine.slots + engine.depth - busy) if active else 0
        self._room += room - engine.room
        engine.room = room
        for pool, member in (
            (self._idle, active and busy < engine.slots),
            (self._open, room > 0),
            (self._queued, busy > engine.slots and not engine.recalling and engine.queued > 0),
            (self._resting, not busy and not engine.per_engine and engine.state in RESTING),
        ):
            if member is not (name in pool):
                if member:
                    pool[name] = engine
                else:
                    del pool[name]

    def _spend(self, engine: Engine, count: int) -> None:
        """`count` more tasks of the engine's context are assigned (or, negative, are not after all)."""
        if not count or engine.context not in self._budget:
            return
        before = self._budget[engine.context]
        self._budget[engine.context] = before - count
        if (before > 0) != (before - count > 0):
            for other in self.engines.values():
                if other.context == engine.context:
                    self._touch(other)

    def _settle(self) -> None:
        if self.mode is Mode.RUNNING:
            self._dispatch()
            while self._barrier is not None and not self._ready and not self.live:
                self._complete_barrier(self._barrier)
                self._dispatch()
            self._rebalance()
        if self.mode is not Mode.CLOSING and self._work_is_done():
            self.mode = Mode.CLOSING
        self._let_go()

    def _dispatch(self) -> None:
        if self.held or not self._ready or self.mode is not Mode.RUNNING:
            return
        batches: dict[str, list[tuple[int, Task]]] = {}
        self._spread(self._idle, batches, queue=False)
        if self._ready:
            self._spread(self._open, batches, queue=True)
        for name, pairs in batches.items():
            self._actions.append(Assign(name, pairs))

    def _spread(
        self, pool: OrderedDict[str, Engine], batches: dict[str, list[tuple[int, Task]]], *, queue: bool
    ) -> None:
        """Give one task to each engine of the pool in turn, as long as there are tasks and room."""
        ready, again = self._ready, self._again
        touched = {}
        while ready and pool:
            name, engine = next(iter(pool.items()))
            task = ready.popleft()
            if again:
                again.discard(task.id)
            attempt = self._next_attempt
            self._next_attempt = attempt + 1
            engine.assigned[attempt] = task
            self.live += 1
            batches.setdefault(name, []).append((attempt, task))
            touched[name] = engine
            if engine.busy < engine.slots + (engine.depth if queue else 0):
                pool.move_to_end(name)
            else:
                del pool[name]
            if self._budget:
                self._spend(engine, 1)
        for engine in touched.values():
            self._touch(engine)

    def _rebalance(self) -> None:
        """Nothing can be read or dispatched: call back what waits in queues for slots that are idle.

        What other engines were asked for already is not waited for: they may be silent for good."""
        if self._ready or not self._queued or not self._idle or self.held:
            return
        if self._source is Source.FLOWING and self._barrier is None:
            return
        wanted = sum(engine.slots - engine.busy for engine in self._idle.values())
        while wanted > 0 and self._queued:
            engine = next(iter(self._queued.values()))
            count = min(wanted, (engine.queued + 1) // 2)
            self._recall(engine, count)
            wanted -= count

    def _recall(self, engine: Engine, count: int) -> None:
        if count > 0 and not engine.recalling:
            engine.recalling = count
            self._recalling += count
            self._actions.append(Recall(engine.id, engine.newest(count)))
            self._touch(engine)

    def _recall_answered(self, engine: Engine) -> None:
        self._recalling -= engine.recalling
        engine.recalling = 0

    def _recall_unwanted(self, engine: Engine) -> None:
        """Nothing more shall start on this engine: call back what waits in its queue."""
        if engine.stopped:
            return  # it was told to end that
        if self.held or engine.state is State.DRAINING or self.mode is not Mode.RUNNING:
            self._recall(engine, engine.queued)

    def _recall_everything(self) -> None:
        for engine in list(self._queued.values()):
            self._recall(engine, engine.queued)

    def _complete_barrier(self, barrier: Barrier) -> None:
        self._actions.append(RecordBarrier(barrier, self._failed_since_barrier, self._first_failed))
        failed = self._failed_since_barrier
        self._failed_since_barrier = 0
        self._first_failed = None
        self._barrier = None
        if barrier.check and failed:
            self._wind_down(Mode.WINDING_DOWN, Conclusion.CHECK_FAILED)
        else:
            self._take_unread()

    def _work_is_done(self) -> bool:
        if self.live:
            return False
        if self.mode is not Mode.RUNNING:
            return not any(e.per_engine for e in self.engines.values() if e.state is State.STARTING)
        return (
            self._source is Source.ENDED
            and self._barrier is None
            and not self._ready
            and not self._unread
            and not any(e.state is State.STARTING for e in self.engines.values())
        )

    def _let_go(self) -> None:
        """Engines that can expect nothing more leave; the run is over when the last has left."""
        if self._resting and not (self._nothing_read and self.mode is Mode.RUNNING):
            everyone = self.mode is Mode.CLOSING
            if everyone or self._limits or self._draining:
                for engine in list(self._resting.values()):
                    if everyone or engine.draining or self._limits.get(engine.context, 1) <= 0:
                        self._retire(engine)
        if self.mode is Mode.CLOSING and not self.present:
            self.mode = Mode.OVER
            self._actions.append(Finish(self.conclusion))

    def _tail_is_short(self) -> bool:
        """Everything is running that will ever run: engines with nothing can be given back."""
        return (
            self.mode is Mode.RUNNING
            and not self.held
            and self._source is Source.ENDED
            and self._barrier is None
            and not self._ready
            and not self._unread
            and not self._queued
            and not self._recalling
        )
