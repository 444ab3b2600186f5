"""The keeper: a small process that ends an engine's tasks when the engine died. Stdlib only.

Theory of operation
-------------------
The keeper sits in a blocking read of a pipe whose only writing end is the engine's. An engine that leaves
in order writes ALL_DONE first. If the pipe closes without it, the engine was killed, and the keeper
ends, with SIGTERM, a grace, and SIGKILL until nothing is left:

* the sessions recorded in the table. The table is memory that the engine shares with its keeper: one 64-bit
  word a slot holding the number of the task's session, or 0. Recording a task therefore costs the
  engine a store and no system call, cannot block it, and a new keeper finds all of it there. The engine
  clears a word *before* it reaps that shell, so at the moment of its death every number in the table is still
  that of its task;
* what ended tasks had left running, as far as the engine had seen it: also in the table, which holds these
  numbers until the engine reaps them;
* every orphan that bears the engine's marker in its environment, and its session. That finds a task which
  was started in the very last moment, and what the background children of ended tasks became. An orphan of
  the engine has the parent that the keeper itself, also a child of the engine, has got; a batch job that a
  task submitted bears the marker too, but has another parent, and is left alone;
* the engine's own session: a child that is between fork and exec still belongs to it.

A child between fork and exec can appear as late as the scan before; so the keeper goes on until it has
found nothing twice, a moment apart.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from typing import Final

from disbatch.engine import sessions

ALL_DONE = b"all done"
TABLE_DESCRIPTOR = 3
WORD: Final = "q"

LOOK_AGAIN = 0.1
"""Seconds between two scans: the processes are not our children, nobody announces new ones."""
QUIET_SCANS = 2


def recorded(table: mmap.mmap) -> set[int]:
    """The numbers in the table: sessions of tasks, and processes that the engine inherited."""
    with memoryview(table) as view, view.cast(WORD) as words:
        return {word for word in words if word > 0}


class Sweep:
    """Finds what an engine left behind, again and again, without ever following a number that was reused."""

    def __init__(self, engine: int, recorded: set[int], marker: bytes) -> None:
        self._engine = engine
        self._sessions = recorded | {engine}
        self._marker = marker
        self._known: dict[int, int | None] = dict.fromkeys(recorded)

    def find(self) -> list[sessions.Process]:
        """The living, parents first."""
        processes = sessions.table()
        known = [
            pid
            for pid, start in self._known.items()
            if pid in processes and start in (None, processes[pid].start)
        ]
        # The engine's pipe closes a little before its children get their new parent.
        parents = (self._engine, os.getppid())
        orphans = [process.pid for process in processes.values() if process.parent in parents]
        roots = known + sessions.marked(orphans, self._marker)
        found = sessions.family(processes, roots, self._sessions, {os.getpid()})
        # A session without a member may give its number away: forget it.
        self._sessions = {process.session for process in found}
        self._known = {process.pid: process.start for process in found}
        return found


def sweep(engine: int, numbers: set[int], marker: bytes, grace: float) -> None:
    """End everything: SIGTERM at once, SIGKILL after `grace` seconds, until nothing is left."""
    hunt = Sweep(engine, numbers, marker)
    told: set[tuple[int, int]] = set()
    deadline = time.monotonic() + grace
    quiet = 0
    while quiet < QUIET_SCANS:
        found = hunt.find()
        quiet = 0 if found else quiet + 1
        if time.monotonic() >= deadline:
            sessions.signal_all(found, signal.SIGKILL)
        else:
            fresh = [process for process in found if (process.pid, process.start) not in told]
            told |= {(process.pid, process.start) for process in fresh}
            sessions.signal_all(fresh, signal.SIGTERM, signal.SIGCONT)
        time.sleep(LOOK_AGAIN)


def main() -> None:
    """Arguments: the engine's process number, its marker, the grace in seconds. The pipe is stdin."""
    ignored = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    engine, marker, grace = int(sys.argv[1]), os.fsencode(sys.argv[2]), float(sys.argv[3])
    table = mmap.mmap(TABLE_DESCRIPTOR, 0, prot=mmap.PROT_READ)
    os.close(TABLE_DESCRIPTOR)
    said = b""
    while data := os.read(0, 64):
        said += data
    if said != ALL_DONE:
        sweep(engine, recorded(table), marker, grace)
