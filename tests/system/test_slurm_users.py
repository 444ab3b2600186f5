"""What users of the original do in Slurm jobs: salloc, a resume with a longer list, no tasks, --fail-fast."""

from __future__ import annotations

from slurm_run import SlurmRun


def test_a_list_that_grew_is_resumed(slurm_run: SlurmRun) -> None:
    run = slurm_run
    lines = [
        "#DISBATCH PREFIX ( ",
        "#DISBATCH SUFFIX  ) > ${DISBATCH_NAMETASKS}_${DISBATCH_JOBID}_${DISBATCH_TASKID_ZP}.log 2>&1",
        "echo first",
        "#DISBATCH REPEAT 3 start 10 step 5 echo repeated $DISBATCH_REPEAT_INDEX",
        "#DISBATCH BARRIER",
        "echo last",
    ]
    run.tasks(*lines)
    run.salloc("-n 2", "disBatch", "Tasks")
    assert run.end() == 0, str(run)
    former = run.status_file
    assert sorted(record.id for record in run.counting()) == [0, 1, 2, 3, 5]
    logs = sorted(path.read_text() for path in run.directory.glob("Tasks_*_0*.log"))
    assert logs == ["first\n", "last\n", "repeated 10\n", "repeated 15\n", "repeated 20\n"]

    run.tasks(*lines, "echo appended")
    run.salloc("-n 2", "disBatch", "Tasks", "-r", former.name)
    assert run.end() == 0, str(run)
    assert run.status_file != former
    assert [record.id for record in run.counting()] == [6]
    assert sorted(run.done()) == [0, 1, 2, 3, 5, 6]


def test_no_tasks(slurm_run: SlurmRun) -> None:
    slurm_run.tasks()
    slurm_run.salloc("-n 2", "disBatch", "Tasks")
    assert slurm_run.end() == 0, str(slurm_run)
    assert slurm_run.records() == []
    slurm_run.until_gone()


def test_fail_fast(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks("false", "#DISBATCH BARRIER", "touch ran")
    run.salloc("-n 2", "disBatch", "--fail-fast", "Tasks")
    assert run.end() == 1, str(run)
    assert not (run.directory / "ran").exists()
    assert [record.return_code for record in run.counting()] == [1]
    run.until_gone()


def test_exit_code(slurm_run: SlurmRun) -> None:
    slurm_run.tasks("true", "exit 3", "true")
    slurm_run.salloc("-n 2", "disBatch", "--exit-code", "Tasks")
    assert slurm_run.end() == 1, str(slurm_run)
    slurm_run.salloc("-n 2", "disBatch", "Tasks")
    assert slurm_run.end() == 0, str(slurm_run)
