"""The reasons why no task starts at the moment, each independent of the others."""

from __future__ import annotations

import enum
from collections.abc import Callable

from disbatch.plan.events import Hold, Resume


class Reason(enum.Enum):
    """Why tasks may have to wait."""

    DISK = enum.auto()
    """The status file cannot be written."""
    TAKEOVER = enum.auto()
    """Engines of the former driver are expected, and may run tasks that are not recorded."""
    PAUSE = enum.auto()
    """The user paused the run."""
    STORE = enum.auto()
    """The key store accepts no results."""


class Holds:
    """The present reasons, each with its words for displays. `handle_event` gets a Hold for the plan with the
    first reason, and a Resume when none is left. `may_read` is called when tasks may be read again."""

    def __init__(self, handle_event: Callable[[Hold | Resume], None], may_read: Callable[[], None]) -> None:
        self._handle_event = handle_event
        self._may_read = may_read
        self._words: dict[Reason, str] = {}

    def __contains__(self, reason: Reason) -> bool:
        return reason in self._words

    def add(self, reason: Reason, words: str) -> None:
        """No task starts until this reason is removed."""
        first = not self._words
        self._words[reason] = words
        if first:
            self._handle_event(Hold())

    def remove(self, reason: Reason) -> None:
        """This reason does not apply any more."""
        stopped = self.stop_reading
        if self._words.pop(reason, None) is not None and not self._words:
            self._handle_event(Resume())
        if stopped and not self.stop_reading:
            self._may_read()

    @property
    def stop_reading(self) -> bool:
        """Tasks must not be read now: what follows from them could not be recorded, or could not be compared
        with what engines of a former driver run. They are read during a pause, since results of tasks that a
        former driver started wait for that."""
        return any(reason is not Reason.PAUSE for reason in self._words)

    @property
    def words(self) -> str:
        """The words of all reasons; empty if there is none."""
        return ", ".join(self._words.values())
