"""rundir/lock.py: who writes a status file now."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from disbatch.model.errors import ResumeError
from disbatch.rundir.lock import hold, is_held
from disbatch.rundir.resume import Former


def test_held_as_long_as_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "T_status.txt"
    writer = os.open(path, os.O_RDWR | os.O_CREAT)
    reader = os.open(path, os.O_RDONLY)
    assert not is_held(reader)
    hold(writer)
    assert is_held(reader)
    os.close(writer)
    assert not is_held(reader)
    os.close(reader)


def test_nobody_resumes_from_a_run_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "T_status.txt"
    writer = os.open(path, os.O_RDWR | os.O_CREAT)
    hold(writer)
    with pytest.raises(ResumeError, match="still writing it"):
        Former.read([str(path)], source="Tasks")
    os.close(writer)
    assert Former.read([str(path)], source="Tasks").count == 0
