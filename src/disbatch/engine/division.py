"""What belongs to each slot of an engine alone: cores and devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from disbatch.wire.messages import Bootstrap


class Share(NamedTuple):
    """One slot's own: variables that its tasks find in addition, and the CPUs (numbers of the kernel) that
    they are bound to; None: all that the engine has."""

    variables: dict[bytes, bytes]
    cpus: frozenset[int] | None


class Division(NamedTuple):
    """The shares, one a slot, which may be fewer slots than asked for; `troubles` are lines for the user."""

    shares: list[Share]
    troubles: list[str]

    @property
    def slots(self) -> int:
        """How many tasks may run at once."""
        return len(self.shares)


def divide(bootstrap: Bootstrap, environment: Mapping[bytes, bytes]) -> Division:
    """Split what the node has over the slots. `environment` is what the tasks shall find."""
    return Division([Share({}, None) for _ in range(bootstrap.slots)], [])
