"""Read items from the source for the plan, and look each up in the records of former runs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from disbatch.model.errors import DisbatchError
from disbatch.model.statusline import Record
from disbatch.model.task import Barrier, Item, PerEngine, Task
from disbatch.model.text import short_list
from disbatch.plan.events import Completed, Event, Read, Recorded, SourceDry, SourceEnded
from disbatch.plan.plan import Plan
from disbatch.rundir.resume import Former
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.rundir.takeover import SoFar
from disbatch.sources.keystore import SourceAccess, StoreSource
from disbatch.sources.opening import Expected, Opened
from disbatch.sources.source import Source
from disbatch.sources.submitted import SubmittedFile, SubmittedSource, TaskIntake

ITEMS_A_TURN = 8192
"""Items in one turn of the loop: the driver must answer while it skips ten million completed tasks."""


class Submitted(NamedTuple):
    """The file of submitted tasks. `kept_open`: more are expected when the input has ended."""

    file: SubmittedFile
    kept_open: bool


class Feed:
    """The source of a run's tasks, and what is known of them.

    `opened`: the input. `former`: the tasks that former runs completed, with -r. `so_far`: what former
    drivers of this run recorded. `submitted`: where submitted tasks go, if the run accepts any. `error`: what
    stopped the reading, if something did."""

    def __init__(
        self,
        opened: Opened | Expected,
        former: Former | ByCommand | None,
        so_far: SoFar | None = None,
        submitted: Submitted | None = None,
    ) -> None:
        self._opened = opened
        self._submitted = submitted
        self.submissions: TaskIntake | None = None
        """Accepts submitted tasks, after `start`."""
        self._so_far = so_far
        self._source: Source | None = None
        self._former = former
        self._ended = False
        self._resting = False
        """No more items are read in this turn of the loop."""
        self.error: DisbatchError | None = None
        self.barriers_read: deque[float] = deque()
        """When barriers were read (monotonic seconds); the recorder removes the times."""

    @property
    def ids(self) -> int | None:
        """The number of ids in the input; None if it is not known."""
        if self._opened.summary is None or self._submitted is not None:
            return None
        return self._opened.summary.ids

    def known_ids(self, plan: Plan) -> int:
        """The number of ids that tasks and barriers have so far: of a regular file, of submitted tasks, and
        of a stream as far as it is read."""
        if self._ended:
            return plan.read_to
        regular = 0 if self._opened.summary is None else self._opened.summary.ids
        handed_in = 0 if self._submitted is None else self._submitted.file.next_id
        return max(plan.read_to, regular, handed_in)

    @property
    def total(self) -> int | None:
        """The number of tasks in a regular file, and of those submitted so far; None for a stream."""
        if self._opened.summary is None:
            return None
        return self._opened.summary.tasks + (0 if self._submitted is None else self._submitted.file.tasks)

    def source_of(self, id: int) -> str:
        """The name of the source of that task or barrier, for messages."""
        if self._submitted is not None and id >= self._submitted.file.ids:
            return self._submitted.file.path.name
        return "the tasks" if self._opened is None else self._opened.name

    @property
    def submitted_file(self) -> SubmittedFile | None:
        """The file of submitted tasks, if the run accepts any."""
        return None if self._submitted is None else self._submitted.file

    @property
    def goes_on(self) -> bool:
        """There is more to read, in the next turn of the loop."""
        return self._resting

    @property
    def takes_more(self) -> bool:
        """Tasks can be submitted."""
        return self._submitted is not None or self.expects_program

    def look_beside(self) -> None:
        """Look for results that engines of a former driver have written beside the status file since it was
        read. DisbatchError."""
        if self._so_far is not None:
            self._so_far.look_beside()

    def not_counted(self, plan: Plan) -> Iterator[tuple[Task, Record]]:
        """Tasks that former drivers of this run recorded and that were not read again, with their records."""
        if self._so_far is not None:
            yield from self._so_far.tasks_from(plan.read_to)

    def missing(self, plan: Plan) -> list[str]:
        """Lines for the user at the end of the source: about former runs, if these were not printed before,
        and warnings if former drivers of this run had read more of it."""
        told = [] if self._former is None or self._opened.summary is not None else self._former.in_hindsight()
        if self._so_far is None or self.ids is not None:
            return told
        warnings = told + self._so_far.beyond(plan.read_to)
        if running := self._not_met(plan):
            warnings.append(
                f"{self._so_far.source}: ended before tasks that engines have, which end: {running}"
            )
        return warnings

    def broken(self, plan: Plan) -> str:
        """A line for the user: what stopped the reading, and what follows from it."""
        words = f"{self.error}; no new task starts, running ones finish"
        running = self._not_met(plan)
        return f"{words}, but for those that were not met again, which end: {running}" if running else words

    def _not_met(self, plan: Plan) -> str:
        """The tasks that engines have from a former driver and that were not read again."""
        has = (lambda id: False) if self._so_far is None else self._so_far.has
        return short_list([str(id) for id in sorted(plan.strays) if not has(id)])

    @property
    def expects_program(self) -> bool:
        """The tasks come from a program, which may ask for their results."""
        return isinstance(self._opened, Expected)

    @property
    def expects_stranger(self) -> bool:
        """The same, and the driver did not start the program: it may ask for results after the last task."""
        return isinstance(self._opened, Expected) and not self._opened.is_started

    def start(
        self, loop: asyncio.AbstractEventLoop, pump: Callable[[], None], access: SourceAccess | None = None
    ) -> None:
        """Begin to read. `pump` is called when there are more items. `access`: what a source needs from the
        run."""
        self._loop = loop
        self._pump = pump
        source: Source = self._opened.source(loop, pump, access)
        if isinstance(source, StoreSource):
            self.submissions = source
        if self._submitted is not None:
            file, kept_open = self._submitted
            source = self.submissions = SubmittedSource(source, file, pump, kept_open=kept_open)
        self._source = source

    def close(self) -> None:
        """Stop reading."""
        if self._source is not None:
            self._source.close()

    async def end(self) -> None:
        """End the process that the driver started to get tasks, if any."""
        await self._opened.end()

    def events(self, plan: Plan) -> Iterator[Event]:
        """The events for which the plan has room now. Each must be handled before the next one is taken."""
        given, source = 0, self._source
        if source is None:
            return  # start() comes first
        while not self._ended and plan.reads:
            room = plan.room
            if room <= 0 and source.error is None:
                return
            if self._resting:
                return
            if given >= ITEMS_A_TURN:
                self._resting = True
                self._loop.call_soon(self._go_on)
                return
            items = source.take(room) if room > 0 else []
            if items:
                given += len(items)
                if Barrier in map(type, items):
                    barriers = sum(type(item) is Barrier and not self._is_recorded(item) for item in items)
                    self.barriers_read.extend([time.monotonic()] * barriers)
                yield self._read(items)
            if self.error is not None or (len(items) < max(room, 1) and source.ended):
                self._ended = True
                self.error = self.error or source.error
                yield SourceEnded(broken=self.error is not None)
            elif not items:
                yield SourceDry()
                return

    def _is_recorded(self, barrier: Barrier) -> bool:
        try:
            return self._so_far is not None and self._so_far.recorded(barrier) is not None
        except DisbatchError:
            return False  # the same error follows when the barrier is looked up

    def _go_on(self) -> None:
        self._resting = False
        self._pump()

    def _read(self, items: list[Item]) -> Read:
        former, so_far = self._former, self._so_far
        if former is None and so_far is None:
            return Read(list(items))
        known: list[Item | Completed | Recorded] = []
        for item in items:
            if so_far is not None and not isinstance(item, PerEngine):
                try:
                    recorded = so_far.recorded(item)
                except DisbatchError as error:
                    self.error = error
                    break
                if recorded is not None:
                    if former is not None and type(item) is Task:
                        former.pass_over(item)
                    known.append(recorded)
                    continue
            if former is not None and type(item) is Task:
                try:
                    record = former.lookup(item)
                except DisbatchError as error:  # only a stream is not checked before it runs
                    self.error = error
                    break
                known.append(item if record is None else Completed(item, record.failed, record))
            else:
                known.append(item)
        return Read(known)
