"""Finds the processes of a run under test, and waits for their end."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deadline import DEADLINE

TOKEN = "DISBATCH_TEST_TOKEN"
"""Set to something unique in the environment of a run, it is in that of every process of the run."""


def children(pid: int) -> list[int]:
    """Direct children, in order of their start."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def with_token(value: str) -> list[int]:
    """Every living process, not a zombie, that was started with TOKEN=value."""
    wanted = f"{TOKEN}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_gone(value: str, seconds: float) -> list[int]:
    """Wait until no process with the token is left; returns those that are after `seconds`."""
    deadline = time.monotonic() + seconds
    while pids := with_token(value):
        for pid in pids:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                    return with_token(value)
            finally:
                os.close(descriptor)
    return []


@contextmanager
def until_ended(pid: int) -> Iterator[None]:
    """The process is ended in the block; wait until it has. The first process of a host ends after all others
    of it: nothing there listens any more."""
    descriptor = os.pidfd_open(pid)
    try:
        yield
        assert select.select([descriptor], [], [], DEADLINE)[0], f"process {pid} has not ended"
    finally:
        os.close(descriptor)
