"""What a line of a task file becomes: a task, a barrier, or a command for every engine."""

from __future__ import annotations

import enum

import msgspec

NO_REPEAT = -1
"""Repeat index of a task that stands outside REPEAT."""


class Phase(enum.IntEnum):
    """When a PERENGINE command runs: as an engine joins, or as it leaves."""

    START = 0
    STOP = 1


class Task(msgspec.Struct, frozen=True, gc=False):
    """One shell command to run once.

    `id` counts from 0 in file order, `line` from 1; `repeat` is the value of DISBATCH_REPEAT_INDEX
    (-1 outside REPEAT); `command` is PREFIX + text + SUFFIX, in the file's own bytes.
    """

    id: int
    line: int
    repeat: int
    command: bytes


class Barrier(msgspec.Struct, frozen=True, gc=False):
    """No later task starts until all earlier ones have ended. Takes a task id of its own.

    `check`: the run ends here if a task since the previous barrier failed. `key`: the key store's key
    that the id is put to, or None. `text` is the directive as it stands in the file, without its line end.
    """

    id: int
    line: int
    key: bytes | None
    check: bool
    text: bytes


class PerEngine(msgspec.Struct, frozen=True, gc=False):
    """A command that runs once on each engine; `id` counts from 0 within its phase."""

    id: int
    line: int
    phase: Phase
    command: bytes


Item = Task | Barrier | PerEngine
