"""How one attempt of a task ended, as the engine that ran it tells."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

LOST_RETURN_CODE = -100
"""Return code of a task that was given up after its engines were lost too often."""

SNIPPET_EDGE = 40
"""Bytes kept of the beginning and of the end of leaked output."""


Snippet = Annotated[bytes, msgspec.Meta(max_length=2 * SNIPPET_EDGE + 3)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
# Bounds also keep out NaN, which would spoil every sum that it enters.
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Moment = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]


class Ending(enum.IntEnum):
    """Why an attempt is over."""

    OWN = 0
    """The shell ended by itself (or was killed by somebody else): a result."""
    ORDERED = 1
    """The engine ended it because it was told to: not a result."""
    UNSTARTED = 2
    """The node could not start it at all (no memory, no more processes)."""


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One finished attempt.

    `attempt` is the number the driver gave it; `pid` the shell's; `return_code` as of `subprocess`
    (minus the signal's number if killed by one); `elapsed` monotonic seconds; `start` and `finish` the
    node's wall clock in seconds since the epoch; `out_bytes`, `err_bytes` count what leaked to stdout and
    stderr, and the snippets hold the first 40 and last 40 bytes, with `...` between if some were left out.
    """

    attempt: Natural
    slot: int
    pid: Natural
    return_code: int
    elapsed: Duration
    start: Moment
    finish: Moment
    out_bytes: Natural
    out_snippet: Snippet
    err_bytes: Natural
    err_snippet: Snippet
    ending: Ending = Ending.OWN

    @property
    def failed(self) -> bool:
        """True if the attempt's return code is not 0."""
        return self.return_code != 0
