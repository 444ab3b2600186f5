"""Results on their way: gathered for a few milliseconds, sent, and kept until the driver has them on disk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from disbatch.engine.runner import Job
from disbatch.model.outcome import Outcome
from disbatch.wire.messages import Finished, FromEngine

BATCH = 64
GATHER = 0.003
GATHER_WHEN_SUPPLIED = 0.05
"""Seconds that a result waits for others while this engine has its next tasks: some, or a whole batch."""

Result = tuple[Job, Outcome]


class Line(Protocol):
    """Where messages that must arrive are posted, as `wire.link.EngineLink`."""

    def post(self, message: FromEngine) -> None:
        """Send a message that must arrive."""


class Outbox:
    """Everything that must arrive goes through here, so that it is known which results are acknowledged.

    `unacknowledged()` tells how many posted messages the driver lacks (they are acknowledged in order);
    `supply()` is how many tasks the engine has waiting: with none, a result goes out at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        line: Line,
        unacknowledged: Callable[[], int],
        supply: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._line = line
        self._unacknowledged = unacknowledged
        self._supply = supply
        self._gathered: list[Result] = []
        self._posted: deque[list[Result]] = deque()
        self._timer: asyncio.Handle | None = None

    def add(self, job: Job, outcome: Outcome) -> None:
        """A result; it goes out with those that follow soon."""
        self._gathered.append((job, outcome))
        if len(self._gathered) >= BATCH:
            self.flush()
        elif self._timer is None:
            supply = self._supply()
            if not supply:
                self._timer = self._loop.call_soon(self.flush)
            else:
                pause = GATHER if supply < BATCH else GATHER_WHEN_SUPPLIED
                self._timer = self._loop.call_later(pause, self.flush)

    def flush(self) -> None:
        """Send what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            results, self._gathered = self._gathered, []
            self._post(Finished([outcome for _, outcome in results]), results)

    def post(self, message: FromEngine) -> None:
        """Send something else that must arrive, after the results there are."""
        self.flush()
        self._post(message, [])

    def _post(self, message: FromEngine, results: list[Result]) -> None:
        self._posted.append(results)
        self._line.post(message)

    def acknowledged(self) -> None:
        """The driver acknowledged something: forget what it has."""
        kept = self._unacknowledged()
        while len(self._posted) > kept:
            self._posted.popleft()

    @property
    def empty(self) -> bool:
        """True if the driver has all."""
        return not self._gathered and not self._posted

    def results(self) -> list[Result]:
        """What the driver has not acknowledged, oldest first."""
        return [result for batch in self._posted for result in batch] + self._gathered
