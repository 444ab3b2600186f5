"""Release engines that have no more work to expect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from disbatch.driver.engine_state import Joined, Launching
from disbatch.driver.engine_table import EngineEntry


class IdleRelease:
    """Remembers since when engines are spare. When one was so for `after` seconds, all that are spare are let
    go, and from then on each at once: the job becomes smaller anyway, and the fewer times the better. Only
    those that `may_go`; another one (on the driver's node, or that of the batch script, which stay anyway) is
    there to the end, for tasks that must run again; unless with these that are spare `all_may_go`."""

    def __init__(
        self,
        after: float,
        may_go: Callable[[str], bool],
        all_may_go: Callable[[Collection[str]], bool] = lambda spare: False,
    ) -> None:
        self._after = after
        self._may_go = may_go
        self._all_may_go = all_may_go
        self._since: dict[str, float] = {}

    def due(self, spare: Collection[str], now: float) -> list[str]:
        """Of the engines that are `spare` at this time (seconds), those to let go."""
        if not spare:
            self._since = {}
            return []
        since, whole = self._since, self._all_may_go(spare)
        self._since = {engine: since.get(engine, now) for engine in spare if whole or self._may_go(engine)}
        if all(now - start < self._after for start in self._since.values()):
            return []
        self._after = 0.0
        return list(self._since)


class IdleReleases:
    """Those of all contexts. `members`: all engines of the run. `engines(context)`: the names of those of one
    that was attached, when all of which are spare its nodes are not even kept for the batch script: that
    ends with it. The driver's own is there to the end."""

    def __init__(self, members: Mapping[str, EngineEntry], engines: Callable[[str], Iterable[str]]) -> None:
        self._members = members
        self._engines = engines
        self._of: dict[str, IdleRelease] = {}

    def add(self, context: str, after: float | None, keep: frozenset[str]) -> None:
        """Let spare engines of that context go after so many seconds, but for those on nodes to `keep`."""
        if after is not None:
            self._of[context] = IdleRelease(
                after,
                lambda engine: self._members[engine].name not in keep,
                lambda spare: bool(context) and self._is_all_of(context, spare),
            )

    def __bool__(self) -> bool:
        """Somebody's may be let go."""
        return bool(self._of)

    def due(self, spare: Iterable[str], now: float) -> list[str]:
        """Of the engines that are `spare` at this time (seconds), those to let go."""
        by_context: dict[str, list[str]] = defaultdict(list)
        for engine in spare:
            by_context[self._members[engine].context].append(engine)
        return [e for context, one in self._of.items() for e in one.due(by_context.get(context, ()), now)]

    def _is_all_of(self, context: str, spare: Collection[str]) -> bool:
        known = (self._members.get(engine) for engine in self._engines(context))
        members = (member for member in known if member is not None)
        return {m.engine for m in members if isinstance(m.state, Launching | Joined)}.issubset(spare)
