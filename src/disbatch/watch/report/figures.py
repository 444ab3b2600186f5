"""The contents of a report as values: what `--json` prints, and what text and page render.

Names and meanings are a promise to scripts (docs/report.md lists them). Fields may be added; a field that
changes its meaning gets another name, and removing one raises `FORMAT`. Durations are in seconds; times are
in seconds since the epoch by the clock of the node.
"""

from __future__ import annotations

from operator import add

import msgspec
from msgspec.structs import astuple

FORMAT = 1


class File(msgspec.Struct, frozen=True):
    """A file that was read. `bad_lines` counts lines that are not status lines, and `first_bad` is the number
    of the first (0: none). `torn`: the last line has no end, and does not count. `live`: a run is still
    writing the file."""

    name: str
    lines: int
    bad_lines: int
    first_bad: int
    torn: bool
    live: bool


class Tasks(msgspec.Struct, frozen=True):
    """Tasks by their result. `known` = `succeeded` + `failed` + `lost`; `cancelled` are those of `failed`
    that the user cancelled, `not_run` those of `lost` that could not be run. `skipped` of them were run by a
    former run whose file was not given, and `skipped_failed` of these failed. `repeated` lines belong to
    tasks for which another line counts. `without_line` ids below the highest one have no line at all."""

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
    """The time of one status file: from the first start to the last finish of its tasks. `busy` is the mean
    number of busy slots in each interval of `step` seconds."""

    file: str
    start: float
    finish: float
    seconds: float
    slots: int
    nodes: int
    tasks: int
    step: float
    busy: list[float]


class SlotSeconds(msgspec.Struct, frozen=True):
    """How the slots' time was used, in seconds; the parts sum up to the whole.

    `tasks`: attempts that count; `uncounted`: other attempts; `startup`: before a slot's first task;
    `barriers`: between two tasks of a slot with a barrier between them; `tail`: after its last task; `other`:
    between two tasks of a slot.
    """

    tasks: float
    uncounted: float
    startup: float
    barriers: float
    tail: float
    other: float

    @property
    def whole(self) -> float:
        """The sum."""
        return self.tasks + self.uncounted + self.startup + self.barriers + self.tail + self.other

    def __add__(self, other: SlotSeconds) -> SlotSeconds:
        return SlotSeconds(*map(add, astuple(self), astuple(other)))


NOTHING = SlotSeconds(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Spread(msgspec.Struct, frozen=True):
    """Durations of tasks, in seconds; `p5` is the value that 5% of them did not exceed."""

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
    """Durations of tasks that ran here; `logarithmic` is the spacing of the histogram's bins."""

    succeeded: Spread | None
    failed: Spread | None
    logarithmic: bool
    histogram: list[Bin]


class Node(msgspec.Struct, frozen=True):
    """One node. `slots` is the largest number of tasks that ran there at once; `busy` the share (0 to 1) of
    their time that tasks took while the node was there; `ratio` its median divided by that of all nodes;
    `clock` the seconds by which its clock is ahead, if known. `remarks`: "slow", "fast", "fails"."""

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
    """Failed tasks with one return code, reason and last line, where all numbers count as equal. `snippet`
    and `last_line` are those of one task, `tasks` some ids, `most_on` the node with most of them and `most`
    their number."""

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


class SingleTask(msgspec.Struct, frozen=True):
    """One task. `reason`: why it ended, if its return code does not say it."""

    id: int
    line: int
    node: str
    return_code: int
    elapsed: float
    command: str
    reason: str = ""


class Barrier(msgspec.Struct, frozen=True):
    """A barrier that ended; `elapsed` is how long it made later tasks wait, as the driver saw it."""

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
    """The commands that continue: `rest` runs the tasks without a result (empty: there are none), `failed`
    also runs failed tasks again."""

    rest: str
    failed: str


class Report(msgspec.Struct, frozen=True):
    """A complete report. `utilisation` is the share (0 to 1) of the slots' time that attempts which count
    took; None if none ran. Long lists are cut to the longest or most frequent entries; the counts are
    complete."""

    format: int
    files: list[File]
    tasks: Tasks
    start: float | None
    finish: float | None
    seconds: float
    slots: int
    utilisation: float | None
    slot_seconds: SlotSeconds
    runs: list[Run]
    durations: Durations
    nodes: list[Node]
    failure_groups: int
    failures: list[Failure]
    slowest: list[SingleTask]
    barrier_count: int
    barrier_seconds: float
    barriers: list[Barrier]
    per_engine: list[PerEngine]
    resume: Resume
    notes: list[str]
