"""Signals end a run in order: what runs is ended and flagged, nothing is left behind, the rest can follow."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import (
    DISBATCH,
    Running,
    disbatch,
    environment,
    gone,
    processes,
    records,
    status_file,
    tasks,
    until,
    write,
)

from deadline import DEADLINE
from disbatch.model.statusline import Mark

STUBBORN = "trap '' TERM INT HUP; touch up.$DISBATCH_TASKID; while :; do sleep 600; done"
HEEDFUL = "trap 'echo $DISBATCH_TASKID >> told; exit 7' TERM; touch up.$DISBATCH_TASKID; sleep 600 & wait"


def mark_of_this(directory: Path) -> dict[str, str]:
    """An environment by which the processes of this test are found."""
    return {"INTERRUPT_TEST": directory.name + directory.parent.name}


def left_behind(directory: Path) -> list[int]:
    return processes("INTERRUPT_TEST=" + mark_of_this(directory)["INTERRUPT_TEST"])


def interrupted(
    directory: Path, lines: Sequence[str], options: Sequence[str], signals: Sequence[signal.Signals], up: int
) -> tuple[int, str]:
    """Run, send the signals when the tasks up to `up` run; the exit code and stderr."""
    write(directory / "Tasks", lines)
    with Running(directory, *options, "Tasks", env=mark_of_this(directory)) as run:
        for id in range(up):
            run.until((directory / f"up.{id}").exists, f"task {id}")
        for number, each in enumerate(signals, 1):
            run.signal(each)
            if number < len(signals):
                run.until_said("ending the running tasks")
        code = run.ended()
        err = run.err
    assert left_behind(directory) == []
    assert "Traceback" not in err
    assert not list(directory.glob("*_connect.json"))
    return code, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_then_resume_runs_exactly_the_rest(tmp_path: Path, number: signal.Signals) -> None:
    once = "echo $DISBATCH_TASKID >> ran; test -e again && exit; " + HEEDFUL
    lines = ["echo 0 >> ran; exit 3", once, once, "echo 3 >> ran", "echo 4 >> ran"]
    # Task 0 has ended when 1 and 2 run in the two slots.
    write(tmp_path / "Tasks", lines)
    with Running(tmp_path, "-s", "localhost:2", "Tasks") as run:
        for id in (1, 2):
            run.until((tmp_path / f"up.{id}").exists, f"task {id}")
        run.signal(number)
        assert run.ended() == 128 + number
        err = run.err
    assert f"{number.name}: ending the running tasks" in err
    path = status_file(tmp_path)
    assert [(r.id, r.mark) for r in sorted(records(path), key=lambda r: r.id)] == [
        (0, Mark.TASK),
        (1, Mark.SUPERSEDED),
        (2, Mark.SUPERSEDED),
    ]
    assert sorted((tmp_path / "told").read_text().split()) == ["1", "2"]
    (resume,) = re.findall(r"^ *resume +(.*)$", err, re.M)
    (tmp_path / "again").touch()
    command, *arguments = shlex.split(resume)
    assert command == "disbatch" and arguments == ["-s", "localhost:2", "Tasks", "-r", path.name]
    done = disbatch(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    assert "1 done before" in done.stderr
    (new,) = set(tmp_path.glob("*_status.txt")) - {path}
    assert {id: record.return_code for id, record in tasks(new).items()} == {0: 3, 1: 0, 2: 0, 3: 0, 4: 0}
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "1", "2", "2", "3", "4"]


def test_tasks_that_do_not_heed_are_killed_after_the_grace(tmp_path: Path) -> None:
    options = ["-s", "localhost:2", "--grace", "0.1"]
    code, _ = interrupted(tmp_path, [STUBBORN, STUBBORN, "touch never"], options, [signal.SIGINT], 2)
    assert code == 130
    lines = records(status_file(tmp_path))
    assert [(r.mark, r.return_code) for r in lines] == [(Mark.SUPERSEDED, -9)] * 2
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_twice_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    options = ["-s", "localhost:2", "--grace", "1000"]
    code, err = interrupted(tmp_path, [STUBBORN, HEEDFUL], options, [signal.SIGINT, second], 2)
    assert code == 130
    assert "ending everything at once" in err and "resume" in err
    assert {r.mark for r in records(status_file(tmp_path))} <= {Mark.SUPERSEDED}


def test_a_closed_terminal_that_says_so_twice_leaves_the_grace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    write(tmp_path / "Tasks", ["trap 'read x < go; exit' TERM; touch up.0; sleep 600 & wait"])
    options = ["-s", "localhost:1", "--grace", "1000"]
    with Running(tmp_path, *options, "Tasks", env=mark_of_this(tmp_path)) as run:
        run.until((tmp_path / "up.0").exists, "the task")
        for _ in range(2):
            run.signal(signal.SIGHUP)
            run.until_said("ending the running tasks")
        os.write(go, b"go\n")
        assert run.ended() == 129
        os.close(go)
        assert "everything at once" not in run.err
    assert [(r.mark, r.return_code) for r in records(status_file(tmp_path))] == [(Mark.SUPERSEDED, 0)]


def test_before_anything_runs(tmp_path: Path) -> None:
    """The signal may come while the command is still starting."""
    write(tmp_path / "Tasks", ["sleep 600"])
    for _ in range(3):
        with Running(tmp_path, "-s", "localhost:1", "Tasks", env=mark_of_this(tmp_path)) as run:
            run.signal(signal.SIGTERM)
            assert run.ended() in (143, -signal.SIGTERM)
            assert "Traceback" not in run.err
        gone(lambda: left_behind(tmp_path), "the engine to be gone")


def test_signals_that_are_ignored_stay_ignored(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(tmp_path / "Tasks", ["touch up; read x < go; exit 3"])
    with Running(tmp_path, "-s", "localhost:1", "Tasks", wrapper=["nohup"]) as run:
        run.until((tmp_path / "up").exists, "the task")
        run.signal(signal.SIGHUP)
        (tmp_path / "go").write_text("go\n")
        assert run.ended() == 0
        assert "SIGHUP" not in run.err
    assert tasks(status_file(tmp_path))[0].return_code == 3


def test_ctrl_c_at_a_terminal(tmp_path: Path) -> None:
    """The terminal signals the whole foreground group; only the driver may take it as meant for it."""
    task = "trap 'echo int >> got' INT; trap 'echo term >> got; exit' TERM; touch up; sleep 600 & wait; wait"
    write(tmp_path / "Tasks", [task])
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, sys, fcntl, termios; os.setsid(); "
         "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])",
         DISBATCH, "-s", "localhost:1", "Tasks"],
        cwd=tmp_path, stdin=slave, stdout=slave, stderr=slave, env=environment(mark_of_this(tmp_path)),
    )  # fmt: skip
    os.close(slave)
    said = b""
    try:
        until((tmp_path / "up").exists, "the task", tmp_path)
        os.write(master, b"\x03")
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            said += data
        assert process.wait(DEADLINE) == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert (tmp_path / "got").read_text() == "term\n"
    assert said.count(b"SIGINT: ending the running tasks") == 1 and b"at once" in said
    assert b"resume" in said and b"Traceback" not in said
    assert [record.mark for record in records(status_file(tmp_path))] == [Mark.SUPERSEDED]
    assert left_behind(tmp_path) == []
    assert b"lost" not in said


@pytest.mark.parametrize("leads", [True, False])
def test_terminal_goes_away(tmp_path: Path, leads: bool) -> None:
    """A closed window is a SIGHUP for the run that it belongs to, and nothing to one that was disowned."""
    write(tmp_path / "Tasks", ["touch up; until test -e go; do sleep 0.01; done", "echo last"])
    take = "fcntl.ioctl(2, termios.TIOCSCTTY, 0); " if leads else ""
    script = f"import os, sys, fcntl, termios; os.setsid(); {take}os.execv(sys.argv[1], sys.argv[1:])"
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, DISBATCH, "-s", "localhost:1", "Tasks"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
        env=environment({**mark_of_this(tmp_path), "TERM": "xterm"}),
    )  # fmt: skip
    os.close(slave)
    try:
        drawn = b""
        while b"1 running" not in drawn:
            drawn += os.read(master, 4096)
        os.close(master)
        if not leads:
            (tmp_path / "go").touch()
        assert process.wait(DEADLINE) == (128 + signal.SIGHUP if leads else 0)
    finally:
        process.kill()
        process.wait()
    marks = [record.mark for record in records(status_file(tmp_path))]
    assert marks == ([Mark.SUPERSEDED] if leads else [Mark.TASK] * 2)
    assert left_behind(tmp_path) == []
    assert "Traceback" not in (tmp_path / next(tmp_path.glob("*_driver.txt"))).read_text()


def test_twice_does_not_wait_for_the_retire_command(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["true"])
    command = "touch retiring; sleep 1000; true"
    with Running(tmp_path, "-s", "localhost:1", "-k", command, "Tasks", env=mark_of_this(tmp_path)) as run:
        run.until((tmp_path / "retiring").exists, "the retire command")
        run.signal(signal.SIGTERM)
        run.until_said("once more to end at once")
        run.signal(signal.SIGTERM)
        assert run.ended() == 0
    gone(lambda: left_behind(tmp_path), "the retire command to be gone")


def test_killed_driver_leaves_nothing_running(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [STUBBORN])
    options = ("-s", "localhost:1", "--grace", "0.1", "--orphan-patience", "1")
    with Running(tmp_path, *options, "Tasks", env=mark_of_this(tmp_path)) as run:
        run.until((tmp_path / "up.0").exists, "the task")
        run.signal(signal.SIGKILL)
        run.ended()
    gone(lambda: left_behind(tmp_path), "engine and tasks to be gone")


INTERRUPTED_AT = """
import os, signal, sys
class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupter())
from disbatch.cli import entry
sys.exit(getattr(entry, sys.argv[1])())
"""


@pytest.mark.parametrize(("command", "module"), [("disbatch", "argparse"), ("dbutil", "disbatch.cli.report")])
def test_at_the_very_beginning(command: str, module: str) -> None:
    """Nobody is there yet to say anything; Python must not either."""
    argv = [sys.executable, "-c", INTERRUPTED_AT, command, module]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ignored_from_the_beginning() -> None:
    """As behind nohup, or in the background of a script."""
    script = "trap '' INT; exec \"$@\""
    argv = ["sh", "-c", script, "sh", sys.executable, "-c", INTERRUPTED_AT, "dbutil", "disbatch.cli.report"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dbutil: ") and done.stderr.count("\n") == 1
