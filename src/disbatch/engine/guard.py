"""The engine's side of its keeper: start it, record the tasks for it, replace it when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import sys
from collections.abc import Callable
from pathlib import Path

from disbatch.engine import keeper

RESTART_FIRST = 0.05
RESTART_MOST = 10.0
"""Seconds until a keeper that died is replaced; doubled each time, since something seems to be against it."""

MOST_INHERITED = 256
"""How many processes that ended tasks left running the table has room for."""


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("disbatch-sessions", os.MFD_CLOEXEC)
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Guard:
    """Holds the table of running sessions, one word a slot (slot -1 has one too) and some for processes that
    the engine inherited, and a living keeper.

    `trouble` is told once if a keeper died.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slots: int,
        marker: bytes,
        grace: float,
        trouble: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._marker = marker
        self._grace = grace
        self._trouble = trouble
        self._inherited = slots + 1
        size = (slots + 1 + MOST_INHERITED) * 8
        self._table_descriptor = _nameless_file()
        os.truncate(self._table_descriptor, size)
        self._map = mmap.mmap(self._table_descriptor, size)
        self._words = memoryview(self._map).cast(keeper.WORD)
        self._pipe = -1
        self._pidfd = -1
        self._pause = RESTART_FIRST
        self._closed = False
        self.pid = 0
        """The keeper's process number, 0 while there is none."""

    def record(self, slot: int, session: int) -> None:
        """A task began in `slot`; `session` is its shell's number."""
        self._words[slot + 1] = session

    def clear(self, slot: int) -> None:
        """The shell in `slot` is about to be reaped."""
        self._words[slot + 1] = 0

    def inherit(self, pids: list[int]) -> None:
        """What ended tasks left running and is now the engine's own child; before one is reaped, this
        is called without it."""
        pids = pids[:MOST_INHERITED]
        for position in range(MOST_INHERITED):
            self._words[self._inherited + position] = pids[position] if position < len(pids) else 0

    def start(self) -> None:
        """Start a keeper; it knows at once all that is recorded. OSError is reported, and tried again."""
        reading, self._pipe = os.pipe()
        try:
            self.pid = self._spawn(reading)
        except OSError as error:
            os.close(self._pipe)
            self._trouble(
                f"cannot start the keeper, which ends tasks if the engine is killed: {error.strerror}"
            )
            self._later()
            return
        finally:
            os.close(reading)
        if hasattr(os, "pidfd_open"):
            self._pidfd = os.pidfd_open(self.pid)
            self._loop.add_reader(self._pidfd, self._died)

    def _spawn(self, reading: int) -> int:
        home = str(Path(__file__).parents[2])
        program = f"import sys; sys.path.append({home!r}); from disbatch.engine.keeper import main; main()"
        arguments = [
            *(sys.executable, "-I", "-S", "-c", program),
            *(str(os.getpid()), os.fsdecode(self._marker), repr(self._grace)),
        ]
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        table = os.dup(self._table_descriptor)
        actions: list[tuple[int, ...]] = [
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, null, 2),
            (os.POSIX_SPAWN_DUP2, table, keeper.TABLE_DESCRIPTOR),
        ]
        try:
            return os.posix_spawn(
                sys.executable,
                arguments,
                {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                file_actions=actions,
                setsid=True,
                setsigmask=(),
            )
        finally:
            os.close(null)
            os.close(table)

    def _died(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.close(self._pipe)
        os.waitpid(self.pid, os.WNOHANG)
        if self._pause == RESTART_FIRST:
            self._trouble(
                f"the keeper, which ends tasks if the engine is killed, died (process {self.pid}); replaced"
            )
        self.pid = 0
        self._later()

    def _later(self) -> None:
        if not self._closed:
            self._loop.call_later(self._pause, self._replace)
            self._pause = min(self._pause * 4, RESTART_MOST)

    def _replace(self) -> None:
        if not self._closed:
            self.start()

    def dismiss(self) -> None:
        """All tasks are over: let the keeper go without a look."""
        self._closed = True
        if self.pid:
            if self._pidfd >= 0:
                self._loop.remove_reader(self._pidfd)
            with contextlib.suppress(OSError):
                os.write(self._pipe, keeper.ALL_DONE)
            os.close(self._pipe)
