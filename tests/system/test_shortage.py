"""A node that runs out of descriptors keeps its tasks waiting; none of them fails for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import DBUTIL, DISBATCH, call

from disbatch.model.statusline import parse_line


def test_tasks_wait_for_descriptors(tmp_path: Path) -> None:
    (tmp_path / "Tasks").write_text("sleep 0.2\n" * 60)
    done = call(["/bin/bash", "-c", 'ulimit -n 64; exec "$0" -s localhost:40 Tasks', DISBATCH], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no room for another task" in done.stderr
    (status,) = tmp_path.glob("*_status.txt")
    records = [parse_line(line) for line in status.read_bytes().splitlines()]
    assert sorted(record.id for record in records if record) == list(range(60))
    assert {record.return_code for record in records if record} == {0}


@pytest.mark.parametrize("files", [12, 20])
def test_a_limit_under_which_nothing_can_run_is_named(tmp_path: Path, files: int) -> None:
    (tmp_path / "Tasks").write_text("true\n")
    done = call(["/bin/bash", "-c", f'ulimit -n {files}; exec "$0" -s localhost:1 Tasks', DISBATCH], tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"disbatch: ulimit -n {files}: disbatch needs at least 32 open files\n"
    assert [path.name for path in tmp_path.iterdir()] == ["Tasks"]


@pytest.mark.parametrize("kilobytes", [20_000, 60_000])
@pytest.mark.parametrize("program", [DISBATCH, DBUTIL])
def test_too_little_address_space(tmp_path: Path, program: str, kilobytes: int) -> None:
    """A library would abort, or Python end with a traceback."""
    (tmp_path / "Tasks").write_text("touch ran\n")
    words = "-s localhost:1 Tasks" if program == DISBATCH else "status"
    done = call(["bash", "-c", f"ulimit -v {kilobytes}; exec {program} {words}"], tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert f"ulimit -v {kilobytes}: " in done.stderr
    assert os.listdir(tmp_path) == ["Tasks"]
