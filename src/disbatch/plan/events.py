"""Events in, actions out: the two unions of values through which the driver and the plan communicate."""

from __future__ import annotations

import enum

import msgspec

from disbatch.model.task import Barrier, Item, Outcome, PerEngine, Phase, Task
from disbatch.plan.capacity import Capacity

# ---- events: what happened ----


class Completed(msgspec.Struct, frozen=True, gc=False):
    """A task of the source that a former run completed. `former`: that run's record, which the plan only
    passes on."""

    task: Task
    failed: bool
    former: object


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """A task or barrier of the source that a former driver of this run has recorded. `record`: its record,
    which the plan only passes on."""

    item: Task | Barrier
    failed: bool
    record: object


class Read(msgspec.Struct, frozen=True, gc=False):
    """These items were read from the source, in order."""

    items: list[Item | Completed | Recorded]


class SourceDry(msgspec.Struct, frozen=True, gc=False):
    """The source has no items at present; more may come."""


class SourceEnded(msgspec.Struct, frozen=True, gc=False):
    """The source has ended. `broken`: the rest could not be read, so no more tasks may start."""

    broken: bool = False


class Past(msgspec.Struct, frozen=True):
    """What an engine has from a former driver. `tasks`: the id of the task of each attempt. `commands`: the
    attempt of each PERENGINE command (phase, id); None if its result was acknowledged. `leaving`: the engine
    was told to leave. `recorded`: how many other results of the engine were acknowledged."""

    tasks: dict[int, int]
    commands: dict[tuple[Phase, int], int | None]
    leaving: bool = False
    recorded: int = 0


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
    """These attempts of the engine have ended."""

    engine: str
    outcomes: list[Outcome]


class Returned(msgspec.Struct, frozen=True, gc=False):
    """An engine returns attempts that it had not started; the answer to one Recall."""

    engine: str
    attempts: list[int]


class Lost(msgspec.Struct, frozen=True, gc=False):
    """An engine is silent, or is known to be dead."""

    engine: str


class Left(msgspec.Struct, frozen=True, gc=False):
    """An engine has left; it has no attempts."""

    engine: str


class Drain(msgspec.Struct, frozen=True, gc=False):
    """Release this engine when its running tasks have ended."""

    engine: str


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Release this engine soon: its tasks are ended, and run again elsewhere. `at_once`: without the grace
    period, and without its PERENGINE STOP commands."""

    engine: str
    at_once: bool = False


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Cancel these tasks: (first, last) id of each range. Ranges may include tasks that are done, and ids of
    no task."""

    ranges: list[tuple[int, int]]


class Hold(msgspec.Struct, frozen=True, gc=False):
    """Start no tasks until `Resume`: the record cannot be written, or a user paused the run."""


class Resume(msgspec.Struct, frozen=True, gc=False):
    """Start tasks again."""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """The engines of a former driver have joined, or are no longer expected."""


class Tick(msgspec.Struct, frozen=True, gc=False):
    """The time is `now`, in seconds of a monotonic clock. Expected at `Plan.next_tick`."""

    now: float


class Interrupt(msgspec.Struct, frozen=True, gc=False):
    """The user or the scheduler ends the run. `at_once`: without the grace period."""

    at_once: bool = False


Event = (
    Read | SourceDry | SourceEnded | Joined | Limit | Finished | Returned | Lost | Left | Drain | Stop |
    Cancel | Hold | Resume | Heard | Tick | Interrupt
)  # fmt: skip

# ---- actions: what is to be done ----


class Assign(msgspec.Struct, frozen=True):
    """Send these (attempt, task) pairs to the engine, which starts them in this order."""

    engine: str
    pairs: list[tuple[int, Task]]


class AssignPerEngine(msgspec.Struct, frozen=True):
    """Send this PERENGINE command to the engine."""

    engine: str
    attempt: int
    command: PerEngine


class Recall(msgspec.Struct, frozen=True):
    """Ask the engine to return those of these attempts that it has not started."""

    engine: str
    attempts: list[int]


class End(msgspec.Struct, frozen=True):
    """Tell the engine to end these attempts."""

    engine: str
    attempts: list[int]
    at_once: bool = False


class Release(msgspec.Struct, frozen=True):
    """Tell the engine to leave: it has no attempts, and gets no more."""

    engine: str


class Verdict(enum.Enum):
    """How a result is recorded."""

    COUNTS = enum.auto()
    """The task is done: its only line that counts."""
    SUPERSEDED = enum.auto()
    """Another attempt of the same task counts instead (flag Z)."""
    ENDED = enum.auto()
    """The attempt was ended on request: it has no result (flag Z)."""
    CANCELLED = enum.auto()
    """The attempt was ended because a user cancelled the task, which is thereby done, and failed."""


class RecordTask(msgspec.Struct, frozen=True, gc=False):
    """Record this result."""

    engine: str
    task: Task
    outcome: Outcome
    verdict: Verdict


class RecordSkipped(msgspec.Struct, frozen=True, gc=False):
    """Record that a former run completed this task."""

    completed: Completed


class CountRecorded(msgspec.Struct, frozen=True, gc=False):
    """Count this task or barrier, which a former driver has recorded."""

    recorded: Recorded


class RecordLost(msgspec.Struct, frozen=True, gc=False):
    """Record that this task was given up because its engines were lost too often; the last one was
    `engine`."""

    engine: str
    task: Task


class RecordCancelled(msgspec.Struct, frozen=True, gc=False):
    """Record that this task was cancelled without a running attempt: it is done, and failed."""

    task: Task


class RecordPerEngine(msgspec.Struct, frozen=True, gc=False):
    """Record how a PERENGINE command ended."""

    engine: str
    command: PerEngine
    outcome: Outcome


class RecordBarrier(msgspec.Struct, frozen=True, gc=False):
    """Record that this barrier is complete. `failed`: the number of failed tasks since the previous barrier;
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
    """The run is over: everything is recorded, and all engines have left."""

    conclusion: Conclusion


Action = (
    Assign | AssignPerEngine | Recall | End | Release | RecordTask | RecordSkipped | CountRecorded |
    RecordLost | RecordCancelled | RecordPerEngine | RecordBarrier | Finish
)  # fmt: skip
