"""Says which engines left by themselves: one line for all that left for one reason at about one time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disbatch.model.text import short_list

JOIN_DELAY = 0.5
"""Seconds that a line waits for others."""
BY_SIGNAL = "ended by SIG"
"""How the reason of an engine begins that a signal ended; see `engine.engine`."""


class Departures:
    """`say` gets the lines. `by_slurm`: the nodes are Slurm's, so a signal is most likely Slurm's, too."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, say: Callable[[str], None], *, by_slurm: bool
    ) -> None:
        self._loop = loop
        self._say = say
        self._by_slurm = by_slurm
        self._names: dict[tuple[str, bool], list[str]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.slurm_signalled = False
        """Slurm ended one of our own context's."""

    def note(self, name: str, reason: str, *, by_slurm: bool | None = None) -> None:
        """The engine of that node left, and why. `by_slurm`: whether a node of another context is Slurm's."""
        if by_slurm is None:
            self.slurm_signalled |= self._by_slurm and reason.startswith(BY_SIGNAL)
            by_slurm = self._by_slurm
        self._names.setdefault((reason, by_slurm), []).append(name)
        if self._timer is None:
            self._timer = self._loop.call_later(JOIN_DELAY, self.tell)

    def tell(self) -> None:
        """Say now what is not said yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        told, self._names = self._names, {}
        for (reason, by_slurm), names in told.items():
            self._say(f"{short_list(sorted(names))}: {self._words(reason, len(names) > 1, by_slurm)}")

    def _words(self, reason: str, several: bool, by_slurm: bool) -> str:
        if by_slurm and reason.startswith(BY_SIGNAL):
            signal = reason.removeprefix("ended by ")
            engines = "the engines" if several else "the engine"
            return f"Slurm ended {engines} ({signal}: cancelled, preempted, or out of time)"
        return f"their engines left: {reason}" if several else f"its engine left: {reason}"
