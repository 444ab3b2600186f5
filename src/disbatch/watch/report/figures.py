"""The contents of a report as values: what `--json` prints, and what text and page render.

Names and meanings are a promise to scripts (docs/report.md lists them). Fields may be added; a field that
changes its meaning gets another name, and removing one raises `FORMAT`. Durations are in seconds; times are
in seconds since the epoch by the clock of the node.
"""

from __future__ import annotations

import msgspec

FORMAT = 1


class File(msgspec.Struct, frozen=True):
    """A file that was read. `bad_lines` counts lines that are none of a status file and `first_bad` is the
    number of the first (0: none). `torn`: the last line has no end, and does not count. `live`: a run is
    still writing it."""

    name: str
    lines: int
    bad_lines: int
    first_bad: int
    torn: bool
    live: bool


class Tasks(msgspec.Struct, frozen=True):
    """Tasks by what counts of them. `known` = `succeeded` + `failed` + `lost`; `cancelled` are those of
    `failed` that the user cancelled, `not_run` those of `lost` that could not be run. `skipped` of them
    were run by a former run whose file was not given, and `skipped_failed` of these failed. `repeated`
    lines are of tasks that another line counts for. `without_line` ids below the highest one have no line
    at all."""

    known: int
    succeeded: int
    failed: int
    lost: int
    skipped: int
    skipped_failed: int
    repeated: int
    ended_attempts: int
    without_line: int
    highest: int
    cancelled: int = 0
    not_run: int = 0


class Run(msgspec.Struct, frozen=True):
    """One status file's share of the time: from the first start to the last finish of its tasks. `busy` is
    the mean number of slots that worked in each `step` seconds."""

    file: str
    start: float
    finish: float
    seconds: float
    slots: int
    nodes: int
    tasks: int
    step: float
    busy: list[float]


class Went(msgspec.Struct, frozen=True):
    """Where the seconds of the slots went; they sum up to the whole.

    `tasks` that count; `uncounted` attempts; `startup` before a slot's first task; `barriers`: between two
    tasks of a slot that a barrier stands between; `tail` after its last task; `other` between two tasks of a
    slot.
    """

    tasks: float
    uncounted: float
    startup: float
    barriers: float
    tail: float
    other: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.tasks + self.uncounted + self.startup + self.barriers + self.tail + self.other

    def __add__(self, other: Went) -> Went:
        return Went(
            self.tasks + other.tasks,
            self.uncounted + other.uncounted,
            self.startup + other.startup,
            self.barriers + other.barriers,
            self.tail + other.tail,
            self.other + other.other,
        )


NOTHING = Went(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Spread(msgspec.Struct, frozen=True):
    """How long tasks took, in seconds; `p5` is what 5% of them did not exceed."""

    count: int
    total: float
    mean: float
    shortest: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    p99: float
    longest: float


class Bin(msgspec.Struct, frozen=True):
    """Tasks that took at least `low` and less than `high` seconds; `failed` is part of `count`."""

    low: float
    high: float
    count: int
    failed: int


class Durations(msgspec.Struct, frozen=True):
    """Of the tasks that ran here; `logarithmic` says how the histogram's bins are spaced."""

    succeeded: Spread | None
    failed: Spread | None
    logarithmic: bool
    histogram: list[Bin]


class Node(msgspec.Struct, frozen=True):
    """One node. `slots` is how many tasks ran there at once, at most; `busy` the share (0 to 1) of their time
    that tasks took while the node was there; `ratio` its median against that of all; `clock` the seconds that
    its clock is ahead, if that could be seen. `remarks`: "slow", "fast", "fails"."""

    name: str
    slots: int
    tasks: int
    failed: int
    durations: Spread | None
    ratio: float | None
    busy: float | None
    clock: float
    remarks: list[str]


class Failure(msgspec.Struct, frozen=True):
    """Failed tasks of one return code, reason and last line, where all numbers count as equal. `snippet` and
    `last_line` are those of one, `tasks` some ids, `most_on` the node with most of them and `most` how
    many."""

    return_code: int
    how: str
    snippet: str
    count: int
    tasks: list[int]
    nodes: int
    most_on: str
    most: int
    reason: str = ""
    last_line: str = ""


class Named(msgspec.Struct, frozen=True):
    """One task. `reason`: why it ended so, if its return code does not say it."""

    id: int
    line: int
    node: str
    return_code: int
    elapsed: float
    command: str
    reason: str = ""


class Barrier(msgspec.Struct, frozen=True):
    """A barrier that ended; `elapsed` is how long it kept later tasks waiting, as the driver saw it."""

    id: int
    elapsed: float
    finish: float


class PerEngine(msgspec.Struct, frozen=True):
    """A command that ran once on each engine."""

    line: int
    command: str
    count: int
    failed: int
    median: float
    longest: float


class Resume(msgspec.Struct, frozen=True):
    """The commands that go on: `rest` runs the tasks that have no result (empty: all have one), `failed` also
    runs those again that failed."""

    rest: str
    failed: str


class Report(msgspec.Struct, frozen=True):
    """All of it. `utilisation` is the share (0 to 1) of the slots' time that tasks which count took; None if
    none ran. Of long lists the longest or most frequent stand here: the counts say how many there are."""

    format: int
    files: list[File]
    tasks: Tasks
    start: float | None
    finish: float | None
    seconds: float
    slots: int
    utilisation: float | None
    slot_seconds: Went
    runs: list[Run]
    durations: Durations
    nodes: list[Node]
    failure_groups: int
    failures: list[Failure]
    slowest: list[Named]
    barrier_count: int
    barrier_seconds: float
    barriers: list[Barrier]
    per_engine: list[PerEngine]
    resume: Resume
    notes: list[str]
