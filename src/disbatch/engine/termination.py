"""End tasks completely: SIGTERM to all their processes, a grace period, then SIGKILL until none is left.

Theory of operation
-------------------
The target is a `Quarry`: some root processes and their sessions. A scan finds its living processes; each is
signalled once in each stage and watched through a pidfd. When all watched processes are gone, another scan
looks for those that they started meanwhile; when a scan finds nothing, the quarry is gone and reports so. So
there is no polling, and a task that heeds SIGTERM is over as soon as its last process is. After the grace
period the stage changes to SIGKILL; from then on a timer also starts scans, since a process that cannot die
(on a hanging network file system) would otherwise hide its children.

One scan of /proc serves all quarries that are due in the same turn of the loop.

A process or session id may be reused once nothing with that id is left; so a quarry remembers processes with
their start time, and sessions only as long as the last scan found a member.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Collection

from disbatch.engine import process_tree
from disbatch.engine.process_tree import Process

MOST_WATCHED = 128
"""The most processes of one quarry that are watched at a time; each takes a descriptor."""
RESCAN_FIRST = 0.1
RESCAN_MOST = 2.0


class Quarry:
    """Processes to be ended: `session` is a task's shell (and session), or None; `roots` are others.

    `gone` is called once, when no process of it is alive.
    """

    def __init__(self, session: int | None, roots: Collection[int], gone: Callable[[], None]) -> None:
        self.session = session
        own = () if session is None else (session,)
        self.sessions = set(own)
        self.known: dict[int, int | None] = dict.fromkeys((*own, *roots))
        self.gone = gone
        self.killing = False
        self.told: dict[int, int] = {}
        self.watched: dict[int, int] = {}
        self.patience: asyncio.TimerHandle | None = None
        self.rescan: asyncio.TimerHandle | None = None
        self.pause = RESCAN_FIRST

    def family(self, processes: process_tree.Table, spare: Collection[int]) -> list[Process]:
        """The living members in `processes`, parents first; remembers them for the next scan."""
        roots = [
            pid
            for pid, start in self.known.items()
            if pid in processes and start in (None, processes[pid].start)
        ]
        found = process_tree.family(processes, roots, self.sessions, spare)
        self.known = {process.pid: process.start for process in found}
        self.sessions = {process.session for process in found}
        return found


class Ender:
    """Ends quarries. `spare()` returns the processes and sessions that a scan must skip: the engine, its
    keeper, and (for one session) all other tasks'."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, spare: Callable[[], set[int]], report: Callable[[str], None]
    ) -> None:
        self.grace = 5.0
        self._loop = loop
        self._spare = spare
        self._report = report
        self._quarries: set[Quarry] = set()
        self._due: set[Quarry] = set()

    def end(self, quarries: Collection[Quarry], at_once: bool) -> None:
        """End all of these, beginning with one common scan."""
        for quarry in quarries:
            self._quarries.add(quarry)
            quarry.killing = at_once
            if not at_once:
                quarry.patience = self._loop.call_later(self.grace, self._kill, quarry)
        self._check(quarries)

    def hurry(self, quarries: Collection[Quarry] | None = None) -> None:
        """Continue with SIGKILL without waiting for the end of the grace period: these, or all."""
        for quarry in self._quarries if quarries is None else quarries:
            if quarry in self._quarries and not quarry.killing:
                self._kill(quarry)

    def _kill(self, quarry: Quarry) -> None:
        if quarry.patience is not None:
            quarry.patience.cancel()
        quarry.killing = True
        quarry.told.clear()
        self._mark_due(quarry)

    def _mark_due(self, quarry: Quarry) -> None:
        if not self._due:
            self._loop.call_soon(self._check_due)
        self._due.add(quarry)

    def _check_due(self) -> None:
        due = self._due & self._quarries
        self._due.clear()
        self._check(due)

    def _check(self, quarries: Collection[Quarry]) -> None:
        if not quarries:
            return
        processes = process_tree.table()
        spare = self._spare()
        for quarry in quarries:
            own = {quarry.session} if quarry.session is not None else set()
            found = quarry.family(processes, spare - own)
            if found:
                self._chase(quarry, found)
            else:
                self._finish(quarry)

    def _chase(self, quarry: Quarry, found: list[Process]) -> None:
        signals = (signal.SIGKILL,) if quarry.killing else (signal.SIGTERM, signal.SIGCONT)
        fresh = {process.pid for process in found if quarry.told.get(process.pid) != process.start}
        quarry.told.update((process.pid, process.start) for process in found)
        if process_tree.HAVE_PIDFD:
            for process in found:
                self._strike(quarry, process, signals if process.pid in fresh else ())
        else:
            process_tree.signal_all((process for process in found if process.pid in fresh), *signals)
        if quarry.killing or not process_tree.HAVE_PIDFD:
            self._rescan_later(quarry)
        elif not quarry.watched:
            self._mark_due(quarry)

    def _strike(self, quarry: Quarry, process: Process, signals: tuple[int, ...]) -> None:
        watch = process.pid not in quarry.watched and len(quarry.watched) < MOST_WATCHED
        if not watch and not signals:
            return
        pidfd = process_tree.open_process(process)
        if pidfd is None:
            return
        process_tree.send(pidfd, *signals)
        if watch:
            quarry.watched[process.pid] = pidfd
            self._loop.add_reader(pidfd, self._one_gone, quarry, process.pid)
        else:
            os.close(pidfd)

    def _one_gone(self, quarry: Quarry, pid: int) -> None:
        pidfd = quarry.watched.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if not quarry.watched:
            self._mark_due(quarry)

    def _rescan_later(self, quarry: Quarry) -> None:
        if quarry.rescan is not None:
            quarry.rescan.cancel()
        quarry.rescan = self._loop.call_later(quarry.pause, self._rescan, quarry)
        if quarry.pause < RESCAN_MOST:
            quarry.pause = min(quarry.pause * 2, RESCAN_MOST)
            if quarry.pause == RESCAN_MOST:
                self._report(f"not ended yet by signals: processes {sorted(quarry.known)[:20]}")

    def _rescan(self, quarry: Quarry) -> None:
        if quarry.killing:
            quarry.told.clear()
        self._mark_due(quarry)

    def _finish(self, quarry: Quarry) -> None:
        for timer in (quarry.patience, quarry.rescan):
            if timer is not None:
                timer.cancel()
        self._quarries.discard(quarry)
        self._due.discard(quarry)
        for pidfd in quarry.watched.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        quarry.watched.clear()
        self._loop.call_soon(quarry.gone)
