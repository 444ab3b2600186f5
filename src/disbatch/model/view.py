"""The state of a run at one moment, as every display renders it, and the summary at its end.

The driver sends a `RunView` to clients, and `dbutil status --json` prints it: names and order of the fields
stay as they are, and new fields are appended with a default.
"""

from __future__ import annotations

import msgspec

from disbatch.model.text import valid, with_label

SHOWN = 400
"""The most bytes of a command or snippet that a view holds."""


def as_text(data: bytes) -> str:
    """A command or snippet of a task, for a view."""
    return data[:SHOWN].decode("utf-8", "backslashreplace")


class EndedTask(msgspec.Struct, frozen=True):
    """A task that ended. `elapsed` in seconds; `snippet` of its stderr, or of its stdout if that is empty;
    `label`: of its engine's context; `reason`: in words, as `model.task.Reason.words`; `last_line`: the last
    line that it printed, if it failed."""

    id: int
    line: int
    node: str
    return_code: int
    elapsed: float
    command: bytes
    snippet: bytes
    label: str = ""
    reason: str = ""
    last_line: str = ""

    @property
    def place(self) -> str:
        """The node, with its context's label."""
        return with_label(self.node, self.label)


class EngineRow(msgspec.Struct, frozen=True):
    """One engine. `engine` is its permanent id, `label` that of its context.

    `state`: `launching`, `starting` (its PERENGINE START commands run), `active`, `draining` (no new tasks),
    `leaving`, `lost` (not heard), `left`, or `failed` (it never joined). `running` tasks are in its slots,
    `waiting` ones are queued behind them; `done` and `failed` include tasks of its node that a former driver
    recorded; cancelled tasks do not count as failed here. `rate`: tasks a second over about the last minute;
    `heard`: seconds since its last message; `load`: load average of its node over a minute; memory of the
    node in bytes. None: not known.
    """

    engine: str
    node: str
    rank: int
    label: str
    state: str
    slots: int
    running: int
    waiting: int
    done: int
    failed: int
    rate: float | None = None
    heard: float | None = None
    load: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None

    @property
    def place(self) -> str:
        """The node, with its context's label."""
        return with_label(self.node, self.label)


def former_engine(node: str, rank: int, done: int, failed: int) -> EngineRow:
    """A node on which tasks ran, and whose engine is known from the status file alone."""
    return EngineRow("", valid(node), rank, "", "left", 0, 0, 0, done, failed)


class RunningRow(msgspec.Struct, frozen=True):
    """A running task. `seconds`: for how long; None: it started after its engine's last message. `label`: of
    its engine's context."""

    id: int
    line: int
    engine: str
    node: str
    seconds: float | None
    command: str
    label: str = ""

    @property
    def place(self) -> str:
        """The node, with its context's label."""
        return with_label(self.node, self.label)


class FailureRow(msgspec.Struct, frozen=True):
    """A failed task, the `number`-th (from 1) since this driver began. `time`: when it ended, in seconds
    since the epoch; `seconds`: how long it ran; `label`: "" if a former driver recorded it; the rest as in
    `EndedTask`."""

    number: int
    id: int
    line: int
    node: str
    return_code: int
    seconds: float
    time: float
    snippet: str
    command: str
    label: str = ""
    reason: str = ""
    last_line: str = ""

    @classmethod
    def of(cls, number: int, time: float, task: EndedTask) -> FailureRow:
        """The row of a task that failed."""
        t = task
        text = as_text(t.snippet), as_text(t.command), valid(t.label), t.reason, t.last_line
        return cls(number, t.id, t.line, valid(t.node), t.return_code, t.elapsed, time, *text)

    @property
    def place(self) -> str:
        """The node, with its context's label."""
        return with_label(self.node, self.label)


