"""Wakes a test when something in a directory changes: Linux's inotify."""

from __future__ import annotations

import ctypes
import os
import select
import time
from pathlib import Path
from types import TracebackType

# Made, written, closed after writing, renamed to, deleted.
_MASK = 0x100 | 0x2 | 0x8 | 0x80 | 0x200
_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """Of the files in `directories` (not below), from the moment this is made. `also` are descriptors that
    become readable when something else has happened, such as a process's end."""

    def __init__(self, *directories: Path, also: tuple[int, ...] = ()) -> None:
        self._descriptor = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        self._also = also
        for directory in directories:
            added = _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
            assert added >= 0, f"{directory}: {os.strerror(ctypes.get_errno())}"

    def __enter__(self) -> Changes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def wait(self, deadline: float) -> bool:
        """Until there is one, or `deadline` (of time.monotonic): False then."""
        left = max(0.0, deadline - time.monotonic())
        ready = select.select([self._descriptor, *self._also], [], [], left)[0]
        if self._descriptor in ready:
            os.read(self._descriptor, 65536)
        return bool(ready)
