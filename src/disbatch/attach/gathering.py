"""Says what became of nodes: one line for all of which the same became at about one time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disbatch.model.quantity import counted, short_list

DELAY = 0.2
"""Seconds that a line waits for others."""


class Gathering:
    """`write` gets the lines."""

    def __init__(self, loop: asyncio.AbstractEventLoop, write: Callable[[str], None]) -> None:
        self._loop = loop
        self._write = write
        self._names: dict[str, list[str]] = {}
        self._slots = 0
        self._timer: asyncio.TimerHandle | None = None

    def joined(self, name: str, slots: int) -> None:
        """An engine joined the run there, with so many slots."""
        self._slots += slots
        self.became(name, "joined")

    def became(self, name: str, words: str) -> None:
        """That became of the node."""
        self._names.setdefault(words, []).append(name)
        if self._timer is None:
            self._timer = self._loop.call_later(DELAY, self.tell)

    def say(self, text: str) -> None:
        """Something else, after that."""
        self.tell()
        self._write(text)

    def tell(self) -> None:
        """Say now what is not said yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        names, self._names = self._names, {}
        slots, self._slots = self._slots, 0
        for words, those in names.items():
            how = f" with {counted(slots, 'slot')}" if words == "joined" else ""
            self._write(f"{short_list(sorted(those))}: {words}{how}")
