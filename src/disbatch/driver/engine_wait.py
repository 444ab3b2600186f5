"""Wait for engines to be attached to a run that has no engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from disbatch.driver.settings import Settings
from disbatch.model.text import shell_word


class EngineWait:
    """`begin` is called when the run has no engine and expects none, `end` when it has or expects one. When
    the patience of the run is over, `give_up` is called with the reason why the run cannot be completed.
    `notify_user` gets lines for the user."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        *,
        notify_user: Callable[[str], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._patience = settings.waits
        script = settings.claimed.files.script
        self._script = str(script) if settings.moved else os.path.relpath(script)
        self._notify_user = notify_user
        self._give_up = give_up
        self._lasts = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def notice(self) -> str:
        """The notice for displays; empty if nothing is waited for."""
        return "no engines: waiting for some to be attached" if self._lasts else ""

    def begin(self, why: str) -> None:
        """The run has no engine; it ends for the reason `why` if none is attached in time."""
        if self._lasts:
            return
        if self._patience == 0:
            self._give_up(why)
            return
        self._lasts = True
        limit = "" if self._patience is None else f" for {self._patience:g} s"
        command = self._script if "/" in self._script else f"./{self._script}"
        add = f"{shell_word(command)} -s HOST:CORES adds some, as does submitting it"
        self._notify_user(f"no engines are there; waiting for some{limit}: {add}")
        if self._patience is not None:
            self._timer = self._loop.call_later(self._patience, self._give_up, why)

    def end(self) -> None:
        """The run has or expects an engine, or it ends."""
        self._lasts = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
