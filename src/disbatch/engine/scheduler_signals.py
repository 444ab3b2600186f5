"""Outcomes of a job's tasks, held back until it is clear that no signal to the whole job caused them.

Theory of operation
-------------------
When a job is cancelled, preempted, or at its time limit, the scheduler signals the engine and every process
of its tasks, one after the other in no order that we could know, with nothing but a few milliseconds between
the first and the last. A task that dies of that is no result: it was ended, and a resumed run must do it
again. Its engine can tell only by having been signalled itself, which may come to pass a moment later.

So an outcome that could stem from a signal, which is any but return code 0 (a shell says 143, a program may
catch the signal and say 1), waits HOLD seconds, counted from when the engine has seen the task's end. If the
engine is signalled meanwhile, the outcome becomes Ending.ORDERED; so does everything that comes after the
signal, whatever its code: a task that caught the signal and ended with 0 has not been seen to finish its
work.

What cannot be told apart: a task that ends with 0 because of the signal before the engine gets it. The
signal's handler runs between two instructions of the engine, not when its loop comes round, so the task
would have to be signalled, end, and be reaped in the time between two of the scheduler's kill calls. And a
scheduler that pauses longer than HOLD between these: the task is recorded as failed, and a resume with -R
does it again.

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
"""Seconds: a scheduler needs milliseconds to signal all processes of a step, more on a node that swaps."""


class Held:
    """Passes outcomes on to `give(job, outcome)`, some of them `hold` seconds later; 0: all at once, as they
    are, whatever was signalled."""

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
        """True if nothing is held."""
        return not self._waiting

    def jobs(self) -> list[Job]:
        """What is held, oldest first."""
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
        """The engine is being signalled. Safe in a signal's handler: it only sets a mark."""
        self._signalled = True

    def release(self) -> None:
        """Give all that is held, as results of their own unless a signal was noted."""
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
