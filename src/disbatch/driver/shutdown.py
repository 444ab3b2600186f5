"""How a run ends: how long it waits for engines, its exit code and the words for it.

How long a run without engines waits for some to be attached.

What a run came to: the exit code and the words for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from disbatch.driver.engine_table import Tally
from disbatch.driver.settings import Settings
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    SIGNAL_EXIT,
    DisbatchError,
    UsageError,
)
from disbatch.model.text import shell_word
from disbatch.plan.events import Conclusion


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


WORDS = {
    Conclusion.COMPLETE: "complete",
    Conclusion.INTERRUPTED: "interrupted",
    Conclusion.FAILED_FAST: "ended at the first failed task",
    Conclusion.CHECK_FAILED: "ended at a failed BARRIER CHECK",
    Conclusion.SOURCE_BROKEN: "ended at a line that cannot be read",
}


@dataclass(frozen=True)
class Result:
    """How a run ended. `over`: the plan came to its own end; `incomplete`: why it was given up, or empty;
    `signal`: the first that came, or 0; `broken`: what ended the source early; `mind_failures`: -e."""

    conclusion: Conclusion
    over: bool
    incomplete: str
    signal: int
    broken: DisbatchError | None
    tally: Tally
    mind_failures: bool

    @property
    def exit_code(self) -> int:
        """What the command ends with; see `model.errors`."""
        if self.signal and (self.conclusion is Conclusion.INTERRUPTED or not self.over):
            return SIGNAL_EXIT + self.signal
        if self.broken is not None:
            return self.broken.exit_code
        if self.incomplete or self.tally.lost:
            return EXIT_INCOMPLETE
        if self.conclusion in (Conclusion.FAILED_FAST, Conclusion.CHECK_FAILED):
            return EXIT_FAILED
        failed = self.tally.failed + self.tally.skipped_failed
        return EXIT_FAILED if self.mind_failures and failed else EXIT_COMPLETE

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        ended_well = self.over and self.conclusion is Conclusion.COMPLETE
        return ended_well and not self.incomplete and not self.tally.lost

    @property
    def needs_retry(self) -> bool:
        """A command that goes on needs -R: what failed counts as completed without, and a BARRIER CHECK would
        fail again at once."""
        return self.conclusion is Conclusion.CHECK_FAILED

    @property
    def words(self) -> str:
        """For the summary."""
        if self.broken is not None and not isinstance(self.broken, UsageError):
            return self.incomplete or f"ended early: {self.broken}"
        return self.incomplete or WORDS[self.conclusion]
