"""The run's files are removed, renamed or replaced in mid-run, or their file system fails for a while: the
run goes on, and its record is whole and has a name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import DBUTIL, DEADLINE, DISBATCH, Running, environment, records, tasks, write

from disbatch import DisBatch

COUNT = 6
FAILING = """
import errno, os, sys

def failing(call):
    def checked(*arguments, **options):
        if os.access("broken", os.F_OK) and any(is_ours(argument) for argument in arguments):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return call(*arguments, **options)
    return checked

def is_ours(argument):
    try:
        name = os.readlink(f"/proc/self/fd/{argument}") if type(argument) is int else os.fsdecode(argument)
    except (OSError, TypeError):
        return False
    return "/disk/" in name

for name in ("stat", "lstat", "fstat", "open", "pwrite", "write", "fsync", "utime", "pread", "unlink"):
    setattr(os, name, failing(getattr(os, name)))
sys.argv = sys.argv[1:]
from disbatch.cli.entry import disbatch
sys.exit(disbatch())
"""
"""Runs a command on whose `disk` every call fails as long as there is a file `broken`."""


class Steps:
    """A run of COUNT tasks, one at a time, each of which waits until it may end."""

    def __init__(self, directory: Path, *options: str, wrapper: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.disk = directory / "disk"
        self.disk.mkdir()
        for number in range(COUNT):
            os.mkfifo(directory / f"go{number}")
        lines = [f"echo {n} >> ran; read x < go{n}; test $x = go" for n in range(COUNT)]
        write(directory / "Tasks", lines)
        self.run = Running(directory, "-s", "localhost:1", "-p", "disk/P", *options, "Tasks", wrapper=wrapper)
        self.status = self.disk / "P_status.txt"

    def step(self, number: int, word: str = "go") -> None:
        """Let that task end, once it runs; with another word it fails."""
        self.run.until(lambda: str(number) in self.ran, f"task {number}")
        (self.directory / f"go{number}").write_text(f"{word}\n")

    @property
    def ran(self) -> list[str]:
        path = self.directory / "ran"
        return path.read_text().split() if path.exists() else []

    def recorded(self, number: int, status: Path | None = None) -> None:
        """Wait until that task has its line."""
        path = status or self.status
        self.run.until(lambda: path.exists() and number in tasks(path), f"line {number}", self.disk)

    def finish(self, after: int, status: Path | None = None) -> str:
        """Let the others end, and see that the record is whole; what the run said."""
        for number in range(after, COUNT):
            self.step(number)
        assert self.run.ended() == 0, self.run.err
        path = status or self.status
        assert sorted(tasks(path)) == list(range(COUNT)) and len(records(path)) == COUNT
        assert self.ran == [str(number) for number in range(COUNT)]
        assert f"  status    {path}\n" in self.run.err
        assert "taken over" not in self.run.err and "another driver" not in self.run.err
        return self.run.err


def dbutil(directory: Path, *words: str) -> str:
    done = subprocess.run(
        words,
        cwd=directory,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=DEADLINE,
        text=True,
    )
    return done.stdout


def test_all_files_removed(tmp_path: Path) -> None:
    steps = Steps(tmp_path, "--keep-open", "--output", "out")
    with steps.run as run:
        steps.step(0)
        steps.recorded(0)
        dbutil(tmp_path, DBUTIL, "submit", "--run", "disk/P", "true")
        before = {path.name for path in steps.disk.iterdir()}
        assert {"P_connect.json", "P_run.json", "P_tasks.txt", "P_driver.txt", "P_dbUtil.sh"} < before
        kept = {path.name for path in steps.disk.glob("*_engine.txt")}
        for path in steps.disk.iterdir():
            path.unlink()
        run.until(lambda: {path.name for path in steps.disk.iterdir()} == before - kept, "files", steps.disk)
        dbutil(tmp_path, DBUTIL, "submit", "--run", "disk/P", "true")
        dbutil(tmp_path, "disk/P_dbUtil.sh", "close")
        for number in range(1, COUNT):
            steps.step(number)
        assert run.ended() == 0, run.err
        assert sorted(tasks(steps.status)) == list(range(COUNT + 2))
        assert "another driver" not in run.err and "written again" in run.err


def removed(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("mine"))


def replaced(path: Path) -> None:
    path.with_name("theirs").write_text("theirs\n")
    path.with_name("theirs").replace(path)


@pytest.mark.parametrize("how", [removed, renamed, replaced])
def test_status_file_that_lost_its_name(tmp_path: Path, how: Callable[[Path], None]) -> None:
    """Also a second time, and while nothing is written."""
    steps = Steps(tmp_path)
    with steps.run:
        steps.step(0)
        steps.recorded(0)
        how(steps.status)
        now = steps.disk / ("P-2_status.txt" if how is replaced else "P_status.txt")
        steps.recorded(0, now)
        now.unlink()
        steps.step(1)
        steps.recorded(1, now)
        said = steps.finish(2, now)
    if how is replaced:
        assert steps.status.read_text() == "theirs\n"
        assert f"{steps.status}: is another file now; the record of the run is {now}" in said
    assert f"{now}: removed while the run goes on; written again" in said


def search(address: str, query: str) -> list[list[Any]]:
    """What the page finds: a task each, its id first."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    opener.open(address, timeout=DEADLINE).close()
    with opener.open(f"{address.partition('?')[0]}search?q={query}", timeout=DEADLINE) as answer:
        found: list[list[Any]] = json.load(answer)["found"]
    return found


