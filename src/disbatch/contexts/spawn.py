"""Start a process with a session of its own and three pipes.

The command line starts the local engine before it imports the driver, so that both start at the same time.
Hence no asyncio, subprocess, typing or enum here; `contexts.child` drives the process later.
"""

from __future__ import annotations

import os

_limit: int | None = None
"""The soft limit on open files of child processes, if ours was raised; see `limit_children`."""

# Python ignores SIGPIPE and SIGXFSZ, and ignored signals are inherited. Some launchers ignore SIGCHLD, and
# then exit codes of children are lost. Numbers, because the signal module imports enum.
_PLATFORM = os.uname().sysname
_SIGCHLD, _SIGPIPE, _SIGXFSZ = (17, 13, 25) if _PLATFORM == "Linux" else (20, 13, 25)


class Spawned:
    """A process just started: its pid, and our ends of its pipes (descriptors, close-on-exec); `stderr` is
    None if it goes where stdout goes."""

    __slots__ = ("pid", "stderr", "stdin", "stdout")

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int | None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are not 0, 1 or 2, even if ours are closed: the child's dup2 must not hit them."""
    ends: list[int] = []
    low: list[int] = []
    try:
        for end in os.pipe():
            kept = end
            while kept <= 2:
                low.append(kept)
                kept = os.dup(kept)
            ends.append(kept)
    finally:
        for end in low:
            os.close(end)
    return ends[0], ends[1]


def limit_children(soft: int | None) -> None:
    """Set the soft limit on open files of processes that are started from now on; None: the same as ours."""
    global _limit
    _limit = soft


def limited(argv: list[str]) -> list[str]:
    """The command that runs `argv` under that limit. To lower ours for a moment would make other threads
    fail."""
    if _limit is None:
        return argv
    from shutil import which

    prlimit, program = which("prlimit"), which(argv[0])
    if prlimit is None or program is None:
        return argv
    return [prlimit, f"--nofile={_limit}:", program, *argv[1:]]


def spawn(argv: list[str], environment: dict[str, str] | None = None, *, merged: bool = False) -> Spawned:
    """Start `argv`, `argv[0]` looked up in PATH, in this process's environment unless told otherwise.
    `merged`: one pipe for its stdout and stderr. OSError if that cannot be."""
    ours: list[int] = []
    theirs: list[int] = []
    try:
        theirs_in, stdin = _pipe()
        theirs.append(theirs_in)
        ours.append(stdin)
        for _ in range(1 if merged else 2):
            reading, writing = _pipe()
            ours.append(reading)
            theirs.append(writing)
        argv = limited(argv)
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ if environment is None else environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs[0], 0),
                (os.POSIX_SPAWN_DUP2, theirs[1], 1),
                (os.POSIX_SPAWN_DUP2, theirs[-1], 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[_SIGCHLD, _SIGPIPE, _SIGXFSZ],
        )
    except BaseException:
        for descriptor in ours:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    return Spawned(pid, ours[0], ours[1], None if merged else ours[2])
