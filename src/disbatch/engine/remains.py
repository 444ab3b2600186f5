"""Find and end, on this host, the tasks of an engine that was killed together with its keeper.

The tasks have the engine's id in their environment; if they have cleared it (`env -i`), the engine has
recorded their sessions, see `session_file`. A batch job that a task has submitted has the id, too, but it is
a child of its scheduler, so it is not a task of ours. An orphan has been adopted by process 1, by a subreaper
above us (of a container or a job), or by the user's service manager; a task that is not an orphan has an
engine or a keeper above it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable

from disbatch.engine import process_tree, session_file
from disbatch.engine.environment import MARKER
from disbatch.engine.keeper import GRACE
from disbatch.engine.termination import Ender, KillTarget

OURS = b"disbatch.engine"
"""Occurs in the command lines of engines and keepers."""
SERVICE_MANAGER = b"systemd"
KILL_PATIENCE = 2.0
"""Seconds for processes to end after SIGKILL."""


def find_remains(engines: Collection[str]) -> list[int]:
    """The topmost processes on this host that these engines have left: tasks, or engines whose keeper is
    gone."""
    return _roots(process_tree.table(), engines)


def _roots(processes: process_tree.Table, engines: Collection[str]) -> list[int]:
    markers = [MARKER + b"=" + engine.encode() for engine in engines]
    marked = {pid for marker in markers for pid in process_tree.marked(processes, marker)}
    marked |= _noted(processes, engines)
    adopters = {1, *_above(processes, os.getpid())}
    roots = set()
    for pid in marked:
        parent = processes[pid].parent
        command = command_line(parent)
        dying = not command  # as its engine may be; it has not been adopted yet
        if parent in adopters or dying or _reads(parent, "comm").strip() == SERVICE_MANAGER:
            roots.add(pid)
        elif parent not in marked and OURS in command:
            roots.add(parent)
    return sorted(pid for pid in roots if processes[pid].alive)


def _noted(processes: process_tree.Table, engines: Collection[str]) -> set[int]:
    """The members of the sessions that these engines have recorded."""
    found = set()
    for engine in engines if process_tree.HAVE_PROC else ():
        for session, when in session_file.read(session_file.path_of(engine)).items():
            leader = processes.get(session)
            if leader is None or (leader.session == session and leader.start <= when):
                found.add(session)
    return {process.pid for process in processes.values() if process.session in found} if found else set()


def _above(processes: process_tree.Table, pid: int) -> set[int]:
    above: set[int] = set()
    while pid in processes and processes[pid].parent not in above:
        pid = processes[pid].parent
        above.add(pid)
    return above


def find_engine(keeper: int) -> int | None:
    """The engine of this keeper, if it lives."""
    children = [each for each in process_tree.table().values() if each.parent == keeper and each.alive]
    return next((each.pid for each in children if OURS in command_line(each.pid)), None)


def is_halted(pid: int) -> bool:
    """True if the process was stopped (SIGSTOP)."""
    return _reads(pid, "stat").rpartition(b")")[2].split()[:1] == [b"T"]


def command_line(pid: int) -> bytes:
    """The arguments of its command line, each followed by a NUL."""
    return _reads(pid, "cmdline")


def _reads(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123
            return file.read(1 << 16)
    except OSError:
        return b""


async def end_remains(
    loop: asyncio.AbstractEventLoop, engines: Collection[str], report: Callable[[str], None]
) -> set[str]:
    """End all processes of these engines: SIGTERM, a grace period, SIGKILL. Returns the engines that had left
    some."""
    processes = process_tree.table()
    found = {engine: _roots(processes, [engine]) for engine in engines}
    roots = sorted({pid for pids in found.values() for pid in pids})
    left = {engine for engine, pids in found.items() if pids}
    gone = asyncio.Event()
    ender = Ender(loop, lambda: {os.getpid()}, report)
    ender.grace = GRACE
    ender.end([KillTarget(None, roots, gone.set)], at_once=False)
    try:
        await asyncio.wait_for(gone.wait(), GRACE + KILL_PATIENCE)
    except TimeoutError:
        report(f"processes of a dead engine do not end: {', '.join(map(str, roots))}")
    else:
        forget(engines)
    return left


def forget(engines: Iterable[str]) -> None:
    """Nothing is left of these engines: remove their session files."""
    for engine in engines:
        session_file.remove(session_file.path_of(engine))
