"""What every source of tasks offers the driver."""

from __future__ import annotations

from typing import Protocol

from disbatch.model.errors import DisbatchError
from disbatch.model.task import Item


class Source(Protocol):
    """Items in order, just ahead of need.

    A source that knows nothing more right now answers `take` with fewer than were asked for, and calls the
    `ready` that it was made with, on the loop, once there is more or it has ended.
    """

    @property
    def name(self) -> str:
        """What messages call it: the file's name as the user gave it, or `stdin`."""

    @property
    def ended(self) -> bool:
        """True once no item will come any more; known as soon as the last one has been taken, or before."""

    @property
    def error(self) -> DisbatchError | None:
        """Why it ended early: a wrong line, or input that cannot be read on. Shows up after the good items
        before it have been taken, or at once if these are worth nothing; `ended` is then true."""

    def take(self, most: int) -> list[Item]:
        """At most `most` items. Never blocks but for a disk."""

    def close(self) -> None:
        """Read no more; may be called twice."""
