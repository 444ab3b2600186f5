"""The reasons why no task starts at the moment; each comes and goes on its own."""

from __future__ import annotations

import enum
from collections.abc import Callable

from disbatch.plan.events import Hold, Resume


class Reason(enum.Enum):
    """What may hold a run up."""

    DISK = enum.auto()
    """The status file cannot be written."""
    TAKEOVER = enum.auto()
    """Engines of the former driver are expected, and may run what is not recorded."""
    PAUSE = enum.auto()
    """The user asked for it."""
    STORE = enum.auto()
    """The key store takes no results."""


class Holds:
    """The reasons that there are now, each with words for people. `handle_event` gets the plan's Hold with
    the first of them, and its Resume when the last has gone; `may_read` is called when there is no reason any
    more not to read tasks."""

    def __init__(self, handle_event: Callable[[Hold | Resume], None], may_read: Callable[[], None]) -> None:
        self._handle_event = handle_event
        self._may_read = may_read
        self._words: dict[Reason, str] = {}

    def __contains__(self, reason: Reason) -> bool:
        return reason in self._words

    def add(self, reason: Reason, words: str) -> None:
        """Nothing starts as long as this is so."""
        first = not self._words
        self._words[reason] = words
        if first:
            self._handle_event(Hold())

    def remove(self, reason: Reason) -> None:
        """This holds nothing up any more."""
        stopped = self.stop_reading
        if self._words.pop(reason, None) is not None and not self._words:
            self._handle_event(Resume())
        if stopped and not self.stop_reading:
            self._may_read()

    @property
    def stop_reading(self) -> bool:
        """Tasks that are read now would have to be written down, or be matched with what is not known yet. A
        pause is no reason: results of tasks that a former driver started wait for these to be read."""
        return any(reason is not Reason.PAUSE for reason in self._words)

    @property
    def words(self) -> str:
        """All of them; empty if nothing is held up."""
        return ", ".join(self._words.values())
