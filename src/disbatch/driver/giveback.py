"""When an engine that has no more work to expect is let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class GiveBack:
    """Remembers since when engines are spare. When one was so for `after` seconds, all that are spare are let
    go, and from then on each at once: the job becomes smaller anyway, and the fewer times the better. Only
    those that `may_go`; another one (on the driver's node, or that of the batch script, which stay anyway) is
    there to the end, for tasks that must run again."""

    def __init__(self, after: float, may_go: Callable[[str], bool]) -> None:
        self._after = after
        self._may_go = may_go
        self._since: dict[str, float] = {}

    def due(self, spare: Iterable[str], now: float) -> list[str]:
        """Of the engines that are `spare` at this time (seconds), those to let go."""
        since = self._since
        self._since = {engine: since.get(engine, now) for engine in spare if self._may_go(engine)}
        if all(now - start < self._after for start in self._since.values()):
            return []
        self._after = 0.0
        return list(self._since)
