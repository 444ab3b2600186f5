"""Bring items from the source to the plan, checked against the record of former runs."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from disbatch.model.errors import DisbatchError
from disbatch.model.idset import IdSet
from disbatch.model.statusline import Record
from disbatch.model.task import Barrier, Item, PerEngine, Task
from disbatch.model.text import short_list
from disbatch.plan.events import Completed, Event, Read, Recorded, SourceDry, SourceEnded
from disbatch.plan.plan import Plan
from disbatch.rundir.journal import JournalState
from disbatch.rundir.resume import Former
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.rundir.takeover import SoFar
from disbatch.sources.keystore import SourceAccess, StoreSource
from disbatch.sources.opening import Expected, Opened
from disbatch.sources.source import Source
from disbatch.sources.submitted import SubmittedFile, SubmittedSource, Taking

ITEMS_A_TURN = 8192
"""Items after which the loop gets a turn: ten million skipped tasks must not deafen the driver."""


class Submitted(NamedTuple):
    """The file of what is handed in; and whether it is waited for when the input has ended."""

    file: SubmittedFile
    kept_open: bool


class Feed:
    """An open input, what former runs completed of it, and what a former driver of this run recorded; and
    where tasks that are handed in go, if they may be. `error` is what stopped the reading, if any."""

    def __init__(
        self,
        opened: Opened | Expected,
        former: Former | ByCommand | None,
        so_far: SoFar | None = None,
        submitted: Submitted | None = None,
    ) -> None:
        self._opened = opened
        self._submitted = submitted
        self.submissions: Taking | None = None
        """Where tasks go that are handed in, once it has begun."""
        self._so_far = so_far
        self._source: Source | None = None
        self._former = former
        self._ended = False
        self._resting = False
        """Enough for this turn of the loop; whoever wants more now shall not get it either."""
        self.error: DisbatchError | None = None
        self.barriers_read: deque[float] = deque()
        """When barriers were read (monotonic seconds); whoever records them takes these out."""

    @property
    def ids(self) -> int | None:
        """How many ids the input has; None if nobody can know."""
        if self._opened.summary is None or self._submitted is not None:
            return None
        return self._opened.summary.ids

    def known_ids(self, plan: Plan) -> int:
        """How many ids tasks and barriers have by now: those of a regular file, those handed in, and those of
        a stream as far as it is read."""
        if self._ended:
            return plan.read_to
        regular = 0 if self._opened.summary is None else self._opened.summary.ids
        handed_in = 0 if self._submitted is None else self._submitted.file.next_id
        return max(plan.read_to, regular, handed_in)

    @property
    def total(self) -> int | None:
        """How many tasks a regular file has, with those handed in since; None for a stream."""
        if self._opened.summary is None:
            return None
        return self._opened.summary.tasks + (0 if self._submitted is None else self._submitted.file.tasks)

    def source_of(self, id: int) -> str:
        """Where the task or barrier of that id comes from, for messages."""
        if self._submitted is not None and id >= self._submitted.file.ids:
            return self._submitted.file.path.name
        return "the tasks" if self._opened is None else self._opened.name

    @property
    def submitted_file(self) -> SubmittedFile | None:
        """Where tasks are written that are handed in, if they may be."""
        return None if self._submitted is None else self._submitted.file

    @property
    def goes_on(self) -> bool:
        """It reads, and nobody has to be waited for."""
        return self._resting

    @property
    def takes_more(self) -> bool:
        """Tasks can be handed in."""
        return self._submitted is not None or self.expects_program

    def look_beside(self, told: JournalState) -> dict[str, IdSet]:
        """Engines of a former driver may have left results beside the status file since that was read; the
        tasks that count for the limit of a context, then. DisbatchError."""
        if self._so_far is None:
            return {}
        self._so_far.look_beside()
        return self._so_far.counting(told)

    def not_counted(self, plan: Plan) -> Iterator[tuple[Task, Record]]:
        """What a former driver of this run recorded of tasks that were not read again."""
        if self._so_far is not None:
            yield from self._so_far.tasks_from(plan.read_to)

    def missing(self, plan: Plan) -> list[str]:
        """Nothing more will be read: what the user should know of former runs, unless that was told, and
        warnings, if a former driver of this run read more than that."""
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
        """What stopped the reading, and what follows."""
        words = f"{self.error}; no new task starts, running ones finish"
        running = self._not_met(plan)
        return f"{words}, but for those that were not met again, which end: {running}" if running else words

    def _not_met(self, plan: Plan) -> str:
        """Tasks that engines have from a former driver, and that were not read again."""
        has = (lambda id: False) if self._so_far is None else self._so_far.has
        return short_list([str(id) for id in sorted(plan.strays) if not has(id)])

    @property
    def expects_program(self) -> bool:
        """Its tasks come from a program, which may want to know how they ended."""
        return isinstance(self._opened, Expected)

    @property
    def expects_stranger(self) -> bool:
        """And we did not start it: it may still want to know when all has ended."""
        return isinstance(self._opened, Expected) and not self._opened.is_started

    def start(
        self, loop: asyncio.AbstractEventLoop, pump: Callable[[], None], access: SourceAccess | None = None
    ) -> None:
        """Begin to read; `pump` is called when there is more than there was. `access` is
        what a source needs from the run."""
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
        """Read no more."""
        if self._source is not None:
            self._source.close()

    async def end(self) -> None:
        """See that no process is left that was to give tasks."""
        await self._opened.end()

    def events(self, plan: Plan) -> Iterator[Event]:
        """The events that the plan has room for now; each must be handled before the next is asked for."""
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
            return False  # it is met again when the barrier is read

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