class FailureKind(msgspec.Struct, frozen=True):
    """Failed tasks with the same return code, `reason` and last line (all numbers in it count as equal): how
    many, on how many `nodes`, and the first of them: task `id`, its line in the task file, its node and
    command. `various`: their last lines differ, and `last_line` is that of the first."""

    count: int
    return_code: int
    reason: str
    last_line: str
    id: int
    line: int
    node: str
    nodes: int
    command: str
    various: bool = False


class LogRow(msgspec.Struct, frozen=True):
    """A message of the driver to the user: the `number`-th (from 1), at `time` (seconds since the epoch)."""

    number: int
    time: float
    text: str


class CoursePoint(msgspec.Struct, frozen=True, array_like=True):
    """The counts of a run at one time, `seconds` after this driver began."""

    seconds: float
    done: int
    failed: int
    running: int
    slots: int


class BarrierRow(msgspec.Struct, frozen=True):
    """The barrier that later tasks wait for."""

    id: int
    line: int


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment; its lists are as long as the client asked for.

    `number` rises with each change; it and the numbers in the lists begin anew with each `driver` (0, 1, ...:
    how often the run was taken over). `time` is now, `started` when this driver began (seconds since the
    epoch), `seconds` the difference.

    `mode`: `running`; `winding down` (no new task starts, running tasks finish), `ending` (running tasks are
    ended), `closing` (all tasks are done, engines leave), `over`. `notice`: what users should know now, or
    empty. `paused`: by the user. `barrier`: the one that tasks wait for.

    `total`: None while it cannot be known. `done` includes `failed`, which includes `cancelled`; `inherited`
    of the done tasks were recorded by a former driver. `skipped` were done by a former run, and
    `skipped_failed` of these failed; `lost` were given up, `not_run` of these because something that they
    need or wait for is not available. `waiting`: read and not running; `retried`: attempts that were run
    again after their engine was lost or stopped. `rate`: tasks a second over about the last minute;
    `remaining`: seconds until all tasks are done at that rate; None: not known.

    `engines`: the present ones first, of `engines_count`. `running_tasks`: the longest first. `failures`,
    `log`: oldest first. `failure_kinds`: the most frequent of `failure_kinds_count`. `course`: the counts so
    far, if the client asked for them.
    """

    number: int
    driver: int
    jobid: str
    name: str
    time: float
    started: float
    seconds: float
    mode: str
    notice: str
    paused: bool
    barrier: BarrierRow | None
    total: int | None
    done: int
    failed: int
    skipped: int
    skipped_failed: int
    running: int
    waiting: int
    lost: int
    retried: int
    slots: int
    rate: float | None
    remaining: float | None
    engines_count: int
    engines: list[EngineRow]
    running_tasks: list[RunningRow]
    failures: list[FailureRow]
    log: list[LogRow]
    course: list[CoursePoint]
    cancelled: int = 0
    not_run: int = 0
    failure_kinds: list[FailureKind] = []
    failure_kinds_count: int = 0
    inherited: int = 0

    @property
    def finished(self) -> int:
        """Tasks that need not run any more: done in this run, or in a former one."""
        return self.done + self.skipped


class Summary(msgspec.Struct, frozen=True):
    """How a run went: its last `view`, with the kinds of failures, and what the view does not tell.

    `ended`: attempts that were ended on purpose. `utilisation`: the share of the slots' time that tasks took
    (0 to 1), None if there was none; `nodes` and `slots`: of all engines that joined. `slowest`: the tasks
    that took longest. `resume`: the command that completes the run, empty if nothing is left to do; `retry`:
    the one that runs failed tasks again, if nothing else is left. `unwritten`: status lines that could not
    be written, as the disk is full. `elsewhere`: another driver took the run over, and continues it;
    `goes_on`: its engines do, and wait for another driver.
    """

    view: RunView
    conclusion: str
    ended: int
    utilisation: float | None
    nodes: int
    slots: int
    slowest: list[EndedTask]
    status_file: str
    resume: str
    retry: str = ""
    unwritten: bytes = b""
    elsewhere: bool = False
    goes_on: bool = False
