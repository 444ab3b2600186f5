"""The end of a run as one value: why it ends, and the exit code and the words that follow from it."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from disbatch.driver.tally import Tally
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    SIGNAL_EXIT,
    DisbatchError,
    UsageError,
)
from disbatch.plan.events import Conclusion

CONCLUSIONS = {
    Conclusion.COMPLETE: "complete",
    Conclusion.INTERRUPTED: "interrupted",
    Conclusion.FAILED_FAST: "ended at the first failed task",
    Conclusion.CHECK_FAILED: "ended at a failed BARRIER CHECK",
    Conclusion.SOURCE_BROKEN: "ended at a line that cannot be read",
}
DAMAGED = "a part of the record was written over"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run ends before its tasks do; one of the variants below."""

    after: Ending | None = None
    """The ending that this one replaced, e.g. a `dbutil finish` before a signal."""

    @property
    def words(self) -> str:
        """Why the run is incomplete; empty if the plan's conclusion says it."""
        return "" if self.after is None else self.after.words

    @property
    def notice(self) -> str:
        """The notice for displays while the run ends."""
        return "" if self.after is None else self.after.notice


class Interrupted(Ending, frozen=True):
    """The driver got SIGINT, SIGTERM or SIGHUP; `signal` is the first of them. `at_once`: there was a second
    one."""

    signal: int
    at_once: bool = False

    @property
    def notice(self) -> str:
        return "ending everything at once" if self.at_once else "ending the running tasks"


class FinishedEarly(Ending, frozen=True):
    """A user ended the run through `by`: a command, or the web page."""

    by: str

    @property
    def words(self) -> str:
        return f"ended by {self.by}"

    @property
    def notice(self) -> str:
        return "ending the running tasks"


class TimeUp(Ending, frozen=True):
    """The allocation ends; `reason` is the sentence for the user."""

    reason: str

    @property
    def words(self) -> str:
        return self.reason


class NoEngines(Ending, frozen=True):
    """No engine is there and none will come; `reason` is the sentence for the user."""

    reason: str

    @property
    def words(self) -> str:
        return self.reason


class TakenOver(Ending, frozen=True):
    """Another driver has the run."""

    @property
    def words(self) -> str:
        return "taken over by another driver"


class DriverFailed(Ending, frozen=True):
    """The driver has raised an error of its own."""

    @property
    def words(self) -> str:
        return "the driver failed"


_Variant = TypeVar("_Variant", bound=Ending)


def find(ending: Ending | None, variant: type[_Variant]) -> _Variant | None:
    """The latest ending of this variant: the present one, or one that it replaced."""
    while ending is not None and not isinstance(ending, variant):
        ending = ending.after
    return ending


def is_ordered(ending: Ending | None) -> bool:
    """A user ended the run, by a signal or a command."""
    return find(ending, Interrupted) is not None or find(ending, FinishedEarly) is not None


class Result(msgspec.Struct, frozen=True):
    """How a run ended. `over`: the plan reached its end; `ending`: what ended the run otherwise; `damaged`: a
    part of the status file was overwritten; `broken`: the error that ended the source early;
    `mind_failures`: failed tasks determine the exit code (-e)."""

    conclusion: Conclusion
    over: bool
    ending: Ending | None
    damaged: bool
    broken: DisbatchError | None
    tally: Tally
    mind_failures: bool

    @property
    def exit_code(self) -> int:
        """The exit code of the command; see `model.errors`."""
        interrupted = find(self.ending, Interrupted)
        if interrupted is not None and (self.conclusion is Conclusion.INTERRUPTED or not self.over):
            return SIGNAL_EXIT + interrupted.signal
        if self.broken is not None:
            return self.broken.exit_code
        if self._incomplete or self.tally.lost:
            return EXIT_INCOMPLETE
        if self.conclusion in (Conclusion.FAILED_FAST, Conclusion.CHECK_FAILED):
            return EXIT_FAILED
        failed = self.tally.failed + self.tally.skipped_failed
        return EXIT_FAILED if self.mind_failures and failed else EXIT_COMPLETE

    @property
    def complete(self) -> bool:
        """Nothing is left to do."""
        ended_well = self.over and self.conclusion is Conclusion.COMPLETE
        return ended_well and not self._incomplete and not self.tally.lost

    @property
    def needs_retry(self) -> bool:
        """The command that resumes the run needs -R: without it, failed tasks count as completed, and a
        BARRIER CHECK would fail again at once."""
        return self.conclusion is Conclusion.CHECK_FAILED

    @property
    def words(self) -> str:
        """For the summary."""
        if self._incomplete:
            return self._incomplete
        if self.broken is not None and not isinstance(self.broken, UsageError):
            return f"ended early: {self.broken}"
        return CONCLUSIONS[self.conclusion]

    @property
    def _incomplete(self) -> str:
        """Why the run was given up, or empty."""
        return ("" if self.ending is None else self.ending.words) or (DAMAGED if self.damaged else "")
