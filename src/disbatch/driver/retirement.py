"""What happens to nodes that are no longer needed: the user's command (-k), Slurm's own, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from disbatch.contexts.context import Context
from disbatch.driver.retire import Retirer
from disbatch.driver.shrink import Shrinker


class Retirement(Protocol):
    """What happens to nodes that are no longer needed."""

    def joined(self, node: str) -> None:
        """An engine is there on the node, which is in use (again)."""

    def retire(self, node: str, return_code: int, *, spare: bool) -> None:
        """An engine of the node is gone; `spare`: given back while the run goes on, as it found no work."""

    async def finish(self) -> None:
        """The run is over. Returns, in bounded time, when nothing is going on any more."""

    def abandon(self) -> None:
        """End what is going on, and begin nothing more."""


def choose_retirement(
    context: Context, hostname: str, directory: str, trouble: Callable[[str], None]
) -> Retirement | None:
    """How a context retires its nodes. `directory`: one of the run's own, for what a command litters."""
    command, allocation = context.retire_command, context.allocation
    if not command:
        return None
    if allocation is None:
        return Retirer(command, hostname, trouble)
    if context.retire_default:
        return Shrinker(allocation, command, directory, trouble)
    return Retirer(command, allocation.own_node or None, trouble, keep=allocation.keep)
