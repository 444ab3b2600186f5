"""Commands of the user's that end with the process that started them, also if that is killed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from disbatch.contexts.command import run

STARTER = """
import asyncio, sys
from disbatch.contexts.command import run
asyncio.run(run(["/bin/sh", "-c", sys.argv[1]], None, 300))
"""


def told(path: Path) -> int:
    """The process number that something writes into this FIFO."""
    with path.open() as fifo:
        return int(fifo.readline())


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], 20)[0])


def test_ends_with_its_starter(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = f"sleep 1000 & echo $! > {fifo}; wait"
    with subprocess.Popen([sys.executable, "-c", STARTER, command]) as starter:
        pidfd = os.pidfd_open(told(fifo))
        starter.send_signal(signal.SIGKILL)
    assert ended(pidfd)
    os.close(pidfd)


def test_what_heeds_no_signal_ends_as_well(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = f"trap '' TERM; sleep 1000 & echo $! > {fifo}; wait"
    with subprocess.Popen([sys.executable, "-c", STARTER, command]) as starter:
        pidfd = os.pidfd_open(told(fifo))
        starter.send_signal(signal.SIGKILL)
    assert ended(pidfd)
    os.close(pidfd)


def test_what_it_leaves_running_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    command = f"sleep 1000 > /dev/null 2>&1 & echo $! > {path}; read word || echo nothing to read; exit 3"
    answer = asyncio.run(run(["/bin/sh", "-c", command]))
    assert (answer.problem, answer.out) == ("exit code 3: nothing to read", "nothing to read\n")
    pidfd = os.pidfd_open(int(path.read_text()))
    try:
        assert not select.select([pidfd], [], [], 0)[0]
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
