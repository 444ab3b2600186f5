"""Find and signal every process of a task: its session, its descendants and their sessions; adopt orphans.
Standard library only.

Theory of operation
-------------------
A process id alone is ambiguous: it may belong to another process by the time a signal is sent. So a process
is identified by its id *and* its start time, and a signal goes through a pidfd that was opened before the
start time was compared. A session id cannot be reused while the session has a member, nor before its leader
has been reaped; a session id is kept only as long as one of these holds.

Linux makes orphans among the descendants of a subreaper its children, and tells it when a child ends. Without
/proc (macOS) `ps` tells less: there is no start time, and process groups stand in for sessions.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Collection, Iterable
from typing import NamedTuple

HAVE_PROC = os.path.exists("/proc/self/stat")  # noqa: PTH110  (pathlib is a slow import for the keeper)
HAVE_PIDFD = hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")
ENVIRONMENT_LIMIT = 4 << 20


class Process(NamedTuple):
    """A process as it was found; `start` in clock ticks since boot, `alive` False for a zombie."""

    pid: int
    parent: int
    session: int
    start: int
    alive: bool


Table = dict[int, Process]


def _read(path: str, limit: int = 4096) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def look(pid: int) -> Process | None:
    """The process with this id now, or None."""
    try:
        text = _read(f"/proc/{pid}/stat")
        # The name in parentheses may contain parentheses; the last one ends it.
        field = text[text.rindex(b")") + 2 :].split()
        # A leader that called pthread_exit is a zombie whose other threads live.
        alive = field[0] not in (b"Z", b"X") or int(field[17]) > 1
        return Process(pid, int(field[1]), int(field[3]), int(field[19]), alive)
    except (OSError, ValueError, IndexError):
        return None


def boot_id() -> str:
    """Identifies the last boot of this computer, from which `Process.start` counts; "" if not known."""
    try:
        return _read("/proc/sys/kernel/random/boot_id").decode(errors="replace").strip()
    except OSError:
        return ""


def table() -> Table:
    """All processes that are visible now, by id."""
    if not HAVE_PROC:
        return _table_from_ps()
    found = (look(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208
    return {process.pid: process for process in found if process is not None}


def _table_from_ps() -> Table:
    import subprocess  # slow to import, and every engine waits for its keeper's start

    listing = subprocess.run(
        ["/bin/ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], capture_output=True, check=False
    ).stdout
    processes: Table = {}
    for line in listing.splitlines():
        field = line.split()
        if len(field) >= 4:
            pid, parent, group = (int(text) for text in field[:3])
            processes[pid] = Process(pid, parent, group, 0, not field[3].startswith(b"Z"))
    return processes


def family(
    processes: Table, roots: Iterable[int], sessions: Iterable[int], spare: Collection[int] = ()
) -> list[Process]:
    """The living processes among `roots`, the members of `sessions`, all their descendants, and the members
    of the sessions of these; parents before children, so that a shell gets a signal before its commands do
    and does not go on to its next command. Processes in `spare`, or whose session is, are skipped with all
    their descendants."""
    children: dict[int, list[int]] = {}
    members: dict[int, list[int]] = {}
    for each in processes.values():
        children.setdefault(each.parent, []).append(each.pid)
        members.setdefault(each.session, []).append(each.pid)
    found: dict[int, Process] = {}
    entered: set[int] = set()
    todo = deque(roots)

    def enter(session: int) -> None:
        if session not in entered and session not in spare:
            entered.add(session)
            todo.extend(members.get(session, ()))

    for session in sessions:
        enter(session)
    while todo:
        process = processes.get(todo.popleft())
        if process is None or process.pid in found or process.pid in spare or process.session in spare:
            continue
        found[process.pid] = process
        todo.extend(children.get(process.pid, ()))
        enter(process.session)
    return [process for process in found.values() if process.alive]


def marked(processes: Iterable[int], marker: bytes) -> list[int]:
    """The processes among these that were started with `marker` (NAME=value) in their environment."""
    needle = b"\0" + marker + b"\0"
    found = []
    for pid in processes:
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123
                environment = file.read(ENVIRONMENT_LIMIT)
        except OSError:
            continue
        if needle in b"\0" + environment:
            found.append(pid)
    return found


def children(pid: int) -> list[int]:
    """The ids of the children of `pid`, dead or alive; empty where that is not known."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                found += [int(word) for word in file.read().split()]
    except OSError:
        pass
    return found


def open_process(process: Process) -> int | None:
    """A pidfd of exactly this process, or None if it is gone (its id may be another's by now)."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return None
    now = look(process.pid)
    if now is not None and now.start == process.start:
        return pidfd
    os.close(pidfd)
    return None


def send(pidfd: int, *signals: int) -> None:
    """Send signals through a pidfd; a process that is gone, or not ours to signal, is skipped."""
    try:
        for number in signals:
            signal.pidfd_send_signal(pidfd, number)
    except OSError:
        pass


def signal_all(processes: Iterable[Process], *signals: int) -> None:
    """Send `signals` to each of exactly these processes that still exists."""
    for process in processes:
        if not HAVE_PIDFD:
            try:
                for number in signals:
                    os.kill(process.pid, number)
            except OSError:
                pass
            continue
        pidfd = open_process(process)
        if pidfd is not None:
            send(pidfd, *signals)
            os.close(pidfd)


PR_SET_CHILD_SUBREAPER = 36
SIZE_OF_SIGSET = 128


def adopt_orphans() -> bool:
    """Become a subreaper, so that processes that a task leaves behind can always be found; true if
    supported."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        return bool(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (ImportError, OSError, AttributeError):
        return False


def watch_children() -> int | None:
    """A descriptor that is readable when a child has ended, which costs less than a signal handler in Python;
    None where there is no signalfd. It blocks SIGCHLD, also in threads that are started later. Must come
    before any thread is started: a thread that has not blocked the signal may consume it unnoticed."""
    try:
        import ctypes

        library = ctypes.CDLL(None)
        wanted = ctypes.create_string_buffer(SIZE_OF_SIGSET)
        library.sigemptyset(wanted)
        library.sigaddset(wanted, int(signal.SIGCHLD))
        descriptor = int(library.signalfd(-1, wanted, os.O_NONBLOCK | os.O_CLOEXEC))
    except (ImportError, OSError, AttributeError):
        return None
    if descriptor < 0:
        return None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    # Our parent may ignore it: the kernel would then reap children, and we would not be told of their end.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return descriptor
