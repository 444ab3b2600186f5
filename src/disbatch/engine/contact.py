"""Whether the driver may have given this engine up meanwhile, so that others have its tasks."""

from __future__ import annotations

from collections.abc import Callable

MARGIN = 0.75
"""Of the driver's patience: silence for longer than that may have been too long."""


class Contact:
    """Keeps what the engine knows of the driver's view of it; times in seconds of `now`.

    The driver gives up an engine that it has not heard for its patience; what the engine itself knows is when
    it has last heard the driver, which answers it each heartbeat, and that this does not know it any more. An
    attempt that was running when it may have been given up stays in doubt, although the engine is heard
    again: whether somebody else was given the task is never told. `silent()`: for how long the driver was not
    heard.
    """

    def __init__(self, now: Callable[[], float], silent: Callable[[], float]) -> None:
        self.now = now
        self._silent = silent
        self._patience = float("inf")
        self._heartbeat = float("inf")
        self._ticked = now()
        self._sure_since: float | None = None
        """What began before may run elsewhere, too; None: nothing does."""

    def welcomed(self, patience: float, heartbeat: float) -> None:
        """The driver, or one that took the run over, answered a Hello: the first, or one after a break."""
        self.tick()
        self._patience, self._heartbeat = patience, heartbeat

    def forgotten(self) -> None:
        """The driver does not know us: it has given us up, or is another one, which does not know us yet."""
        self._doubt()

    def tick(self) -> None:
        """A heartbeat. One that comes late means that this process did not run."""
        if self._is_late() or self._is_silent():
            self._doubt()
        self._ticked = self.now()

    def certain(self, begun: float) -> bool:
        """True if nobody else can have been given an attempt that runs here since `begun`."""
        if self._is_late() or self._is_silent():
            self._doubt()
        return self._sure_since is None or begun > self._sure_since

    def _is_silent(self) -> bool:
        return self._silent() > self._patience * MARGIN

    def _is_late(self) -> bool:
        return self.now() - self._ticked > self._heartbeat + self._patience * MARGIN / 2

    def _doubt(self) -> None:
        self._sure_since = self.now()
