"""Hold back outcomes of tasks in a scheduler's job until it is clear that no signal to the whole job caused
them.

Theory of operation
-------------------
When a job is cancelled, preempted, or at its time limit, the scheduler signals the engine and every process
of its tasks, one after the other in an unknown order, with a few milliseconds between the first and the last.
A task that such a signal ended has no result: a resumed run must run it again. Its engine recognises this
only by being signalled itself, which may happen a moment later.

So an outcome that a signal may have caused, which is any but return code 0 (a shell reports 143; a program
may catch the signal and exit with 1), waits HOLD seconds from the time at which the engine saw the task's
end. If the engine is signalled meanwhile, the outcome becomes Ending.ORDERED; so does every outcome after the
signal, whatever its code: a task that caught the signal and ended with 0 may not have finished its work.

Two cases cannot be told apart: a task that ends with 0 because of the signal before the engine gets it (the
engine's signal handler runs between two of its instructions, not when its loop comes round, so the task would
have to be signalled, end, and be reaped between two kill calls of the scheduler); and a scheduler that pauses
longer than HOLD between its kill calls (the task is recorded as failed, and a resume with -R runs it again).

Only the outcome waits: the task's slot is free at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from disbatch.engine.slots import Job
from disbatch.model.task import Ending, Outcome

HOLD = 0.25
"""Seconds. A scheduler needs milliseconds to signal all processes of a step, longer on a node that swaps."""


class Held:
    """Passes outcomes on to `give(job, outcome)`, some of them `hold` seconds later; 0: all at once,
    unchanged, whatever was signalled."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hold: float, give: Callable[[Job, Outcome], None]
    ) -> None:
        self._loop = loop
        self._hold = hold
        self._give = give
        self._waiting: deque[tuple[float, Job, Outcome]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._signalled = False

    @property
    def empty(self) -> bool:
        """True if no outcome is held."""
        return not self._waiting

    def jobs(self) -> list[Job]:
        """The held jobs, oldest first."""
        return [job for _, job, _ in self._waiting]

    def add(self, job: Job, outcome: Outcome) -> None:
        """A task ended."""
        if not self._hold:
            self._give(job, outcome)
        elif self._signalled:
            self._give(job, _ordered(outcome))
        elif outcome.ending is Ending.OWN and outcome.failed:
            self._waiting.append((self._loop.time() + self._hold, job, outcome))
            if self._timer is None:
                self._timer = self._loop.call_later(self._hold, self._due)
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

    def _give_first(self) -> None:
        _, job, outcome = self._waiting.popleft()
        self._give(job, _ordered(outcome) if self._signalled else outcome)

    def _due(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting and (self._signalled or self._waiting[0][0] <= now):
            self._give_first()
        if self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._due)


def _ordered(outcome: Outcome) -> Outcome:
    return msgspec.structs.replace(outcome, ending=Ending.ORDERED)
