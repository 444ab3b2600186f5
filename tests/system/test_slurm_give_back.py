"""Nodes go back to Slurm while the last tasks of a run still work, and are lost to it without harm."""

from __future__ import annotations

import pytest
from slurm_run import SlurmRun
from ssh_run import QUICK, TELL, Told

EACH_ITS_GATE = f"{TELL}; : < gate$DISBATCH_TASKID"


def _one_task_a_node(run: SlurmRun) -> dict[str, int]:
    """Wait until each of four nodes runs a task; the task, by node."""
    tasks = {told.host: told.task for told in run.until_told(4)}
    assert len(tasks) == 4, str(run)
    return tasks


def _gates(run: SlurmRun) -> None:
    for task in range(4):
        run.make_gate(f"gate{task}")


@pytest.mark.parametrize("users_slurm_run", ["nobody"], indirect=True)
def test_the_tail_keeps_just_its_node_and_the_drivers(users_slurm_run: SlurmRun) -> None:
    run = users_slurm_run
    _gates(run)
    run.tasks(*[EACH_ITS_GATE] * 4)
    script = "hostname > driver; disbatch Tasks; squeue -hj $SLURM_JOB_ID -o %D > left"
    job = run.sbatch("-N 4 --ntasks-per-node 1", script)
    tasks = _one_task_a_node(run)
    driver = (run.directory / "driver").read_text().strip()
    tail = next(node for node in tasks if node != driver)
    for node, task in tasks.items():
        if node != tail:
            run.open_gate(f"gate{task}")
    run.lab.until_nodes(job, {driver, tail})
    run.until_gone(*(node for node in tasks if node not in (driver, tail)))
    run.open_gate(f"gate{tasks[tail]}")
    assert run.ended() == ("COMPLETED", 0), str(run)
    records = run.check_each_once(4)
    assert next(record.node for record in records if record.id == tasks[tail]) == tail
    assert (run.directory / "left").read_text() == "2\n"
    assert not list(run.directory.glob("slurm_job_*_resize*"))


def test_with_salloc_the_driver_is_on_none_of_the_nodes(slurm_run: SlurmRun) -> None:
    run = slurm_run
    _gates(run)
    run.tasks(*[EACH_ITS_GATE] * 4)
    run.salloc("-N 4 --ntasks-per-node 1", "disbatch", "Tasks")
    tasks = _one_task_a_node(run)
    job = run.until_job()
    first = min(tasks)  # Slurm itself holds on to the first node of a job
    tail = max(tasks)
    for node, task in tasks.items():
        if node != tail:
            run.open_gate(f"gate{task}")
    run.lab.until(lambda: run.lab.nodes_of(job) in ({tail}, {first, tail}), f"job {job} to shrink")
    run.open_gate(f"gate{tasks[tail]}")
    assert run.end() == 0, str(run)
    run.check_each_once(4)


def test_a_command_of_ones_own(slurm_run: SlurmRun) -> None:
    run = slurm_run
    _gates(run)
    run.tasks(*[EACH_ITS_GATE] * 4)
    command = 'echo "$NODES|$DRIVER_NODE|$ACTIVE" >> about'
    run.sbatch("-N 4 --ntasks-per-node 1", f"hostname > driver; disbatch -k '{command}' Tasks")
    tasks = _one_task_a_node(run)
    driver = (run.directory / "driver").read_text().strip()
    tail = max(node for node in tasks if node != driver)
    for node, task in tasks.items():
        if node != tail:
            run.open_gate(f"gate{task}")
    free = set(tasks) - {driver, tail}
    run.lab.until(lambda: free <= _called_for(run), f"{free} to be given back", run.directory)
    assert run.lab.nodes_of(run.job) == set(tasks)  # the command did nothing, so nothing has changed
    run.open_gate(f"gate{tasks[tail]}")
    assert run.ended() == ("COMPLETED", 0), str(run)
    run.check_each_once(4)
    for line in (run.directory / "about").read_text().splitlines():
        nodes, drivers, active = line.split("|")
        assert not set(nodes.split(",")) & set(active.split(","))
        assert (tail in active.split(",")) == (tail not in nodes.split(","))
        assert drivers == driver or driver in active.split(",")


def _called_for(run: SlurmRun) -> set[str]:
    about = run.directory / "about"
    lines = about.read_text().splitlines() if about.exists() else []
    return {node for line in lines for node in line.split("|")[0].split(",")}


def test_no_node_is_given_back_with_K(slurm_run: SlurmRun) -> None:
    """The tail is longer than the time after which a node would be given back."""
    run = slurm_run
    run.tasks("true", "true", "true", "sleep 7")
    script = "disbatch -K Tasks; squeue -hj $SLURM_JOB_ID -o %D > left"
    run.sbatch("-N 4 --ntasks-per-node 1", script)
    assert run.ended() == ("COMPLETED", 0), str(run)
    assert (run.directory / "left").read_text() == "4\n"


def test_a_job_that_somebody_shrinks(slurm_run: SlurmRun) -> None:
    """Slurm ends the step of the node that it takes; its tasks run again on the others."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 12 {TELL}; : < gate")
    job = run.sbatch("-N 4 --ntasks-per-node 2", f"hostname > driver; disbatch {' '.join(QUICK)} Tasks")
    first = list(run.until_told(8))
    driver = (run.directory / "driver").read_text().strip()
    taken = max(told.host for told in first if told.host != driver)
    kept = sorted({told.host for told in first} - {taken})
    run.lab.call("scontrol", "update", f"JobId={job}", f"NodeList={','.join(kept)}")
    run.until_gone(taken)
    run.open_gate()
    assert run.ended() == ("COMPLETED", 0), str(run)
    records = run.check_each_once(12)
    assert {record.node for record in records} <= set(kept)
    again = {told.task for told in run.told if told.host != taken}
    assert {told.task for told in first if told.host == taken} <= again


def test_a_node_is_lost(slurm_run: SlurmRun) -> None:
    """With --no-kill the job lives on, and the tasks of the node run again on the others."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 10 {TELL}; : < gate")
    run.sbatch("-N 3 --ntasks-per-node 2 --no-kill", f"hostname > driver; disbatch {' '.join(QUICK)} Tasks")
    first = list(run.until_told(6))
    driver = (run.directory / "driver").read_text().strip()
    lost = max(told.host for told in first if told.host != driver)
    run.lab.poweroff(lost)
    _check_tasks_ran_again(run, first, {lost}, 10)


def test_all_nodes_but_the_drivers_are_lost(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 12 {TELL}; : < gate")
    run.sbatch("-N 4 --ntasks-per-node 2 --no-kill", f"hostname > driver; disbatch {' '.join(QUICK)} Tasks")
    first = list(run.until_told(8))
    driver = (run.directory / "driver").read_text().strip()
    lost = {told.host for told in first if told.host != driver}
    for node in lost:
        run.lab.poweroff(node)
    _check_tasks_ran_again(run, first, lost, 12)


def _check_tasks_ran_again(run: SlurmRun, first: list[Told], lost: set[str], count: int) -> None:
    run.open_gate()
    assert run.end() == 0, str(run)
    records = run.check_each_once(count)
    assert not {record.node for record in records} & lost, str(run)
    again = {told.task for told in run.told if told.host not in lost}
    assert {told.task for told in first if told.host in lost} <= again
