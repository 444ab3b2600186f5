"""Collect the view of a run when a watcher asks for it, and keep the course of the run so far.

Nothing in the view is updated for each task, so a run that nobody watches pays nothing for it. The course is
a list of points, which become fewer as the run gets longer; the rate is that of about the last minute.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple, TypeVar

from disbatch.driver.engine_state import Joined, Lost
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.tally import Tally
from disbatch.model.idset import IdSet
from disbatch.model.task import Task
from disbatch.model.text import valid
from disbatch.model.view import (
    BarrierRow,
    CoursePoint,
    EngineRow,
    FailureRow,
    LogRow,
    RunningRow,
    RunView,
    as_text,
    former_engine,
)
from disbatch.plan.engine import Engine, State
from disbatch.plan.plan import Plan
from disbatch.plan.state import Mode
from disbatch.wire.client_protocol import MOST_LOG, Wants

FIRST_STEP = 1.0
"""Seconds between two points, at first."""
MOST_POINTS = 600
"""At this number every other point is dropped, and the step doubles."""
WINDOW = 60.0
"""Seconds over which a rate is computed."""


class Course:
    """The counts of a run over time. Points that are added too soon after another are not kept."""

    def __init__(self) -> None:
        self.points: list[CoursePoint] = []
        self._step = FIRST_STEP
        self._recent: deque[tuple[float, int]] = deque()
        """Times, and how many tasks this driver had recorded by then."""
        self._now = (0.0, 0)

    def add(self, point: CoursePoint, inherited: int = 0) -> None:
        """Add the counts of this moment; `inherited` of the done tasks were recorded by a former driver."""
        points, recent = self.points, self._recent
        self._now = now = (point.seconds, point.done - inherited)
        if not points or point.seconds >= points[-1].seconds + self._step:
            points.append(point)
            if len(points) > MOST_POINTS:
                del points[1::2]
                self._step *= 2
        if not recent or point.seconds >= recent[-1][0] + FIRST_STEP:
            recent.append(now)
            while len(recent) > 2 and recent[1][0] <= point.seconds - WINDOW:
                recent.popleft()

    @property
    def rate(self) -> float | None:
        """Tasks a second over about the last minute; None while it is not known."""
        if not self._recent:
            return None
        (then, before), (now, done) = self._recent[0], self._now
        return (done - before) / (now - then) if now > then and done > before else None


class EngineRates:
    """The rate of each of many engines."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int, float]] = {}
        """By engine: the time of the last call, what was done by then, the rate."""

    def rate(self, engine: str, now: float, done: int, begun: float) -> float:
        """Tasks a second over about the last minute, or since it has `begun` if that is less."""
        known = self._known.get(engine)
        if known is None:
            rate = done / (now - begun) if now > begun else 0.0
        else:
            then, before, rate = known
            since = now - then
            if since < FIRST_STEP:
                return rate
            weight = min(1.0, since / min(WINDOW, max(since, now - begun)))
            rate += weight * ((done - before) / since - rate)
        self._known[engine] = (now, done, rate)
        return rate


_Row = TypeVar("_Row")

COUNTS_ONLY = Wants(engines=0)
STATES = {
    State.STARTING: "starting",
    State.ACTIVE: "active",
    State.DRAINING: "draining",
    State.STOPPING: "leaving",
    State.LEAVING: "leaving",
    State.LOST: "lost",
}


class ViewInputs(NamedTuple):
    """What a view is collected from. `driver`, `jobid`, `name`, `total`, `notice`: as in `RunView`.
    `label_of(context)`; `heard(engine)`: when it was last heard; `now()`: both by the loop's clock."""

    driver: int
    jobid: str
    name: str
    total: Callable[[], int | None]
    plan: Plan
    entries: Mapping[str, EngineEntry]
    tally: Tally
    holds: Holds
    label_of: Callable[[str], str]
    heard: Callable[[str], float | None]
    notice: Callable[[], str]
    now: Callable[[], float]


