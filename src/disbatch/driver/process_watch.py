"""Watch engines on this host that are no children of this process, because another one launched them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from disbatch.engine import process_tree
from disbatch.engine.keeper import GRACE

PATIENCE = GRACE + 2.0
"""Seconds that a keeper has to end its engine and everything that the engine left."""


class ProcessWatch:
    """`on_exit(engine)` is called when an engine has ended. It is never called where the kernel has no
    pidfds: there only silence shows that an engine has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_exit: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_exit = on_exit
        self._watched: dict[str, int] = {}
        """The pidfd of each engine's keeper."""
        self._all_ended = asyncio.Event()
        self._all_ended.set()

    def __contains__(self, engine: str) -> bool:
        return engine in self._watched

    def watch(self, engine: str, pid: int, started: int) -> bool:
        """Watch the engine's keeper, which has this pid and start time. False if it is not there, or cannot
        be watched."""
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
        self._all_ended.clear()
        self._loop.add_reader(pidfd, self._ended, engine)
        return True

    def end(self, engine: str) -> None:
        """Make the keeper of this engine, which is watched, kill it and end its tasks. `on_exit` follows,
        after `PATIENCE` even if they have not ended."""
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
            self._all_ended.set()

    async def close(self, patience: float) -> None:
        """Wait until all have ended, for at most so many seconds."""
        try:
            await asyncio.wait_for(self._all_ended.wait(), patience)
        except TimeoutError:
            for engine in list(self._watched):
                self._forget(engine)
