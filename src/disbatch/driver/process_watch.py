"""Watch engines of this machine that another process launched, and which are therefore not our children."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from disbatch.engine import process_tree
from disbatch.engine.keeper import GRACE

PATIENCE = GRACE + 2.0
"""Seconds in which a keeper that was told to ends its engine and all that this has left."""


class ProcessWatch:
    """`on_exit(engine)` is called when one has ended. Where the system cannot tell (a kernel without pidfds)
    it is not: then only the engines' silence tells."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._watched: dict[str, int] = {}
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    def __contains__(self, engine: str) -> bool:
        return engine in self._watched

    def watch(self, engine: str, pid: int, started: int) -> bool:
        """Watch this process, which started then; False if it is not there, or that cannot be."""
        if engine in self._watched:
            return True
        if not hasattr(os, "pidfd_open"):
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        process = process_tree.look(pid)
        if process is None or started not in (0, process.start):
            os.close(pidfd)
            return False
        self._watched[engine] = pidfd
        self._all_gone.clear()
        self._loop.add_reader(pidfd, self._ended, engine)
        return True

    def end(self, engine: str) -> None:
        """Have the keeper of this one, which is watched, kill it, and end its tasks; `on_exit` follows, if
        that takes too long before they have ended."""
        process_tree.send(self._watched[engine], signal.SIGQUIT, signal.SIGCONT)
        self._loop.call_later(PATIENCE, self._ended, engine)

    def _ended(self, engine: str) -> None:
        if engine in self._watched:
            self._forget(engine)
            self._on_exit(engine)

    def _forget(self, engine: str) -> None:
        pidfd = self._watched.pop(engine)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if not self._watched:
            self._all_gone.set()

    async def close(self, patience: float) -> None:
        """Wait until all have ended, at most so many seconds."""
        try:
            await asyncio.wait_for(self._all_gone.wait(), patience)
        except TimeoutError:
            for engine in list(self._watched):
                self._forget(engine)
