"""How fast a run goes and when it will be done, from successive snapshots."""

from __future__ import annotations

from collections import deque

from disbatch.model.snapshot import Snapshot

WINDOW = 60.0
"""Seconds that the rate looks back."""
MOST_POINTS = 600


class Pace:
    """Completions over the last minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=MOST_POINTS)

    def update(self, snapshot: Snapshot) -> None:
        """The run as it stands now."""
        points = self._points
        points.append((snapshot.seconds, snapshot.done - snapshot.inherited))
        while len(points) > 2 and points[0][0] < snapshot.seconds - WINDOW:
            points.popleft()

    @property
    def rate(self) -> float | None:
        """Tasks a second; None while nothing can be said."""
        if len(self._points) < 2:
            return None
        (before, was), (now, done) = self._points[0], self._points[-1]
        return (done - was) / (now - before) if now > before and done > was else None

    def remaining(self, snapshot: Snapshot) -> float | None:
        """Seconds until all is done at this rate; None if that cannot be said, as in a run that is held up or
        ending."""
        if snapshot.total is None or not snapshot.slots or snapshot.notice:
            return None
        left = max(0, snapshot.total - snapshot.done - snapshot.skipped)
        rate = self.rate
        return left / rate if rate else None
