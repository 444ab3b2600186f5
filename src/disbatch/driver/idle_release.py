"""Release engines that have no more work to expect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from disbatch.driver.engine_state import Joined, Launching
from disbatch.driver.engine_table import EngineEntry


class IdleRelease:
    """Releases the engines of one context.

    When one engine has been spare for `after` seconds, all spare engines are released, and from then on each
    spare engine at once: a job should shrink as few times as possible. Engines for which `may_go` is false
    are kept until the end, for tasks that must run again: their nodes (the driver's, and that of the batch
    script) stay in the job anyway. They are released, too, if `all_may_go` is true of the spare engines.
    """

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
        """Which of the engines that are `spare` at the time `now` (seconds) are to be released."""
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
    """Releases the engines of all contexts. `entries` has all engines of the run. `engines(context)` returns
    the ids of the engines of an attached context: when all of these are spare, none is kept, because the
    batch script of that context ends with them. In the driver's own context some are kept to the end."""

    def __init__(self, entries: Mapping[str, EngineEntry], engines: Callable[[str], Iterable[str]]) -> None:
        self._entries = entries
        self._engines = engines
        self._of: dict[str, IdleRelease] = {}

    def add(self, context: str, after: float | None, keep: frozenset[str]) -> None:
        """Release spare engines of that context after so many seconds, except those on nodes to `keep`; None:
        never."""
        if after is not None:
            self._of[context] = IdleRelease(
                after,
                lambda engine: self._entries[engine].name not in keep,
                lambda spare: bool(context) and self._is_all_of(context, spare),
            )

    def __bool__(self) -> bool:
        """Engines of some context may be released."""
        return bool(self._of)

    def due(self, spare: Iterable[str], now: float) -> list[str]:
        """Which of the engines that are `spare` at the time `now` (seconds) are to be released."""
        by_context: dict[str, list[str]] = defaultdict(list)
        for engine in spare:
            by_context[self._entries[engine].context].append(engine)
        return [e for context, one in self._of.items() for e in one.due(by_context.get(context, ()), now)]

    def _is_all_of(self, context: str, spare: Collection[str]) -> bool:
        known = (self._entries.get(engine) for engine in self._engines(context))
        entries = (entry for entry in known if entry is not None)
        return {e.engine for e in entries if isinstance(e.state, Launching | Joined)}.issubset(spare)
