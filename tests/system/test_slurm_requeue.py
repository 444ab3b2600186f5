"""A job that Slurm starts again, under the same number: it goes on where its former life ended."""

from __future__ import annotations

from collections import Counter

from slurm_run import SlurmRun
from ssh_run import TELL

DONE = "echo $DISBATCH_TASKID >> finished"
HELD = f"{TELL}; : < gate; {DONE}"


def test_requeue(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(DONE, DONE, "#DISBATCH BARRIER", HELD, HELD, DONE)
    run.make_gate("over")
    (run.directory / "job.sh").write_text("#!/bin/bash\ndisbatch Tasks\necho $? > code\necho > over\n")
    # Its output is a file, as nobody would read a FIFO for its first life and its second.
    said = run.directory / "out.txt"
    run._popen(["cat", "over"])
    done = run.call(
        *("sbatch", "--parsable", "--requeue", "--open-mode=append", "-J", run.name, "-o", said.name),
        *("-N", "2", "-n", "2", "job.sh"),
    )
    assert done.returncode == 0, done.stderr
    run.job = int(done.stdout)
    run.until_told(2)
    run.lab.call("scontrol", "requeue", str(run.job))
    pending = ("squeue", "-h", "-j", str(run.job), "-o", "%T %r")
    run.lab.until(lambda: run.lab.call(*pending) == "PENDING BeginTime", "the job to wait for its next life")
    run.lab.call("scontrol", "update", f"JobId={run.job}", "StartTime=now")
    run.until_told(4)
    run.open_gate()
    run.end()
    first, second = run.status_files()
    assert (first, second) == (f"Tasks_{run.job}_status.txt", f"Tasks_{run.job}-2_status.txt")
    assert f"Slurm started this job again: going on from {first}" in said.read_text()
    assert (run.directory / "code").read_text() == "0\n"
    finished = Counter((run.directory / "finished").read_text().split())
    assert finished == Counter("01345"), said.read_text()
