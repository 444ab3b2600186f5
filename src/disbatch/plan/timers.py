"""What waits for a time. The plan has no clock: it says when it wants the next `Tick`, which has the time."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Timers:
    """A delay begins with the next Tick, as nobody here knows what time it is before."""

    __slots__ = ("_due", "_fresh", "_numbers")

    def __init__(self) -> None:
        self._fresh: list[tuple[float, Callable[[], None]]] = []
        """Delays that have not begun, in seconds."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        """A heap of those that have, by the moment at which they are over."""
        self._numbers = count()

    def call_after(self, seconds: float, what: Callable[[], None]) -> None:
        """Call `what` while a Tick is handled that comes so much later."""
        self._fresh.append((seconds, what))

    @property
    def next(self) -> float | None:
        """The moment at which a Tick is wanted: None if nothing waits, minus infinity if at once."""
        if self._fresh:
            return -math.inf
        return self._due[0][0] if self._due else None

    def tick(self, now: float) -> None:
        """It is `now`, in seconds of any clock that does not go back: call what is due, in order."""
        self._begin(now)
        while self._due and self._due[0][0] <= now:
            heappop(self._due)[2]()
        self._begin(now)

    def _begin(self, now: float) -> None:
        for seconds, what in self._fresh:
            heappush(self._due, (now + seconds, next(self._numbers), what))
        self._fresh = []
