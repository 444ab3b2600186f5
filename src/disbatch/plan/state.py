"""Where everything stands: the one state that all decisions read and change.

What happens to it is in the modules above this one, a function for each event: `reading`, `joining`,
`attempts`, `departure`. Each of these leaves the board so that it holds together; what follows from it
then is `dispatch.settle`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from disbatch.model.idset import IdSet
from disbatch.model.task import Outcome, PerEngine, Phase, Task
from disbatch.plan.backlog import Backlog, Source
from disbatch.plan.engine import Engine
from disbatch.plan.events import Action, Conclusion
from disbatch.plan.rotation import Rotation
from disbatch.plan.timers import Timers


class Mode(enum.Enum):
    """Where the run stands."""

    RUNNING = enum.auto()
    WINDING_DOWN = enum.auto()
    ENDING = enum.auto()
    CLOSING = enum.auto()
    OVER = enum.auto()


class Claimed(NamedTuple):
    """An engine has this attempt of a task that is not read again yet; `outcome` once it has ended."""

    engine: Engine
    attempt: int
    outcome: Outcome | None = None


class Board:
    """Parameters as of `plan.Plan`."""

    __slots__ = (
        "actions", "at_once", "backlog", "cancelled", "claims", "commands", "conclusion",
        "engines", "fail_fast", "failed_since_barrier", "first_attempt", "first_failed", "held", "live",
        "losses", "lost", "max_losses", "mode", "next_attempt", "nothing_read", "recalling", "reruns",
        "rotation", "timers", "unheard",
    )  # fmt: skip

    def __init__(
        self, *, max_losses: int, fail_fast: bool, limits: Mapping[str, int], first_attempt: int
    ) -> None:
        self.max_losses = max_losses
        self.fail_fast = fail_fast
        self.mode = Mode.RUNNING
        self.conclusion = Conclusion.COMPLETE
        self.held = False
        """Nothing may start."""
        self.at_once = False
        """What is ended is ended without grace."""
        self.actions: list[Action] = []
        """What follows from the event that is being handled."""
        self.first_attempt = self.next_attempt = first_attempt

        self.engines: dict[str, Engine] = {}
        self.rotation = Rotation(limits, self.engines)
        self.live = 0
        """Attempts assigned to engines that are not lost."""
        self.lost = 0
        """Engines that are."""
        self.recalling = 0
        """Attempts that engines are asked to give back and have not answered for."""

        self.backlog = Backlog()
        self.timers = Timers()
        self.commands: dict[Phase, list[PerEngine]] = {Phase.START: [], Phase.STOP: []}
        self.cancelled = IdSet()
        self.losses: dict[int, int] = {}
        """How often a task was lost with its engine, by id."""
        self.reruns = 0
        """How many attempts did not come to their own end, and are made again."""
        self.failed_since_barrier = 0
        self.first_failed: Task | None = None
        """The first of these."""

        self.claims: dict[int, Claimed] = {}
        """What former drivers left, by id of the task, which is not read yet, or waits behind a barrier."""
        self.nothing_read = first_attempt > 1
        """What engines may have to do before they leave is not known yet."""
        self.unheard = first_attempt > 1
        """Engines of a former driver are expected."""

    @property
    def present(self) -> int:
        """Engines that are not lost."""
        return len(self.engines) - self.lost

    @property
    def is_behind(self) -> bool:
        """What engines have from a former driver is not all known, or not all of its tasks are read."""
        backlog = self.backlog
        more = bool(backlog.unread) or backlog.source is not Source.ENDED
        return self.unheard or (more and (self.nothing_read or bool(self.claims)))

    @property
    def reads(self) -> bool:
        """Items are read: to be run, or, when the run is ended, for the results that engines have."""
        return self.mode is Mode.RUNNING or (self.mode is Mode.ENDING and self.is_behind)

    def new_attempt(self) -> int:
        """A number that no attempt had before."""
        attempt = self.next_attempt
        self.next_attempt = attempt + 1
        return attempt

    def note_failure(self, task: Task) -> None:
        """It counts for the next barrier."""
        self.failed_since_barrier += 1
        if self.first_failed is None:
            self.first_failed = task

    def forget_failures(self) -> int:
        """The barrier is complete; how many there were."""
        failed, self.failed_since_barrier, self.first_failed = self.failed_since_barrier, 0, None
        return failed
