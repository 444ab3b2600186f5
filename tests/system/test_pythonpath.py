"""Runs with a PYTHONPATH that is meant for the programs of tasks, and would break ours."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from command import DBUTIL, Running, status_file, tasks, write
from ssh_run import Run

DEPENDENCIES = ["msgspec", "rich", "starlette", "textual", "typing_extensions", "uvicorn", "valkey", "zmq"]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory with a wrong module for each one that we may import, be it of Python or not, and a package
    that is called like ours. Without the codecs and `__future__` no Python starts, and no module of ours."""
    directory = tmp_path / "theirs"
    directory.mkdir()
    library = {name for name in sys.stdlib_module_names if importlib.util.find_spec(name) is not None}
    for name in (library | {*DEPENDENCIES, "disbatch"}) - {"__future__", "encodings"}:
        (directory / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    return directory


@pytest.mark.parametrize("end", ["", ":"], ids=["", "and the working directory"])
def test_all_our_processes_import_our_own(theirs: Path, tmp_path: Path, end: str) -> None:
    pythonpath = f"{theirs}{end}"
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')\n")
    write(
        tmp_path / "Tasks",
        ["echo $PYTHONPATH > found", f"{DBUTIL} put key value", "./*_dbUtil.sh view key > put"],
    )
    options = ["-s", "localhost:1", "-w", "--use-address", "127.0.0.1:0"]
    with Running(tmp_path, *options, "Tasks", env={"PYTHONPATH": pythonpath}) as run:
        assert run.ended() == 0
        assert "web page: http" in run.err
        assert "web page: ended" not in run.err and "wrong" not in run.err
        assert "serves our port" not in run.err
    assert [record.return_code for record in tasks(status_file(tmp_path)).values()] == [0, 0, 0]
    assert (tmp_path / "found").read_text() == f"{pythonpath}\n"
    assert (tmp_path / "put").read_text() == "value\n"


def test_on_other_hosts(ssh_run: Run, theirs: Path) -> None:
    """There it may be set by what the login shell reads; and Python itself runs what it finds there."""
    (theirs / "disbatch.py").unlink()
    (theirs / "sitecustomize.py").write_text("print('welcome')\n")
    python = ssh_run.directory / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={theirs}; export PYTHONPATH; exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    ssh_run.tasks("echo $PYTHONPATH > found")
    ssh_run.start("-s", "nodeA:1", "--ssh-python", str(python), "Tasks")
    assert ssh_run.end() == 0, str(ssh_run)
    assert (ssh_run.directory / "found").read_text() == f"{theirs}\n"


def test_an_installation_that_pythonpath_names(theirs: Path, tmp_path: Path) -> None:
    """As module systems install it; there is no need to be first among the others."""
    import shutil

    import disbatch

    (tmp_path / "module").mkdir()
    shutil.copytree(Path(disbatch.__file__).parent, tmp_path / "module" / "disbatch")
    write(tmp_path / "Tasks", ["true"])
    with Running(
        tmp_path, "-s", "localhost:1", "Tasks", env={"PYTHONPATH": f"{theirs}:{tmp_path}/module"}
    ) as run:
        assert run.ended() == 0
    script = next(tmp_path.glob("*_dbUtil.sh"))
    assert f"{tmp_path}/module" in script.read_text()
    done = subprocess.run([script, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("dbutil ")
