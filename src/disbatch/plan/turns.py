"""Engines that can take a task, in rotation.

Those of a context have their turns one after the other, then come those of the next context: each engine has
one turn a round. So a context that may take no more is passed over, and comes back, at once, however many
engines it has.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator

from disbatch.plan.engines import Engine


class Turns:
    """An engine that is added comes last in its context. It is the turn of the first engine of the first
    context in `open`. Only this class changes which engines there are."""

    __slots__ = ("_closed", "_left", "_whose", "contexts", "open")

    def __init__(self) -> None:
        self.contexts: defaultdict[str, OrderedDict[str, Engine]] = defaultdict(OrderedDict)
        """All of them."""
        self.open: OrderedDict[str, OrderedDict[str, Engine]] = OrderedDict()
        """Those of contexts that are not closed; no context without engines."""
        self._closed: set[str] = set()
        self._whose = ""
        """The context whose engines have their turns."""
        self._left = 0
        """How many of these turns are left."""

    def __iter__(self) -> Iterator[Engine]:
        for engines in self.open.values():
            yield from engines.values()

    def took(self, context: str) -> None:
        """An engine of that context has had its turn, and others wait for theirs."""
        if context != self._whose or not self._left:
            self._whose, self._left = context, len(self.contexts[context])
        self._left -= 1
        if not self._left and context in self.open:
            self.open.move_to_end(context)

    def add(self, engine: Engine) -> None:
        """It can take a task from now on."""
        context = engine.context
        engines = self.contexts[context]
        engines[engine.id] = engine
        if context not in self._closed:
            self.open[context] = engines

    def remove(self, engine: Engine) -> None:
        """It cannot take a task any more."""
        engines = self.contexts[engine.context]
        del engines[engine.id]
        if not engines:
            self.open.pop(engine.context, None)

    def close(self, context: str) -> None:
        """Its engines may take nothing."""
        self._closed.add(context)
        self.open.pop(context, None)

    def reopen(self, context: str) -> None:
        """They may again."""
        self._closed.discard(context)
        if self.contexts[context]:
            self.open[context] = self.contexts[context]
