"""A run at one moment, for people: what every view of it renders."""

from __future__ import annotations

import msgspec


class EngineView(msgspec.Struct, frozen=True):
    """One engine. `running` and `waiting` count attempts; `state` as of `plan.engines`, in lower case."""

    node: str
    rank: int
    slots: int
    running: int
    waiting: int
    done: int
    failed: int
    state: str


class Snapshot(msgspec.Struct, frozen=True):
    """The counts of a run. `total` is None while nobody can know it (a stream); `seconds` since it began;
    `notice` says what people should know now (tasks are held, the run is ending), or is empty."""

    seconds: float
    total: int | None
    done: int
    failed: int
    skipped: int
    running: int
    slots: int
    engines: list[EngineView]
    notice: str = ""
    skipped_failed: int = 0


class TaskView(msgspec.Struct, frozen=True):
    """A task worth naming at the end."""

    id: int
    line: int
    node: str
    return_code: int
    elapsed: float
    command: bytes
    snippet: bytes


class Summary(msgspec.Struct, frozen=True):
    """How a run went. `utilisation` is the share of the slots' time that tasks took (0 to 1), None if there
    was none; `failures` and `slowest` name a few tasks. `resume` is the command that goes on from here, empty
    if nothing is left to do; `unwritten` are status lines that a full disk did not take; `elsewhere`: another
    driver took the run over, and goes on with it."""

    snapshot: Snapshot
    conclusion: str
    ended: int
    lost: int
    utilisation: float | None
    failures: list[TaskView]
    slowest: list[TaskView]
    status_file: str
    resume: str
    unwritten: bytes = b""
    elsewhere: bool = False
