"""Detect engines that failed: by their silence, or because their process on this host ended.

An engine that is not heard for the patience is lost. One that runs on this host is ended first, so that none
of its tasks starts elsewhere while a copy of it runs here.

Time in which this process did not run, because it was stopped or its host was suspended, does not count as
silence of an engine: a check is due every `CHECK_INTERVAL`, and each second by which it comes late is
subtracted from the silence of every engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disbatch.driver.engine_launch import EngineParts
from disbatch.driver.engine_state import Ending, FellSilent, Left
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.process_watch import ProcessWatch
from disbatch.engine.remains import end_remains
from disbatch.wire.sockets import HEARTBEAT_TIMEOUT

CHECK_INTERVAL = 1.0
"""Seconds from one check to the next; silence causes no event."""


class FailureDetector:
    """`begin` comes before the first `check`, which is due every CHECK_INTERVAL from then on.

    An engine whose end this process would see has the patience of the settings, any other one
    `patience_afar`. `end_child` ends an engine that is a child of this process; `lose(engine, why)` gives an
    engine up; `on_exit(engine)` is called when an engine of this host that is no child has ended, and
    everything that it left, too.
    """

    def __init__(
        self,
        parts: EngineParts,
        *,
        end_child: Callable[[str], None],
        lose: Callable[[str, str], None],
        on_exit: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._loop = parts.loop
        self._table = parts.table
        self._end_child = end_child
        self._lose = lose
        self._on_exit = on_exit
        self._watch = ProcessWatch(parts.loop, self._process_ended)
        self._endings: set[asyncio.Task[None]] = set()
        self._due = parts.loop.time()
        """When the next check is due."""

    def joined(self, entry: EngineEntry) -> None:
        """An engine joined. If another driver launched it here, it is watched as a child would be."""
        if entry.local and self._is_stranger_here(entry):
            self._watch.watch(entry.engine, entry.process.pid, entry.process.started)

    def begin(self) -> None:
        """The first check is due after `CHECK_INTERVAL`."""
        self._due = self._loop.time() + CHECK_INTERVAL

    def check(self) -> None:
        """Give up the engines that are silent for too long; the next check is due after `CHECK_INTERVAL`."""
        now, settings = self._loop.time(), self._parts.settings
        late = max(0.0, now - self._due)
        self._due = now + CHECK_INTERVAL
        for peer in list(self._parts.hub.peers()):
            # After a long stop the connections are broken: engines need the whole patience to connect again.
            peer.heard = now if late > HEARTBEAT_TIMEOUT else min(now, peer.heard + late)
            silence = now - peer.heard
            if silence > settings.patience:
                entry = self._table.entries[peer.name]
                patience = settings.patience if self._sees_end_of(entry) else settings.patience_afar
                if silence > patience:
                    if isinstance(entry.state, Left):
                        self._parts.hub.give_up(peer.name)
                    self._end(entry, f"not heard for {patience:g} s")

    def _sees_end_of(self, entry: EngineEntry) -> bool:
        return entry.is_child or entry.engine in self._watch

    def _is_stranger_here(self, entry: EngineEntry) -> bool:
        """It runs on this host, and is no child of this process."""
        process = entry.process
        return process.host == self._parts.hostname and process.pid > 0 and not entry.is_child

    def _end(self, entry: EngineEntry, why: str) -> None:
        """End what runs of the engine, if it is on this host; then it is given up."""
        if isinstance(entry.state, Ending):
            return
        engine, process = entry.engine, entry.process
        self._table.change(entry, FellSilent(why))
        if entry.is_child and entry.state.exit_code is None:
            self._end_child(engine)
        elif not self._is_stranger_here(entry):
            self._lose(engine, why)
        elif self._watch.watch(engine, process.pid, process.started):
            self._watch.end(engine)
        else:
            self._end_remains(engine, lambda: self._lose(engine, why))

    def _process_ended(self, engine: str) -> None:
        """An engine of this host ended that is no child; what it left is ended before that is reported."""
        if isinstance(self._table.entries[engine].state, Left):
            self._on_exit(engine)
        else:
            self._end_remains(engine, lambda: self._on_exit(engine))

    def _end_remains(self, engine: str, ended: Callable[[], None]) -> None:
        async def end() -> None:
            await end_remains(self._loop, [engine], self._parts.notify_user)
            ended()

        task = self._loop.create_task(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def close(self, patience: float) -> None:
        """Wait until the engines that are watched, and those that are being ended, have ended; the former for
        at most so many seconds."""
        await self._watch.close(patience)
        if self._endings:
            await asyncio.wait(self._endings)
