"""The state that all decisions read and change.

The modules `reading`, `joining`, `attempts` and `departure` have a function for each event, which leaves the
state consistent; `dispatch.settle` then does what follows from it.
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
    """The mode of the run; see `plan.plan`."""

    RUNNING = enum.auto()
    WINDING_DOWN = enum.auto()
    ENDING = enum.auto()
    CLOSING = enum.auto()
    OVER = enum.auto()


class Claimed(NamedTuple):
    """An attempt of a former driver, whose task is not read again yet. `outcome`: after it has ended."""

    engine: Engine
    attempt: int
    outcome: Outcome | None = None


class Board:
    """The state. Parameters as of `plan.Plan`."""

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
        """No task may start."""
        self.at_once = False
        """Attempts are ended without the grace period."""
        self.actions: list[Action] = []
        """The actions that follow from the event that is being handled."""
        self.first_attempt = self.next_attempt = first_attempt

        self.engines: dict[str, Engine] = {}
        self.rotation = Rotation(limits, self.engines)
        self.live = 0
        """Attempts assigned to engines that are not lost."""
        self.lost = 0
        """The number of lost engines."""
        self.recalling = 0
        """The number of recalled attempts for which engines have not answered."""

        self.backlog = Backlog()
        self.timers = Timers()
        self.commands: dict[Phase, list[PerEngine]] = {Phase.START: [], Phase.STOP: []}
        self.cancelled = IdSet()
        self.losses: dict[int, int] = {}
        """How often each task was lost with its engine, by id."""
        self.reruns = 0
        """The number of attempts that have no result and are repeated."""
        self.failed_since_barrier = 0
        self.first_failed: Task | None = None
        """The first of them."""

        self.claims: dict[int, Claimed] = {}
        """Attempts of former drivers, by id of the task, which is not read yet or is behind a barrier."""
        self.nothing_read = first_attempt > 1
        """The commands that engines may have to run before they leave are not known yet."""
        self.unheard = first_attempt > 1
        """Engines of a former driver are expected."""

    @property
    def present(self) -> int:
        """Engines that are not lost."""
        return len(self.engines) - self.lost

    @property
    def is_behind(self) -> bool:
        """True if not all attempts of a former driver are known, or not all of their tasks are read."""
        backlog = self.backlog
        more = bool(backlog.unread) or backlog.source is not Source.ENDED
        return self.unheard or (more and (self.nothing_read or bool(self.claims)))

    @property
    def reads(self) -> bool:
        """True if items are read: to be run or, in a run that is ending, for results of a former driver."""
        return self.mode is Mode.RUNNING or (self.mode is Mode.ENDING and self.is_behind)

    def new_attempt(self) -> int:
        """A new number of an attempt."""
        attempt = self.next_attempt
        self.next_attempt = attempt + 1
        return attempt

    def count_failure(self, task: Task) -> None:
        """A task has failed, which counts for the next barrier."""
        self.failed_since_barrier += 1
        if self.first_failed is None:
            self.first_failed = task

    def reset_failures(self) -> int:
        """The barrier is complete. Returns the number of failures before it."""
        failed, self.failed_since_barrier, self.first_failed = self.failed_since_barrier, 0, None
        return failed
