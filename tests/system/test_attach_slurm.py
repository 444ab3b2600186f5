"""Allocations that are attached to a run, whose driver is in none of them."""

from __future__ import annotations

import shlex
import signal
from collections import Counter
from pathlib import Path

import pytest
from command import until
from pool_run import Attaching
from processes import command_line
from slurm_run import SlurmRun
from ssh_run import HELD, QUICK, TELL

from disbatch.model.statusline import Mark

TWO = ["-N", "2", "--ntasks-per-node", "2"]
WAITS = "no engines are there; waiting for some"
EACH_ITS_GATE = f"{TELL}; : < gate$DISBATCH_TASKID"


def start(run: SlurmRun, *options: str) -> None:
    """The driver on the head, without nodes."""
    run.start("-S", "-p", "P", *options, "Tasks")
    run.until_said(WAITS)


def attach(run: SlurmRun, options: str, *words: str) -> int:
    """`sbatch OPTIONS P_dbUtil.sh WORDS`; the job."""
    command = ["sbatch", "--parsable", "-J", run.name, "-o", "attach-%j.txt", *shlex.split(options)]
    done = run.call(*command, "P_dbUtil.sh", *words)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def said(run: SlurmRun, job: int) -> str:
    """What the job has said so far."""
    path = run.directory / f"attach-{job}.txt"
    return path.read_text() if path.exists() else ""


def until_said(run: SlurmRun, job: int, words: str) -> None:
    until(lambda: words in said(run, job), f"{words!r} of job {job}", run.directory)


def salloc(run: SlurmRun, options: str, *words: str) -> Attaching:
    """`salloc OPTIONS P_dbUtil.sh WORDS`."""
    wrapper = ["salloc", "-Q", "-J", run.name, *shlex.split(options)]
    return Attaching(run.directory / "P_dbUtil.sh", run.directory, *words, env=run.lab.env, wrapper=wrapper)


def local(run: SlurmRun, *words: str) -> Attaching:
    """`P_dbUtil.sh WORDS` on the head."""
    return Attaching(run.directory / "P_dbUtil.sh", run.directory, *words, env=run.lab.env)


def hosts(run: SlurmRun) -> Counter[str]:
    return Counter(told.host for told in run.told)


# ---- coming ----


