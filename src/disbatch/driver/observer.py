"""Who watches a run: what the driver tells those that show it to people, and those that hear of each task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from disbatch.model.snapshot import Snapshot, TaskView


class Observer(Protocol):
    """Shows a run. All calls come from the driver's loop; `say` may come before `start` and after `stop`."""

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins; `snapshot` tells how it stands, whenever the observer wants to know."""

    def say(self, text: str) -> None:
        """One line that the user should see now."""

    def stop(self) -> None:
        """Nothing more will move."""


class Listener(Protocol):
    """Hears of each task that is done. All calls come from the driver's loop, and must return at once."""

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins; `snapshot` tells how it stands."""

    def ended(self, id: int, line: bytes) -> None:
        """The task or barrier of that id got this line in the status file."""

    def failed(self, task: TaskView) -> None:
        """This task failed, or was given up; not because the user cancelled it."""
