"""Delayed calls. The plan has no clock: it says when it wants the next `Tick`, which carries the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Timers:
    """A delay begins with the next Tick, because the time is not known before."""

    __slots__ = ("_due", "_fresh", "_numbers")

    def __init__(self) -> None:
        self._fresh: list[tuple[float, Callable[[], None]]] = []
        """Calls whose delay (seconds) has not begun."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        """A heap of the other calls, by the time at which they are due."""
        self._numbers = count()

    def call_after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` in a Tick that comes so much later."""
        self._fresh.append((seconds, what))

    @property
    def next(self) -> float | None:
        """The time at which a Tick is wanted; None: no call waits; minus infinity: at once."""
        if self._fresh:
            return -math.inf
        return self._due[0][0] if self._due else None

    def tick(self, now: float) -> None:
        """The time is `now`, in seconds of a monotonic clock: make the calls that are due, in order."""
        self._begin(now)
        while self._due and self._due[0][0] <= now:
            heappop(self._due)[2]()
        self._begin(now)

    def _begin(self, now: float) -> None:
        for seconds, what in self._fresh:
            heappush(self._due, (now + seconds, next(self._numbers), what))
        self._fresh = []
