"""Start a task's shell: in its own session, on its slot's CPUs, with no standard input and with pipes for
stdout and stderr.

A child inherits the CPU affinity of its parent's thread, and `posix_spawn` cannot change it. Binding the
child afterwards would miss processes that it has started by then. So the engine's thread binds itself to the
slot's CPUs, which are idle since the slot is free, starts the child there, and restores its own affinity.
Affinity belongs to the thread, so ZeroMQ's threads stay where they are.

Binding and restoring costs the engine 30 us of CPU for each task (measured), and nothing where slots are not
bound.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

from disbatch.engine.resources import Share

SHELL = b"/bin/bash"

LONGEST_ARGUMENT = 120_000
"""Linux refuses a single argument of 128 KiB or more; a longer command is passed through a descriptor."""
COMMAND_DESCRIPTOR = 9
EVAL = b'eval "$(</dev/fd/9)" 9<&-'

DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Python ignores SIGPIPE, and the engine handles other signals; a task starts with the defaults."""


class Child(NamedTuple):
    """A started shell; `out` and `err` are the reading ends of its pipes, which do not block."""

    pid: int
    out: int
    err: int


def _command_file(command: bytes) -> int:
    """A descriptor of an unnamed file that holds the command, at offset 0."""
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
            # Comes last: one of the pipes' own descriptors may be number 9, and is no longer needed.
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


ANY_CPU = range(1 << 13)
"""More CPUs than any kernel has; it uses those that exist."""


class Binding:
    """As a context manager, after `at(slot)`, holds this thread on the slot's CPUs; does nothing for slots
    without any.

    If the kernel refuses (the CPUs were taken from us meanwhile), that is reported to `trouble` once, and
    tasks start unbound. `own`: the CPUs that the thread returns to, if not its present ones.
    """

    def __init__(
        self, shares: Sequence[Share], trouble: Callable[[str], None], own: set[int] | None = None
    ) -> None:
        self._cpus = [share.cpus for share in shares]
        self._trouble = trouble
        self._told = False
        self._own = own or (os.sched_getaffinity(0) if any(self._cpus) else set())
        self._wanted: frozenset[int] | None = None
        self._bound = False

    def at(self, slot: int) -> Binding:
        """Choose the slot; -1 is none."""
        self._wanted = self._cpus[slot] if slot >= 0 else None
        return self

    def __enter__(self) -> None:
        if self._wanted:
            try:
                os.sched_setaffinity(0, self._wanted)
                self._bound = True
            except OSError as error:
                self._tell(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bound:
            self._bound = False
            try:
                os.sched_setaffinity(0, self._own)
            except OSError as refused:
                self._tell(refused)
                self._go_anywhere()

    def _go_anywhere(self) -> None:
        try:
            os.sched_setaffinity(0, ANY_CPU)
            self._own = os.sched_getaffinity(0)
        except OSError as refused:
            self._tell(refused)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            self._trouble(f"tasks cannot be bound to their cores ({error.strerror}): they start unbound")
