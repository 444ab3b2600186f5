"""Jobs that Slurm ends: cancelled, preempted, out of time. What ended is recorded, a resume runs the rest."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from slurm_run import BIN, SlurmRun
from ssh_run import TELL

from disbatch.model.statusline import Mark

TERM_PLAIN = f"{TELL}; : < gate; echo $DISBATCH_TASKID >> finished"
TERM_IGNORED = f"trap '' TERM; {TERM_PLAIN}"
TERM_IS_SUCCESS = f"trap 'exit 0' TERM; {TELL}; : < gate & wait $! && echo $DISBATCH_TASKID >> finished"
BARRIER = "#DISBATCH BARRIER"
DONE = "echo $DISBATCH_TASKID >> finished"
ALL = [0, 1, 3, 4, 5, 6, 8, 9]
"""The ids of these tasks; a barrier has one, too."""

QUICK_TASKS = 60
FIRST_SEED = int(os.environ.get("KILL_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + int(os.environ.get("KILL_SEEDS", "2")))
"""More of them: KILL_SEED=100 KILL_SEEDS=50."""


def _held_in_the_middle(run: SlurmRun) -> None:
    """Two tasks that end, four that are held, each taking SIGTERM in its way, and two that never start."""
    held = [TERM_PLAIN, TERM_IGNORED, TERM_IS_SUCCESS, TERM_PLAIN]
    run.tasks(DONE, DONE, BARRIER, *held, BARRIER, DONE, DONE)


def _check_and_resume(run: SlurmRun, resume: str = "-N 2 -n 4") -> None:
    """Only the two tasks that ended by themselves count; a resume runs the six others, each once."""
    former = run.status_file
    assert "Traceback" not in run.stderr
    assert {record.id for record in run.counting()} == {0, 1}, former.read_text()
    run.until_gone()
    run.told.clear()
    run.open_gate()
    run.salloc(resume, "disbatch", "Tasks", "-r", former.name)
    assert run.end() == 0, str(run)
    done = run.done()
    assert sorted(done) == ALL and all(record.return_code == 0 for record in done.values())
    assert sorted(record.id for record in run.counting()) == ALL[2:]
    finished = Counter(int(line) for line in (run.directory / "finished").read_text().split())
    assert finished == Counter(ALL), str(run)


@pytest.mark.parametrize("way", ["script", "exec", "command", "salloc"])
def test_scancel(slurm_run: SlurmRun, way: str) -> None:
    run = slurm_run
    _held_in_the_middle(run)
    options = "-N 2 -n 4"
    if way == "salloc":
        run.salloc(options, "disbatch", "Tasks")
    elif way == "command":
        run.submit(*options.split(), str(BIN / "disbatch"), "Tasks")
    else:
        run.sbatch(options, "exec disbatch Tasks" if way == "exec" else "disbatch Tasks")
    run.until_told(4)
    run.until_job()
    run.scancel()
    run.end()
    assert run.lab.ended(run.job)[0] == "CANCELLED"
    assert f"-r {run.status_file.name}" in run.stderr, run.stderr
    _check_and_resume(run)


def test_scancel_of_the_steps_alone(slurm_run: SlurmRun) -> None:
    """As `scancel --signal=TERM JOB` does it: the batch script is not told."""
    run = slurm_run
    _held_in_the_middle(run)
    run.sbatch("-N 2 -n 4", "disbatch Tasks; echo $? > code")
    run.until_told(4)
    run.scancel("--signal=TERM")
    run.open_gate()
    run.ended()
    finished = Counter(int(line) for line in (run.directory / "finished").read_text().split())
    for record in run.counting():
        assert record.return_code == 0 and finished[record.id] == 1, str(run)
    assert (run.directory / "code").exists(), str(run)


@pytest.mark.parametrize("way", ["command", "salloc"])
def test_the_driver_is_killed(slurm_run: SlurmRun, way: str) -> None:
    """Then the job is over, and with it everything on its nodes."""
    run = slurm_run
    _held_in_the_middle(run)
    if way == "salloc":
        run.salloc("-N 2 -n 4", "disbatch", "Tasks")
    else:
        run.submit("-N", "2", "-n", "4", str(BIN / "disbatch"), "Tasks")
    run.until_told(4)
    run.until_job()
    run.kill(run.driver())
    run.end()
    run.lab.ended(run.job)
    _check_and_resume(run)


def test_the_time_limit_is_near(slurm_run: SlurmRun) -> None:
    """The driver ends in time, by itself, and says so."""
    run = slurm_run
    _held_in_the_middle(run)
    soon = "scontrol update JobId=$SLURM_JOB_ID EndTime=now+10"
    run.sbatch("-N 2 -n 4", f"{soon}; disbatch --time-limit-margin 3 --grace 1 Tasks; echo $? > code")
    run.until_told(4)
    run.ended()
    assert (run.directory / "code").read_text() != "0\n", str(run)
    assert "the allocation ends" in run.stderr and f"-r {run.status_file.name}" in run.stderr, run.stderr
    _check_and_resume(run)


def test_the_time_limit_is_over(slurm_run: SlurmRun) -> None:
    """Slurm ends the job, all of a sudden: somebody has cut its time down."""
    run = slurm_run
    _held_in_the_middle(run)
    job = run.sbatch("-N 2 -n 4", "disbatch Tasks")
    run.until_told(4)
    run.lab.call("scontrol", "update", f"JobId={job}", "EndTime=now+1")
    assert run.ended().state == "TIMEOUT"
    _check_and_resume(run)


def test_preemption(slurm_run: SlurmRun) -> None:
    run = slurm_run
    _held_in_the_middle(run)
    job = run.sbatch("-p scavenge -N 4 --ntasks-per-node 1 --exclusive", "disbatch Tasks 2> words")
    run.until_told(4)
    run.call("sbatch", "-J", run.name, "-N", "4", "--exclusive", "-o", "/dev/null", "--wrap", "true")
    # The steps are told before the script, which may so end by itself before it is preempted.
    assert run.ended().state in ("PREEMPTED", "FAILED")
    assert run.job == job
    words = (run.directory / "words").read_text()
    assert "Slurm preempts this job and will not start it again" in words, words
    assert "again later" not in words
    _check_and_resume(run)


def test_a_task_beyond_the_memory_of_the_job(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks("python3 -c 'taken = bytearray(400 << 20); open(\"gate\")'")
    run.sbatch("--mem=150 -N 1 -n 1", "disbatch Tasks 2> words")
    assert run.ended().state in ("FAILED", "OUT_OF_MEMORY", "CANCELLED"), str(run)
    words = (run.directory / "words").read_text()
    assert "Slurm ended its step, whose tasks took more memory than the job has there (StepId=" in words, (
        words
    )
    assert "exceeded memory limit" in words and "was cancelled" not in words


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelled_at_random_every_task_is_accounted_for_once(slurm_run: SlurmRun, seed: int) -> None:
    run, chance = slurm_run, random.Random(seed)
    tasks = [f"{TELL}; sleep 0.0{i % 7}; echo $DISBATCH_TASKID >> finished" for i in range(QUICK_TASKS)]
    run.tasks(*tasks)
    for attempt in range(4):
        former = [word for name in run.status_files() for word in ("-r", name)]
        options = ["-N", str(chance.randint(1, 3)), "--ntasks-per-node", str(chance.randint(1, 3))]
        before = len(run.told)
        if (seed + attempt) % 2:
            run.submit(*options, str(BIN / "disbatch"), *former, "Tasks")
        else:
            run.salloc(" ".join(options), "disbatch", *former, "Tasks")
        run.until_told(before + chance.randint(1, 12))
        run.until_job()
        run.scancel(*chance.choice([[], [], ["--signal=TERM"], ["--full"]]))
        run.end()
        assert "Traceback" not in run.stderr, run.stderr
        run.until_gone()
    run.salloc("-N 2 -n 6", "disbatch", *[w for name in run.status_files() for w in ("-r", name)], "Tasks")
    assert run.end() == 0, str(run)
    done = run.done()
    assert sorted(done) == list(range(QUICK_TASKS))
    ended = Counter(int(line) for line in (run.directory / "finished").read_text().split())
    for task, record in done.items():
        assert record.return_code == 0, f"nothing but the cancellation makes a task fail: {record}"
        assert ended[task] >= 1, f"task {task} is recorded as done and never came to its end"
    counted = Counter(_counted(run))
    assert set(counted.values()) == {1}, f"counted in more than one run: {counted}"


def _counted(run: SlurmRun) -> list[int]:
    """The ids of all lines of all runs that count and are not copies of former ones."""
    paths = [Path(run.directory / name) for name in run.status_files()]
    return [record.id for path in paths for record in run.records(path) if record.mark is Mark.TASK]
