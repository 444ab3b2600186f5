"""How long a run without engines waits for some to be attached."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from disbatch.driver.settings import Settings
from disbatch.model.text import shell_word


class Vacancy:
    """`begins` when no engine is there and none is on its way; `ends` when one is, or by itself: then `end`
    gets why the run cannot be completed. `say` gets a line for the user."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        *,
        say: Callable[[str], None],
        end: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._patience = settings.waits
        script = settings.claimed.files.script
        self._script = str(script) if settings.moved else os.path.relpath(script)
        self._say = say
        self._end = end
        self._lasts = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def words(self) -> str:
        """What people should know, or nothing."""
        return "no engines: waiting for some to be attached" if self._lasts else ""

    def begins(self, why: str) -> None:
        """Nobody is there, and `why` that ends the run if it stays so."""
        if self._lasts:
            return
        if self._patience == 0:
            self._end(why)
            return
        self._lasts = True
        limit = "" if self._patience is None else f" for {self._patience:g} s"
        command = self._script if "/" in self._script else f"./{self._script}"
        add = f"{shell_word(command)} -s HOST:CORES adds some, as does submitting it"
        self._say(f"no engines are there; waiting for some{limit}: {add}")
        if self._patience is not None:
            self._timer = self._loop.call_later(self._patience, self._end, why)

    def ends(self) -> None:
        """Somebody is there, or on the way, or it matters no longer."""
        self._lasts = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
