"""What a run came to: the exit code and the words for it."""

from __future__ import annotations

from dataclasses import dataclass

from disbatch.driver.roster import Tally
from disbatch.model.errors import (
    EXIT_COMPLETE,
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    SIGNAL_EXIT,
    DisbatchError,
    UsageError,
)
from disbatch.plan.events import Conclusion

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
