"""A job that Slurm starts again, under the same number: it goes on where its former life ended."""

from __future__ import annotations

from collections import Counter

from slurm_run import SlurmRun
from ssh_run import TELL

BARRIER = "#DISBATCH BARRIER"
DONE = "echo $DISBATCH_TASKID >> finished"
HELD = f"{TELL}; : < gate; {DONE}"


def _first_life(run: SlurmRun, *options: str) -> None:
    """A job that has done a list of one task, and two tasks of the next list, and holds two more."""
    run.tasks("echo before >> finished", name="Before")
    # The last one cannot start while the others are ended, and be told to end after its deed.
    run.tasks(DONE, DONE, BARRIER, HELD, HELD, BARRIER, DONE)
    run.make_gate("over")
    script = "#!/bin/bash\ndisbatch Before\ndisbatch Tasks\necho $? > code\necho > over\n"
    (run.directory / "job.sh").write_text(script)
    run._popen(["cat", "over"])
    # Its output is a file, as nobody would read a FIFO for its first life and its second.
    done = run.call(
        *("sbatch", "--parsable", "--requeue", "--open-mode=append", "-J", run.name, "-o", "said"),
        *("-N", "2", "-n", "2", *options, "job.sh"),
    )
    assert done.returncode == 0, done.stderr
    run.job = int(done.stdout)
    run.until_told(2)


def _second_life(run: SlurmRun) -> None:
    """Everything is done once, whatever was done in the first."""
    log = run.lab.directory / "log" / "slurmctld.log"
    requeued = f"] Requeuing JobId={run.job}\n"  # from then on it waits for its time, which may be changed
    run.lab.until(lambda: requeued in log.read_text(), "the job to be put back into the queue")
    # Not at once: a job that starts in the second in which it ended is refused by its nodes.
    run.lab.call("scontrol", "update", f"JobId={run.job}", "StartTime=now+3")
    run.until_told(4)
    run.open_gate()
    run.end()
    said = (run.directory / "said").read_text()
    for file in (f"Before_{run.job}_status.txt", f"Tasks_{run.job}-2_status.txt"):
        assert f"Slurm started this job again: going on from {file}" in said, said
    assert (run.directory / "code").read_text() == "0\n"
    finished = Counter((run.directory / "finished").read_text().split())
    assert finished == Counter(["before", *"01346"]), said


def test_requeue(slurm_run: SlurmRun) -> None:
    _first_life(slurm_run)
    slurm_run.lab.call("scontrol", "requeue", str(slurm_run.job))
    _second_life(slurm_run)


def test_preemption_that_requeues(slurm_run: SlurmRun) -> None:
    """Slurm ends the steps first; the batch script must not end by itself before it is started again."""
    run = slurm_run
    _first_life(run, "-p", "requeue", "--exclusive")
    node = min(run.lab.nodes_of(run.job))
    other = run.lab.call("sbatch", "--parsable", "-p", "main", "-w", node, "--exclusive", "--wrap", "true")
    run.lab.ended(int(other))
    _second_life(run)
    assert "Slurm preempts this job, to start it again later" in (run.directory / "said").read_text()
