"""A task runs again only when its former copy has ended, whichever of the processes above it were killed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import DBUTIL, Running, disbatch, gone, records, status_file, write
from processes import children

from disbatch.model.status import Mark

STUBBORN = (
    "trap '' TERM; echo $$ >> pids; while [ $(wc -l < pids) -eq 1 ]; do sleep 1000; done; "
    "grep -l 'State:.[^ZX]' $(head -n -1 pids | sed 's|.*|/proc/&/status|') 2> /dev/null > beside; true"
)
"""Its first copy ends by SIGKILL only; its second one ends at once and looks for the first."""


def above(pid: int) -> int:
    """Its parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("victims", [("engine",), ("keeper",), ("keeper", "engine"), ("engine", "keeper")])
def test_tasks_of_a_killed_engine_start_elsewhere_when_their_copies_have_ended(
    tmp_path: Path, victims: tuple[str, ...]
) -> None:
    write(tmp_path / "Tasks", [STUBBORN])
    nodes = f"localhost:1,{os.uname().nodename}:1"
    pids = tmp_path / "pids"
    with Running(tmp_path, "-s", nodes, "--grace", "1", "Tasks") as run:
        (task,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = above(int(task))
        keeper = above(engine)
        assert engine in children(keeper) and keeper in children(run.pid)
        for victim in victims:
            os.kill({"engine": engine, "keeper": keeper}[victim], signal.SIGKILL)
        assert run.ended() == 0
    assert len(pids.read_text().split()) == 2
    assert (tmp_path / "beside").read_text() == ""
    assert [record.return_code for record in records(status_file(tmp_path)) if record.mark is Mark.TASK] == [
        0
    ]


def start_and_kill(directory: Path, *victims: str) -> int:
    """A run of one stubborn task; which of driver, engine and keeper are killed then; the task's number."""
    write(directory / "Tasks", [STUBBORN])
    pids = directory / "pids"
    with Running(
        directory, "-s", "localhost:1", "--heartbeat", "0.5", "--patience", "1", "-p", "P", "Tasks"
    ) as run:
        (task,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = above(int(task))
        them = {"driver": run.pid, "engine": engine, "keeper": above(engine)}
        for victim in victims:
            os.kill(them[victim], signal.SIGKILL)
        run.ended()
    return int(task)


def check_alone(directory: Path) -> None:
    assert len((directory / "pids").read_text().split()) == 2
    assert (directory / "beside").read_text() == ""


def test_resuming_waits_for_a_keeper(tmp_path: Path) -> None:
    start_and_kill(tmp_path, "driver", "engine")
    resumed = disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    assert resumed.returncode == 0, resumed.stderr
    assert "waiting for the tasks of a killed engine" in resumed.stderr
    check_alone(tmp_path)


def test_resuming_beside_tasks_that_nobody_ends_is_refused(tmp_path: Path) -> None:
    task = start_and_kill(tmp_path, "driver", "keeper", "engine")
    resume = ("-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    refused = disbatch(tmp_path, *resume)
    assert refused.returncode == 2
    assert f"`kill -- -{task}`" in refused.stderr and refused.stderr.count("\n") == 1
    os.killpg(task, signal.SIGKILL)
    gone(lambda: [task] if Path(f"/proc/{task}").exists() else [], "the task's end")
    assert disbatch(tmp_path, *resume).returncode == 0
    check_alone(tmp_path)


def test_taking_over_ends_tasks_that_nobody_else_ends(tmp_path: Path) -> None:
    start_and_kill(tmp_path, "driver", "keeper", "engine")
    taken = disbatch(tmp_path, "--takeover", "P")
    assert taken.returncode == 0, taken.stderr
    check_alone(tmp_path)


def test_finishing_without_a_driver_ends_tasks_that_nobody_else_ends(tmp_path: Path) -> None:
    task = start_and_kill(tmp_path, "driver", "keeper", "engine")
    finished = subprocess.run(
        [DBUTIL, "finish", "--run", "P"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    gone(lambda: [task] if Path(f"/proc/{task}").exists() else [], "the task's end")
    assert finished.returncode == 0, finished.stderr
    assert disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks").returncode == 0
    check_alone(tmp_path)
