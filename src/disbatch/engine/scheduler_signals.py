"""Hold back outcomes of tasks in a scheduler's job until it is clear that no signal to the whole job caused
them.

Theory of operation
-------------------
When a job is cancelled, preempted, or at its time limit, the scheduler signals the engine and every process
of its tasks, one after the other in an unknown order, with a few milliseconds between the first and the last.
A task that such a signal ended has no result: a resumed run must run it again. Its engine recognises this
only by being signalled itself, which may happen a moment later.

So an outcome other than return code 0 (a shell reports 143; a program may catch the signal and exit with 1)
waits HOLD seconds from the time at which the engine saw the task's end. If the engine is signalled meanwhile,
the outcome becomes Ending.ORDERED; so does every outcome after the signal, whatever its code: a task that
caught the signal and ended with 0 may not have finished its work.

Return code 0 waits, too, for a task may catch the signal, or go on without the command that it ended, and be
reaped before the engine is signalled, on a busy node. It waits more briefly, as the driver may have nothing
for the slot before it hears the outcome: HOLD_OF_SUCCESS seconds for short tasks, of which the engine has
more in its queue, else HOLD_SHARE of the time that the task took.

One case cannot be told apart: a scheduler that pauses for longer than that between its kill calls.

Only the outcome waits: the task's slot is free at once.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

import msgspec

from disbatch.engine.slots import Job
from disbatch.model.task import Ending, Outcome

HOLD = 0.25
"""Seconds. A scheduler needs milliseconds to signal all processes of a step, longer on a node that swaps."""
HOLD_OF_SUCCESS = 0.05
"""Seconds, well below the work in an engine's queue (`plan.engine`)."""
SHORT_TASK = 1.0
"""Seconds: engines have longer tasks not in their queues."""
HOLD_SHARE = 0.01
TOGETHER = 0.005
"""Seconds: what is due within that time is passed on at once, so that a timer serves many short tasks."""


def hold_of(outcome: Outcome) -> float:
    """Seconds that an outcome waits."""
    if outcome.failed:
        return HOLD
    return HOLD_OF_SUCCESS if outcome.elapsed <= SHORT_TASK else min(HOLD, HOLD_SHARE * outcome.elapsed)


class SignalFilter:
    """Passes outcomes on to `give(job, outcome)`, `hold_of` seconds later; if it does not `hold` any, all at
    once, unchanged, whatever was signalled."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, give: Callable[[Job, Outcome], None], *, hold: bool
    ) -> None:
        self._loop = loop
        self._hold = hold
        self._give = give
        self._numbers = count()
        self._waiting: list[tuple[float, int, Job, Outcome]] = []
        """A heap: when each is due, and in which order they came."""
        self._timer: asyncio.TimerHandle | None = None
        self._signalled = False

    @property
    def empty(self) -> bool:
        """True if no outcome is held."""
        return not self._waiting

    def jobs(self) -> list[Job]:
        """The held jobs."""
        return [job for _, _, job, _ in self._waiting]

    def add(self, job: Job, outcome: Outcome) -> None:
        """A task ended."""
        if not self._hold:
            self._give(job, outcome)
        elif self._signalled:
            self._give(job, _ordered(outcome))
        elif outcome.ending is Ending.OWN:
            due = self._loop.time() + hold_of(outcome)
            if self._timer is None or due < self._waiting[0][0]:
                self._await(due)
            heapq.heappush(self._waiting, (due, next(self._numbers), job, outcome))
        else:
            self._give(job, outcome)

    def note_signal(self) -> None:
        """The engine is being signalled. Safe in a signal handler: it only sets a flag."""
        self._signalled = True

    def release(self) -> None:
        """Pass on all held outcomes, as results of their own unless a signal was noted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._give_first()

    def _await(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._due)

    def _give_first(self) -> None:
        _, _, job, outcome = heapq.heappop(self._waiting)
        self._give(job, _ordered(outcome) if self._signalled else outcome)

    def _due(self) -> None:
        self._timer = None
        soon = self._loop.time() + TOGETHER
        while self._waiting and (self._signalled or self._waiting[0][0] <= soon):
            self._give_first()
        if self._waiting:
            self._await(self._waiting[0][0])


def _ordered(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, ending=Ending.ORDERED)
