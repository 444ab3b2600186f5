"""A directory that others can write: links, named pipes and files of other users under the names that a run's
files have are neither written to, waited for, nor believed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import DBUTIL, DEADLINE, Running, disbatch, environment, records, tasks, write

NOBODY = 65534
VERBS = (
    *("submit true", "status", "finish", "close", "put k v", "get k", "drain n", "cancel 0"),
    *("attach -s localhost:1", "pause", "resume", "stop n", "view k"),
)


def needs_root() -> None:
    if os.geteuid() and os.environ.get("CI") == "true":
        pytest.fail("cannot give a file to another user: not root")
    if os.geteuid():
        pytest.skip("cannot give a file to another user: not root")


def dbutil(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DBUTIL, *words], cwd=directory, env=environment(), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip


def link(path: Path) -> None:
    path.symlink_to("victim")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def theirs(path: Path) -> None:
    needs_root()
    path.write_text("theirs\n")
    os.chown(path, NOBODY, -1)


@pytest.mark.parametrize("how", [link, pipe, theirs])
def test_name_of_an_engines_log(tmp_path: Path, how: Callable[[Path], None]) -> None:
    victim, log = tmp_path / "victim", tmp_path / "P_local_engine.txt"
    victim.write_text("mine\n")
    write(tmp_path / "Tasks", ["echo ran >> ran"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "Q", "Tasks")
    (found,) = tmp_path.glob("Q_*_engine.txt")
    log = tmp_path / found.name.replace("Q_", "P_", 1)
    how(log)
    before = log.lstat()
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks")
    assert done.returncode == 0 and list(tasks(tmp_path / "P_status.txt")) == [0], done.stderr
    (said,) = [line for line in done.stderr.splitlines() if f"the log {log} cannot be written" in line]
    Path(said.rpartition("it is in ")[2].removesuffix(" instead")).unlink()
    assert victim.read_text() == "mine\n"
    after = log.lstat()
    assert (before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    )


def test_unrecorded_results_of_another_user(tmp_path: Path) -> None:
    needs_root()
    write(tmp_path / "Tasks", ["echo 0 >> ran", "echo 1 >> ran"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks")
    assert done.returncode == 0, done.stderr
    status = tmp_path / "P_status.txt"
    first, second = status.read_bytes().splitlines(keepends=True)
    status.write_bytes(first)
    beside = tmp_path / "P_n_unrecorded.txt"
    beside.write_bytes(second)
    os.chown(beside, NOBODY, -1)
    (tmp_path / "ran").unlink()
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "R", "Tasks", "-r", "P_status.txt")
    assert done.returncode == 0, done.stderr
    assert f"{beside.name}: does not belong to you: ignored" in done.stderr
    assert (tmp_path / "ran").read_text() == "1\n"
    assert len(records(tmp_path / "R_status.txt")) == 2


def test_run_of_another_user_is_not_picked(tmp_path: Path) -> None:
    """By any verb that does not name it; whoever names it asks it."""
    needs_root()
    shared = tmp_path / "shared"
    shared.mkdir()
    write(shared / "Tasks", ["touch up; read x < go"])
    os.mkfifo(shared / "go")
    with Running(shared, "-s", "localhost:1", "-p", "P", "--keep-open", "--output", "out", "Tasks") as run:
        run.until((shared / "up").exists, "the task")
        for name in ("P_connect.json", "P_output.json", "P_status.txt"):
            os.chown(shared / name, NOBODY, -1)
        for verb in VERBS:
            words = verb.split()
            done = dbutil(shared, *words)
            assert done.returncode == 2, words
            assert "no run of yours is live in this directory: name one with --run PREFIX" in done.stderr
        done = dbutil(shared, "cat", "0")
        assert (done.returncode, "no run in this directory keeps output" in done.stderr) == (2, True)
        python = (
            "import disbatch\ntry: disbatch.DisBatch.connect()\nexcept disbatch.UsageError as e: print(e)"
        )
        argv = [str(Path(DBUTIL).with_name("python")), "-c", python]
        said = subprocess.run(argv, cwd=shared, env=environment(), capture_output=True, text=True, check=True)
        assert "no run of yours is live" in said.stdout
        assert "tasks" in dbutil(shared, "status", "--run", "P").stdout
        os.chown(shared / "P_status.txt", 0, -1)
        done = dbutil(shared, "submit", "--run", "P", "touch handed")
        assert (done.returncode, "P_connect.json: belongs to another user" in done.stderr) == (2, True)
        os.chown(shared / "P_connect.json", 0, -1)
        assert dbutil(shared, "close").returncode == 0
        (shared / "go").write_text("go\n")
        assert run.ended() == 0, run.err
    assert not (shared / "handed").exists()


def test_run_file_and_status_file_of_another_user_are_not_taken_over(tmp_path: Path) -> None:
    needs_root()
    write(tmp_path / "Tasks", ["touch up; read x < go"])
    os.mkfifo(tmp_path / "go")
    with Running(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks") as run:
        run.until((tmp_path / "up").exists, "the task")
        run.process.kill()
        run.ended()
    for name in ("P_connect.json", "P_run.json", "P_status.txt"):
        os.chown(tmp_path / name, NOBODY, -1)
        done = disbatch(tmp_path, "--takeover", "P")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert f"{name}: " in done.stderr and "belongs to another user" in done.stderr
        os.chown(tmp_path / name, 0, -1)
    with Running(tmp_path, "--takeover", "P") as run:
        run.until_said("all engines are there")
        (tmp_path / "go").write_text("go\n")
        assert run.ended() == 0, run.err


def test_output_directory_that_leads_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "out" / "000").symlink_to("../victim")
    write(tmp_path / "Tasks", ["echo printed"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "--output", "out", "Tasks")
    assert done.returncode == 0, done.stderr
    assert "is no directory" in done.stderr and list((tmp_path / "victim").iterdir()) == []
    shutil.rmtree(tmp_path / "out")
