"""Runs one short command beside the run: within a time, and with one line for what went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from disbatch.contexts.bound import bound
from disbatch.contexts.child import Child
from disbatch.contexts.spawn import spawn
from disbatch.contexts.words import ended_how, lines

_IN_DIRECTORY = 'cd -- "$0" && exec "$@"'
SHELL = "/bin/sh"
LONGEST_WORDS = 200
MAX_OUTPUT = 1 << 22
"""Bytes of an answer: Slurm says 1 kB of each element when it is asked for an array."""


class Answer(NamedTuple):
    """What became of a command: `problem` in a few words, or None if it went well; `out`, what it wrote to
    its standard output."""

    problem: str | None
    out: str


Run = Callable[[list[str], Mapping[str, str] | None, float], Awaitable[Answer]]
"""Runs a command (argv) in this environment, or our own, for at most so many seconds."""


async def run(argv: list[str], environment: Mapping[str, str] | None = None, timeout: float = 60.0) -> Answer:
    """Run a command to the end of its first process, whatever that left running in the background. It is
    ended with all its process group when its time is over, and when we are cancelled; and, if it is a shell
    with a command of the user's, when this process is killed."""
    users = argv[0] == SHELL
    try:
        mine = None if environment is None else dict(environment)
        child = Child(asyncio.get_running_loop(), spawn(bound(argv) if users else argv, mine), MAX_OUTPUT)
    except OSError as error:
        return Answer(f"cannot be started: {error.strerror or error}", "")
    if not users:
        child.close_stdin()
    try:
        if not await child.left_within(timeout):
            return Answer(f"not done after {timeout:g} s", "")
    finally:
        child.kill_group()
    if len(child.out) >= MAX_OUTPUT:
        return Answer("its answer is too long", "")
    out = child.out.decode(errors="replace")
    if child.returncode == 0:
        return Answer(None, out)
    said = lines(child.err) or lines(child.out)
    how = ended_how(child.returncode or 0)
    return Answer(how + (f": {said[-1][:LONGEST_WORDS]}" if said else ""), out)


def in_directory(directory: str, argv: list[str]) -> list[str]:
    """The same command, run in that directory."""
    return [SHELL, "-c", _IN_DIRECTORY, directory, *argv]