class StatusCollector:
    """`look` collects; `view` gives as much of that as a client wants."""

    def __init__(self, inputs: ViewInputs) -> None:
        self._inputs = inputs
        self._log: deque[LogRow] = deque(maxlen=MOST_LOG)
        self._logged = 0
        self._rates = EngineRates()
        self._course = Course()
        self._begun = inputs.now()
        self._started = time.time()
        self._seconds = 0.0
        self._engines: list[EngineRow] = []
        self._running: list[RunningRow] = []
        self._running_wanted = 0
        """The number of running tasks that were searched since the last `look`."""

    def log(self, text: str) -> None:
        """Keep a message that the user was shown."""
        self._logged += 1
        self._log.append(LogRow(self._logged, time.time(), text))

    def note(self) -> None:
        """Collect the counts."""
        m = self._inputs
        self._seconds = m.now() - self._begun
        slots = sum(entry.slots for entry in m.entries.values() if isinstance(entry.state, Joined))
        self._point = CoursePoint(self._seconds, m.tally.done, m.tally.failed, min(m.plan.live, slots), slots)
        self._course.add(self._point, m.tally.inherited)

    def look(self) -> None:
        """Collect the counts and the engines."""
        self.note()
        before = dict(self._inputs.tally.before)
        self._engines = [self._row(entry, before.pop(entry.name, None)) for entry in self._entries]
        self._engines += [former_engine(m.name, -1, m.done, m.failed) for m in before.values()]
        self._running, self._running_wanted = [], 0

    def now(self, wants: Wants = COUNTS_ONLY) -> RunView:
        """The view of this moment, which has no number; without engines, it costs little."""
        if wants.engines:
            self.look()
        else:
            self.note()
        return self.view(wants, 0)

    def view(self, wants: Wants, number: int) -> RunView:
        """As much as is wanted of what was collected last, as the view of this number."""
        m, point = self._inputs, self._point
        barrier = m.plan.barrier
        return RunView(
            number=number,
            driver=m.driver,
            jobid=valid(m.jobid),
            name=valid(m.name),
            time=self._started + self._seconds,
            started=self._started,
            seconds=self._seconds,
            mode=m.plan.mode.name.lower().replace("_", " "),
            notice=valid(m.notice()),
            paused=Reason.PAUSE in m.holds,
            barrier=None if barrier is None else BarrierRow(barrier.id, barrier.line),
            total=m.total(),
            done=point.done,
            failed=point.failed,
            cancelled=m.tally.cancelled,
            inherited=m.tally.inherited,
            not_run=m.tally.not_run,
            skipped=m.tally.skipped,
            skipped_failed=m.tally.skipped_failed,
            running=point.running,
            waiting=m.plan.waiting + max(0, m.plan.live - point.running),
            lost=m.tally.lost,
            retried=m.plan.reruns,
            slots=point.slots,
            rate=self._course.rate,
            remaining=self._remaining(),
            engines_count=len(self._engines),
            engines=self._present_first(wants.engines),
            running_tasks=self._longest(wants.running),
            failures=self._failures(wants),
            failure_kinds=m.tally.kinds.most_frequent(wants.kinds),
            failure_kinds_count=m.tally.kinds.count,
            log=[row for row in _newest(self._log, wants.log) if row.number > wants.log_known],
            course=self._course.points if wants.course else [],
        )

    def _remaining(self) -> float | None:
        m, rate, total = self._inputs, self._course.rate, self._inputs.total()
        if total is None or m.holds.words or m.plan.mode is not Mode.RUNNING:
            return None
        left = max(0, total - m.tally.done - m.tally.skipped - m.tally.lost)
        if not left:
            return 0.0
        return left / rate if rate else None

    def _failures(self, wants: Wants) -> list[FailureRow]:
        found = _newest(self._inputs.tally.newest, wants.failures)
        return [FailureRow.of(*each) for each in found if each[0] > wants.failures_known]

    # ---- engines ----

    def _present_first(self, most: int) -> list[EngineRow]:
        rows = self._engines
        if len(rows) <= most or not most:
            return rows[:most]
        present = [row for row in rows if row.state not in ("left", "failed")]
        gone = [row for row in rows if row.state in ("left", "failed")]
        return [*present, *reversed(gone)][:most]

    @property
    def _entries(self) -> Iterable[EngineEntry]:
        return self._inputs.entries.values()

    def _row(self, entry: EngineEntry, before: EngineEntry | None) -> EngineRow:
        """`before`: what a former driver recorded of its node."""
        m = self._inputs
        beat = None if entry.beat is None else entry.beat.message
        engine = m.plan.engines.get(entry.engine)
        if engine is not None and engine.state is not State.LOST:
            running = min(engine.occupied, entry.slots)
            waiting = engine.busy - running
        else:
            running = waiting = 0
        now = self._begun + self._seconds
        begun = entry.state.since if isinstance(entry.state, Joined) else None
        heard = m.heard(entry.engine) if isinstance(entry.state, Joined | Lost) else None
        return EngineRow(
            engine=entry.engine,
            node=valid(entry.name),
            rank=entry.rank,
            label=valid(m.label_of(entry.context)),
            state=_state(entry, engine),
            slots=entry.slots,
            running=running,
            waiting=waiting,
            done=entry.done + (before.done if before else 0),
            failed=entry.failed + (before.failed if before else 0),
            rate=None if begun is None else self._rates.rate(entry.engine, now, entry.done, begun),
            heard=None if heard is None else max(0.0, now - heard),
            load=None if beat is None else beat.load,
            memory_used=beat.memory_used if beat is not None and beat.memory_total else None,
            memory_total=beat.memory_total if beat is not None and beat.memory_total else None,
        )

    # ---- running tasks ----

    def running_of(self, ids: list[tuple[int, int]]) -> list[int]:
        """Which of these tasks are in slots at this moment."""
        plan = self._inputs.plan
        lost = {name for name, engine in plan.engines.items() if engine.state is State.LOST}
        found = plan.find(IdSet(ids))
        return sorted(id for id, place in found.items() if place.engine and place.engine not in lost)

    def _longest(self, most: int) -> list[RunningRow]:
        if most > self._running_wanted:
            self._running, self._running_wanted = self._find_longest(most), most
        return self._running[:most]

    def _find_longest(self, most: int) -> list[RunningRow]:
        """Engines report their tasks with each heartbeat, the longest running first. Tasks that have ended
        since are left out, and those that have started since come last."""
        reported = (self._reported(entry) for entry in self._entries if entry.beat is not None)
        rows = [
            _running(entry, task, seconds)
            for seconds, _, entry, task in islice(
                heapq.merge(*reported, key=lambda each: (-each[0], each[1])), most
            )
        ]
        if len(rows) < most:
            known = {(row.engine, row.id) for row in rows}
            new = ((m, t) for m, t in self._in_slots() if (m.engine, t.id) not in known)
            rows += [_running(entry, task, None) for entry, task in islice(new, most - len(rows))]
        return rows

    def _reported(self, entry: EngineEntry) -> Iterator[tuple[float, int, EngineEntry, Task]]:
        engine = self._inputs.plan.engines.get(entry.engine)
        if engine is None or entry.beat is None:
            return
        since = max(0.0, self._begun + self._seconds - entry.beat.time)
        assigned = engine.assigned
        for running in entry.beat.message.running:
            task = assigned.get(running.attempt)
            if task is not None:
                yield running.elapsed + since, task.id, entry, task

    def _in_slots(self) -> Iterator[tuple[EngineEntry, Task]]:
        for engine in self._inputs.plan.engines.values():
            if engine.state is not State.LOST:
                for task in engine.running.values():
                    yield self._inputs.entries[engine.id], task


def _newest(rows: deque[_Row], most: int) -> list[_Row]:
    return list(islice(rows, max(0, len(rows) - most), None))


def _state(entry: EngineEntry, engine: Engine | None) -> str:
    if engine is not None:
        leaves = engine.draining and engine.state in (State.STARTING, State.ACTIVE)
        return "draining" if leaves else STATES[engine.state]
    return entry.state.name


def _running(entry: EngineEntry, task: Task, seconds: float | None) -> RunningRow:
    return RunningRow(
        task.id,
        task.line,
        entry.engine,
        valid(entry.name),
        seconds,
        as_text(task.command),
        valid(entry.label),
    )
