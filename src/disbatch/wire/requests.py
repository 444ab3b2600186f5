"""What `dbutil` asks the driver of a running run, and the answer.

A request comes over a connection of its own, with the run's client key and without a Hello; engines make
none. Whoever asks does not know what became of a request when the connection breaks, so it is sent again,
with the same `id`, over the next one. The driver remembers what it answered to the last ids, and does nothing
twice.

Changing a message: as in `wire.messages`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from disbatch.wire.messages import Count, Name, Text

MOST_NAMES = 1024
MOST_RANGES = 8192
"""In one request, which stays far below what may come from a socket."""
MAX_ANSWER = 1 << 20
"""Largest answer, bytes."""
MOST_LINES = 1000
"""In one answer, MAX_LINE characters each at most."""
MAX_LINE = 250

Names = Annotated[list[Name], msgspec.Meta(min_length=1, max_length=MOST_NAMES)]
Ranges = Annotated[list[tuple[Count, Count]], msgspec.Meta(min_length=1, max_length=MOST_RANGES)]


class Drain(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Let these nodes (or the nodes of these labels) finish what runs there, then let them go."""

    names: Names


class Stop(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End what runs on these nodes (or the nodes of these labels), to be run elsewhere, and let them go."""

    names: Names


class Pause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start nothing new."""


class Unpause(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Start tasks again."""


class Cancel(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Never run these tasks, and end those that run: (first, last) id of each range."""

    ranges: Ranges


class Finish(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """End the run now, in order, to be resumed later."""


Verb = Drain | Stop | Pause | Unpause | Cancel | Finish


class Request(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Do this. `id` is random, and the same each time that this request is sent."""

    protocol: Count
    id: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]
    version: Text
    verb: Verb


class Answer(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What was done, a line each; or, if not `ok`, the one line that says why nothing was."""

    id: str
    ok: bool
    lines: list[str]
