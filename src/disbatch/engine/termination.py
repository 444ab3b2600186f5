"""End tasks completely: SIGTERM to all their processes, a grace period, then SIGKILL until none is left.

Theory of operation
-------------------
A `KillTarget` is a number of root processes and their sessions. A scan finds its living processes; each is
signalled once in each stage and watched through a pidfd. When all watched processes are gone, another scan
looks for those that they started meanwhile; when a scan finds nothing, the target is gone and reports so. So
there is no polling, and a task that heeds SIGTERM is over as soon as its last process is. After the grace
period the stage changes to SIGKILL; from then on a timer also starts scans, since a process that cannot die
(on a hanging network file system) would otherwise hide its children.

One scan of /proc serves all targets that are due in the same turn of the loop.

A process or session id may be reused once nothing with that id is left; so a target remembers processes with
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
"""The most processes of one target that are watched at a time; each takes a descriptor."""
RESCAN_FIRST = 0.1
RESCAN_MOST = 2.0


class KillTarget:
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
    """Ends targets. `spare()` returns the processes and sessions that a scan must skip: the engine, its
    keeper, and (for one session) all other tasks'."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, spare: Callable[[], set[int]], report: Callable[[str], None]
    ) -> None:
        self.grace = 5.0
        self._loop = loop
        self._spare = spare
        self._report = report
        self._targets: set[KillTarget] = set()
        self._due: set[KillTarget] = set()

    def end(self, targets: Collection[KillTarget], at_once: bool) -> None:
        """End all of these, beginning with one common scan."""
        for target in targets:
            self._targets.add(target)
            target.killing = at_once
            if not at_once:
                target.patience = self._loop.call_later(self.grace, self._kill, target)
        self._check(targets)

    def hurry(self, targets: Collection[KillTarget] | None = None) -> None:
        """Continue with SIGKILL without waiting for the end of the grace period: these, or all."""
        for target in self._targets if targets is None else targets:
            if target in self._targets and not target.killing:
                self._kill(target)

    def _kill(self, target: KillTarget) -> None:
        if target.patience is not None:
            target.patience.cancel()
        target.killing = True
        target.told.clear()
        self._mark_due(target)

    def _mark_due(self, target: KillTarget) -> None:
        if not self._due:
            self._loop.call_soon(self._check_due)
        self._due.add(target)

    def _check_due(self) -> None:
        due = self._due & self._targets
        self._due.clear()
        self._check(due)

    def _check(self, targets: Collection[KillTarget]) -> None:
        if not targets:
            return
        processes = process_tree.table()
        spare = self._spare()
        for target in targets:
            own = {target.session} if target.session is not None else set()
            found = target.family(processes, spare - own)
            if found:
                self._chase(target, found)
            else:
                self._finish(target)

    def _chase(self, target: KillTarget, found: list[Process]) -> None:
        signals = (signal.SIGKILL,) if target.killing else (signal.SIGTERM, signal.SIGCONT)
        fresh = {process.pid for process in found if target.told.get(process.pid) != process.start}
        target.told.update((process.pid, process.start) for process in found)
        if process_tree.HAVE_PIDFD:
            for process in found:
                self._strike(target, process, signals if process.pid in fresh else ())
        else:
            process_tree.signal_all((process for process in found if process.pid in fresh), *signals)
        if target.killing or not process_tree.HAVE_PIDFD:
            self._rescan_later(target)
        elif not target.watched:
            self._mark_due(target)

    def _strike(self, target: KillTarget, process: Process, signals: tuple[int, ...]) -> None:
        watch = process.pid not in target.watched and len(target.watched) < MOST_WATCHED
        if not watch and not signals:
            return
        pidfd = process_tree.open_process(process)
        if pidfd is None:
            return
        process_tree.send(pidfd, *signals)
        if watch:
            target.watched[process.pid] = pidfd
            self._loop.add_reader(pidfd, self._one_gone, target, process.pid)
        else:
            os.close(pidfd)

    def _one_gone(self, target: KillTarget, pid: int) -> None:
        pidfd = target.watched.pop(pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        if not target.watched:
            self._mark_due(target)

    def _rescan_later(self, target: KillTarget) -> None:
        if target.rescan is not None:
            target.rescan.cancel()
        target.rescan = self._loop.call_later(target.pause, self._rescan, target)
        if target.pause < RESCAN_MOST:
            target.pause = min(target.pause * 2, RESCAN_MOST)
            if target.pause == RESCAN_MOST:
                self._report(f"not ended yet by signals: processes {sorted(target.known)[:20]}")

    def _rescan(self, target: KillTarget) -> None:
        if target.killing:
            target.told.clear()
        self._mark_due(target)

    def _finish(self, target: KillTarget) -> None:
        for timer in (target.patience, target.rescan):
            if timer is not None:
                timer.cancel()
        self._targets.discard(target)
        self._due.discard(target)
        for pidfd in target.watched.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        target.watched.clear()
        self._loop.call_soon(target.gone)
