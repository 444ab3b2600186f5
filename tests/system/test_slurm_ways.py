"""The ways to start a run with Slurm: sbatch of the command itself, a batch script, salloc, srun."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import command
import pytest
from slurm_run import BIN, SlurmRun
from ssh_run import HELD


@pytest.mark.parametrize("name", ["disbatch", "disBatch"])
def test_sbatch_of_the_command_itself(users_slurm_run: SlurmRun, name: str) -> None:
    """Slurm runs a copy of the file, in a folder of its own."""
    run = users_slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    job = run.submit("-n", "6", str(BIN / name), "Tasks")
    first = Counter(told.host for told in run.until_told(6))
    run.open_gate()
    assert run.ended() == ("COMPLETED", 0), str(run)
    assert sorted(first.values()) == [2, 4]
    run.check_each_once(6)
    assert run.status_file.name == f"Tasks_{job}_status.txt"


def test_what_goes_wrong_is_the_exit_code_of_the_job(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks("false", "true")
    run.submit("-n", "2", str(BIN / "disbatch"), "-e", "Tasks")
    assert run.ended() == ("FAILED", 1), str(run)
    run.submit("-n", "2", str(BIN / "disbatch"), "Missing")
    assert run.ended() == ("FAILED", 2), str(run)
    assert "Missing: No such file" in run.stderr and "Traceback" not in run.stderr


def test_salloc(users_slurm_run: SlurmRun) -> None:
    run = users_slurm_run
    run.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    run.salloc("-N 2 -n 3", "disbatch", "Tasks")
    run.until_told(3)
    job = run.until_job()
    run.open_gate()
    assert run.end() == 0, str(run)
    run.check_each_once(6)
    assert run.status_file.name == f"Tasks_{job}_status.txt"
    run.until_gone()


def test_one_srun_in_a_batch_script(slurm_run: SlurmRun) -> None:
    slurm_run.tasks(f"#DISBATCH REPEAT 9 {HELD}")
    slurm_run.sbatch("-N 2 -n 4", "srun -n1 -N1 disbatch Tasks")
    first = Counter(told.host for told in slurm_run.until_told(4))
    slurm_run.open_gate()
    assert slurm_run.ended() == ("COMPLETED", 0), str(slurm_run)
    assert sum(first.values()) == 4 and len(first) == 2
    slurm_run.check_each_once(9)


def test_srun_that_would_start_it_once_a_task(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks("touch ran")
    run.sbatch("-N 2 -n 4", "srun -n4 disbatch Tasks; echo $? > code")
    run.ended()
    assert (run.directory / "code").read_text() == "2\n", str(run)
    said = [line for line in run.stderr.splitlines() if not line.startswith(("srun:", "slurmstepd"))]
    assert len(set(said)) == 1, run.stderr  # each copy may say it
    assert said[0].startswith("disbatch: ") and "srun" in said[0], run.stderr
    assert not (run.directory / "ran").exists()
    assert not list(run.directory.glob("*_status.txt"))


def test_tasks_that_call_srun_themselves(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(
        "srun -N 2 -n 2 hostname > both 2> both-says",
        "srun -n 1 -N 1 hostname > one 2> one-says",
        "true",
    )
    run.sbatch("-N 2 -n 4", "disbatch Tasks")
    assert run.ended() == ("COMPLETED", 0), str(run)
    says = "".join(path.read_text() for path in run.directory.glob("*-says"))
    assert all(record.return_code == 0 for record in run.counting()), says
    assert len(set((run.directory / "both").read_text().split())) == 2, says
    assert len((run.directory / "one").read_text().split()) == 1, says


def test_without_slurm_nothing_of_it_is_needed(tmp_path: Path) -> None:
    """Neither its programs nor a job: the local machine."""
    (tmp_path / "bin").mkdir()
    for name in ("bash", "true"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    (tmp_path / "Tasks").write_text("true\ntrue\n")
    env = {"PATH": f"{tmp_path}/bin", "SLURM_CONF": "/nowhere"}
    done = command.disbatch(tmp_path, "Tasks", env=env)
    assert done.returncode == 0, done.stderr
    assert "Slurm" not in done.stderr and "SLURM" not in done.stderr
    assert len(command.tasks(command.status_file(tmp_path))) == 2


@pytest.mark.parametrize("environment", [{"SLURM_JOB_ID": "4711"}, {"SLURM_JOB_ID": "4711", "PATH": "/bin"}])
def test_half_of_a_job_in_the_environment(tmp_path: Path, environment: dict[str, str]) -> None:
    """As in a terminal multiplexer that was started in a job long ago."""
    (tmp_path / "Tasks").write_text("touch ran\n")
    done = command.disbatch(tmp_path, "Tasks", env=environment)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("disbatch: "), done.stderr
    assert "SLURM_JOB_ID" in done.stderr or "4711" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["Tasks"]


def test_a_job_that_is_over(slurm_run: SlurmRun) -> None:
    """All its variables are still there, but Slurm gives it nothing any more."""
    run = slurm_run
    run.tasks("touch ran")
    run.salloc("-N 2 -n 2", "env -0 > old")
    assert run.end() == 0
    old = (run.directory / "old").read_text().split("\0")
    run.environment = dict(item.split("=", 1) for item in old if item.startswith("SLURM"))
    done = run.call(str(BIN / "disbatch"), "Tasks")
    assert done.returncode in (2, 3), done.stderr
    assert run.environment["SLURM_JOB_ID"] in done.stderr and "Traceback" not in done.stderr
    assert not (run.directory / "ran").exists()
