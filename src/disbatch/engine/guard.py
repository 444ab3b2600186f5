"""The engine's side of its keeper: hear what that hands on and when it dies; record sessions for it."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import Callable

from disbatch.engine import keeper


class Guard:
    """`signalled(number)` is called when the keeper was told something by a signal, `died()` when it is gone.

    Where there are no subreapers it holds the table of running sessions, see `keeper`: one word a slot, and
    slot -1 has one, too.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parent: keeper.Keeper,
        signalled: Callable[[int], None],
        died: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._pipe = parent.pipe
        self._signalled = signalled
        self._died = died
        self._words: memoryview | None = None
        if parent.table is not None:
            self._words = memoryview(mmap.mmap(parent.table, 0)).cast(keeper.WORD)
        loop.add_reader(self._pipe, self._heard)

    def record(self, slot: int, session: int) -> None:
        """A task began in `slot`; `session` is its shell's number. 0: that shell has ended."""
        if self._words is not None:
            self._words[slot + 1] = session

    def _heard(self) -> None:
        numbers = os.read(self._pipe, 64)
        for number in numbers:
            self._signalled(number)
        if not numbers:
            self._loop.remove_reader(self._pipe)
            self._died()