def test_record_is_found_under_its_new_name(tmp_path: Path) -> None:
    hook = 'echo "$DISBATCH_STATUS_FILE" >> told'
    steps = Steps(tmp_path, "--output", "out", "-w", "--on-failure", hook, "--on-finish", hook)
    now = steps.disk / "P-2_status.txt"
    with steps.run as run:
        steps.step(0)
        steps.recorded(0)
        replaced(steps.status)
        steps.recorded(0, now)
        steps.step(1, "wrong")
        steps.recorded(1, now)
        with DisBatch.connect(steps.disk / "P", tasks=False) as program:
            assert program.status_file == now
            address = program.web_address
        assert address is not None
        assert [id for id, *_ in search(address, "read")] == [1, 0]
        run.until((tmp_path / "told").exists, "the command at the first failure")
        steps.finish(2, now)
    assert (tmp_path / "told").read_text() == f"{now}\n" * 2
    shown = dbutil(tmp_path, DBUTIL, "status", "--run", "disk/P", "--json")
    assert json.loads(shown)["done"] == COUNT
    assert dbutil(tmp_path, DBUTIL, "cat", "--run", "disk/P", f"0-{COUNT - 1}") == ""
    assert f"{COUNT}: {COUNT - 1} succeeded, 1 failed" in dbutil(tmp_path, "disk/P_dbUtil.sh", "report")
    again = dbutil(
        tmp_path, DISBATCH, "-r", "disk/P-2_status.txt", "-p", "again", "-s", "localhost:1", "Tasks"
    )
    assert again == "" and steps.ran == [str(number) for number in range(COUNT)]


def test_status_file_that_somebody_wrote_over(tmp_path: Path) -> None:
    """Its tasks are not known any more: the run says so, and is not complete."""
    steps = Steps(tmp_path)
    now = steps.disk / "P-2_status.txt"
    with steps.run as run:
        steps.step(0)
        steps.recorded(0)
        run.until(lambda: "1" in steps.ran, "task 1")
        steps.status.write_text("theirs\n")
        run.until(now.exists, "another status file", steps.disk)
        for number in range(1, COUNT):
            steps.step(number)
        assert run.ended() == 3
        assert f"{steps.status}: it was overwritten" in run.err
        assert "a part of the record was written over" in run.err
        assert f" -r {now.relative_to(tmp_path)}" in run.err
    assert sorted(tasks(now)) == list(range(1, COUNT)) and steps.status.read_text() == "theirs\n"


def test_killed_and_taken_over_after_its_status_file_was_replaced(tmp_path: Path) -> None:
    steps = Steps(tmp_path)
    now = steps.disk / "P-2_status.txt"
    with steps.run as run:
        steps.step(0)
        steps.recorded(0)
        replaced(steps.status)
        steps.recorded(0, now)
        run.until_said(f"the record of the run is {now}")  # and so the run file says, too
        run.until(lambda: "1" in steps.ran, "task 1")
        run.signal(signal.SIGKILL)
        run.ended()
    with Running(tmp_path, "-r", "disk/P-2_status.txt", "Tasks") as again:
        assert again.ended() == 2
        assert "`disbatch --takeover disk/P`" in again.err
    with Running(tmp_path, "--takeover", "disk/P") as steps.run:
        steps.finish(1, now)
    assert steps.status.read_text() == "theirs\n"


def test_file_system_that_fails_for_a_while(tmp_path: Path) -> None:
    steps = Steps(tmp_path, wrapper=(sys.executable, "-c", FAILING))
    broken = tmp_path / "broken"
    with steps.run as run:
        steps.step(0)
        steps.recorded(0)
        broken.touch()
        run.until_said("Input/output error; no task starts until it can be written")
        steps.step(1)
        broken.unlink()
        run.until_said("the status file can be written again; going on")
        steps.finish(2)


def test_file_system_that_fails_at_the_end(tmp_path: Path) -> None:
    steps = Steps(tmp_path, wrapper=(sys.executable, "-c", FAILING))
    broken = tmp_path / "broken"
    with steps.run as run:
        for number in range(COUNT):
            if number == COUNT - 1:
                run.until(lambda: str(COUNT - 1) in steps.ran, "the last task")
                broken.touch()
            steps.step(number)
        run.until_said("Input/output error; no task starts until it can be written")
        assert run.process.poll() is None
        broken.unlink()
        steps.finish(COUNT)
