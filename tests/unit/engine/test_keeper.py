"""engine/keeper.py without subreapers, remains.py, session_file.py: what an engine leaves; who finds it."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import alive, all_gone, wait_until

from deadline import DEADLINE
from disbatch.engine import process_tree
from disbatch.engine.remains import find_remains
from disbatch.engine.session_file import HEAD, SessionFile

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


@pytest.fixture
def noted() -> Iterator[SessionFile]:
    """The file of that engine."""
    file = SessionFile(ENGINE, 2)
    yield file
    file.remove()


def test_keeper_without_subreapers_ends_the_sessions_that_were_noted(
    sleepers: list[int], noted: SessionFile
) -> None:
    orphan = start_orphan(sleepers, "bash", "-c", "trap '' TERM; sleep 1000 & wait; wait")
    wait_until(lambda: Path(f"/proc/{orphan}/task/{orphan}/children").read_text(), "its child")
    (child,) = map(int, Path(f"/proc/{orphan}/task/{orphan}/children").read_text().split())
    noted.note(0, orphan)
    program = (
        "import os, sys, time\n"
        "from disbatch.engine import keeper\n"
        "keeper.GRACE = 0.3\n"
        "engine = os.fork()\n"
        "if not engine: os._exit(7)\n"
        f"keeper.keep(engine, os.open('/dev/null', os.O_WRONLY), {noted.path!r}, False)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=DEADLINE)
    assert done.returncode == 7
    assert not alive(orphan) and not alive(child)
    assert not os.path.exists(noted.path)


@pytest.mark.parametrize("slot", [-1, 1])
def test_remains_that_have_cleared_their_environment(
    sleepers: list[int], noted: SessionFile, slot: int
) -> None:
    script = "sleep 1000 & exec sleep 2000"
    orphan = start_orphan(sleepers, "env", "-i", "bash", "-c", script)
    wait_until(lambda: Path(f"/proc/{orphan}/cmdline").read_bytes() == b"sleep\x002000\0", "its last program")
    wait_until(lambda: find_remains([ENGINE]) == [], "nothing that is marked")
    noted.note(slot, orphan)
    assert find_remains([ENGINE]) == [orphan] and find_remains(["other"]) == []
    os.kill(orphan, signal.SIGKILL)
    wait_until(
        lambda: orphan not in process_tree.table() or not process_tree.table()[orphan].alive, "its end"
    )
    (member,) = (each.pid for each in process_tree.table().values() if each.session == orphan and each.alive)
    assert find_remains([ENGINE]) == [member]
    noted.note(slot, 0)
    assert find_remains([ENGINE]) == []
    os.kill(member, signal.SIGKILL)


def test_another_process_may_have_the_number_of_a_session(sleepers: list[int], noted: SessionFile) -> None:
    noted.note(0, 1)
    before = Path(noted.path).read_bytes()
    orphan = start_orphan(sleepers, "env", "-i", "sleep", "1000")
    wait_until(lambda: find_remains([ENGINE]) == [], "nothing that is marked")
    started = process_tree.table()[orphan].start
    for when, found in ((started - 1, []), (started, [orphan])):
        entry = struct.pack("=qq", orphan, when)
        Path(noted.path).write_bytes(before[: HEAD + 16] + entry)
        assert find_remains([ENGINE]) == found
    Path(noted.path).write_bytes(
        before[: HEAD + 16].replace(process_tree.boot_id().encode(), b"x" * 36) + entry
    )
    assert find_remains([ENGINE]) == []


def test_a_file_of_sessions_that_is_damaged_or_not_ours(sleepers: list[int], noted: SessionFile) -> None:
    orphan = start_orphan(sleepers, "env", "-i", "sleep", "1000")
    wait_until(lambda: find_remains([ENGINE]) == [], "nothing that is marked")
    noted.note(0, orphan)
    with open(noted.path, "ab") as file:
        file.write(b"torn")
    assert find_remains([ENGINE]) == [orphan]
    moved = noted.path + "-2"
    os.rename(noted.path, moved)
    os.symlink(moved, noted.path)
    assert find_remains([ENGINE]) == []
    os.unlink(noted.path)
    os.mkfifo(noted.path)
    assert find_remains([ENGINE]) == []
    os.unlink(moved)


def test_remains_are_orphans_with_the_name_of_the_engine(sleepers: list[int]) -> None:
    orphan = start_orphan(sleepers, "bash", "-c", "sleep 1000 & wait")
    wait_until(lambda: find_remains([ENGINE, "other"]) == [orphan], "the uppermost one alone")
    assert find_remains([ENGINE[:-1]]) == []
    os.killpg(orphan, signal.SIGKILL)
    all_gone([orphan])
    wait_until(lambda: find_remains([ENGINE]) == [], "the end of its child")


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
