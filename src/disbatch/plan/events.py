"""What the plan is told, and what it answers: two unions of plain values."""

from __future__ import annotations

import enum

import msgspec

from disbatch.model.task import Barrier, Item, Outcome, PerEngine, Phase, Task
from disbatch.plan.capacity import Capacity

# ---- events: what happened ----


class Completed(msgspec.Struct, frozen=True, gc=False):
    """A task of the source that a former run completed; `failed` there or not. `former` is that run's record,
    which the plan only passes on."""

    task: Task
    failed: bool
    former: object


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A task or barrier of the source that this run is done with already: a driver before this one was.
    `failed` or not. `record` is what that one wrote of it, which the plan only passes on."""

    item: Task | Barrier
    failed: bool
    record: object


class Read(msgspec.Struct, frozen=True, gc=False):
    """These items came from the source, in order."""

    items: list[Item | Completed | Recorded]


class SourceDry(msgspec.Struct, frozen=True, gc=False):
    """The source has nothing at the moment; more may come."""


class SourceEnded(msgspec.Struct, frozen=True, gc=False):
    """No more items. `broken`: the rest could not be read, so nothing more shall start."""

    broken: bool = False


class Past(msgspec.Struct, frozen=True):
    """What an engine has from a driver before this one: `tasks`, the id of each attempt's task; `commands`,
    the attempt of each PERENGINE command (phase, id), or None if its result was given and taken. `leaving`:
    it was told to leave."""

    tasks: dict[int, int]
    commands: dict[tuple[Phase, int], int | None]
    leaving: bool = False


class Joined(msgspec.Struct, frozen=True):
    """An engine joins, for the first time or again. `capacity`: what it has for tasks. `holding`: its
    attempts. `past`: what these are, if it joins for the first time since this driver took the run over.
    `leaving`: it gets no tasks, and leaves when it has none."""

    engine: str
    capacity: Capacity
    holding: list[int]
    context: str = ""
    past: Past | None = None
    leaving: bool = False


class Limit(msgspec.Struct, frozen=True):
    """The engines of this context leave after so many more tasks."""

    context: str
    tasks: int


class Finished(msgspec.Struct, frozen=True, gc=False):
    """An engine tells how these attempts ended."""

    engine: str
    outcomes: list[Outcome]


class Returned(msgspec.Struct, frozen=True, gc=False):
    """An engine gives back attempts it had not started; the answer to one Recall."""

    engine: str
    attempts: list[int]


class Lost(msgspec.Struct, frozen=True, gc=False):
    """An engine is not heard any more, or is known to be dead."""

    engine: str


class Left(msgspec.Struct, frozen=True, gc=False):
    """An engine said goodbye; it has nothing any more."""

    engine: str


class Drain(msgspec.Struct, frozen=True, gc=False):
    """Let this engine finish what runs on it, then let it go."""

    engine: str


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Let this engine go soon: what runs on it is ended, and runs again elsewhere. `at_once`: without grace,
    and without its PERENGINE STOP commands."""

    engine: str
    at_once: bool = False


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """The user does not want these tasks: (first, last) id of each range, tasks that are done already and
    ids that are none included."""

    ranges: list[tuple[int, int]]


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Start nothing (the record cannot be written, or the user paused the run) until `Resume`."""


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Start tasks again."""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """The engines of a former driver have joined, or are not expected any more."""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """It is `now`, in seconds of a clock that does not go back: wanted at `Plan.next_tick`."""

    now: float


class Interrupt(msgspec.Struct, frozen=True, gc=False):
    """The user (or the scheduler) wants the run to end; `at_once`: without grace."""

    at_once: bool = False


Event = (
    Read
    | SourceDry
    | SourceEnded
    | Joined
    | Limit
    | Finished
    | Returned
    | Lost
    | Left
    | Drain
    | Stop
    | Cancel
    | Hold
    | Resume
    | Heard
    | Tick
    | Interrupt
)

# ---- actions: what shall be done ----


class Assign(msgspec.Struct, frozen=True):
    """Send these to the engine: (attempt, task) pairs, to be started in this order."""

    engine: str
    pairs: list[tuple[int, Task]]


class AssignPerEngine(msgspec.Struct, frozen=True):
    """Send this PERENGINE command to the engine."""

    engine: str
    attempt: int
    command: PerEngine


class Recall(msgspec.Struct, frozen=True):
    """Ask the engine to give back those of these that it has not started."""

    engine: str
    attempts: list[int]


class End(msgspec.Struct, frozen=True):
    """Make the engine end these attempts."""

    engine: str
    attempts: list[int]
    at_once: bool = False


class Release(msgspec.Struct, frozen=True):
    """Tell the engine to leave: it has nothing, and no more will come."""

    engine: str


class Verdict(enum.Enum):
    """What a result is worth."""

    COUNTS = enum.auto()
    """The task is done: the one line that counts."""
    SUPERSEDED = enum.auto()
    """Another attempt of the same task counts instead (flag Z)."""
    ENDED = enum.auto()
    """The attempt was ended on purpose before it was done: not completed (flag Z)."""
    CANCELLED = enum.auto()
    """The attempt was ended because the user cancelled the task, which is done and failed by that."""


class RecordTask(msgspec.Struct, frozen=True, gc=False):
    """Write this result."""

    engine: str
    task: Task
    outcome: Outcome
    verdict: Verdict


class RecordSkipped(msgspec.Struct, frozen=True, gc=False):
    """Write that a former run completed this task."""

    completed: Completed


class CountRecorded(msgspec.Struct, frozen=True, gc=False):
    """A driver before this one wrote the line of this already: only count it."""

    recorded: Recorded


class RecordLost(msgspec.Struct, frozen=True, gc=False):
    """Write that this task was given up: every engine that ran it was lost; the last one was `engine`."""

    engine: str
    task: Task


class RecordCancelled(msgspec.Struct, frozen=True, gc=False):
    """Write that this task was cancelled, and that nothing of it runs: done and failed by that."""

    task: Task


class RecordPerEngine(msgspec.Struct, frozen=True, gc=False):
    """Write how a PERENGINE command ended."""

    engine: str
    command: PerEngine
    outcome: Outcome


class RecordBarrier(msgspec.Struct, frozen=True, gc=False):
    """Write that this barrier is complete. `failed`: tasks since the one before that failed;
    `first_failed`: the first of them."""

    barrier: Barrier
    failed: int
    first_failed: Task | None


class Conclusion(enum.Enum):
    """How a run ends."""

    COMPLETE = enum.auto()
    INTERRUPTED = enum.auto()
    FAILED_FAST = enum.auto()
    CHECK_FAILED = enum.auto()
    SOURCE_BROKEN = enum.auto()


class Finish(msgspec.Struct, frozen=True, gc=False):
    """Everything is recorded and every engine is gone: the run is over."""

    conclusion: Conclusion


Action = (
    Assign
    | AssignPerEngine
    | Recall
    | End
    | Release
    | RecordTask
    | RecordSkipped
    | CountRecorded
    | RecordLost
    | RecordCancelled
    | RecordPerEngine
    | RecordBarrier
    | Finish
)
