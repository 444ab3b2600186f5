"""Start a process with a session of its own and three pipes, importing almost nothing: this runs first.

The command line starts the local engine before it imports the driver, so that two interpreters warm up at
the same time. Hence no asyncio, subprocess, typing or enum here; `contexts.child` drives the process later.
"""

from __future__ import annotations

import os

# SIGPIPE and SIGXFSZ: Python ignores them, and what is ignored is inherited. SIGCHLD: some launchers ignore
# it, and then nobody learns how a child ended. Numbers, because the signal module costs an enum.
_PLATFORM = os.uname().sysname
_SIGCHLD, _SIGPIPE, _SIGXFSZ = (17, 13, 25) if _PLATFORM == "Linux" else (20, 13, 25)


class Spawned:
    """A process just started: its pid, and our ends of its pipes (descriptors, close-on-exec)."""

    __slots__ = ("pid", "stderr", "stdin", "stdout")

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int) -> None:
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


def spawn(argv: list[str], environment: dict[str, str] | None = None) -> Spawned:
    """Start `argv`, `argv[0]` looked up in PATH, in this process's environment unless told otherwise. OSError
    if that cannot be."""
    theirs_in, stdin = _pipe()
    try:
        stdout, theirs_out = _pipe()
        try:
            stderr, theirs_err = _pipe()
            try:
                pid = os.posix_spawnp(
                    argv[0],
                    argv,
                    os.environ if environment is None else environment,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, theirs_in, 0),
                        (os.POSIX_SPAWN_DUP2, theirs_out, 1),
                        (os.POSIX_SPAWN_DUP2, theirs_err, 2),
                    ],
                    setsid=True,
                    setsigmask=[],
                    setsigdef=[_SIGCHLD, _SIGPIPE, _SIGXFSZ],
                )
            except BaseException:
                os.close(stderr)
                raise
            finally:
                os.close(theirs_err)
        except BaseException:
            os.close(stdout)
            raise
        finally:
            os.close(theirs_out)
    except BaseException:
        os.close(stdin)
        raise
    finally:
        os.close(theirs_in)
    return Spawned(pid, stdin, stdout, stderr)
