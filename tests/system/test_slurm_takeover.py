"""kill -9 of a driver in a Slurm job: the steps go on while the job does, and another driver gets them."""

from __future__ import annotations

import os
import signal
from collections import Counter

from slurm_run import SlurmRun
from ssh_run import HELD

TAKE_OVER = "disbatch --takeover P; echo $? >> codes"


def kill_driver(run: SlurmRun) -> None:
    """Wherever it runs."""
    os.kill(run.driver(), signal.SIGKILL)


def codes(run: SlurmRun) -> list[int]:
    """How the commands ended, one after the other."""
    return [int(word) for word in (run.directory / "codes").read_text().split()]


def check(run: SlurmRun, count: int) -> None:
    """Each task ran once, and nothing is left."""
    run.check_each_once(count)
    assert Counter(told.task for told in run.told) == Counter(range(count)), "started once"
    run.until_gone()


def test_driver_beside_the_job(slurm_run: SlurmRun) -> None:
    """It was started in a shell of salloc, which holds the job; the next one in the same shell, and one more
    from where nothing is known of the job."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    run.make_gate("again")
    run.make_gate("over")
    run.salloc("-N 2 -n 4", f"disbatch -p P Tasks; echo $? >> codes; : < again; {TAKE_OVER}; : < over")
    run.until_told(4)
    kill_driver(run)
    run.open_gate("again")
    run.until_said("all engines are there")
    (second,) = run.drivers("--takeover")
    os.kill(second, signal.SIGKILL)
    run.open_gate()
    done = run.call("disbatch", "--takeover", "P")
    assert done.returncode == 0, done.stderr
    run.open_gate("over")
    assert run.end() == 0
    assert codes(run) == [137, 137]
    check(run, 8)


def test_driver_in_a_batch_job(slurm_run: SlurmRun) -> None:
    """Its script takes the run over."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    script = f"disbatch -p P Tasks; echo $? >> codes; {TAKE_OVER}"
    run.sbatch("-N 2 -n 4", script)
    run.until_told(4)
    kill_driver(run)
    run.until_said("all engines are there")
    run.open_gate()
    assert run.ended() == ("COMPLETED", 0)
    assert codes(run) == [137, 0]
    check(run, 8)


def test_batch_job_that_ends_with_its_driver(slurm_run: SlurmRun) -> None:
    """Slurm ends the steps, then; so there is nothing to take over, but all to resume, at once."""
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    run.sbatch("-N 2 -n 4", "disbatch -p P Tasks")
    run.until_told(4)
    kill_driver(run)
    run.ended()
    run.until_gone()
    done = run.call("disbatch", "--takeover", "P")
    assert done.returncode == 2, done.stderr
    over = f"P: Slurm job {run.job} is over, and the run's engines with it"
    assert f"{over}; resume with: disbatch -p P Tasks -r P_status.txt\n" in done.stderr
    run.open_gate()
    run.sbatch("-N 1 -n 2", "disbatch -r P_status.txt -p Q Tasks")
    assert run.ended() == ("COMPLETED", 0)
    run.check_each_once(6)
