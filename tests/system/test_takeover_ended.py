"""Runs whose driver was killed, and that are then ended: by a signal to the driver that takes them over, or
by `dbutil finish`. What has ended is recorded first."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from command import (
    DBUTIL,
    Running,
    call,
    disbatch,
    gone,
    processes,
    records,
    tasks,
    until,
    write,
)
from held_run import Held

from disbatch.model.statusline import Mark
from disbatch.wire.connect import ConnectFile


def finish(held: Held, *words: str) -> subprocess.CompletedProcess[str]:
    """`dbutil finish` to its end."""
    return call([DBUTIL, "finish", *words], held.directory, held.mark)


def kill_everything(held: Held) -> None:
    for pid in processes(str(held.directory)):
        with contextlib.suppress(ProcessLookupError):  # its keeper may have ended it
            os.kill(pid, signal.SIGKILL)
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def ended_while_no_driver_was_there(held: Held) -> None:
    """Task 0 is recorded, 1 ends when no driver is there, 2 runs, and 3 waits for a slot."""
    held.task()
    for number in (1, 2, 3):
        held.task(number)
    held.lines[1] = f"trap 'echo 1 0 >> over' EXIT; {held.lines[1]}"
    with held.beginning("-s", "localhost:2", "--grace", "0.2") as run:
        held.until_ran(0, 1, 2)
        held.until_recorded(1)
        held.kill(run)
    held.let_go(1)
    until((held.directory / "over").exists, "the end of task 1", held.directory)


def check_record(held: Held, said: str) -> None:
    """What had ended is recorded, and told; what ran was ended; and -r does the rest, nothing twice."""
    assert "2 succeeded, 2 not done" in said, said
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1]
    assert not list(held.directory.glob("*_unrecorded.txt"))
    gone(lambda: processes(str(held.directory)), "the end of all processes")
    for name in ("connect", "run"):
        assert not (held.directory / f"P_{name}.json").exists()
    held.let_go(2)
    held.let_go(3)
    resumed = disbatch(held.directory, "-s", "localhost:2", "-r", "P_status.txt", "Tasks", env=held.mark)
    assert resumed.returncode == 0 and "2 done before" in resumed.stderr
    assert {id: count for id, count in held.ran().items() if id in (0, 1)} == {0: 1, 1: 1}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_takeover_is_ended_before_it_has_heard_the_engines(held: Held, number: signal.Signals) -> None:
    ended_while_no_driver_was_there(held)
    with held.taking_over() as run:
        run.until_said("expecting the engines")
        run.signal(number)
        assert run.ended() == 128 + number, run.err
    check_record(held, run.err)


def test_finish_without_a_driver(held: Held) -> None:
    ended_while_no_driver_was_there(held)
    refused = disbatch(held.directory, "-r", "P_status.txt", "Tasks")
    assert refused.returncode == 2 and "`dbutil finish --run P` ends it" in refused.stderr
    done = finish(held, "--run", "P")
    assert done.returncode == 0, done.stderr
    check_record(held, done.stderr)
    again = finish(held, "--run", "P")
    assert again.returncode == 2 and "this run is over" in again.stderr


def test_finish_when_nothing_is_left(held: Held) -> None:
    """As after a restart of the computer: nobody is waited for."""
    ended_while_no_driver_was_there(held)
    kill_everything(held)
    done = finish(held)
    assert done.returncode == 0, done.stderr
    assert "not heard" not in done.stderr and "1 succeeded, 3 not done" in done.stderr
    assert not (held.directory / "P_connect.json").exists()
    assert not (held.directory / "P_run.json").exists()


@pytest.mark.parametrize("way", ["finish", "signal"])
def test_an_engine_that_is_not_heard(held: Held, way: str) -> None:
    """It is stopped: the run stays as it was, and can be finished when it goes on."""
    ended_while_no_driver_was_there(held)
    log = (held.directory / f"P_{os.uname().nodename}_engine.txt").read_text()
    engine = int(log.partition(" pid ")[2].partition(",")[0])
    os.kill(engine, signal.SIGSTOP)
    try:
        if way == "finish":
            done = finish(held)
            assert done.returncode == 3, done.stderr
            said = done.stderr
        else:
            with held.taking_over() as run:
                run.until_said("expecting the engines")
                run.signal(signal.SIGTERM)
                run.until_said("SIGTERM: ending the running tasks")
                run.signal(signal.SIGTERM)
                assert run.ended() == 128 + signal.SIGTERM
            said = run.err
        assert "the run is left as it was" in said and "1 succeeded, 3 not done" in said
        assert (held.directory / "P_connect.json").exists() and (held.directory / "P_run.json").exists()
        assert disbatch(held.directory, "-r", "P_status.txt", "Tasks").returncode == 2
    finally:
        os.kill(engine, signal.SIGCONT)
    done = finish(held)
    assert done.returncode == 0, done.stderr
    check_record(held, done.stderr)


def test_finish_what_came_from_a_stream(held: Held) -> None:
    """The tasks cannot be read again: their results are in a file for -r."""
    held.task(0)
    held.task()
    lines = write(held.directory / "lines", held.lines)
    with lines.open("rb") as stream:
        cat = subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE)
    argv = ("-s", "localhost:1", "-p", "P", "-")
    with Running(held.directory, *argv, stdin=cat.stdout, env=held.mark) as run:
        held.until_ran(0)
        held.kill(run)
    cat.wait()
    held.let_go(0)
    done = finish(held)
    assert done.returncode == 0, done.stderr
    assert records(held.directory / "P_status.txt") == []
    gone(lambda: processes(str(held.directory)), "the end of all processes")
    resumed = disbatch(held.directory, "-s", "localhost:1", "-r", "P_status.txt", "lines", env=held.mark)
    assert resumed.returncode == 0, resumed.stderr
    assert held.ran()[1] <= 2 and Mark.TASK in {
        record.mark for record in records(next(held.directory.glob("lines_*_status.txt")))
    }


def test_per_engine_commands_of_an_ended_takeover(held: Held) -> None:
    """Those that end an engine run, and those that begin it do not run again."""
    held.lines += [f"#DISBATCH PERENGINE {phase} echo {phase} >> engine" for phase in ("START", "STOP")]
    held.task(0)
    held.begin_and_kill(0)
    done = finish(held)
    assert done.returncode == 0, done.stderr
    assert (held.directory / "engine").read_text().split() == ["START", "STOP"]
    assert held.ran() == Counter([0])


def test_what_a_killed_driver_left_goes_with_the_run_that_resumes(held: Held) -> None:
    """All of its processes were killed, so -r begins at once."""
    held.task(0)
    held.begin_and_kill(0)
    (socket, *_) = ConnectFile.read(held.directory / "P_connect.json").addresses
    folder = Path(socket.removeprefix("ipc://")).parent
    assert folder.is_dir()
    kill_everything(held)
    held.let_go(0)
    resumed = disbatch(held.directory, "-s", "localhost:1", "-r", "P_status.txt", "Tasks", env=held.mark)
    assert resumed.returncode == 0, resumed.stderr
    assert not folder.exists()
    for name in ("connect.json", "run.json", "kvsinfo.txt"):
        assert not (held.directory / f"P_{name}").exists(), name
    assert (held.directory / "P_status.txt").exists()


@pytest.mark.parametrize("option", ["--taskcommand", "--on-failure"])
def test_commands_end_with_a_killed_driver(held: Held, option: str) -> None:
    command = "sleep 1000 & echo $! > began; wait"
    held.task(0)
    held.lines.append("false")
    write(held.directory / "Tasks", held.lines)
    words = (option, command) if option == "--taskcommand" else (option, command, "Tasks")
    with Running(held.directory, "-s", "localhost:2", "-p", "P", *words, env=held.mark) as run:
        began = held.directory / "began"
        run.until(lambda: began.exists() and began.read_text().endswith("\n"), "the command")
        pidfd = os.pidfd_open(int(began.read_text()))
        held.kill(run)
    assert select.select([pidfd], [], [], 30)[0], "it goes on"
    os.close(pidfd)
    kill_everything(held)
