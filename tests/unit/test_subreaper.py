"""engine/subreaper.py, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from deadline import DEADLINE

CHILD = """
import os, select, signal
from disbatch.engine.subreaper import watch_children

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
descriptor = watch_children()
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
assert select.select([descriptor, os.pidfd_open(pid)], [], [], 60)[0]
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_the_end_of_a_child_is_seen_although_the_signal_was_ignored() -> None:
    """Else its exit code would be lost, and its task would seem to run for ever."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
