"""The engines of a run, and counts of their tasks, for status lines and the summary."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from disbatch.contexts.nodes import Node
from disbatch.model.failure import Kinds, line_of_outcome, line_of_record
from disbatch.model.statusline import Mark, Record
from disbatch.model.task import Outcome, Reason, Task
from disbatch.model.text import with_label
from disbatch.model.view import TaskView
from disbatch.wire.engine_protocol import Beat

NAMED_KINDS = 10
NAMED_SLOWEST = 5
NEWEST_FAILURES = 1000
"""Kept for those that watch."""


@dataclass
class Member:
    """One engine: launched on `node` (None if another context did that, or it came by itself), and what it
    has done."""

    engine: str
    name: str
    rank: int
    slots: int
    node: Node | None = None
    context: str = ""
    """The context that it belongs to; "": the driver's own."""
    label: str = ""
    launching: bool = True
    joined: float | None = None
    """The loop's time since which its slots are there; None while they are not."""
    lost: bool = False
    """It was given up and not heard since."""
    left: bool = False
    """It said Goodbye. It may still say Hello, over a new connection, but takes no more tasks."""
    spare: bool = False
    """It left because it found no more work, while the run goes on."""
    exited: bool = False
    """The process that we started for it, and that stays while it runs, has ended."""
    ended_for: str = ""
    """Why we are ending it, who can see when it has ended."""
    retired: bool = False
    """Its node was told to be no longer needed, since it joined last."""
    slot_seconds: float = 0.0
    done: int = 0
    failed: int = 0
    beat: Beat | None = None
    """What it said last of itself, since it joined last."""
    beat_at: float = 0.0
    """... and when, by the loop's time."""
    return_code: int = 0
    inherited: bool = False
    """A former driver of the run started it."""
    tunnel: str = ""
    """Where its tunnel ends on its host, if we have made one."""
    pid: int = 0
    """Its keeper, if that is on our host and no child of ours; `started` tells it from a later process."""
    started: int = 0

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return with_label(self.name, self.label)

    @property
    def local(self) -> bool:
        """It is a child of the driver."""
        return self.node is not None and self.node.local

    @property
    def may_run_on(self) -> bool:
        """It was given up, and nobody can say that its tasks are not there any more."""
        return self.lost and not (self.local and not self.inherited) and not self.exited

    @property
    def came(self) -> bool:
        """It has joined, now or before."""
        return self.joined is not None or self.slot_seconds > 0

    def leave(self, now: float) -> None:
        """Its slots are gone since `now`."""
        if self.joined is not None:
            self.slot_seconds += self.slots * (now - self.joined)
            self.joined = self.beat = None

    def slot_time(self, now: float) -> float:
        """Seconds of slots that it has offered so far."""
        return self.slot_seconds + (self.slots * (now - self.joined) if self.joined is not None else 0.0)


@dataclass
class Tally:
    """Counts of a run. `busy` sums the seconds of attempts; `cancelled` are those of `failed` that the user
    cancelled; `ended` attempts were ended on purpose, `lost` tasks given up, `not_run` of them because
    something that they need or wait for is not available; `inherited` those of `done` that a former driver of
    the run has recorded.
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
    newest: deque[tuple[int, float, TaskView]] = field(default_factory=lambda: deque(maxlen=NEWEST_FAILURES))
    """The last failures: the number of each among the failures, and when it ended."""
    failures_seen: int = 0
    kinds: Kinds = field(default_factory=Kinds)
    before: dict[str, Member] = field(default_factory=dict)
    """What nodes did when a former driver was there, by name."""
    _slowest: list[tuple[float, int, TaskView]] = field(default_factory=list)

    def count(self, member: Member, task: Task, outcome: Outcome) -> None:
        """A task is done."""
        self.done += 1
        self.busy += outcome.elapsed
        member.done += 1
        if outcome.return_code:
            self.failed += 1
            if outcome.reason is Reason.CANCELLED:
                self.cancelled += 1
            else:
                member.failed += 1
            self._fail(member, task, outcome)
        slowest = self._slowest
        if len(slowest) < NAMED_SLOWEST:
            heapq.heappush(slowest, (outcome.elapsed, -task.id, view_of(member, task, outcome)))
        elif outcome.elapsed > slowest[0][0]:
            heapq.heapreplace(slowest, (outcome.elapsed, -task.id, view_of(member, task, outcome)))

    def count_lost(self, member: Member, task: Task, outcome: Outcome) -> None:
        """A task is given up."""
        self.lost += 1
        self.not_run += outcome.reason is Reason.NOT_RUN
        self._fail(member, task, outcome)

    def _fail(self, member: Member, task: Task, outcome: Outcome) -> None:
        view = view_of(member, task, outcome)
        self.failures_seen += 1
        self.kinds.add(view)
        # Thousands may be cancelled at once: they shall not take the place of all that failed.
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
            self.count_lost(Member("", record.node, -1, 0), task, outcome)
        else:
            member = self.before.get(record.node)
            if member is None:
                member = self.before[record.node] = Member("", record.node, -1, 0)
            self.count(member, task, outcome)
            self.busy -= record.elapsed  # in slots that are not counted here
            self.inherited += 1

    @property
    def slowest(self) -> list[TaskView]:
        """The tasks that took longest, longest first."""
        return [view for _, _, view in sorted(self._slowest, reverse=True)]


def view_of(member: Member, task: Task, outcome: Outcome) -> TaskView:
    """For people."""
    snippet = outcome.err_snippet if outcome.err_bytes else outcome.out_snippet
    return TaskView(
        *(task.id, task.line, member.name, outcome.return_code, outcome.elapsed, task.command[:2000]),
        *(snippet, member.label, outcome.reason.words, line_of_outcome(outcome) if outcome.failed else ""),
    )
