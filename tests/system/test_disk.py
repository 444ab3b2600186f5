"""The file system of the status file fills up in mid-run: nothing is lost, and the run goes on with room."""

from __future__ import annotations

import os
import re
import shlex
import signal
from pathlib import Path

import pytest
from command import Running, disbatch, records, status_file, tasks, write
from small_disk import needs_root

from disbatch.model.statusline import Mark

MANY = 400
SMALL = "size=64k"
TAIL = "x" * 1000
"""Makes lines long, so that few of them fill the disk."""


class SmallDisk:
    """A run in a mount namespace of its own, where `disk` is a tmpfs of 64 KiB that holds the run's files.

    `look` is that directory as seen from here, through the root of the run's process.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        needs_root()
        self.disk = directory / "disk"
        self.disk.mkdir()
        os.mkfifo(directory / "go")
        lines = [f"echo {TAIL} > /dev/null; echo $DISBATCH_TASKID >> ran"] * MANY
        lines += ["#DISBATCH BARRIER", "test -e free || read x < go"]
        write(directory / "Tasks", lines)
        mount = f'mount -t tmpfs -o {SMALL} none disk && exec "$@"'
        # What a full disk would refuse to the logs and the script is not what this is about.
        wrapper = ["unshare", "-m", "sh", "-c", mount, "sh"]
        self.run = Running(
            directory, "-s", "localhost:2", "-p", "disk/run", "-l", "log", *options, "Tasks", wrapper=wrapper
        )

    @property
    def look(self) -> Path:
        return Path(f"/proc/{self.run.pid}/root{self.disk}")

    def make_room(self) -> None:
        descriptor = os.open(f"/proc/{self.run.pid}/ns/mnt", os.O_RDONLY)
        os.close(descriptor)
        command = [
            "nsenter",
            "-t",
            str(self.run.pid),
            "-m",
            "mount",
            "-o",
            "remount,size=16m",
            str(self.disk),
        ]
        assert os.spawnvp(os.P_WAIT, command[0], command) == 0


def ran(directory: Path) -> list[int]:
    path = directory / "ran"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def test_the_run_waits_for_room_and_completes(tmp_path: Path) -> None:
    small = SmallDisk(tmp_path)
    with small.run as run:
        run.until_said("No space left on device; no task starts until it can be written")
        assert len(ran(tmp_path)) < MANY
        small.make_room()
        run.until_said("the status file can be written again; going on")
        path = next(small.look.glob("*_status.txt"))
        run.until(lambda: len(path.read_bytes().splitlines()) == MANY + 1, "all lines", path.parent)
        kept = os.open(path, os.O_RDONLY)
        (tmp_path / "go").write_text("go\n")
        assert run.ended() == 0, run.err
        assert run.err.count("No space left") == 1, run.err
    (tmp_path / "copy_status.txt").write_bytes(os.pread(kept, 16 << 20, 0))
    os.close(kept)
    expected = [*range(MANY), MANY + 1]
    assert sorted(tasks(tmp_path / "copy_status.txt")) == expected
    assert len(records(tmp_path / "copy_status.txt")) == MANY + 2
    assert ran(tmp_path) == list(range(MANY))


@pytest.mark.parametrize("signals", [1, 2])
def test_interrupted_while_full_leaves_a_rescue_file(tmp_path: Path, signals: int) -> None:
    small = SmallDisk(tmp_path)
    with small.run as run:
        run.until_said("No space left on device")
        kept = os.open(next(small.look.glob("*_status.txt")), os.O_RDONLY)
        run.signal(signal.SIGINT)
        if signals == 2:
            run.until_said("ending the running tasks")
            run.signal(signal.SIGINT)
        assert run.ended() == 130
        err = run.err
    before = ran(tmp_path)
    path = tmp_path / "disk" / "run_status.txt"  # the name that the hint has, outside of the namespace
    path.write_bytes(os.pread(kept, 16 << 20, 0))
    os.close(kept)
    (resume,) = re.findall(r"^ *resume +(.*)$", err, re.M)
    command, *arguments = shlex.split(resume)
    assert command == "disbatch" and arguments.count("-r") == 2
    rest = Path(arguments[-1])
    (tmp_path / "free").touch()
    try:
        found = set(tasks_of(path)) | set(tasks(rest))
        # A task may be told to end between its last deed and its end: it does not count, and runs again.
        told = {record.id for record in records(rest) if record.mark is Mark.SUPERSEDED} - found
        assert found <= set(before) <= found | told, "a task that ended is in neither file"
        done = disbatch(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    finally:
        rest.unlink()
    again = told & set(before)
    assert ran(tmp_path) == sorted([*range(MANY), *again])
    new = status_file(tmp_path / "disk", "run-2_status.txt")
    assert sorted(tasks(new)) == [*range(MANY), MANY + 1]


def tasks_of(path: Path) -> list[int]:
    """The ids in a file whose last line may be torn, as a full disk leaves it."""
    whole = path.with_name("whole")
    whole.write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    found = sorted(tasks(whole))
    whole.unlink()
    return found


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-l", "/dev/full", "Tasks")
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if line.startswith("disbatch: ")]
    assert "/dev/full: the log cannot be written (No space left on device)" in said[0]
    assert len(said) == 2 and "Traceback" not in done.stderr
