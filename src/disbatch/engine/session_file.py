"""The file in which an engine records the sessions of its running tasks, so that they can be found if the
engine is killed together with its keeper. Standard library only.

Theory of operation
-------------------
Each task is a session of its own, and stays in it whatever it does to its environment. The file is in the
host's own /tmp, as process ids mean nothing elsewhere. Its name contains the engine's id, which the driver
and its journal know. It has a header, which names the boot and the pid namespace, and an entry of fixed size
for each slot: the session, and the time since boot at which it was recorded. A session leader with that id
that started later is another process.

The file is removed by the process that finds nothing of the engine left: its keeper; the engine, if the
keeper was killed; the next driver, if both were.
"""

from __future__ import annotations

import os
import struct
import time

from disbatch.engine import process_tree

DIRECTORY = "/tmp"
HEAD = 128
LIMIT = 1 << 20
_ENTRY = struct.Struct("=qq")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_TICKS = os.sysconf("SC_CLK_TCK")


def path_of(engine: str) -> str:
    """The path of this engine's file."""
    return f"{DIRECTORY}/disbatch-{engine.replace('/', '_')}.sessions"


class SessionFile:
    """A new file; OSError. A later failure to write leaves its entries incomplete."""

    def __init__(self, engine: str, slots: int) -> None:
        self.path = path_of(engine)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        os.write(self._descriptor, _head() + bytes(_ENTRY.size * (slots + 1)))

    def note(self, slot: int, session: int) -> None:
        """Record the session that runs in `slot`, from -1; 0: none."""
        entry = _ENTRY.pack(session, int(time.clock_gettime(_CLOCK) * _TICKS))
        try:
            os.pwrite(self._descriptor, entry, HEAD + _ENTRY.size * (slot + 1))
        except OSError:
            pass

    def remove(self) -> None:
        """Remove the file: nothing of the engine is left."""
        remove(self.path)


def remove(path: str) -> None:
    """Remove that file, if it exists."""
    try:
        os.unlink(path)  # noqa: PTH108 - pathlib is a slow import for the keeper
    except OSError:
        pass


def read(path: str) -> dict[int, int]:
    """The recorded sessions, each with its time in clock ticks since boot; empty if there is no such file of
    ours, or if its process ids are not of this boot and namespace."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        text = os.read(descriptor, LIMIT) if os.fstat(descriptor).st_uid == os.geteuid() else b""
    except OSError:
        text = b""
    finally:
        os.close(descriptor)
    if text[:HEAD] != _head():
        return {}
    entries = text[HEAD : len(text) - (len(text) - HEAD) % _ENTRY.size]
    return {session: ticks for session, ticks in _ENTRY.iter_unpack(entries) if session > 0}


def _head() -> bytes:
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        space = ""
    return f"{process_tree.boot_id()} {space}\n".encode().ljust(HEAD)[:HEAD]
