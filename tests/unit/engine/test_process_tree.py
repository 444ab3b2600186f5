"""engine/process_tree.py, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine_driver import EngineProcess, FakeDriver

from deadline import DEADLINE

CHILD = """
import os, select, signal
from disbatch.engine.process_tree import watch_children

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


ENGINE = """
import signal, sys, zmq
from disbatch.engine.__main__ import main

def look(frame, event, argument):
    if event == "call" and frame.f_code is zmq.Context.__init__.__code__:
        print(signal.SIGCHLD in signal.pthread_sigmask(signal.SIG_BLOCK, []), file=sys.stderr, flush=True)

sys.setprofile(look)
sys.exit(main())
"""


def test_no_thread_of_an_engine_can_take_the_signal(tmp_path: Path) -> None:
    """Threads begin with the mask of who starts them. One that had the signal unblocked, be it for a moment,
    took the only word of a task's end now and then."""
    driver = FakeDriver(tmp_path)
    engine = EngineProcess(driver.bootstrap(), program=("-c", ENGINE))
    try:
        driver.run("exit 3")
        driver.leave()
        assert engine.wait() == 0
        assert engine.process.stderr is not None and engine.process.stderr.read() == b"True\n"
    finally:
        engine.finish()
        driver.close()
