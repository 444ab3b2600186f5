"""How a run went so far: points of its course, ever fewer the longer it lasts, and its pace."""

from __future__ import annotations

from collections import deque

from disbatch.model.snapshot import CoursePoint

FIRST_STEP = 1.0
"""Seconds between two points, at first."""
MOST_POINTS = 600
"""When there are so many every other one goes, and the step doubles."""
WINDOW = 60.0
"""Seconds that the pace looks back."""


class Course:
    """`add` a point now and then; those that come too soon after another are not kept."""

    def __init__(self) -> None:
        self.points: list[CoursePoint] = []
        self._step = FIRST_STEP
        self._recent: deque[tuple[float, int]] = deque()
        """When, and how many were done that were not before."""
        self._now = (0.0, 0)

    def add(self, point: CoursePoint, inherited: int = 0) -> None:
        """The run as it stands now; so many of what is done was so when it was taken over."""
        points, recent = self.points, self._recent
        self._now = now = (point.seconds, point.done - inherited)
        if not points or point.seconds >= points[-1].seconds + self._step:
            points.append(point)
            if len(points) > MOST_POINTS:
                del points[1::2]
                self._step *= 2
        if not recent or point.seconds >= recent[-1][0] + FIRST_STEP:
            recent.append(now)
            while len(recent) > 2 and recent[1][0] <= point.seconds - WINDOW:
                recent.popleft()

    @property
    def rate(self) -> float | None:
        """Tasks a second over the last minute or so; None while nothing can be said."""
        if not self._recent:
            return None
        (then, before), (now, done) = self._recent[0], self._now
        return (done - before) / (now - then) if now > then and done > before else None


class Paces:
    """The rate of each of many engines, looked at now and then."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int, float]] = {}
        """When it was looked at, what was done by then, the rate."""

    def rate(self, engine: str, now: float, done: int, begun: float) -> float:
        """Tasks a second: of the last minute or so, or since it has `begun` if that is less."""
        known = self._known.get(engine)
        if known is None:
            rate = done / (now - begun) if now > begun else 0.0
        else:
            then, before, rate = known
            since = now - then
            if since < FIRST_STEP:
                return rate
            weight = min(1.0, since / min(WINDOW, max(since, now - begun)))
            rate += weight * ((done - before) / since - rate)
        self._known[engine] = (now, done, rate)
        return rate
