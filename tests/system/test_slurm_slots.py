"""Where tasks run in a Slurm job, and how many at once on each of its nodes."""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
from slurm_run import SlurmRun
from ssh_run import HELD

ANYWHERE = "-N 3 --ntasks-per-node 2"


def _held(run: SlurmRun, expected: list[int]) -> Counter[str]:
    """Wait until all slots that are expected run a task, let all end; the slots of each node."""
    at_once = sum(expected)
    first = Counter(told.host for told in run.until_told(at_once)[:at_once])
    run.open_gate()
    assert run.end() == 0, str(run)
    assert sorted(first.values(), reverse=True) == expected, str(run)
    slots = {told.host: {other.slot for other in run.told if other.host == told.host} for told in run.told}
    assert slots == {node: set(range(count)) for node, count in first.items()}
    most = run.most_at_once()
    assert all(most[node] == first[node] for node in first | most), str(run)
    return first


@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        ("-n 10 --ntasks-per-node 3 --exclusive", "", [3, 3, 3, 3]),  # Slurm makes 12 tasks of it
        ("-N 3 -n 7", "", [4, 2, 1]),
        ("-n 3 -c 2", "", [2, 1]),
        ("-N 2 -n 4 -c 2", "-c 1", [2, 2]),
        ("-N 2 -n 4 -c 2", "-c 1 --fill", [4, 4]),
        ("-N 2 --ntasks-per-node 1 --exclusive", "", [1, 1]),
        ("-N 2 --ntasks-per-node 1 --exclusive", "--fill", [4, 4]),
        ("-N 2 --ntasks-per-node 1 --exclusive", "--fill -c 2", [2, 2]),
        ("-N 2 --ntasks-per-node 3 --exclusive", "-t 2", [2, 2]),
        ("-N 2 -n 4 -c 2", "-c 4", [1, 1]),
        ("-N 2 -n 2", "-c 0.5 --fill", [2, 2]),
    ],
)
def test_slots_follow_from_the_job(
    slurm_run: SlurmRun, options: str, arguments: str, expected: list[int]
) -> None:
    count = sum(expected) + 6
    slurm_run.tasks(f"#DISBATCH REPEAT {count} {HELD}")
    slurm_run.salloc(options, f"exec disbatch {arguments} Tasks")
    _held(slurm_run, expected)
    slurm_run.check_each_once(count)
    slurm_run.until_gone()


def test_all_components_of_a_heterogeneous_job(slurm_run: SlurmRun) -> None:
    slurm_run.tasks(f"#DISBATCH REPEAT 12 {HELD}")
    slurm_run.salloc("-N 1 -n 3 : -N 2 -n 3 -c 2", "exec disbatch Tasks")
    _held(slurm_run, [3, 2, 1])
    slurm_run.check_each_once(12)
    slurm_run.until_gone()


def test_uneven_nodes_in_the_short_notation(slurm_run: SlurmRun) -> None:
    slurm_run.tasks(f"#DISBATCH REPEAT 12 {HELD}")
    slurm_run.sbatch("-N 3 --exclusive", "SLURM_TASKS_PER_NODE='3(x2),1' disbatch Tasks")
    first = _held(slurm_run, [3, 3, 1])
    slurm_run.check_each_once(12)
    assert slurm_run.ended() == ("COMPLETED", 0)
    assert first[max(first)] == 1  # the last node


def test_files_bear_the_name_of_the_job(users_slurm_run: SlurmRun) -> None:
    run = users_slurm_run
    run.tasks("hostname > where; id -un > who", "true", "exit 5")
    job = run.sbatch("-N 2 -n 2", "disbatch Tasks")
    assert run.ended() == ("COMPLETED", 0), str(run)
    names = {path.name for path in run.directory.iterdir()}
    node = (run.directory / "where").read_text().strip()
    expected = {f"Tasks_{job}_status.txt", f"disBatch_{job}_driver.txt", f"Tasks_{job}_{node}_engine.txt"}
    assert expected | {f"Tasks_{job}_dbUtil.sh"} <= names
    assert os.access(run.directory / f"Tasks_{job}_dbUtil.sh", os.X_OK)
    assert {path.owner() for path in run.directory.glob(f"*_{job}_*")} == {run.user}
    assert (run.directory / "who").read_text().strip() == run.user
    assert sorted(record.return_code for record in run.counting()) == [0, 0, 5]
    assert {record.node for record in run.counting()} <= set(run.lab.nodes)


def test_two_runs_in_one_job_at_once_and_one_after_the_other(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 9 {HELD}")
    run.tasks(f"#DISBATCH REPEAT 7 {HELD}", name="Others")
    script = "disbatch Tasks & disbatch Tasks & disbatch Others & wait; disbatch Tasks"
    job = run.sbatch("-N 2 -n 4", script)
    run.until_told(12)  # three times four slots
    run.open_gate()
    assert run.ended() == ("COMPLETED", 0), str(run)
    names = run.status_files()
    assert all(re.fullmatch(rf"(Tasks|Others)_{job}(-[234])?_status.txt", name) for name in names)
    ids = sorted(sorted(record.id for record in run.records(run.directory / name)) for name in names)
    assert ids == [list(range(7)), *[list(range(9))] * 3], str(run)
    assert all(record.return_code == 0 for record in run.all_records()), str(run)
    run.until_gone()


def test_s_wins_over_the_job(slurm_run: SlurmRun) -> None:
    slurm_run.tasks("hostname > where", "hostname > where")
    slurm_run.sbatch(ANYWHERE, "disbatch -s localhost:1 Tasks; echo $? > code")
    assert slurm_run.ended() == ("COMPLETED", 0), str(slurm_run)
    (where,) = {record.node for record in slurm_run.check_each_once(2)}
    assert where == (slurm_run.directory / "where").read_text().strip()


def test_what_a_task_finds_is_of_the_job_and_its_script(slurm_run: SlurmRun) -> None:
    slurm_run.tasks("env -0 > environment-$DISBATCH_TASKID; pwd > directory")
    options = "-N 2 -n 4 -c 2 --exclusive"
    job = slurm_run.sbatch(options, "export LOADED='a b'; env -0 > script; disbatch Tasks")
    assert slurm_run.ended() == ("COMPLETED", 0), str(slurm_run)
    found, script = (
        dict(item.split("=", 1) for item in (slurm_run.directory / name).read_text().split("\0") if item)
        for name in ("environment-0", "script")
    )
    assert found["LOADED"] == "a b"
    assert found["DISBATCH_JOBID"] == found["SLURM_JOB_ID"] == str(job)
    assert found["DISBATCH_CORES_PER_TASK"] == "2"
    assert {"DISBATCH_ENGINE_RANK", "DISBATCH_CYLINDER_RANK", "DISBATCH_REPEAT_INDEX"} <= set(found)
    for name in ("SLURM_NTASKS", "SLURM_TASKS_PER_NODE", "SLURM_NNODES", "SLURM_JOB_NODELIST"):
        assert found[name] == script[name], name
    assert (slurm_run.directory / "directory").read_text().strip() == str(slurm_run.directory)
