"""Who watches a run: what the driver tells those that show it to people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from disbatch.model.snapshot import Snapshot


class Observer(Protocol):
    """Shows a run. All calls come from the driver's loop; `say` may come before `start` and after `stop`."""

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins; `snapshot` tells how it stands, whenever the observer wants to know."""

    def say(self, text: str) -> None:
        """One line that the user should see now."""

    def stop(self) -> None:
        """Nothing more will move."""
