"""A world in memory for the plan: engines that obey, a source of items, a record that checks every action.

The world drives the very `Plan` as the driver does: each event is handled, its actions are performed, and
then items are read for as long as the plan has room. What an engine is sent and what it answers waits in its
two queues until `deliver_to` and `deliver_from` move it: a test decides every order of what happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from disbatch.model.idset import IdSet
from disbatch.model.task import (
    CORE,
    NO_DEMAND,
    Barrier,
    Demand,
    Ending,
    Item,
    Outcome,
    PerEngine,
    Phase,
    Task,
)
from disbatch.plan.capacity import Capacity
from disbatch.plan.engine import Engine, State
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
    Heard,
    Hold,
    Interrupt,
    Joined,
    Left,
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
from disbatch.plan.plan import Mode, Plan

ATTEMPTS = 1 << 40
"""Attempts of one driver."""


def task(number: int) -> Task:
    """Task `number`, on the line after it."""
    return Task(number, number + 1, -1, b":")


WIDE = Demand(2 * CORE)


def barrier(number: int, *, check: bool = False) -> Barrier:
    """A barrier with that task id."""
    return Barrier(number, number + 1, None, check, b"#DISBATCH BARRIER")


def outcome(
    attempt: int,
    return_code: int = 0,
    *,
    ending: Ending = Ending.OWN,
    pid: int = 77,
    elapsed: float = 5.0,
) -> Outcome:
    """How an attempt ended; a pid of 0 means that it never started."""
    return Outcome(attempt, 0, pid, return_code, elapsed, 1.0, 2.0, 0, b"", 0, b"", ending)


def free_cores(engine: Engine) -> int:
    """What follows from what the engine has."""
    tasks = [*engine.running.values(), *engine.adrift.values(), *[None] * len(engine.claims)]
    demands = [NO_DEMAND if task is None else task.demand for task in tasks]
    return engine.slots * CORE - sum(CORE if each.cores is None else each.cores for each in demands)


def check_engine(engine: Engine) -> None:
    """It starts what waits as soon as there is capacity, in order."""
    assert engine.capacity.free == free_cores(engine), engine.id
    assert not engine.running.keys() & engine.queued.keys()
    assert list(engine.queued) == sorted(engine.queued)
    if engine.queued:
        assert not engine.capacity.fits(next(iter(engine.queued.values())).demand), "an attempt waits in vain"
    if engine.state is State.LOST:
        assert not engine.assigned


def queue_room(engine: Engine) -> int:
    """How many more tasks its queue takes."""
    return engine.depth - len(engine.queued) + min(0, free_cores(engine) // CORE)


def check_turns(plan: Plan) -> None:
    """The engines that have room; those that are passed over have none for what is ready."""
    idle, queueing = set(), set()
    rotation, ready = plan.board.rotation, plan.board.backlog.ready
    for engine in plan.engines.values():
        if engine.state is not State.ACTIVE or not rotation.may_take(engine.context):
            continue
        if free_cores(engine) > 0 and not engine.queued:
            idle.add(engine.id)
        if queue_room(engine) > 0:
            queueing.add(engine.id)
    for turns, members in ((rotation.idle, idle), (rotation.queueing, queueing)):
        names = [each.id for each in turns]
        assert len(names) == len(members) and set(names) == members
    for turns, wait in ((rotation.idle, False), (rotation.queueing, True)):
        for engine in turns.passed.values():
            for demand in ready.classes.keys() - ready.new.keys():
                assert not (engine.capacity.holds if wait else engine.capacity.fits)(demand)


def check_ready(plan: Plan) -> None:
    """Each ready task waits once, with those of equal demand."""
    backlog = plan.board.backlog
    ready = [t.id for t in backlog.ready]
    assert len(ready) == len(set(ready)) == backlog.ready.count, "a task waits twice"
    assert all(t.demand == demand for demand, tasks in backlog.ready.classes.items() for t in tasks)
    assert all(backlog.ready.classes.values())
    if plan.mode is Mode.RUNNING:
        assert backlog.again <= set(ready)
    elif not plan.reads:
        assert not ready and not backlog.unread


def check_consistency(plan: Plan) -> None:
    """What the plan keeps up to date step by step equals what follows from its state."""
    live = room = recalling = lost = 0
    board, rotation = plan.board, plan.board.rotation
    queued, resting = {}, set()
    for engine in plan.engines.values():
        check_engine(engine)
        live += len(engine.assigned)
        recalling += engine.recalling
        lost += engine.state is State.LOST
        own_room = 0
        if engine.state is State.ACTIVE:
            at_once = 0 if engine.queued else free_cores(engine) // CORE
            own_room = max(0, at_once) + max(0, queue_room(engine))
        assert engine.room == own_room, engine.id
        room += own_room if rotation.may_take(engine.context) else 0
        if engine.queued and not engine.recalling:
            queued[engine.id] = list(engine.queued.values())[-1].demand
        if engine.state in (State.ACTIVE, State.DRAINING) and not engine.busy and not engine.per_engine:
            resting.add(engine.id)
    assert set(rotation.resting) == resting
    assert {name: demand for demand, engines in rotation.queued.items() for name in engines} == queued
    assert all(rotation.queued.values())
    check_turns(plan)
    assert (plan.live, rotation.room, board.recalling, board.lost) == (live, room, recalling, lost)
    for context, limit in rotation.limits.items():
        assigned = sum(len(e.assigned) for e in plan.engines.values() if e.context == context)
        claimed = sum(claim.engine.context == context for claim in board.claims.values())
        assert rotation.budget[context] == limit - assigned - claimed, "a limit has sprung a leak"
        assert rotation.may_take(context) == (rotation.budget[context] > 0)
    check_ready(plan)


@dataclass
class FakeEngine:
    """An engine as `wire.engine_protocol` describes it: what it was sent is in `inbox`, its answers in
    `outbox`."""

    name: str
    slots: int
    context: str = ""
    connected: bool = True
    alive: bool = True
    stopping: bool = False
    """Told to leave, or told by its node to stop: ends what it has, then says goodbye."""
    evicted: bool = False
    waiting: list[int] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    wide: set[int] = field(default_factory=set)
    """Attempts that take two cores."""
    ending: set[int] = field(default_factory=set)
    commands: list[int] = field(default_factory=list)
    """PERENGINE attempts; the first one runs."""
    inbox: deque[Action] = field(default_factory=deque)
    outbox: deque[Event] = field(default_factory=deque)
    known_commands: dict[int, tuple[Phase, int]] = field(default_factory=dict)
    ran: list[tuple[Phase, int]] = field(default_factory=list)
    """PERENGINE commands that ended."""
    told: list[Outcome] = field(default_factory=list)
    """Outcomes that were delivered; their acknowledgement may be on its way still."""
    recorded: int = 0
    """Tasks that ended here by themselves, and whose results a former driver has acknowledged."""

    def fill(self) -> None:
        """Start what waits, in order."""
        while self.waiting and self.cores([*self.running, self.waiting[0]]) <= self.slots:
            self.running.append(self.waiting.pop(0))

    def cores(self, attempts: list[int]) -> int:
        """How many they take."""
        return sum(2 if attempt in self.wide else 1 for attempt in attempts)

    def answer(self, *outcomes: Outcome) -> None:
        """Outcomes go into the newest message, as the real engine coalesces them."""
        last = self.outbox[-1] if self.outbox else None
        if isinstance(last, Finished):
            self.outbox[-1] = Finished(self.name, [*last.outcomes, *outcomes])
        else:
            self.outbox.append(Finished(self.name, list(outcomes)))

    def obey(self, action: Action) -> None:
        """Do what one message from the driver says."""
        if self.evicted and isinstance(action, Assign | AssignPerEngine):
            new = [a for a, _ in action.pairs] if isinstance(action, Assign) else [action.attempt]
            self.answer(*(outcome(a, -15, ending=Ending.ORDERED, pid=0) for a in new))
        elif isinstance(action, Assign):
            self.waiting += [attempt for attempt, _ in action.pairs]
            self.wide |= {attempt for attempt, task in action.pairs if task.demand is WIDE}
        elif isinstance(action, AssignPerEngine):
            self.commands.append(action.attempt)
            self.known_commands[action.attempt] = (action.command.phase, action.command.id)
        elif isinstance(action, Recall):
            back = [a for a in self.waiting if a in action.attempts]
            self.waiting = [a for a in self.waiting if a not in back]
            self.outbox.append(Returned(self.name, back))
        elif isinstance(action, End):
            self.end(action.attempts)
        elif isinstance(action, Release):
            self.stop()
        self.fill()

    def end(self, attempts: Sequence[int]) -> None:
        """What waits is answered at once, what runs when it has ended."""
        for attempt in attempts:
            if attempt in self.waiting or attempt in self.commands[1:]:
                (self.waiting if attempt in self.waiting else self.commands).remove(attempt)
                self.answer(outcome(attempt, -15, ending=Ending.ORDERED, pid=0))
            elif attempt in self.running or attempt in self.commands:
                self.ending.add(attempt)

    def stop(self) -> None:
        """End everything, then go."""
        self.stopping = True
        self.end([*self.waiting, *self.running, *self.commands])
        self.say_goodbye()

    def finish(self, attempt: int, return_code: int, ending: Ending) -> None:
        """Something that runs here ends."""
        (self.running if attempt in self.running else self.commands).remove(attempt)
        if attempt in self.ending:
            self.ending.discard(attempt)
            return_code, ending = -15, Ending.ORDERED
        pid = 0 if ending is Ending.UNSTARTED else 77
        if attempt in self.known_commands:
            self.ran.append(self.known_commands[attempt])
        self.answer(outcome(attempt, return_code, ending=ending, pid=pid))
        self.fill()
        self.say_goodbye()

    def say_goodbye(self) -> None:
        """Once nothing is left here."""
        if self.alive and self.stopping and not self.running and not self.commands:
            self.outbox.append(Left(self.name))
            self.alive = False

    def lose_driver(self) -> None:
        """It was killed: what it sent and has not arrived never will; what it has not recorded for sure will
        be told to the next one."""
        self.inbox.clear()
        unsent = [o for e in self.outbox if isinstance(e, Finished) for o in e.outcomes]
        goodbye = any(isinstance(e, Left) for e in self.outbox)
        self.outbox.clear()
        if unsent or self.told[-2:]:
            self.answer(*self.told[-2:], *unsent)
        acknowledged = [o for o in self.told[:-2] if o.attempt not in self.known_commands]
        self.recorded += sum(o.ending is Ending.OWN for o in acknowledged)
        self.told = []
        if goodbye:
            self.outbox.append(Left(self.name))
        self.connected = self.alive or goodbye

    @property
    def busy(self) -> list[int]:
        """What could end now."""
        return self.running + self.commands[:1] if self.alive else []

    def holding(self) -> list[int]:
        """As its Hello says: waiting, running, or ended and not acknowledged."""
        unsent = [o.attempt for e in self.outbox if isinstance(e, Finished) for o in e.outcomes]
        return [*self.commands, *self.running, *self.waiting, *unsent, *(o.attempt for o in self.told[-2:])]


class World:
    """A plan and everything around it. Each action is checked against what the world knows to be true."""

    def __init__(self, plan: Plan, *, max_losses: int = 3) -> None:
        self.plan = plan
        self.max_losses = max_losses
        self.engines: dict[str, FakeEngine] = {}
        self.log: list[Action] = []
        self.items: deque[Item | Completed | Recorded] = deque()
        """What the source has and nobody has read."""
        self.offered: list[Item | Completed] = []
        """All that the source ever had."""
        self.generation = 0
        self.taking_over = False
        """Nothing is read until the engines are there."""
        self.ended = False
        self.broken = False
        self.told_end = False
        self.all_tasks: set[int] = set()
        self.barriers: list[Barrier] = []
        self.next_id = 0
        # The truth, as far as the plan was told.
        self.attempts: dict[int, tuple[str, Task | PerEngine]] = {}
        self.live: dict[str, dict[int, Task]] = {}
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.given_up: set[int] = set()
        self.losses: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.barriers_done = 0
        self.failed_since_barrier = 0
        self.counted: dict[str, int] = {}
        self.limits = dict(plan.board.rotation.limits)
        self.revived: set[str] = set()
        """Contexts where a result came back from a lost engine, or may come of an attempt that was replaced,
        or with engines that had left when the run was taken over: there may be more than the limit."""
        self.told_now: set[int] = set()
        """Attempts whose end the event tells that is being handled."""
        self.commands_done: dict[str, list[tuple[Phase, int]]] = {}
        self.start_commands: list[PerEngine] = []
        self.stop_commands: list[PerEngine] = []
        self.released: set[str] = set()
        self.ever_lost: set[str] = set()
        self.may_leave_early: set[str] = set()
        self.orders: dict[str, Drain | Stop] = {}
        """What users ordered of engines."""
        self.stops_due: dict[str, set[int]] = {}
        """The STOP commands that were known when an engine was to leave; none if it came after the run."""
        self.at_once = False
        self.stopped_at_once: set[str] = set()
        self.added = 0
        """Engines that `run_to_end` had to add."""
        self.expected = Conclusion.COMPLETE
        self.finish: Finish | None = None

    # ---- the source ----

    def offer(self, *kinds: str) -> None:
        """Put items into the source: task, wide (of two cores), failed or succeeded before, barrier, check,
        start, stop."""
        for kind in kinds:
            if kind in ("start", "stop"):
                phase = Phase.START if kind == "start" else Phase.STOP
                known = self.start_commands if kind == "start" else self.stop_commands
                command = PerEngine(len(known), 1, phase, b":")
                known.append(command)
                self.items.append(command)
                self.offered.append(command)
                continue
            number, self.next_id = self.next_id, self.next_id + 1
            if kind in ("barrier", "check"):
                self.barriers.append(barrier(number, check=kind == "check"))
                self.items.append(self.barriers[-1])
            else:
                self.all_tasks.add(number)
                new = Task(number, number + 1, -1, b":", WIDE if kind == "wide" else NO_DEMAND)
                self.items.append(new if kind in ("task", "wide") else Completed(new, kind == "failed", None))
            self.offered.append(self.items[-1])  # type: ignore[arg-type]

    def pump(self) -> None:
        """Read as the driver does."""
        plan = self.plan
        while not self.taking_over and (room := plan.room) > 0:
            taken = [self.items.popleft() for _ in range(min(room, len(self.items)))]
            if taken:
                self.step(Read(taken))
            if len(taken) < room:
                if not self.ended:
                    self.step(SourceDry())
                elif not self.told_end:
                    self.told_end = True
                    if self.broken and plan.mode is Mode.RUNNING:
                        self.expected = Conclusion.SOURCE_BROKEN
                    self.step(SourceEnded(self.broken))
                return

    # ---- events ----

    def feed(self, event: Event) -> list[Action]:
        """One event and all that follows from it, reading included; returns the actions."""
        before = len(self.log)
        self.step(event)
        self.pump()
        return self.log[before:]

    def step(self, event: Event) -> None:
        if self.finish is not None:
            assert self.plan.handle(event) == []
            return
        before = self.plan.mode
        self.learn(event)
        known = self.plan.engines.get(event.engine) if isinstance(event, Joined) else None
        was_lost = known is not None and known.state is State.LOST
        actions = self.plan.handle(event)
        if isinstance(event, Joined) and was_lost:
            self.learn_taken_back(event, actions)
        if isinstance(event, Interrupt) and before in (Mode.RUNNING, Mode.WINDING_DOWN):
            self.expected = Conclusion.INTERRUPTED
        for action in actions:
            self.perform(action)
        self.learn_inherited()
        for name, engine in self.plan.engines.items():
            if engine.retired:
                self.stops_due.setdefault(name, {c.id for c in self.plan.board.commands[Phase.STOP]})
        check_consistency(self.plan)
        if self.plan.mode is Mode.RUNNING:
            places = self.plan.find(IdSet([(0, self.next_id)]))
            due = {number for number in self.all_tasks if number < self.plan.read_to} - self.done
            assert {id for id, place in places.items() if not place.barrier} == due
        live = sum(len(held) for held in self.live.values())
        assert self.plan.live == live, f"live is {live}, the plan says {self.plan.live}"

    def learn(self, event: Event) -> None:
        """What an event makes true whatever the plan decides."""
        self.told_now = {o.attempt for o in event.outcomes} if isinstance(event, Finished) else set()
        if isinstance(event, Finished):
            for result in event.outcomes:
                ran = self.live[event.engine].pop(result.attempt, None)
                if ran is not None and result.ending is Ending.UNSTARTED:
                    self.losses[ran.id] = self.losses.get(ran.id, 0) + 1
                if result.ending is Ending.ORDERED and self.plan.mode is Mode.RUNNING:
                    self.may_leave_early.add(event.engine)
        elif isinstance(event, Returned):
            for attempt in event.attempts:
                self.live[event.engine].pop(attempt, None)
        elif isinstance(event, Lost | Left):
            held = self.live[event.engine]
            if isinstance(event, Lost):
                for attempt in self.plan.engines[event.engine].running if held else ():
                    self.losses[held[attempt].id] = self.losses.get(held[attempt].id, 0) + 1
            held.clear()
        elif isinstance(event, Interrupt):
            self.at_once |= event.at_once
        elif isinstance(event, Cancel):
            self.cancelled.update(*(range(first, last + 1) for first, last in event.ranges))
        elif isinstance(event, Drain | Stop):
            self.may_leave_early.add(event.engine)
            if not isinstance(self.orders.get(event.engine), Stop):
                self.orders[event.engine] = event
            if isinstance(event, Stop) and event.at_once:
                self.stopped_at_once.add(event.engine)

    def learn_taken_back(self, event: Joined, actions: list[Action]) -> None:
        """What a returned engine holds and need not end is its own again."""
        ended = {a for action in actions if isinstance(action, End) for a in action.attempts}
        for attempt in event.holding:
            _, what = self.attempts[attempt]
            claimed = attempt in self.plan.engines[event.engine].claims
            if attempt not in ended and isinstance(what, Task) and not claimed:
                self.live[event.engine][attempt] = what
                self.revived.add(self.engines[event.engine].context)

    # ---- another driver ----

    def restart(self, late: set[str]) -> None:
        """The driver was killed. The next one reads all that there is again, with what is recorded, and knows
        what users ordered. Engines come back at once, but for those in `late`."""
        self.generation, self.told_end = self.generation + 1, False
        board = self.plan.board
        heard = {name for name, e in board.engines.items() if e.state is not State.LOST}
        self.revived |= {e.context for name, e in self.engines.items() if name not in heard or not e.alive}
        self.plan = Plan(
            max_losses=self.max_losses,
            fail_fast=board.fail_fast,
            limits=self.limits,
            first_attempt=self.generation * ATTEMPTS,
        )
        recorded = [b.id for b in self.barriers[: self.barriers_done]]
        self.items = deque(
            item
            if isinstance(item, PerEngine) or (plain.id not in self.done and plain.id not in recorded)
            else Recorded(plain, plain.id in self.failed, None)
            for item in self.offered
            if (plain := item.task if isinstance(item, Completed) else item) is not None
        )
        for held in self.live.values():
            held.clear()
        self.losses.clear()
        self.released.clear()
        self.failed_since_barrier = 0
        self.expected = Conclusion.COMPLETE
        for name, engine in self.engines.items():
            engine.lose_driver()
            if engine.alive:
                self.stops_due.pop(name, None)
            if name in late:
                engine.connected = False
        self.taking_over = True
        self.step(Hold())
        if self.cancelled:
            self.step(Cancel([(number, number) for number in self.cancelled]))
        running = self.running_on({name for name, engine in self.engines.items() if engine.connected})
        before = len(self.log)
        for name, engine in self.engines.items():
            if engine.connected:
                self.introduce(name)
        self.taking_over = False
        self.step(Heard())
        self.feed(Resume())
        started = {t.id for a in self.log[before:] if isinstance(a, Assign) for _, t in a.pairs}
        assert not started & running, "what runs was started again"

    def running_on(self, engines: set[str]) -> set[int]:
        """Tasks that run there, and nobody told them to end."""
        held = {name: self.engines[name] for name in engines if self.engines[name].alive}
        attempts = {a for engine in held.values() for a in engine.running if a not in engine.ending}
        return {what.id for a in attempts if isinstance(what := self.attempts[a][1], Task)}

    def introduce(self, name: str) -> None:
        """An engine says Hello to a driver that took the run over."""
        engine = self.engines[name]
        engine.connected = True
        holding = list(dict.fromkeys(engine.holding()))
        tasks, commands = {}, dict.fromkeys(engine.ran)
        for attempt in holding:
            what = self.attempts[attempt][1]
            if isinstance(what, PerEngine):
                commands[what.phase, what.id] = attempt
            else:
                tasks[attempt] = what.id
        past = Past(tasks, commands, engine.stopping, engine.recorded)
        if engine.stopping or Phase.STOP in (phase for phase, _ in commands):
            self.may_leave_early.add(name)
        self.feed(Joined(name, Capacity(engine.slots), holding, engine.context, past, name in self.orders))
        if name in self.orders:
            self.feed(self.orders[name])

    def inherited(self, name: str) -> set[int]:
        """What became an engine's own in this very step."""
        return set(self.plan.engines[name].assigned) if self.generation else set()

    def learn_inherited(self) -> None:
        """What is an engine's own now although this plan never gave it to it, and what was taken from it."""
        if not self.generation:
            return
        for name, engine in self.plan.engines.items():
            for attempt, task in engine.assigned.items():
                assert self.attempts[attempt] == (name, task)
                self.live[name][attempt] = task
            for attempt in self.live[name].keys() - engine.assigned.keys():
                assert attempt in engine.adrift, "a task is nowhere"
                self.revived.add(engine.context)  # by another driver, who does not know of that
                del self.live[name][attempt]

    # ---- actions ----

    def perform(self, action: Action) -> None:
        """Check one action, record it, and pass it on."""
        assert self.finish is None, f"{action} after Finish"
        self.log.append(action)
        check = getattr(self, f"check_{type(action).__name__.lower()}")
        check(action)
        if isinstance(action, Assign | AssignPerEngine | Recall | End | Release):
            assert self.plan.engines[action.engine].state is not State.LOST, "sent to a lost engine"
            self.engines[action.engine].inbox.append(action)

    def new_attempt(self, engine: str, attempt: int, what: Task | PerEngine) -> None:
        assert attempt not in self.attempts, "an attempt's number was used twice"
        assert engine not in self.released, "work for an engine that was released"
        self.attempts[attempt] = (engine, what)

    def check_assign(self, action: Assign) -> None:
        name = action.engine
        started = {i for phase, i in self.commands_done.get(name, []) if phase is Phase.START}
        assert started == {c.id for c in self.start_commands}, "a task before the START commands are done"
        assert self.plan.mode is Mode.RUNNING and not self.plan.held
        for attempt, assigned in action.pairs:
            self.new_attempt(name, attempt, assigned)
            assert assigned.id not in self.done
            assert assigned.id not in self.cancelled
            assert not any(t.id == assigned.id for held in self.live.values() for t in held.values())
            before = sum(b.id < assigned.id for b in self.barriers)
            assert before <= self.barriers_done, f"task {assigned.id} starts across a barrier"
            self.live[name][attempt] = assigned
        engine = self.plan.engines[name]
        assert len(self.live[name]) <= engine.slots + engine.depth

    def check_assignperengine(self, action: AssignPerEngine) -> None:
        self.new_attempt(action.engine, action.attempt, action.command)
        assert not self.live[action.engine], "a PERENGINE command beside tasks"
        assert (action.command.phase, action.command.id) not in self.commands_done.get(action.engine, [])

    def check_recall(self, action: Recall) -> None:
        known = set(self.live[action.engine]) | self.inherited(action.engine) | self.told_now
        assert action.attempts and set(action.attempts) <= known

    def check_end(self, action: End) -> None:
        assert action.attempts

    def check_release(self, action: Release) -> None:
        assert not self.live[action.engine]
        assert action.engine not in self.released or action.engine in self.ever_lost
        self.released.add(action.engine)
        engine = self.engines[action.engine]
        if self.plan.mode is Mode.RUNNING:
            spent = self.plan.has_reached_limit(engine.context)
            assert action.engine in self.may_leave_early or spent, "let go in the middle of the run"

    def check_recordtask(self, action: RecordTask) -> None:
        assert self.attempts[action.outcome.attempt] == (action.engine, action.task)
        number = action.task.id
        if action.verdict is Verdict.COUNTS:
            assert not any(t.id == number for held in self.live.values() for t in held.values())
            if action.outcome.ending is Ending.UNSTARTED:
                assert self.losses[number] > self.max_losses
            else:
                assert action.outcome.ending is Ending.OWN
            context = self.engines[action.engine].context
            self.counted[context] = self.counted.get(context, 0) + 1
            if action.engine in self.ever_lost:
                self.revived.add(context)
            limit = self.limits.get(context)
            assert limit is None or context in self.revived or self.counted[context] <= limit
            self.close(number, failed=action.outcome.return_code != 0)
            if action.outcome.return_code:
                self.fail_fast()
        elif action.verdict is Verdict.ENDED:
            assert action.outcome.ending is not Ending.OWN and action.outcome.pid
            assert number not in self.cancelled
        elif action.verdict is Verdict.CANCELLED:
            assert action.outcome.ending is not Ending.OWN and action.outcome.pid
            self.close_cancelled(number)
        else:
            assert action.outcome.ending is Ending.OWN
            alive = any(t.id == number for held in self.live.values() for t in held.values())
            beside = self.told_now - {action.outcome.attempt}
            alive |= any(self.attempts[a][1] == action.task for a in beside)
            assert number in self.done or alive, "superseded by nothing"

    def close_cancelled(self, number: int) -> None:
        assert number in self.cancelled
        assert not any(t.id == number for held in self.live.values() for t in held.values())
        self.close(number, failed=True)

    def check_countrecorded(self, action: CountRecorded) -> None:
        """Not a line: what the next driver reads of it."""
        item = action.recorded.item
        if isinstance(item, Barrier):
            if item.check and self.failed_since_barrier and self.expected is Conclusion.COMPLETE:
                self.expected = Conclusion.CHECK_FAILED
            self.failed_since_barrier = 0
            return
        assert item.id in self.done
        self.failed_since_barrier += action.recorded.failed
        if action.recorded.failed:
            self.fail_fast()

    def close(self, number: int, *, failed: bool) -> None:
        assert number not in self.done, f"task {number} is recorded twice"
        if failed:
            self.failed.add(number)
        assert number in self.all_tasks
        self.done.add(number)
        self.failed_since_barrier += failed

    def check_recordskipped(self, action: RecordSkipped) -> None:
        self.close(action.completed.task.id, failed=action.completed.failed)

    def check_recordcancelled(self, action: RecordCancelled) -> None:
        self.close_cancelled(action.task.id)

    def check_recordlost(self, action: RecordLost) -> None:
        assert self.losses[action.task.id] == self.max_losses + 1
        self.close(action.task.id, failed=True)
        self.given_up.add(action.task.id)
        self.fail_fast()

    def fail_fast(self) -> None:
        """A task failed, or was given up."""
        if self.plan.board.fail_fast and self.expected is Conclusion.COMPLETE:
            self.expected = Conclusion.FAILED_FAST

    def check_recordperengine(self, action: RecordPerEngine) -> None:
        done = self.commands_done.setdefault(action.engine, [])
        key = (action.command.phase, action.command.id)
        if not self.generation:  # an engine may not know yet that a former driver recorded it
            assert key not in done, "a PERENGINE command is recorded twice"
        done.append(key)

    def check_recordbarrier(self, action: RecordBarrier) -> None:
        assert action.barrier == self.barriers[self.barriers_done], "barriers out of order"
        self.barriers_done += 1
        assert all(number in self.done for number in self.all_tasks if number < action.barrier.id)
        assert action.failed == self.failed_since_barrier
        assert (action.first_failed is None) == (action.failed == 0)
        if action.barrier.check and action.failed and self.expected is Conclusion.COMPLETE:
            self.expected = Conclusion.CHECK_FAILED
        self.failed_since_barrier = 0

    def check_finish(self, action: Finish) -> None:
        self.finish = action
        assert action.conclusion is self.expected
        assert not self.plan.present
        if action.conclusion is Conclusion.COMPLETE:
            assert self.done == self.all_tasks
            assert self.barriers_done == len(self.barriers)

    # ---- engines ----

    def join(self, slots: int, context: str = "", name: str = "") -> str:
        """A new engine is heard; returns its name."""
        name = name or f"e{len(self.engines)}"
        self.engines[name] = FakeEngine(name, slots, context)
        self.live[name] = {}
        if self.plan.mode is not Mode.RUNNING:
            self.stops_due[name] = set()
        self.feed(Joined(name, Capacity(slots), [], context))
        return name

    def deliver_to(self, name: str) -> bool:
        """The engine gets its next message; False if there is none that can arrive."""
        engine = self.engines[name]
        if not (engine.inbox and engine.alive and engine.connected):
            return False
        engine.obey(engine.inbox.popleft())
        return True

    def deliver_from(self, name: str) -> bool:
        """The plan gets the engine's next message; False if there is none that can arrive."""
        engine = self.engines[name]
        if not (engine.outbox and engine.connected) or self.finish:
            return False
        event = engine.outbox.popleft()
        if isinstance(event, Finished):
            engine.told += event.outcomes
        self.feed(event)
        return True

    def deliver_all(self) -> bool:
        """Everything that can arrive arrives; False if there was nothing."""
        any_at_all = False
        for _ in range(10_000):
            moved = [d(name) for name in list(self.engines) for d in (self.deliver_to, self.deliver_from)]
            if not any(moved):
                return any_at_all
            any_at_all = True
        raise AssertionError("messages without end")

    def finish_some(self, name: str, count: int, return_code: int = 0, ending: Ending = Ending.OWN) -> bool:
        """At most `count` of the things that run on the engine end."""
        engine = self.engines[name]
        some = engine.busy[:count]
        for attempt in some:
            engine.finish(attempt, return_code, ending)
        return bool(some)

    def lose(self, name: str) -> None:
        """The driver gives the engine up: what it was sent and has not got, it will never get."""
        engine = self.engines[name]
        engine.connected = False
        engine.inbox.clear()
        self.ever_lost.add(name)
        self.feed(Lost(name))

    def come_back(self, name: str) -> None:
        """The engine is heard again, lost or only briefly cut off."""
        engine = self.engines[name]
        engine.connected = True
        if self.finish is None and name not in self.plan.engines and self.generation:
            self.revived.add(engine.context)
            self.introduce(name)
        if self.finish is not None or name not in self.plan.engines:
            return
        if self.plan.engines[name].state is State.LOST:
            self.released.discard(name)
        self.feed(Joined(name, Capacity(engine.slots), engine.holding(), engine.context))

    @property
    def quiet(self) -> bool:
        """Nothing is on its way."""
        return not any(e.connected and ((e.inbox and e.alive) or e.outbox) for e in self.engines.values())

    def check_busy(self) -> None:
        """With nothing on its way, no slot is idle while a task could start there."""
        plan = self.plan
        if not self.quiet or plan.mode is not Mode.RUNNING or plan.held:
            return
        idle = [
            e.capacity
            for e in plan.engines.values()
            if e.state is State.ACTIVE
            and plan.board.rotation.may_take(e.context)
            and e.capacity.free >= CORE
            and not e.queued
            and self.engines[e.id].connected
        ]
        if not idle:
            return
        ready = plan.board.backlog.ready.classes
        assert not any(capacity.fits(demand) for demand in ready for capacity in idle), (
            "idle beside ready tasks"
        )
        assert not (self.items and plan.room), "a slot is idle beside an unread source"
        if any(e.recalling and not self.engines[e.id].connected for e in plan.engines.values()):
            return  # what is asked of an engine that has fallen silent is not known to be in vain yet
        for engine in self.engines.values():
            if engine.connected and engine.alive and engine.waiting:
                demand = WIDE if engine.waiting[-1] in engine.wide else NO_DEMAND
                assert not any(capacity.fits(demand) for capacity in idle), "a slot is idle beside a queue"

    def run_to_end(self) -> None:
        """Heal everything, end the source, and run until the plan says that it is over."""
        if self.finish is not None:
            return
        self.ended = True
        for name, engine in self.engines.items():
            if engine.alive and not engine.connected:
                self.come_back(name)
            elif not engine.alive and not engine.connected:
                self.lose(name)
        self.feed(Resume())
        for _ in range(10_000):
            moved = self.deliver_all()
            self.check_busy()
            if self.finish is not None:
                return
            moved |= sum(self.finish_some(name, 1000) for name in list(self.engines)) > 0
            if not moved:
                self.added += 1
                assert self.added == 1, "an engine without limits is there, and the plan is stuck"
                self.join(3)
        raise AssertionError("the run does not end")
