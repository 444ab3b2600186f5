"""The engine's side of its keeper: receive the signals that it forwards, notice its death, record sessions
for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from disbatch.engine import keeper


class KeeperClient:
    """`signalled(number)` is called when the keeper received a signal and forwarded it, `died()` when the
    keeper is gone."""

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
        self._gone = False
        self._sessions = parent.session_file
        loop.add_reader(self._pipe, self._heard)

    def record(self, slot: int, session: int) -> None:
        """A task began in `slot`; `session` is its shell's process id. 0: it is over."""
        if self._sessions is not None:
            self._sessions.note(slot, session)

    def leave(self) -> None:
        """No task runs any more: if the keeper is dead, remove the session file in its place."""
        if self._gone and self._sessions is not None:
            self._sessions.remove()

    def _heard(self) -> None:
        numbers = os.read(self._pipe, 64)
        for number in numbers:
            self._signalled(number)
        if not numbers:
            self._loop.remove_reader(self._pipe)
            self._gone = True
            self._died()
