"""Write what the plan wants recorded: status lines, counts, and the journal for a takeover."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.settings import Settings
from disbatch.driver.tally import Tally, view_of
from disbatch.model.failure import line_of_outcome
from disbatch.model.statusline import (
    Mark,
    Record,
    format_barrier,
    format_line,
    format_recorded,
    format_skipped,
)
from disbatch.model.task import LOST_RETURN_CODE, NO_REPEAT, Barrier, Item, Outcome, PerEngine, Reason, Task
from disbatch.model.text import counted
from disbatch.model.view import EndedTask
from disbatch.plan import events
from disbatch.rundir.journal import JournalLine
from disbatch.rundir.journal_file import JournalFile
from disbatch.rundir.takeover import Line

log = logging.getLogger(__name__)

CANCELLED = b"cancelled"
"""The snippet of a task that was cancelled before it ran."""
CANCELLED_RETURN_CODE = -signal.SIGTERM.value
"""Its return code, and that of a cancelled task that ended with 0."""


class Recorder:
    """Carries out the actions of the plan that record something; `performers` has a method for each.

    `write` takes a status line, `notify_user` a line for the user, `source_name(id)` names the source of a
    task or barrier. `barriers_read`: when the barriers that are not complete were read (monotonic seconds),
    oldest first. `asides`: hashes of the lines of a former driver that are not results. Each of `ended` is
    called with id and line of each task and barrier that is done, each of `failed` with each task that failed
    by itself or was given up, `keyed` with each complete barrier that has a key.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        tally: Tally,
        entries: Mapping[str, EngineEntry],
        *,
        notify_user: Callable[[str], None],
        source_name: Callable[[int], str],
        hostname: str,
        barriers_read: deque[float],
        asides: set[int],
        keyed: Callable[[Barrier], None],
        ended: Sequence[Callable[[int, bytes], None]] = (),
        failed: Sequence[Callable[[EndedTask], None]] = (),
    ) -> None:
        self._write = write
        self._asides = asides
        self._ended = ended
        self._failed = failed
        self._tally = tally
        self._entries = entries
        self._notify_user = notify_user
        self._source_name = source_name
        self._hostname = hostname
        self._barriers_read = barriers_read
        self._last_barrier = 0.0
        self._keyed = keyed
        self._nobody = EngineEntry("", hostname, -1, 0)
        """Stands for the engine of tasks that never ran."""
        self.performers: dict[type, Callable[[Any], None]] = {
            events.RecordTask: self._task,
            events.RecordSkipped: self._skipped,
            events.CountRecorded: self._recorded,
            events.RecordLost: self._lost,
            events.RecordCancelled: self._cancelled,
            events.RecordPerEngine: self._per_engine,
            events.RecordBarrier: self._barrier,
        }

    def _where(self, item: Item) -> str:
        id = 0 if isinstance(item, PerEngine) else item.id
        return f"{self._source_name(id)}:{item.line}"

    def _task(self, action: events.RecordTask) -> None:
        task, outcome, entry = action.task, action.outcome, self._entries[action.engine]
        if action.verdict is events.Verdict.CANCELLED:
            code = outcome.return_code or CANCELLED_RETURN_CODE
            outcome = msgspec.structs.replace(outcome, return_code=code, reason=Reason.CANCELLED)
        if action.verdict in (events.Verdict.COUNTS, events.Verdict.CANCELLED):
            self._tally.count(entry, task, outcome)
            self._conclude(task, entry, outcome)
            if outcome.return_code and action.verdict is events.Verdict.COUNTS:
                self._notify_failed(task, entry, outcome)
        else:
            self._tally.ended += 1
            self._tally.busy += outcome.elapsed
            mark = Mark.SUPERSEDED
            self._aside(format_line(task.id, task.line, task.repeat, task.command, entry.name, outcome, mark))

    def _aside(self, line: bytes) -> None:
        """Write a line that is not a result. A former driver may have written it: an engine sends again what
        that driver did not acknowledge."""
        if hash(line) not in self._asides:
            self._write(line)

    def _conclude(self, task: Task, entry: EngineEntry, outcome: Outcome) -> None:
        """Write a line that counts."""
        line = format_line(task.id, task.line, task.repeat, task.command, entry.name, outcome)
        self._write(line)
        self._notify_ended(task.id, line)

    def _notify_ended(self, id: int, line: bytes) -> None:
        for ended in self._ended:
            ended(id, line)

    def _notify_failed(self, task: Task, entry: EngineEntry, outcome: Outcome) -> None:
        for failed in self._failed:
            failed(view_of(entry, task, outcome))

    def _skipped(self, action: events.RecordSkipped) -> None:
        completed = action.completed
        self._tally.skipped += 1
        self._tally.skipped_failed += completed.failed
        assert isinstance(completed.former, Record)  # as Feed made it
        line = format_skipped(completed.former, completed.task)
        self._write(line)
        self._notify_ended(completed.task.id, line)

    def _recorded(self, action: events.CountRecorded) -> None:
        item, line = action.recorded.item, action.recorded.record
        assert isinstance(line, Line)  # as SoFar made it
        if isinstance(item, Task):
            self._tally.count_again(item, line.record)
        if line.written or isinstance(item, Barrier):
            return
        text = format_recorded(line.record, item)
        self._write(text)
        self._notify_ended(item.id, text)

    def _lost(self, action: events.RecordLost) -> None:
        task, entry, now = action.task, self._entries[action.engine], time.time()
        outcome = Outcome(0, -1, 0, LOST_RETURN_CODE, 0.0, now, now, 0, b"", 0, b"")
        self._tally.count_lost(entry, task, outcome)
        self._conclude(task, entry, outcome)
        self._notify_failed(task, entry, outcome)
        self._notify_user(f"{self._where(task)}: task {task.id} given up: its engines were lost too often")

    def _cancelled(self, action: events.RecordCancelled) -> None:
        task, now = action.task, time.time()
        outcome = Outcome(0, -1, 0, CANCELLED_RETURN_CODE, 0.0, now, now, 0, b"", 0, CANCELLED)
        outcome = msgspec.structs.replace(outcome, reason=Reason.CANCELLED)
        self._tally.count(self._nobody, task, outcome)
        self._conclude(task, self._nobody, outcome)

    def _per_engine(self, action: events.RecordPerEngine) -> None:
        command, outcome, entry = action.command, action.outcome, self._entries[action.engine]
        line = format_line(
            command.id, command.line, NO_REPEAT, command.command, entry.name, outcome, Mark.PER_ENGINE
        )
        self._aside(line)
        if outcome.return_code:
            what = f"PERENGINE {command.phase.name} ended with {outcome.return_code}"
            said = line_of_outcome(outcome)
            self._notify_user(f"{self._where(command)}: {what} on {entry.shown}{said and f': {said}'}")

    def _barrier(self, action: events.RecordBarrier) -> None:
        """The line's times are those during which the barrier held back later tasks."""
        barrier, now, finish = action.barrier, time.monotonic(), time.time()
        reached = self._barriers_read.popleft() if self._barriers_read else now
        elapsed = now - max(reached, self._last_barrier)
        self._last_barrier = now
        line = format_barrier(
            *(barrier, self._hostname, os.getpid()), elapsed=elapsed, start=finish - elapsed, finish=finish
        )
        self._write(line)
        self._notify_ended(barrier.id, line)
        log.info("barrier %d (line %d) complete", barrier.id, barrier.line)
        if barrier.key is not None:
            self._keyed(barrier)
        first = action.first_failed
        if barrier.check and action.failed and first is not None:
            tasks = counted(action.failed, "task")
            self._notify_user(
                f"{self._where(barrier)}: BARRIER CHECK: {tasks} failed before it "
                f"(first task {first.id}, line {first.line}); the run ends here"
            )


class Journal:
    """The journal of a run that can be taken over, once it has begun; of another run, nothing."""

    def __init__(self) -> None:
        self._file: JournalFile | None = None

    def begin(self, settings: Settings) -> None:
        """Create the file, or continue that of a former driver. UsageError."""
        path = settings.claimed.files.run
        if settings.takeover is not None:
            self._file = JournalFile.go_on(path, settings.takeover.told)
        elif settings.asked is not None:
            self._file = JournalFile.create(path, settings.asked)

    def add(self, line: JournalLine) -> bool:
        """Append a line. False if it is lost when the driver is killed, as the file cannot be written."""
        return self._file is None or self._file.add(line)

    def is_taken_over(self) -> bool:
        """True if another driver has the run. For any thread. OSError if that cannot be determined now."""
        return self._file is not None and self._file.is_taken_over()

    @property
    def is_gone(self) -> bool:
        """True if the file is missing. For any thread."""
        return self._file is not None and self._file.is_gone

    def write_again(self) -> bool:
        """Write the file again if it is missing, or could not be written. True if it was missing. OSError."""
        return self._file is not None and self._file.write_again()

    def close(self) -> None:
        """The run is over."""
        if self._file is not None:
            self._file.close()
            self._file = None
