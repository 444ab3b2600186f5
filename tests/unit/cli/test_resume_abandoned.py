"""Whether -r may go on with a run whose driver was killed: which of its engines may still run tasks."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from engine_driver import all_gone, wait_until

from disbatch.cli.resume import refuse_abandoned
from disbatch.contexts.machine import this_machine
from disbatch.contexts.nodes import Node
from disbatch.engine.process_tree import boot_id, look
from disbatch.model.errors import ResumeError
from disbatch.model.task import Way
from disbatch.rundir.journal import Asked, Here
from disbatch.rundir.journal_file import JournalFile

ASKED = Asked("0", [b"Tasks"], b"/", "7", "Tasks", b"/log", 3, 4, 600.0, [])
ME = look(os.getpid())
assert ME is not None
HERE = Here(
    "0-e",
    "here",
    0,
    2,
    Node("localhost", 2, 2, Way.CHILD),
    host=this_machine().hostname,
    pid=os.getpid(),
    boot=boot_id(),
    started=ME.start,
)


def refused(folder: Path, here: Here, changed: float | None = None) -> bool:
    """Whether -r is refused when the driver of a run was killed that had this engine."""
    (folder / "P_status.txt").touch()
    if changed is not None:
        os.utime(folder / "P_status.txt", (changed, changed))
    (folder / "P_connect.json").touch()
    (folder / "P_run.json").unlink(missing_ok=True)
    file = JournalFile.create(folder / "P_run.json", ASKED)
    file.add(here)
    file.close()
    try:
        refuse_abandoned(str(folder / "P_status.txt"), lambda _: None)
    except ResumeError as error:
        assert str(error).count("\n") == 0
        return True
    return False


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({}, True),
        ({"boot": "", "started": 0}, True),  # as a version before wrote it
        ({"started": ME.start + 1}, False),
        ({"boot": "another"}, False),
        ({"boot": "another", "pid": 0, "started": 0}, False),
        ({"pid": 0, "started": 0}, True),
        ({"boot": "another", "host": "elsewhere"}, True),
        ({"started": ME.start + 1, "host": "elsewhere"}, True),
    ],
)
def test_an_engine_is_known_by_more_than_its_number(
    tmp_path: Path, change: dict[str, object], runs: bool
) -> None:
    assert refused(tmp_path, msgspec.structs.replace(HERE, **change)) is runs


def test_an_engine_that_has_ended(tmp_path: Path) -> None:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    os.waitpid(pid, 0)
    assert not refused(tmp_path, msgspec.structs.replace(HERE, pid=pid, started=0))


@pytest.mark.parametrize(
    ("change", "runs"), [({}, True), ({"started": ME.start + 1}, False), ({"host": "elsewhere"}, False)]
)
def test_an_engine_that_is_seen_counts_whatever_the_clock_says(
    tmp_path: Path, change: dict[str, object], runs: bool
) -> None:
    """As after a laptop has slept for hours: the clock says that its driver was not heard for long."""
    assert refused(tmp_path, msgspec.structs.replace(HERE, **change), changed=1000.0) is runs


def test_tasks_without_an_engine_that_can_be_seen(tmp_path: Path) -> None:
    engine = f"0-{os.getpid()}"
    script = "setsid sleep 1000 > /dev/null & echo $!"
    marked = dict(os.environ) | {"DISBATCH_ENGINE": engine}
    done = subprocess.run(["bash", "-c", script], env=marked, stdout=subprocess.PIPE, check=True)
    gone = msgspec.structs.replace(HERE, engine=engine, started=ME.start + 1)
    pid = int(done.stdout)
    try:
        wait_until(lambda: refused(tmp_path, gone, changed=1000.0), "a refusal")
    finally:
        os.kill(pid, signal.SIGKILL)
    all_gone([pid])
    assert not refused(tmp_path, gone, changed=1000.0)


def linked(path: Path) -> None:
    path.rename(path.with_name("run"))
    path.symlink_to("run")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda path: path.write_bytes(b""), "the command line is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[9:]), "1: this line is damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a regular file"),
        (linked, "is a symbolic link"),
    ],
)
def test_a_run_file_that_cannot_be_read(tmp_path: Path, damage: Callable[[Path], object], why: str) -> None:
    """What it would tell is unknown: the tasks may still run."""
    assert not refused(tmp_path, msgspec.structs.replace(HERE, pid=1, started=1), changed=1000.0)
    damage(tmp_path / "P_run.json")
    with pytest.raises(ResumeError, match=f"P_run.json:.*{why}.*--force-resume") as caught:
        refuse_abandoned(str(tmp_path / "P_status.txt"), lambda _: None)
    assert "\n" not in str(caught.value)
