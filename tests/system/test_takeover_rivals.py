"""Who may take a run over, and when: one at a time, from a driver that is dead; and what becomes of one that
was only taken for dead."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command import DEADLINE, Running, disbatch, gone, processes, records, write
from held_run import Held

from disbatch.model.statusline import Mark
from disbatch.wire.connect import ConnectFile

NO_LOCKS = """
import fcntl, sys

def flock(descriptor, operation):
    raise OSError(38, "Function not implemented")

fcntl.flock = flock
sys.argv = sys.argv[1:]
from disbatch.cli.entry import disbatch
sys.exit(disbatch())
"""
"""Runs a command as on a file system without locks."""


def elsewhere(directory: Path) -> None:
    """Let the connect file tell of a driver on another host."""
    path = directory / "P_connect.json"
    path.write_text(path.read_text().replace(f'"host": "{os.uname().nodename}"', '"host": "elsewhere"'))


def refused(held: Held, *options: str) -> str:
    """The one line why the run cannot be taken over."""
    done = disbatch(held.directory, "--takeover", "P", *options, env=held.mark)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


def test_driver_that_is_stopped(held: Held) -> None:
    held.task(0)
    with held.beginning("-s", "localhost:1") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        stop(run)
        for options in ((), ("--force",)):
            said = refused(held, *options)
            assert f"but stopped: `kill -CONT {run.pid}` continues it" in said
        elsewhere(held.directory)
        assert "a driver has this run: P_status.txt is locked" in refused(held, "--force")
        run.signal(signal.SIGCONT)
        held.let_go(0)
        assert run.ended() == 0, run.err
    held.check(1)


def stop(run: Running) -> None:
    """Stop the driver, and wait until it has."""
    run.signal(signal.SIGSTOP)
    os.waitid(os.P_PID, run.pid, os.WSTOPPED)


def losers(rivals: list[Running]) -> list[Running]:
    """All but one, when they have ended."""
    pidfds = {os.pidfd_open(rival.pid): rival for rival in rivals}
    waiting: list[int] = list(pidfds)
    ended: list[Running] = []
    while len(ended) < len(rivals) - 1:
        ready = select.select(waiting, [], [], DEADLINE)[0]
        assert ready, [rival.err for rival in rivals]
        waiting = [pidfd for pidfd in waiting if pidfd not in ready]
        ended += [pidfds[pidfd] for pidfd in ready]
    for pidfd in pidfds:
        os.close(pidfd)
    return ended


def test_two_at_the_same_instant(held: Held) -> None:
    held.task(0)
    held.begin_and_kill(0)
    rivals = [held.taking_over() for _ in range(4)]
    with rivals[0], rivals[1], rivals[2], rivals[3]:
        ended = losers(rivals)
        for rival in ended:
            assert rival.ended() == 2, rival.err
            assert "a driver has this run" in rival.err or "goes on with the run" in rival.err
            assert rival.err.count("\n") == 1
        (winner,) = [rival for rival in rivals if rival not in ended]
        winner.until_said("all engines are there")
        held.let_go(0)
        assert winner.ended() == 0, winner.err
    held.check(1)


@contextmanager
def replaced(held: Held) -> Iterator[tuple[Running, Running]]:
    """A driver that was stopped, on another host whose file system has no locks; and the one that somebody
    started who was sure that it is dead. What its engine ran runs again there."""
    held.task(0)
    held.task(1)
    held.task()
    write(held.directory / "Tasks", held.lines)
    wrapper = (sys.executable, "-c", NO_LOCKS)
    with Running(
        held.directory, "-s", "localhost:2", "-p", "P", "Tasks", env=held.mark, wrapper=wrapper
    ) as old:
        old.until(lambda: len(held.ran()) == 2, "two tasks")
        held.let_go(0)
        held.until_recorded(2)  # tasks 0 and 2
        stop(old)
        elsewhere(held.directory)
        with held.taking_over("--force", "--patience", "2", "--heartbeat", "1") as new:
            new.until_said("starting anew there")
            new.until(lambda: held.ran()[1] == 2, "task 1 again")
            yield old, new


def test_driver_that_wakes_up(held: Held) -> None:
    """The record is whole, and only the new driver's."""
    with replaced(held) as (old, new):
        connect = ConnectFile.read(held.directory / "P_connect.json")
        old.signal(signal.SIGCONT)
        old.until_said("another driver has taken this run over; leaving it alone")
        assert old.ended() == 3
        assert "taken over by another driver" in old.err and "resume" not in old.err
        assert ConnectFile.read(held.directory / "P_connect.json") == connect
        assert Path(connect.addresses[0].removeprefix("ipc://")).exists()
        held.let_go(1)
        assert new.ended() == 0, new.err
    check_woken(held)


def check_woken(held: Held) -> None:
    """Each task has one line that counts, although task 1 ran twice."""
    recorded = records(held.directory / "P_status.txt")
    assert Counter(record.id for record in recorded if record.mark is Mark.TASK) == Counter(range(3))
    assert held.ran() == Counter({0: 1, 1: 2, 2: 1})
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def test_driver_that_wakes_up_when_the_other_one_has_ended_the_run(held: Held) -> None:
    """No run file names the other driver any more, and none of the files is made again."""
    with replaced(held) as (old, new):
        held.let_go(1)
        assert new.ended() == 0, new.err
        before = sorted(path.name for path in held.directory.glob("P*"))
        old.signal(signal.SIGCONT)
        assert old.ended() == 3
        assert "another driver has taken this run over; leaving it alone" in old.err
        assert sorted(path.name for path in held.directory.glob("P*")) == before
    check_woken(held)
