"""A task runs again only when its former copy has ended, whichever of the processes above it were killed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import DBUTIL, Running, disbatch, gone, records, status_file, write
from pool_run import Pool
from processes import children

from deadline import DEADLINE
from disbatch.engine.session_file import path_of
from disbatch.model.statusline import Mark
from disbatch.rundir.journal_file import read

STUBBORN = (
    "trap '' TERM; echo $$ >> pids; while [ $(wc -l < pids) -eq 1 ]; do sleep 1000; done; "
    "grep -l 'State:.[^ZX]' $(head -n -1 pids | sed 's|.*|/proc/&/status|') 2> /dev/null > beside; true"
)
"""Its first copy ends by SIGKILL only; its second one ends at once and looks for the first."""
MARKED, CLEARED = "exec bash ./stubborn", "exec env -i bash ./stubborn"
"""The same, and without any environment."""


def write_task(directory: Path, task: str) -> None:
    write(directory / "stubborn", [STUBBORN])
    write(directory / "Tasks", [task])


def above(pid: int) -> int:
    """Its parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("task", "victims"),
    [
        (MARKED, ("engine",)),
        (MARKED, ("keeper",)),
        (MARKED, ("keeper", "engine")),
        (MARKED, ("engine", "keeper")),
        (CLEARED, ("keeper", "engine")),
        (CLEARED, ("engine", "keeper")),
    ],
)
def test_tasks_of_a_killed_engine_start_elsewhere_when_their_copies_have_ended(
    tmp_path: Path, task: str, victims: tuple[str, ...]
) -> None:
    write_task(tmp_path, task)
    nodes = f"localhost:1,{os.uname().nodename}:1"
    pids = tmp_path / "pids"
    with Running(tmp_path, "-s", nodes, "--grace", "1", "Tasks") as run:
        (shell,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = above(int(shell))
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


def start_and_kill(directory: Path, *victims: str, task: str = MARKED) -> int:
    """A run of one stubborn task; which of driver, engine and keeper are killed then; the task's number."""
    write_task(directory, task)
    pids = directory / "pids"
    with Running(
        directory, "-s", "localhost:1", "--heartbeat", "0.5", "--patience", "1", "-p", "P", "Tasks"
    ) as run:
        (shell,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = above(int(shell))
        them = {"driver": run.pid, "engine": engine, "keeper": above(engine)}
        for victim in victims:
            os.kill(them[victim], signal.SIGKILL)
        run.ended()
    return int(shell)


def finish(directory: Path) -> subprocess.CompletedProcess[str]:
    """`dbutil finish --run P`."""
    return subprocess.run(
        [DBUTIL, "finish", "--run", "P"], cwd=directory, capture_output=True, text=True, check=False
    )


def noted(directory: Path) -> list[Path]:
    """The files in which engines of that run have noted the sessions of their tasks."""
    told = read(directory / "P_run.json")
    return [Path(path_of(engine)) for engine in (*told.engines, *told.lost)]


def check_alone(directory: Path) -> None:
    assert len((directory / "pids").read_text().split()) == 2
    assert (directory / "beside").read_text() == ""


def start_and_halt_keeper(directory: Path) -> None:
    """A run of one task without environment; its keeper is halted, engine and driver are killed."""
    write_task(directory, CLEARED)
    pids = directory / "pids"
    with Running(directory, "-s", "localhost:1", "-p", "P", "Tasks") as run:
        (shell,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
        engine = above(int(shell))
        os.kill(above(engine), signal.SIGSTOP)
        os.kill(run.pid, signal.SIGKILL)
        os.kill(engine, signal.SIGKILL)
        run.ended()


def test_resuming_lets_a_halted_keeper_go_on(tmp_path: Path) -> None:
    start_and_halt_keeper(tmp_path)
    resumed = disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    assert resumed.returncode == 0, resumed.stderr
    check_alone(tmp_path)


def test_finishing_without_a_driver_ends_what_a_halted_keeper_has(tmp_path: Path) -> None:
    start_and_halt_keeper(tmp_path)
    finished = finish(tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks").returncode == 0
    check_alone(tmp_path)


def test_resuming_beside_a_halted_engine_names_it(tmp_path: Path) -> None:
    shell = start_and_kill(tmp_path, "driver")
    engine = above(shell)
    os.kill(engine, signal.SIGSTOP)
    refused = disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    assert refused.returncode == 2
    assert f"`kill -CONT {engine}`" in refused.stderr and refused.stderr.count("\n") == 1
    os.kill(engine, signal.SIGCONT)
    assert finish(tmp_path).returncode == 0


@pytest.mark.parametrize("task", [MARKED, CLEARED])
@pytest.mark.parametrize("removed", [("run",), ("run", "connect")])
def test_resuming_beside_an_engine_whose_run_file_was_removed(
    tmp_path: Path, task: str, removed: tuple[str, ...]
) -> None:
    engine = above(start_and_kill(tmp_path, "driver", task=task))
    keeper = above(engine)
    for name in removed:
        (tmp_path / f"P_{name}.json").unlink()
    resume = ("-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    refused = disbatch(tmp_path, *resume)
    assert refused.returncode == 2
    assert f"`kill -- -{engine}`" in refused.stderr and refused.stderr.count("\n") == 1
    os.killpg(engine, signal.SIGTERM)
    gone(lambda: [keeper] if Path(f"/proc/{keeper}").exists() else [], "the keeper's end")
    assert disbatch(tmp_path, *resume).returncode == 0
    check_alone(tmp_path)


def test_resuming_waits_for_a_keeper(tmp_path: Path) -> None:
    start_and_kill(tmp_path, "driver", "engine")
    resumed = disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    assert resumed.returncode == 0, resumed.stderr
    assert "waiting for the tasks of a killed engine" in resumed.stderr
    check_alone(tmp_path)


@pytest.mark.parametrize("task", [MARKED, CLEARED])
def test_resuming_beside_tasks_that_nobody_ends_is_refused(tmp_path: Path, task: str) -> None:
    shell = start_and_kill(tmp_path, "driver", "keeper", "engine", task=task)
    resume = ("-s", "localhost:1", "-r", "P_status.txt", "Tasks")
    refused = disbatch(tmp_path, *resume)
    assert refused.returncode == 2
    assert f"`kill -- -{shell}`" in refused.stderr and refused.stderr.count("\n") == 1
    os.killpg(shell, signal.SIGKILL)
    gone(lambda: [shell] if Path(f"/proc/{shell}").exists() else [], "the task's end")
    (file,) = noted(tmp_path)
    address = tmp_path / "P_url.txt"
    address.touch()  # of a web page that was killed, too
    assert disbatch(tmp_path, *resume).returncode == 0
    check_alone(tmp_path)
    assert not file.exists() and not address.exists()


@pytest.mark.parametrize("task", [MARKED, CLEARED])
def test_taking_over_ends_tasks_that_nobody_else_ends(tmp_path: Path, task: str) -> None:
    start_and_kill(tmp_path, "driver", "keeper", "engine", task=task)
    taken = disbatch(tmp_path, "--takeover", "P")
    assert taken.returncode == 0, taken.stderr
    check_alone(tmp_path)


@pytest.mark.parametrize("task", [MARKED, CLEARED])
def test_finishing_without_a_driver_ends_tasks_that_nobody_else_ends(tmp_path: Path, task: str) -> None:
    shell = start_and_kill(tmp_path, "driver", "keeper", "engine", task=task)
    (file,) = noted(tmp_path)
    finished = finish(tmp_path)
    gone(lambda: [shell] if Path(f"/proc/{shell}").exists() else [], "the task's end")
    assert finished.returncode == 0, finished.stderr
    assert not file.exists()
    assert disbatch(tmp_path, "-s", "localhost:1", "-r", "P_status.txt", "Tasks").returncode == 0
    check_alone(tmp_path)


@pytest.mark.parametrize("task", [MARKED, CLEARED])
def test_tasks_of_an_engine_that_was_taken_over_and_killed(tmp_path: Path, task: str) -> None:
    shell = start_and_kill(tmp_path, "driver", task=task)
    engine = above(shell)
    keeper = above(engine)
    with Running(tmp_path, "--takeover", "P") as run:
        run.until_said("all engines are there")
        attached = subprocess.Popen(
            [DBUTIL, "attach", "-s", "localhost:1", "--run", "P"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        for victim in (keeper, engine):
            os.kill(victim, signal.SIGKILL)
        assert run.ended() == 0, run.err
        assert attached.wait(DEADLINE) == 0
    check_alone(tmp_path)


@pytest.mark.parametrize("task", [MARKED, CLEARED])
def test_tasks_of_an_attached_engine_of_this_host(tmp_path: Path, task: str) -> None:
    """It is killed together with its keeper and who attached it, so that only its silence tells."""
    write_task(tmp_path, task)
    pids = tmp_path / "pids"
    pool = Pool(tmp_path)
    with pool.start("-S", "--heartbeat", "0.5", "--patience", "1") as run:
        with pool.attach("-s", "localhost:1") as first:
            (shell,) = run.until(lambda: pids.exists() and pids.read_text().split(), "the task")
            engine = above(int(shell))
            for victim in (first.pid, above(engine), engine):
                os.kill(victim, signal.SIGKILL)
            first.ended()
        with pool.attach("-s", "localhost:1") as second:
            assert run.ended() == 0, run.err
            assert second.ended() == 0, second.err
    check_alone(tmp_path)
