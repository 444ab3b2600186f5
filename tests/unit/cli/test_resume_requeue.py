"""Which files a restarted job goes on from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from disbatch.cli.resume import former_life
from disbatch.contexts.discovery import restarted_by
from disbatch.rundir.lock import hold


@pytest.mark.parametrize(
    ("environ", "scheduler"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "7"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}, ""),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, "Slurm"),
        ({"SLURM_RESTART_COUNT": "2"}, ""),
    ],
)
def test_restarted(environ: dict[str, str], scheduler: str) -> None:
    assert restarted_by(environ) == scheduler


def test_files_of_the_former_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert former_life(None, "Tasks", "7", []) == []
    # Number 3 was another run's, whose tasks had another name.
    names = [f"Tasks_7{suffix}_status.txt" for suffix in ("", "-2", "-4", "-10")]
    others = ["Tasks_8_status.txt", "Other_7-3_status.txt", "Tasks_7-x_status.txt", "myTasks_7_status.txt"]
    for name in names + others:
        Path(name).touch()
    assert former_life(None, "Tasks", "7", []) == names
    assert former_life(None, "Tasks", "7", [f"./{names[0]}", "missing"]) == names[1:]
    Path("else").mkdir()
    assert former_life("else/", "Tasks", "7", []) == []


def test_a_file_that_is_being_written_is_of_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("Tasks_7_status.txt")
    path.touch()
    writer = os.open(path, os.O_WRONLY)
    hold(writer)
    assert former_life(None, "Tasks", "7", []) == []
    os.close(writer)
    assert former_life(None, "Tasks", "7", []) == [path.name]
