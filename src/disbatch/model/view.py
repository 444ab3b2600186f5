"""The state of a run at one moment, as all displays render it."""

from __future__ import annotations

import msgspec

from disbatch.model.text import with_label


class EngineView(msgspec.Struct, frozen=True):
    """One engine. `running` and `waiting` count attempts; `state` as of `plan.engine`, in lower case."""

    node: str
    rank: int
    slots: int
    running: int
    waiting: int
    done: int
    failed: int
    state: str


class Snapshot(msgspec.Struct, frozen=True):
    """The counts of a run. `total` is None while nobody can know it (a stream); `seconds` since it began;
    `notice` says what people should know now (tasks are held, the run is ending), or is empty; `inherited` of
    those that are done were so when the run was taken over; `failed` includes the `cancelled` ones."""

    seconds: float
    total: int | None
    done: int
    failed: int
    skipped: int
    running: int
    slots: int
    engines: list[EngineView]
    notice: str = ""
    skipped_failed: int = 0
    inherited: int = 0
    cancelled: int = 0


class TaskView(msgspec.Struct, frozen=True):
    """A task worth naming at the end; `label`: of the context that its node is of; `reason`: in words, as of
    `model.task.Reason`; `last_line`: what it said last, if it failed."""

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
        """Its node, for people."""
        return with_label(self.node, self.label)


class FailureKind(msgspec.Struct, frozen=True):
    """Failed tasks of one return code, `reason` and last line, where all numbers in it count as equal: how
    many, on how many `nodes`, and the first of them: task `id`, its line in the task file, its node and
    command. `various`: their last lines are many different ones, and `last_line` is that of the first."""

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


class Summary(msgspec.Struct, frozen=True):
    """How a run went. `utilisation` is the share of the slots' time that tasks took (0 to 1), None if there
    was none; `kinds` are the most frequent of `kinds_count` kinds of failures, `slowest` names a few tasks;
    `lost` includes those that were `not_run`. `resume`
    is the command that goes on from here, empty if nothing is left to do; `retry` the one that runs again
    what failed, if nothing else is left; `unwritten` are status lines that a full disk did not take;
    `elsewhere`: another driver took the run over, and goes on with it; `goes_on`: its engines do, and wait
    for another driver; `inherited`: how many of the tasks that are done a former
    driver recorded, None if there was none."""

    snapshot: Snapshot
    conclusion: str
    ended: int
    lost: int
    utilisation: float | None
    kinds: list[FailureKind]
    kinds_count: int
    slowest: list[TaskView]
    status_file: str
    resume: str
    unwritten: bytes = b""
    elsewhere: bool = False
    goes_on: bool = False
    inherited: int | None = None
    not_run: int = 0
    retry: str = ""


# ---- for those that watch ----


class EngineRow(msgspec.Struct, frozen=True):
    """One engine, for whoever watches. `engine` is its own name for good, `label` that of its context.

    `state`: `launching` (on its way), `starting` (its PERENGINE START commands run), `active`, `draining`
    (no new tasks), `leaving`, `lost` (not heard), `left`, or `failed` (it never came). `running` tasks are
    in its slots, `waiting` ones behind them; `done` and `failed` tasks of its node that a former driver
    recorded count, too; those that were cancelled are not among the failed ones. `rate`: tasks a second
    over the last minute or so; `heard`: seconds since its last word; `load`: of its node, over a minute;
    memory of the node in bytes. None: not known.
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
        """Its node, for people."""
        return with_label(self.node, self.label)


class RunningRow(msgspec.Struct, frozen=True):
    """A task that runs. `seconds`: for how long; None: it started after its engine's last word. `label`: of
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
        """Its node, for people."""
        return with_label(self.node, self.label)


class FailureRow(msgspec.Struct, frozen=True):
    """A task that failed, the `number`-th (from 1) since this driver began. `time`: when that was heard,
    seconds since the epoch; `snippet`: of its stderr, or of its stdout if that is empty. `label`: of its
    engine's context, "" if a former driver recorded it. `reason`: in words, as of `model.task.Reason`;
    `last_line`: what it said last, whole words of it."""

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

    @property
    def place(self) -> str:
        """Its node, for people."""
        return with_label(self.node, self.label)


class LogRow(msgspec.Struct, frozen=True):
    """What the driver said to the user: the `number`-th line (from 1), at `time` (since the epoch)."""

    number: int
    time: float
    text: str


class CoursePoint(msgspec.Struct, frozen=True, array_like=True):
    """A run at one time, `seconds` after this driver began."""

    seconds: float
    done: int
    failed: int
    running: int
    slots: int


class BarrierRow(msgspec.Struct, frozen=True):
    """The barrier that tasks behind it wait for."""

    id: int
    line: int


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A run at one moment, for whoever watches it; the lists are as long as was asked for.

    `number` rises with each change; it and the numbers in the lists begin anew with each `driver` (0, 1, ...:
    how often the run was taken over). `time` is now, `started` when this driver began (seconds since the
    epoch), `seconds` what lies between.

    `mode`: `running`; `winding down` (nothing new starts, what runs finishes), `ending` (what runs is ended),
    `closing` (all is done, engines leave), `over`. `notice`: what people should know now; empty: nothing.
    `paused`: by the user. `barrier`: the one that is waited for.

    `total`: None while nobody can know it. `done` includes `failed`, which includes `cancelled`; `skipped`
    were done by a former run, and `skipped_failed` of these failed; `lost` were given up, `not_run` of these
    because something that they need or wait for is not available. `waiting`: read and not running; `retried`:
    attempts that were run again after their engine was lost or stopped. `rate`: tasks a second over the last
    minute or so; `remaining`: seconds until all is done at that rate; None: nobody can say.

    `engines`: of `engines_count` ones, those that are there first. `running_tasks`: the longest first.
    `failures`, `log`: oldest first. `failure_kinds`: the most frequent of `failure_kinds_count`.
    `course`: what was so far, if that was asked for.
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
