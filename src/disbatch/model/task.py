"""Tasks, barriers and per-engine commands; how an attempt ended; how an engine is launched."""

from __future__ import annotations

import enum
import signal
from typing import Annotated

import msgspec

NO_REPEAT = -1
"""Repeat index of a task outside REPEAT."""


class Phase(enum.IntEnum):
    """When a PERENGINE command runs: as an engine joins, or as it leaves."""

    START = 0
    STOP = 1


CORE = 1_000_000
"""The units of `Demand.cores` in one core: fractions of a core are whole numbers, so that sums are exact."""


class Demand(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """What a task needs while it runs. Tasks of equal demand form a class.

    `cores`: in units of 1/CORE; None: as many as a slot of the engine has. `resources`: the amount of each
    other resource by name, memory in bytes and gpus in units of 1/CORE among them, sorted by name, without
    zeros. `seconds`: how long it may run, None if not given. Tasks of higher `priority` start first.
    """

    cores: int | None = None
    resources: tuple[tuple[str, int], ...] = ()
    seconds: float | None = None
    priority: int = 0


NO_DEMAND = Demand()
"""The demand of a task that states none: one slot. All such tasks share this value."""


class Task(msgspec.Struct, frozen=True, gc=False):
    """One shell command to run once.

    `id` counts from 0 in file order, `line` from 1; `repeat` is the value of DISBATCH_REPEAT_INDEX
    (-1 outside REPEAT); `command` is PREFIX + text + SUFFIX, in the file's own bytes.
    """

    id: int
    line: int
    repeat: int
    command: bytes
    demand: Demand = NO_DEMAND


class Barrier(msgspec.Struct, frozen=True, gc=False):
    """No later task starts until all earlier ones have ended. A barrier has a task id of its own.

    `check`: the run ends here if a task since the previous barrier failed. `key`: the key under which the id
    is put into the key store, or None. `text` is the directive as in the file, without its line end.
    """

    id: int
    line: int
    key: bytes | None
    check: bool
    text: bytes


class PerEngine(msgspec.Struct, frozen=True, gc=False):
    """A command that runs once on each engine; `id` counts from 0 within its phase."""

    id: int
    line: int
    phase: Phase
    command: bytes


Item = Task | Barrier | PerEngine


LOST_RETURN_CODE = -100
"""Return code of a task that was given up after its engines were lost too often, and of one that was not run
because something that it needs or waits for is not available (`Reason.NOT_RUN`)."""

SNIPPET_EDGE = 40
"""Bytes kept of the beginning and of the end of captured output."""
LONGEST_LINE = 200
"""The most characters of the last line that a task printed."""


Snippet = Annotated[bytes, msgspec.Meta(max_length=2 * SNIPPET_EDGE + 3)]
Said = Annotated[str, msgspec.Meta(max_length=LONGEST_LINE)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
# The bounds also exclude NaN, which would make every sum with it NaN.
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Moment = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class Ending(enum.IntEnum):
    """Why an attempt ended."""

    OWN = 0
    """The shell ended by itself, or was killed by another process: a result."""
    ORDERED = 1
    """The engine ended it on request: not a result."""
    UNSTARTED = 2
    """The node could not start it (no memory, no more processes)."""


class Reason(enum.Enum):
    """Why an attempt ended, if its return code does not say it: a flag of the status file."""

    NONE = ""
    CANCELLED = "X"
    """The user cancelled the task, before it started or while it ran."""
    TIME_LIMIT = "T"
    """It was ended at its time limit."""
    MEMORY = "M"
    """It was ended because it used more memory than was allowed or available."""
    NOT_RUN = "N"
    """Not run, because something that it needs or waits for is not available; it is still to be done."""

    @property
    def words(self) -> str:
        """The reason in words; empty if there is none."""
        return REASON_WORDS[self]


REASON_WORDS = {
    Reason.NONE: "",
    Reason.CANCELLED: "cancelled",
    Reason.TIME_LIMIT: "time limit",
    Reason.MEMORY: "memory",
    Reason.NOT_RUN: "not run",
}
_ENDED = {"cancelled": "cancelled", "time limit": "ended at its time limit", "memory": "out of memory"}


def how_ended(return_code: int, reason: str = "") -> str:
    """`exit 3`, `killed by SIGKILL`, `cancelled`, `lost with its node`; `reason` as in REASON_WORDS."""
    if reason:
        return _ENDED.get(reason, reason)
    if return_code == LOST_RETURN_CODE:
        return "lost with its node"
    try:
        return f"exit {return_code}" if return_code >= 0 else f"killed by {signal.Signals(-return_code).name}"
    except ValueError:
        return f"exit {return_code}"


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The outcome of one attempt.

    `attempt` is its number, which the driver gave it; `pid` the process id of the shell; `return_code` as in
    `subprocess` (minus the signal's number if a signal killed it); `elapsed` in monotonic seconds; `start`
    and `finish` in seconds since the epoch by the node's clock; `out_bytes`, `err_bytes` count the captured
    bytes of stdout and stderr, and the snippets hold the first and last 40 of them, with `...` between if
    some were left out. `reason`: why it ended, if the engine knows more than the return code says.
    `last_line`: of stderr (of stdout, if stderr has none), as `model.failure.last_line`; only if the attempt
    failed.
    """

    attempt: Natural
    slot: int
    pid: Natural
    return_code: int
    elapsed: Duration
    start: Moment
    finish: Moment
    out_bytes: Natural
    out_snippet: Snippet
    err_bytes: Natural
    err_snippet: Snippet
    ending: Ending = Ending.OWN
    reason: Reason = Reason.NONE
    last_line: Said = ""

    @property
    def failed(self) -> bool:
        """True if the attempt's return code is not 0."""
        return self.return_code != 0


class Way(enum.Enum):
    """How an engine is launched, which decides how it learns that it is no longer wanted."""

    CHILD = "child"
    """By the driver, on its own machine: the engine is its child, and the end of the engine's standard input
    means that the driver has ended."""
    SSH = "ssh"
    """By ssh: the engine goes to the background and survives its connection."""
    STEP = "step"
    """By a scheduler, as the only process of a step (Slurm: `srun`): it must stay in the foreground, or the
    step would end; signals to the step reach its tasks, too."""