def test_more_than_one_copy(slurm_run: SlurmRun) -> None:
    """srun starts as many as it is asked for; one of them says that it should not."""
    run = slurm_run
    run.tasks(HELD)
    start(run)
    done = run.call("srun", "-Q", "-J", run.name, "-n", "3", "./P_dbUtil.sh")
    lines = [line for line in done.stderr.splitlines() if not line.startswith("srun: ")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert lines[0].startswith("dbutil: srun started 3 copies of disbatch: start it once, without srun")


@pytest.mark.parametrize("users_slurm_run", ["root", "nobody"], indirect=True)
def test_the_readme_of_the_original(users_slurm_run: SlurmRun) -> None:
    """-S, then a batch job: its tasks find its variables, and the cores that it asked for each of them."""
    run = users_slurm_run
    variables = "$SLURM_JOB_ID $SLURM_CPUS_PER_TASK $DISBATCH_CORES_PER_TASK"
    run.tasks(f'#DISBATCH REPEAT 12 echo "{variables}" >> found; {HELD}')
    run.environment["SLURM_JOB_ID"] = "4711"  # of a job in which the driver could be
    run.process = None
    argv = run.lab.as_user(run.user, [*DISBATCH_S, "Tasks"])
    run._popen(argv)
    run.until_said(WAITS)
    del run.environment["SLURM_JOB_ID"]
    job = attach(run, "-n 6 -c 2", "-l", "batch")
    assert len(run.until_told(6)) == 6
    assert sorted(hosts(run).values()) == [2, 2, 2]
    run.open_gate()
    assert run.end() == 0, str(run)
    assert run.lab.ended(job) == ("COMPLETED", 0)
    run.check_each_once(12)
    assert set((run.directory / "found").read_text().splitlines()) == {f"{job} 2 2"}
    assert "joined with" in said(run, job) and said(run, job).endswith(": left\n")


DISBATCH_S = ["disbatch", "-S", "-p", "P"]


def test_several_allocations(slurm_run: SlurmRun) -> None:
    """A batch job, an interactive one and this machine, each until its own limit; then one without."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 90 {TELL}")
    start(run)
    job = attach(run, "-N 2 -n 4 -c 1", "-C", "11")
    with salloc(run, "-N 1 -n 2 -c 2", "-C", "13") as interactive, local(run, "-s", "localhost:1", "-C", "5"):
        assert run.lab.ended(job) == ("COMPLETED", 0)
        assert interactive.ended() == 0, interactive.err
        run.until_told(29)
    assert len(run.counting()) == 29
    last = attach(run, "-N 1 -n 2")
    assert run.end() == 0, str(run)
    assert run.lab.ended(last) == ("COMPLETED", 0)
    run.check_each_once(90)


def test_the_driver_is_a_job_of_its_own(slurm_run: SlurmRun) -> None:
    """What it finds of its own job is none of the tasks' business."""
    run = slurm_run
    run.tasks(f"echo $SLURM_JOB_ID >> found; {TELL}")
    driver = run.sbatch("-N 1 -n 1 -c 1", "disbatch -S -p P Tasks")
    run.until_said(WAITS)
    job = attach(run, "-N 2 -n 2 -c 1")
    assert run.ended() == ("COMPLETED", 0), str(run)
    assert run.lab.ended(job) == ("COMPLETED", 0)
    assert driver != job and (run.directory / "found").read_text() == f"{job}\n"


# ---- giving back ----


def _one_task_a_node(run: SlurmRun, nodes: int) -> dict[str, int]:
    tasks = {told.host: told.task for told in run.until_told(nodes)}
    assert len(tasks) == nodes, str(run)
    return tasks


@pytest.mark.parametrize("taken_over", [False, True])
def test_spare_nodes_go_back(slurm_run: SlurmRun, *, taken_over: bool) -> None:
    """All but that of the batch script, until that is spare, too: then the job ends, before the run does."""
    run = slurm_run
    for task in range(4):
        run.make_gate(f"gate{task}")
    run.tasks(*[EACH_ITS_GATE] * 4)
    start(run, *QUICK)
    with local(run, "-s", "localhost:1") as here:
        (own,) = run.until_told(1)
        job = attach(run, "-N 3 --ntasks-per-node 1")
        tasks = _one_task_a_node(run, 4)
        if taken_over:
            run.kill_driver()
            run.start("--takeover", "P")
            run.until_said("all engines are there")
        nodes = sorted(set(tasks) - {own.host})
        batch = run.lab.call("squeue", "-h", "-j", str(job), "-o", "%B")
        for node in nodes:
            if node != batch:
                run.open_gate(f"gate{tasks[node]}")
        run.lab.until_nodes(job, {batch})
        run.open_gate(f"gate{tasks[batch]}")
        assert run.lab.ended(job) == ("COMPLETED", 0)
        assert run.process is not None and run.process.poll() is None
        run.open_gate(f"gate{own.task}")
        assert run.end() == 0 and here.ended() == 0
    run.check_each_once(4)


def test_a_command_of_ones_own(slurm_run: SlurmRun) -> None:
    """It is called where the nodes were attached. -K: nothing is, and all stay."""
    run = slurm_run
    for task in range(5):
        run.make_gate(f"gate{task}")
    run.tasks(*[EACH_ITS_GATE] * 5)
    start(run)
    with local(run, "-s", "localhost:1"):
        (own,) = run.until_told(1)
        command = 'echo "$(hostname) $SLURM_JOB_ID $NODES" >> about'
        job = attach(run, "-w node1,node2 --ntasks-per-node 1", "-k", command)
        run.until_told(3)
        keeps = attach(run, "-w node3,node4 --ntasks-per-node 1", "-K")
        tasks = _one_task_a_node(run, 5)
        batch = run.lab.call("squeue", "-h", "-j", str(job), "-o", "%B")
        for task in set(tasks.values()) - {own.task}:
            run.open_gate(f"gate{task}")
        assert run.lab.ended(job) == ("COMPLETED", 0)
        about = (run.directory / "about").read_text().split()
        assert about[:2] == [batch, str(job)]
        assert len(run.lab.nodes_of(keeps)) == 2
        run.open_gate(f"gate{own.task}")
        assert run.end() == 0
    assert run.lab.ended(keeps) == ("COMPLETED", 0)
    run.check_each_once(5)


# ---- going ----


def _goes_on_elsewhere(run: SlurmRun, number: int) -> None:
    """What was ended runs again on other nodes, and nothing is counted that was ended."""
    with local(run, "-s", "localhost:2"):
        run.open_gate()
        assert run.end() == 0, str(run)
    run.check_each_once(number)


@pytest.mark.parametrize(
    "task", [HELD, f"trap '' TERM; {HELD}", f"trap 'exit 0' TERM; {TELL}; : < gate & wait $!"]
)
def test_scancel(slurm_run: SlurmRun, task: str) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {task}")
    start(run, *QUICK, "--max-losses", "0")
    job = attach(run, "-N 2 --ntasks-per-node 2")
    run.until_told(4)
    run.lab.call("scancel", str(job))
    assert run.lab.ended(job)[0] == "CANCELLED"
    run.until(lambda: run.stderr.count(WAITS) == 2, "waiting again")
    assert not run.counting(), str(run)
    _goes_on_elsewhere(run, 6)


def test_scancel_of_a_step(slurm_run: SlurmRun) -> None:
    """The other node goes on."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    job = attach(run, "-N 2 --ntasks-per-node 2")
    run.until_told(4)
    run.lab.call("scancel", f"{job}.0")
    run.until(lambda: "Slurm ended the engine" in run.stderr or "engine lost" in run.stderr, "a loss")
    until_said(run, job, "step was cancelled")
    run.open_gate()
    assert run.end() == 0, str(run)
    assert run.lab.ended(job) == ("COMPLETED", 0)
    run.check_each_once(6)
    assert len({record.node for record in run.counting()}) == 1


def test_its_time_is_up(slurm_run: SlurmRun) -> None:
    """It leaves in time, by itself; a second one goes on."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    soon = "scontrol update JobId=$SLURM_JOB_ID EndTime=now+15"
    script = run.directory / "job.sh"
    script.write_text(f"#!/bin/sh\n{soon}\nexec ./P_dbUtil.sh\n")
    done = run.call("sbatch", "--parsable", "-J", run.name, "-o", "attach-%j.txt", *TWO, script.name)
    job = int(done.stdout)
    run.until_told(4)
    assert run.lab.ended(job) == ("COMPLETED", 0), said(run, job)
    assert "is ended, and runs again elsewhere" in said(run, job)
    up = "the allocation's time is up; its tasks run again elsewhere"
    run.until(lambda: up in run.stderr, up)
    _goes_on_elsewhere(run, 6)
    assert all(record.mark in (Mark.TASK, Mark.SUPERSEDED) for record in run.records())


def test_its_time_is_cut_down(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    job = attach(run, "-t 10 -N 2 --ntasks-per-node 2", "--time-limit-margin", "1000")
    assert run.lab.ended(job)[0] in ("FAILED", "COMPLETED")
    assert "too late to start tasks (--time-limit-margin 1000)" in said(run, job), said(run, job)
    again = attach(run, "-N 2 --ntasks-per-node 2")
    run.until_told(4)
    run.lab.call("scontrol", "update", f"JobId={again}", "EndTime=now+1")
    assert run.lab.ended(again)[0] == "TIMEOUT"
    run.until(lambda: run.stderr.count(WAITS) == 3, "waiting again")
    _goes_on_elsewhere(run, 6)


def _preempt(run: SlurmRun, partition: str) -> int:
    """An attached job that has to make room for another one; its number."""
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    job = attach(run, f"-p {partition} -N 4 --ntasks-per-node 1 --exclusive --open-mode=append")
    run.until_told(4)
    run.call("sbatch", "-J", run.name, "-N", "4", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    return job


def test_preempted_for_good(slurm_run: SlurmRun) -> None:
    run = slurm_run
    job = _preempt(run, "scavenge")
    assert run.lab.ended(job)[0] in ("PREEMPTED", "FAILED", "CANCELLED", "COMPLETED")
    run.until(lambda: run.stderr.count(WAITS) == 2, "waiting again")
    assert "Slurm preempts this job and will not start it again" in said(run, job)
    _goes_on_elsewhere(run, 6)


def test_preempted_and_started_again(slurm_run: SlurmRun) -> None:
    """It attaches itself again."""
    run = slurm_run
    job = _preempt(run, "requeue")
    run.until(lambda: run.stderr.count(WAITS) == 2, "waiting again")
    until_said(run, job, "Slurm preempts this job, to start it again later")
    log = run.lab.directory / "log" / "slurmctld.log"
    requeued = f"] Requeuing JobId={job}\n"  # from then on it waits for its time, which may be changed
    run.lab.until(lambda: requeued in log.read_text(), "the job to be put back into the queue")
    run.lab.call("scontrol", "update", f"JobId={job}", "StartTime=now+3")
    run.until_told(8)
    run.open_gate()
    assert run.end() == 0, str(run)
    run.check_each_once(6)


@pytest.mark.parametrize("which", ["batch", "other"])
def test_a_node_loses_its_power(slurm_run: SlurmRun, which: str) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    start(run, *QUICK)
    job = attach(run, "-N 2 --ntasks-per-node 2 --no-kill --no-requeue")
    run.until_told(4)
    batch = run.lab.call("squeue", "-h", "-j", str(job), "-o", "%B")
    (other,) = run.lab.nodes_of(job) - {batch}
    run.lab.poweroff(batch if which == "batch" else other)
    run.until_said("engine lost")
    _goes_on_elsewhere(run, 8)


def test_the_process_that_attached_is_killed(slurm_run: SlurmRun) -> None:
    """The job ends with it."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    job = attach(run, "-N 2 --ntasks-per-node 2", "-l", "here-it-is")
    run.until_told(4)
    run.kill(_attached("here-it-is"))
    assert run.lab.ended(job)[0] == "FAILED"
    run.until(lambda: run.stderr.count(WAITS) == 2, "waiting again")
    _goes_on_elsewhere(run, 6)


def _attached(label: str) -> int:
    """The process that has attached the nodes of this label."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    commands = {pid: command_line(pid) for pid in pids}
    (attached,) = (pid for pid in pids if "disbatch.cli" in commands[pid] and label in commands[pid])
    return attached


def test_interrupted_in_salloc(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    start(run, *QUICK)
    with salloc(run, "-N 2 -n 4 -c 1", "-l", "salloc-is-it") as interactive:
        run.until_told(4)
        run.lab.call("kill", "-INT", str(_attached("salloc-is-it")))
        assert interactive.ended() == 128 + signal.SIGINT, interactive.err
    run.until_said("leaving; its tasks run again elsewhere")
    _goes_on_elsewhere(run, 6)
