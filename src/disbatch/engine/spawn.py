"""Start one task's shell: its own session, nothing on stdin, a pipe for stdout and one for stderr."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

SHELL = b"/bin/bash"

LONGEST_ARGUMENT = 120_000
"""Linux refuses a single argument of 128 KiB or more; a longer command goes in through a descriptor."""
COMMAND_DESCRIPTOR = 9
EVAL = b'eval "$(</dev/fd/9)" 9<&-'

DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Python ignores SIGPIPE and the engine has its own ideas of others; a task starts with none of them."""


class Child(NamedTuple):
    """A started shell; `out` and `err` are the reading ends of its pipes, which do not block."""

    pid: int
    out: int
    err: int


def _command_file(command: bytes) -> int:
    """A descriptor of a nameless file that holds the command and stands at its beginning."""
    try:
        descriptor = os.memfd_create("command", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    rest = memoryview(command)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def spawn(command: bytes, environment: Mapping[bytes, bytes]) -> Child:
    """Run `/bin/bash -c command` in the engine's working directory.

    Raises OSError if the node cannot (no memory, no more processes or descriptors, an environment that is too
    big, no bash), ValueError if the command or environment holds a NUL byte.
    """
    opened: list[int] = []
    try:
        out, out_end = os.pipe()
        opened += (out, out_end)
        err, err_end = os.pipe()
        opened += (err, err_end)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, b"/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out_end, 1),
            (os.POSIX_SPAWN_DUP2, err_end, 2),
        ]
        argument = command
        if len(command) > LONGEST_ARGUMENT:
            opened.append(_command_file(command))
            # Comes last: one of the pipes' own descriptors may be number 9, and is not needed any more.
            actions.append((os.POSIX_SPAWN_DUP2, opened[-1], COMMAND_DESCRIPTOR))
            argument = EVAL
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        pid = os.posix_spawn(
            SHELL,
            (SHELL, b"-c", argument),
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    for descriptor in opened:
        if descriptor not in (out, err):
            os.close(descriptor)
    return Child(pid, out, err)
