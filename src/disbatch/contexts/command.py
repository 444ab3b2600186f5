"""Short commands with a time limit, and commands that end with this process.

A command of the user's that ends with this process, also if that is killed.

The command gets its standard input empty. The pipe that it was started with is the lifeline: a shell in the
same process group reads it. When it closes and the command still runs, its starter was killed, and the group
is ended: SIGTERM, a grace, SIGKILL. When the command has ended by itself, what it left running is left alone.
The group's number cannot be given away meanwhile, as that shell is a member.

Runs one short command beside the run: within a time, and with one line for what went wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from disbatch.contexts.child import Child
from disbatch.contexts.launch_errors import ended_how, lines
from disbatch.contexts.spawn import spawn

GRACE = 3
"""Seconds between SIGTERM and SIGKILL."""
_SCRIPT = f"""\
exec 3<&0 </dev/null
(
    trap '' TERM
    read -r word <&3
    kill -0 $$ || exit
    kill -s TERM 0
    sleep {GRACE}
    kill -s KILL 0
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


def bound(argv: list[str]) -> list[str]:
    """`argv`, to be started as the leader of a process group, with a pipe to it that stays open."""
    return ["/bin/sh", "-c", _SCRIPT, argv[0], *argv]


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
