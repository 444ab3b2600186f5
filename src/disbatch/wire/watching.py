"""How a run is watched: the question how it stands, and the answer, which comes when that has changed.

Whoever asks says what he knows: the number of the last view (see `model.snapshot.View`), and up to which
numbers he has failures and lines of the log. So each answer holds only what is new of these; engines and
running tasks stand in it as they are. Numbers count for one driver alone: who asks another one, because the
run was taken over, is told everything.

Changing a message: as in `wire.messages`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from disbatch.model.snapshot import View
from disbatch.wire.messages import Count

MOST_RUNNING = 1000
MOST_FAILURES = 1000
MOST_LOG = 1000
MOST_ENGINES = 20_000
MOST_WANTED_KINDS = 1000


class Wants(msgspec.Struct, frozen=True, array_like=True):
    """At most so many of each, the newest of failures and log, behind those numbers that are known.
    `course`: what was before, too. `kinds`: of failures, the most frequent."""

    engines: Annotated[int, msgspec.Meta(ge=0, le=MOST_ENGINES)] = MOST_ENGINES
    running: Annotated[int, msgspec.Meta(ge=0, le=MOST_RUNNING)] = 0
    failures: Annotated[int, msgspec.Meta(ge=0, le=MOST_FAILURES)] = 0
    log: Annotated[int, msgspec.Meta(ge=0, le=MOST_LOG)] = 0
    failures_known: Count = 0
    log_known: Count = 0
    course: bool = False
    kinds: Annotated[int, msgspec.Meta(ge=0, le=MOST_WANTED_KINDS)] = 0


class Watch(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Tell how the run stands, as soon as that differs from view `known` of this `driver` (0: none is known);
    or that it does not, after a while; and which of the tasks `ids` (first and last of each range) run.
    Answered with `Seen`."""

    wants: Wants
    known: Count = 0
    driver: Count = 0
    ids: Annotated[list[tuple[Count, Count]], msgspec.Meta(max_length=MOST_RUNNING)] = []


class Seen(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """How the run stands. `over`: it is, and this is the last view. `running`: which of the tasks that were
    asked for are in slots at this moment."""

    view: View
    over: bool = False
    running: list[int] = []
