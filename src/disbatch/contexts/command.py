"""Run short commands beside the run, and commands of the user's that must end with this process.

A command of the user's ends with this process, also if that is killed. It is started with an empty standard
input. A shell in the same process group reads the pipe that the command was started with. When that pipe
closes while the command still runs, this process was killed, and the shell ends the group: SIGTERM, a grace
period, SIGKILL. Processes that the command left behind when it ended by itself are not touched. The shell is
a member of the group, so the group's number cannot be reused meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from disbatch.contexts.child import KILL_GRACE, Child
from disbatch.contexts.launch_errors import ended_how, lines, not_started
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
MAX_OUTPUT = 1 << 23
"""Bytes of an answer. Slurm prints 1 kB for each element of an array, and 1 MB for a big configuration."""


class Answer(NamedTuple):
    """How a command ended: `problem` in a few words, None if it succeeded; `out`: its standard output."""

    problem: str | None
    out: str


Run = Callable[[list[str], Mapping[str, str] | None, float], Awaitable[Answer]]
"""Runs a command (argv) in this environment, or our own, for at most so many seconds."""


async def run(argv: list[str], environment: Mapping[str, str] | None = None, timeout: float = 60.0) -> Answer:
    """Run a command until its first process ends, whatever that left in the background. Its process group is
    killed when its time is over and when we are cancelled; and, if it is a shell with a command of the
    user's, when this process is killed."""
    users = argv[0] == SHELL
    try:
        mine = None if environment is None else dict(environment)
        child = Child(asyncio.get_running_loop(), spawn(bound(argv) if users else argv, mine), MAX_OUTPUT)
    except OSError as error:
        return Answer(not_started(argv, error), "")
    if not users:
        child.close_stdin()
    try:
        done = await child.left_within(timeout)
    finally:
        child.kill_group()
    if not done:
        await child.left_within(KILL_GRACE)
        return Answer(f"not done after {timeout:g} s", "")
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
