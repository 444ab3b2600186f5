"""The writer thread of an engine: it writes output while the loop continues.

A write may block for a minute, for example while a file server restarts. The engine must send heartbeats
meanwhile, or its tasks would be run again elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from disbatch.model.pack import End, Piece

SYNC_EVERY = 5.0
"""Seconds after which a file that stays open is forced to its disk, so that other hosts see its content."""


class Done(NamedTuple):
    """The end of an attempt's output; the attempt ran since `begun` (`engine.liveness`). `own`: it ended by
    itself, so it replaces the output of former attempts."""

    task: int
    attempt: int
    how: End
    own: bool
    begun: float


class Files(Protocol):
    """Writes output to files; called in the thread alone. `clears`: an attempt that printed nothing matters,
    too."""

    clears: bool

    def write(self, work: list[Piece | Done]) -> None:
        """Write these, in this order; never raises OSError."""

    def sync(self) -> None:
        """Force written data to the disk, where that would not happen soon."""

    def close(self) -> None:
        """Close all files."""


class WriterThread:
    """The thread, which gets work in lists. `written()` is called on the loop after each list, in order;
    `broken(error)` before that, if an error in the program prevented a part of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        files: Files,
        written: Callable[[], None],
        broken: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._files = files
        self._written = written
        self._broken = broken
        self._work: queue.SimpleQueue[list[Piece | Done] | None] = queue.SimpleQueue()
        # A daemon: a thread that hangs in a file system must not keep the engine from leaving.
        self._thread = threading.Thread(target=self._run, name="output writer", daemon=True)
        self._started = False

    def put(self, work: list[Piece | Done]) -> None:
        """Queue these to be written."""
        if not self._started:
            self._started = True
            self._thread.start()
        self._work.put(work)

    def close(self) -> None:
        """Close the files when everything is written; `written` is called once more then."""
        if self._started:
            self._work.put(None)
        else:
            self._written()

    def _run(self) -> None:
        # Signals are for the loop's thread, which must notice them at once.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        due: float | None = None
        while True:
            try:
                work = self._work.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                work = []
            if work is None:
                self._guarded(self._files.close)
                self._tell(self._written)
                return
            if work:
                self._guarded(self._files.write, work)
                self._tell(self._written)
                if due is None:
                    due = time.monotonic() + SYNC_EVERY
            if due is not None and time.monotonic() >= due:
                self._guarded(self._files.sync)
                due = None

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Exception as error:
            # The boundary of the thread: results that wait for it must not wait without end.
            self._tell(self._broken, error)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(call, *arguments)
