"""The keeper: the engine's parent, which ends every process that a dead engine leaves behind. Standard
library only.

Theory of operation
-------------------
The process that was started as an engine forks: the child continues as the engine, and the parent becomes its
keeper, in a small interpreter that loads nothing else. Both are subreapers: an orphan among their descendants
becomes their child, even if it changed its session and environment. So:

* while the engine lives, processes that its tasks leave running are the engine's children;
* when the engine dies, they become the keeper's children. The keeper ends them: SIGTERM, a grace period,
  SIGKILL, until it has no child, and so no descendant. Then it exits with the engine's exit status or signal.
  So the process that was started as an engine ends when the last of its descendants has;
* when the keeper dies, the engine still has all its descendants. It reads the end of a pipe that only the
  keeper can write to, ends its tasks, and leaves.

The keeper forwards signals: SIGTERM, SIGINT and SIGHUP as a byte through that pipe, so that the engine can
tell such a signal from one that a scheduler sent to both; on SIGQUIT it kills the engine.

When both die at the same time, their processes are found by the sessions that the engine recorded in a file,
see `session_file`. Where there are no subreapers (macOS), nobody adopts orphans, and the keeper, too, finds
them by that file.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import NamedTuple

from disbatch.engine import process_tree, session_file
from disbatch.engine.process_tree import adopt_orphans
from disbatch.engine.session_file import SessionFile

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for processes of a dead engine."""
OVER = GRACE + 1.0
"""Seconds after an engine's death within which all its processes have ended."""
LOOK_FIRST = 0.1
LOOK_MOST = 2.0
"""Seconds after which another scan is made even if no child has ended."""
QUIET_LOOKS = 2

HANDED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_HEEDED = (*HANDED_ON, signal.SIGQUIT)
_IGNORED = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class Keeper(NamedTuple):
    """The engine's parent, from the engine's side: its process id; the pipe on which it forwards signals, and
    which ends with it; the session file, if it could be created."""

    pid: int
    pipe: int
    session_file: SessionFile | None


def split(engine: str, slots: int) -> Keeper:
    """Return in a child, which becomes the engine with that id; this process becomes its keeper. Must come
    before threads are started."""
    adopts = adopt_orphans()
    file = _session_file(engine, slots)
    reading, writing = os.pipe()
    here = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)
    child = os.fork()
    if child:
        os.close(reading)
        _become(child, writing, "" if file is None else file.path, adopts)
    os.close(writing)
    os.setsid()
    if adopts:
        adopt_orphans()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Keeper(here, reading, file)


def _session_file(engine: str, slots: int) -> SessionFile | None:
    try:
        return SessionFile(engine, slots)
    except (OSError, ValueError):
        return None


def _become(engine: int, pipe: int, path: str, adopts: bool) -> None:
    """Continue as the keeper; does not return."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    home = os.path.abspath(__file__).rsplit("/", 3)[0]  # noqa: PTH100
    program = f"import sys; sys.path.append({home!r}); from disbatch.engine.keeper import main; main()"
    os.set_inheritable(pipe, True)
    words = [str(engine), str(pipe), path, *(["adopts"] if adopts else [])]
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", program, *words])
    except OSError:  # then continue in this larger interpreter
        keep(engine, pipe, path, adopts)


def main() -> None:
    """Arguments: the engine's process id, the pipe to it, the path of the session file, and a word if this
    process is a subreaper."""
    engine, pipe, path, *adopts = sys.argv[1:]
    keep(int(engine), int(pipe), path, bool(adopts))


def keep(engine: int, pipe: int, path: str, adopts: bool) -> None:
    """Wait for the engine's end, end its processes, and exit as it did."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    for number in HANDED_ON:
        signal.signal(number, lambda number, _: _hand_on(pipe, number))
    signal.signal(signal.SIGQUIT, lambda *_: os.kill(engine, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEEDED)
    ended = 0
    while ended != engine:
        ended, status = os.waitpid(-1, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_HEEDED, signal.SIGCHLD})
    os.close(pipe)
    end_all(set() if adopts else {engine, *session_file.read(path)}, GRACE)
    session_file.remove(path)
    _end_as(status)


def _hand_on(pipe: int, number: int) -> None:
    try:
        os.write(pipe, bytes([number]))
    except OSError:  # it has just ended
        pass


def end_all(recorded: set[int], grace: float) -> None:
    """End every descendant, and the sessions `recorded`, until none is left. SIGQUIT: at once. SIGCHLD and
    SIGQUIT must be blocked."""
    here = os.getpid()
    told: set[tuple[int, int]] = set()
    deadline = time.monotonic() + grace
    pause, quiet = LOOK_FIRST, 0
    while _has_children() or (recorded and quiet < QUIET_LOOKS):
        processes = process_tree.table()
        children = [each.pid for each in processes.values() if each.parent == here]
        found = process_tree.family(processes, children, recorded, {here})
        # The id of a session without members may be reused: forget it.
        recorded &= {process.session for process in found}
        quiet = 0 if found else quiet + 1
        left = deadline - time.monotonic()
        if left <= 0:
            process_tree.signal_all(found, signal.SIGKILL)
            pause = min(pause * 2, LOOK_MOST)
        else:
            fresh = [process for process in found if (process.pid, process.start) not in told]
            told |= {(process.pid, process.start) for process in fresh}
            process_tree.signal_all(fresh, signal.SIGTERM, signal.SIGCONT)
        if _wait(pause if left <= 0 or recorded else left) == signal.SIGQUIT:
            deadline = 0.0


def _wait(seconds: float) -> int | None:
    """Wait until a child has ended, or for so many seconds; the signal that came."""
    if not hasattr(signal, "sigtimedwait"):  # macOS
        time.sleep(seconds)
        return None
    came = signal.sigtimedwait({signal.SIGCHLD, signal.SIGQUIT}, seconds)
    return None if came is None else came.si_signo


def _has_children() -> bool:
    """Reap ended children; False if no child is left, dead or alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _end_as(status: int) -> None:
    """End by the same signal, or with the same exit status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the engine's core file is enough
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))
