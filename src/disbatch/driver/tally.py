"""Count the tasks of a run, for status lines and the summary."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from disbatch.driver.engine_table import EngineEntry
from disbatch.model.failure import Kinds, line_of_outcome, line_of_record
from disbatch.model.statusline import Mark, Record
from disbatch.model.task import Outcome, Reason, Task
from disbatch.model.view import EndedTask

NAMED_KINDS = 10
NAMED_SLOWEST = 5
NEWEST_FAILURES = 1000
"""Failures that are kept for displays."""


@dataclass
class Tally:
    """Counts of a run. `busy`: the sum of the attempts' durations in seconds. `cancelled`: those of `failed`
    that the user cancelled. `ended`: attempts that were ended on purpose. `lost`: tasks that were given up,
    `not_run` of them because something that they need or wait for is not available. `inherited`: those of
    `done` that a former driver of the run has recorded.
    """

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    skipped_failed: int = 0
    ended: int = 0
    lost: int = 0
    not_run: int = 0
    inherited: int = 0
    busy: float = 0.0
    newest: deque[tuple[int, float, EndedTask]] = field(default_factory=lambda: deque(maxlen=NEWEST_FAILURES))
    """The last failures: the number of each among the failures, and when it ended."""
    failures_seen: int = 0
    kinds: Kinds = field(default_factory=Kinds)
    before: dict[str, EngineEntry] = field(default_factory=dict)
    """The counts of nodes under former drivers, by name."""
    _slowest: list[tuple[float, int, EndedTask]] = field(default_factory=list)

    def count(self, entry: EngineEntry, task: Task, outcome: Outcome) -> None:
        """A task is done."""
        self.done += 1
        self.busy += outcome.elapsed
        entry.done += 1
        if outcome.return_code:
            self.failed += 1
            if outcome.reason is Reason.CANCELLED:
                self.cancelled += 1
            else:
                entry.failed += 1
            self._fail(entry, task, outcome)
        slowest = self._slowest
        if len(slowest) < NAMED_SLOWEST:
            heapq.heappush(slowest, (outcome.elapsed, -task.id, view_of(entry, task, outcome)))
        elif outcome.elapsed > slowest[0][0]:
            heapq.heapreplace(slowest, (outcome.elapsed, -task.id, view_of(entry, task, outcome)))

    def count_lost(self, entry: EngineEntry, task: Task, outcome: Outcome) -> None:
        """A task is given up."""
        self.lost += 1
        self.not_run += outcome.reason is Reason.NOT_RUN
        self._fail(entry, task, outcome)

    def _fail(self, entry: EngineEntry, task: Task, outcome: Outcome) -> None:
        view = view_of(entry, task, outcome)
        self.failures_seen += 1
        self.kinds.add(view)
        # Thousands may be cancelled at once: they must not displace all tasks that failed.
        if outcome.reason is not Reason.CANCELLED or len(self.newest) < NEWEST_FAILURES:
            self.newest.append((self.failures_seen, outcome.finish, view))

    def count_again(self, task: Task, record: Record) -> None:
        """A former driver of the run recorded this task."""
        if record.mark is Mark.SKIPPED:
            self.skipped += 1
            self.skipped_failed += record.failed
            return
        times = (record.elapsed, record.start, record.finish)
        outcome = Outcome(
            *(0, -1, max(0, record.pid), record.return_code, *times, 0, b"", 0, b""),
            reason=record.reason,
            last_line=line_of_record(record) if record.failed else "",
        )
        if record.given_up:
            self.count_lost(EngineEntry("", record.node, -1, 0), task, outcome)
        else:
            entry = self.before.get(record.node)
            if entry is None:
                entry = self.before[record.node] = EngineEntry("", record.node, -1, 0)
            self.count(entry, task, outcome)
            self.busy -= record.elapsed  # in slots that are not counted here
            self.inherited += 1

    @property
    def slowest(self) -> list[EndedTask]:
        """The tasks that took longest, longest first."""
        return [view for _, _, view in sorted(self._slowest, reverse=True)]


def view_of(entry: EngineEntry, task: Task, outcome: Outcome) -> EndedTask:
    """The task as displays show it."""
    snippet = outcome.err_snippet if outcome.err_bytes else outcome.out_snippet
    return EndedTask(
        *(task.id, task.line, entry.name, outcome.return_code, outcome.elapsed, task.command[:2000]),
        *(snippet, entry.label, outcome.reason.words, line_of_outcome(outcome) if outcome.failed else ""),
    )
