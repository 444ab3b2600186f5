"""Puts what the plan wants recorded into status lines, and counts it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from disbatch.driver.roster import Member, Tally
from disbatch.driver.sofar import Line
from disbatch.model.outcome import LOST_RETURN_CODE, Outcome
from disbatch.model.status import Mark, Record, format_barrier, format_line, format_recorded, format_skipped
from disbatch.model.task import NO_REPEAT, Barrier, Task
from disbatch.plan import events

log = logging.getLogger(__name__)

CANCELLED = b"cancelled"
"""The snippet of a task that was cancelled before it ran."""
CANCELLED_RETURN_CODE = -signal.SIGTERM.value
"""Its return code, and that of one that ended with 0 when it was told to."""


class Scribe:
    """`write` takes a finished line; `say` a line for the user. `barriers_read` holds when the barriers
    that are not complete were read (monotonic seconds), oldest first. `ended(id, line)` is told of each task
    and barrier that is done. `is_written(line)`: a former driver of the run wrote this line, which does not
    count, already."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        tally: Tally,
        members: Mapping[str, Member],
        *,
        say: Callable[[str], None],
        source_name: str,
        hostname: str,
        barriers_read: deque[float],
        ended: Callable[[int, bytes], None] | None = None,
        is_written: Callable[[bytes], bool] = lambda line: False,
    ) -> None:
        self._write = write
        self._ended = ended
        self._is_written = is_written
        self._tally = tally
        self._members = members
        self._say = say
        self._source_name = source_name
        self._hostname = hostname
        self._barriers_read = barriers_read
        self._last_barrier = 0.0
        self._told_of_key = False
        self._nobody = Member("", hostname, -1, 0)
        """Where tasks are that never ran."""
        self.performers: dict[type, Callable[[Any], None]] = {
            events.RecordTask: self._task,
            events.RecordSkipped: self._skipped,
            events.CountRecorded: self._recorded,
            events.RecordLost: self._lost,
            events.RecordCancelled: self._cancelled,
            events.RecordPerEngine: self._per_engine,
            events.RecordBarrier: self._barrier,
        }

    def _where(self, line: int) -> str:
        return f"{self._source_name}:{line}"

    def _task(self, action: events.RecordTask) -> None:
        task, outcome, member = action.task, action.outcome, self._members[action.engine]
        if action.verdict is events.Verdict.CANCELLED and not outcome.return_code:
            outcome = msgspec.structs.replace(outcome, return_code=CANCELLED_RETURN_CODE)
        if action.verdict in (events.Verdict.COUNTS, events.Verdict.CANCELLED):
            self._tally.count(member, task, outcome)
            self._conclude(task, member, outcome)
        else:
            self._aside(task, member, outcome)

    def _aside(self, task: Task, member: Member, outcome: Outcome) -> None:
        """The line of an attempt that does not count."""
        mark = Mark.SUPERSEDED
        line = format_line(task.id, task.line, task.repeat, task.command, member.name, outcome, mark)
        if not self._is_written(line):
            self._tally.ended += 1
            self._tally.busy += outcome.elapsed
            self._write(line)

    def _conclude(self, task: Task, member: Member, outcome: Outcome) -> None:
        """The line that counts."""
        line = format_line(task.id, task.line, task.repeat, task.command, member.name, outcome)
        self._write(line)
        if self._ended is not None:
            self._ended(task.id, line)

    def _skipped(self, action: events.RecordSkipped) -> None:
        completed = action.completed
        self._tally.skipped += 1
        self._tally.skipped_failed += completed.failed
        assert isinstance(completed.former, Record)  # as Feed made it
        line = format_skipped(completed.former, completed.task)
        self._write(line)
        if self._ended is not None:
            self._ended(completed.task.id, line)

    def _recorded(self, action: events.CountRecorded) -> None:
        item, line = action.recorded.item, action.recorded.record
        assert isinstance(line, Line)  # as SoFar made it
        if isinstance(item, Task):
            self._tally.count_again(item, line.record)
        if line.written and self._ended is None:
            return
        text = format_recorded(line.record, item)
        if not line.written and isinstance(item, Task):
            self._write(text)
        if self._ended is not None:
            self._ended(item.id, text)

    def _lost(self, action: events.RecordLost) -> None:
        task, member, now = action.task, self._members[action.engine], time.time()
        self._tally.lost += 1
        outcome = Outcome(0, -1, 0, LOST_RETURN_CODE, 0.0, now, now, 0, b"", 0, b"")
        self._conclude(task, member, outcome)
        self._say(f"{self._where(task.line)}: task {task.id} given up: its engines were lost too often")

    def _cancelled(self, action: events.RecordCancelled) -> None:
        task, now = action.task, time.time()
        outcome = Outcome(0, -1, 0, CANCELLED_RETURN_CODE, 0.0, now, now, 0, b"", 0, CANCELLED)
        self._tally.count(self._nobody, task, outcome)
        self._conclude(task, self._nobody, outcome)

    def _per_engine(self, action: events.RecordPerEngine) -> None:
        command, outcome, member = action.command, action.outcome, self._members[action.engine]
        line = format_line(
            command.id, command.line, NO_REPEAT, command.command, member.name, outcome, Mark.PER_ENGINE
        )
        if self._is_written(line):
            return
        self._write(line)
        if outcome.return_code:
            what = f"PERENGINE {command.phase.name} ended with {outcome.return_code}"
            self._say(f"{self._where(command.line)}: {what} on {member.name}")

    def _tell_of_key(self, barrier: Barrier) -> None:
        """Somebody may wait for that key."""
        log.warning("line %d: key %r is not put", barrier.line, barrier.key)
        if not self._told_of_key:
            self._told_of_key = True
            self._say(f"{self._where(barrier.line)}: no key is put: this version has no key store yet")

    def _barrier(self, action: events.RecordBarrier) -> None:
        """A barrier's time is how long it kept later tasks waiting: since it was reached."""
        barrier, now, finish = action.barrier, time.monotonic(), time.time()
        reached = self._barriers_read.popleft() if self._barriers_read else now
        elapsed = now - max(reached, self._last_barrier)
        self._last_barrier = now
        line = format_barrier(
            *(barrier, self._hostname, os.getpid()), elapsed=elapsed, start=finish - elapsed, finish=finish
        )
        self._write(line)
        if self._ended is not None:
            self._ended(barrier.id, line)
        log.info("barrier %d (line %d) complete", barrier.id, barrier.line)
        if barrier.key is not None:
            self._tell_of_key(barrier)
        first = action.first_failed
        if barrier.check and action.failed and first is not None:
            tasks = "1 task" if action.failed == 1 else f"{action.failed} tasks"
            self._say(
                f"{self._where(barrier.line)}: BARRIER CHECK: {tasks} failed before it "
                f"(first task {first.id}, line {first.line}); the run ends here"
            )
