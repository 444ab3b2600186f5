"""engine/keeper.py without subreapers, and engine/remains.py: what an engine leaves, and who finds it."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import alive, all_gone, wait_until

from disbatch.engine.keeper import WORD
from disbatch.engine.remains import find_remains

ENGINE = f"engine-of-{os.getpid()}"
MARKED = dict(os.environ) | {"DISBATCH_ENGINE": ENGINE}


@pytest.fixture
def sleepers() -> Iterator[list[int]]:
    """Processes to be killed at the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def start_orphan(sleepers: list[int], *words: str) -> int:
    """A process of the marked engine in a session of its own, whose parent has ended."""
    script = 'setsid "$@" > /dev/null & echo $!'
    done = subprocess.run(["bash", "-c", script, "-", *words], env=MARKED, stdout=subprocess.PIPE, check=True)
    sleepers.append(int(done.stdout))
    return sleepers[-1]


def test_keeper_without_subreapers_ends_the_sessions_in_the_table(sleepers: list[int]) -> None:
    table = os.memfd_create("table")
    os.truncate(table, 3 * 8)
    orphan = start_orphan(sleepers, "bash", "-c", "trap '' TERM; sleep 1000 & wait; wait")
    wait_until(lambda: Path(f"/proc/{orphan}/task/{orphan}/children").read_text(), "its child")
    (child,) = map(int, Path(f"/proc/{orphan}/task/{orphan}/children").read_text().split())
    with mmap.mmap(table, 0) as memory, memoryview(memory) as view, view.cast(WORD) as words:
        words[1] = orphan
    program = (
        "import os, sys, time\n"
        "from disbatch.engine import keeper\n"
        "keeper.GRACE = 0.3\n"
        "engine = os.fork()\n"
        "if not engine: os._exit(7)\n"
        f"keeper.keep(engine, os.open('/dev/null', os.O_WRONLY), {table})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], pass_fds=[table], check=False, timeout=30)
    os.close(table)
    assert done.returncode == 7
    assert not alive(orphan) and not alive(child)


def test_remains_are_orphans_with_the_name_of_the_engine(sleepers: list[int]) -> None:
    orphan = start_orphan(sleepers, "bash", "-c", "sleep 1000 & wait")
    wait_until(lambda: find_remains([ENGINE, "other"]) == [orphan], "the uppermost one alone")
    assert find_remains([ENGINE[:-1]]) == []
    os.killpg(orphan, signal.SIGKILL)
    all_gone([orphan])
    assert find_remains([ENGINE]) == []


def test_what_another_program_has_started_is_no_remains(sleepers: list[int]) -> None:
    """As a batch job that a task submitted on the same node: it bears the mark, and its parent lives."""
    program = (
        "import subprocess, os; "
        f"child = subprocess.Popen(['sleep', '1000'], env=dict(os.environ, DISBATCH_ENGINE={ENGINE!r}));"
        "print(child.pid, flush=True); child.wait()"
    )
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    sleepers.append(int(daemon.stdout.readline()))
    wait_until(lambda: ENGINE in Path(f"/proc/{sleepers[0]}/environ").read_text(), "the program")
    assert find_remains([ENGINE]) == []
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    assert find_remains([ENGINE]) == sleepers
