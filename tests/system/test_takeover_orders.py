"""What users ordered outlives the driver: pause, cancelled tasks, nodes that are to leave, limits."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from command import gone, processes, tasks
from held_run import QUICK, Held
from processes import children

from deadline import DEADLINE

HERE = os.uname().nodename
CANCELLED = -signal.SIGTERM


def test_pause_and_cancel(held: Held) -> None:
    held.task(0)
    held.task(1)
    for _ in range(6):
        held.task()
    with held.beginning("-s", "localhost:2") as run:
        run.until(lambda: len(held.ran()) == 2, "two tasks")
        held.dbutil("pause")
        held.dbutil("cancel", "1", "3-4")
        held.kill(run)
    with held.taking_over() as run:
        run.until_said("still in effect from before the takeover: tasks cancelled (1, 3-4); paused\n")
        run.until_said("all engines are there")
        held.let_go(0)
        held.until_recorded(2)  # task 1 was ended, now or before
        held.kill(run)
    with held.taking_over() as run:
        run.until_said("all engines are there")
        assert set(held.ran()) == {0, 1}
        assert "but" not in held.dbutil("resume")
        assert run.ended() == 0, run.err
    assert held.ran() == Counter((0, 1, 2, 5, 6, 7))
    recorded = tasks(held.directory / "P_status.txt")
    assert {id for id, record in recorded.items() if record.return_code == CANCELLED} == {1, 3, 4}
    assert sorted(recorded) == list(range(8))


def test_resume_is_remembered_too(held: Held) -> None:
    held.task(0)
    held.task()
    with held.beginning("-s", "localhost:1") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        held.dbutil("pause")
        held.dbutil("resume")
        held.kill(run)
    held.let_go(0)
    with held.taking_over() as run:
        assert run.ended() == 0 and "paused" not in run.err
    held.check(2)


@pytest.mark.parametrize("verb", ["drain", "stop"])
def test_node_that_is_to_leave(held: Held, verb: str) -> None:
    held.gated(8)
    with held.beginning("-s", "localhost:1") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        attached = held.attach("-s", "localhost:1", "-l", "guest")
        run.until(lambda: len(held.ran()) == 2, "a task there")
        engines = [engine for keeper in children(attached.pid) for engine in children(keeper)]
        assert len(engines) == 1
        os.kill(engines[0], signal.SIGSTOP)  # or it may have left before the driver is killed
        held.dbutil(verb, "guest")
        held.kill(run)
    with held.taking_over() as run:
        run.until_said(f"still in effect from before the takeover: leaving: {HERE}")
        os.kill(engines[0], signal.SIGCONT)
        # A task that is ended may have been let pass at that moment, and runs again.
        held.let_pass(8 + (verb == "stop"))
        assert run.ended() == 0, run.err
    assert attached.wait(DEADLINE) == 0
    ranks = held.ranks()
    assert ranks[1] == 1, "only what ran there when it was told to leave"
    assert sorted(tasks(held.directory / "P_status.txt")) == list(range(8))
    gone(lambda: processes(str(held.directory)), "the end of all processes")


SSH = """\
#!/bin/sh
# An ssh to a host that is slow to let us in, and is this machine.
trap '' TERM
for command; do :; done
read word < "$GATE"
exec sh -c "$command"
"""


def test_node_that_is_to_leave_before_it_has_joined(held: Held) -> None:
    """Its launch goes on without the driver, and may succeed."""
    directory = held.directory
    (directory / "bin").mkdir()
    (directory / "bin/ssh").write_text(SSH)
    (directory / "bin/ssh").chmod(0o755)
    os.mkfifo(directory / "slow")
    gate = os.open(directory / "slow", os.O_RDWR | os.O_CLOEXEC)
    path = f"{directory}/bin:{os.environ['PATH']}"
    held.mark |= {"PATH": path, "GATE": str(directory / "slow")}
    held.task(0)
    held.task(1)
    with held.beginning("-s", "localhost:1,slow:4", "--use-address", "localhost:0") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        assert "slow: has not joined yet, and need not" in held.dbutil("drain", "slow")
        held.kill(run)
    with held.taking_over() as run:
        run.until_said("still in effect from before the takeover: leaving: slow")
        run.until_said("all engines are there")
        os.write(gate, b"go\n")
        log = directory / "P_slow_engine.txt"
        run.until(lambda: log.exists() and "told to leave" in log.read_text(), "its leaving")
        held.let_go(0)
        held.let_go(1)
        assert run.ended() == 0, run.err
        assert "anew" not in run.err
    os.close(gate)
    assert held.ranks() == Counter({0: 2})
    held.check(2)


def test_no_engine_where_all_were_to_leave(held: Held) -> None:
    """The user wanted this node back."""
    held.task(0)
    held.task(1)
    with held.beginning("-s", "localhost:1") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        held.dbutil("drain", HERE)
        run.signal(signal.SIGSTOP)
        held.let_go(0)
        held.kill(run)
    with held.taking_over() as run:
        assert run.ended() == 3
        assert "no engine is left" in run.err and "disbatch -s localhost:1 -p P Tasks -r" in run.err
    assert sorted(tasks(held.directory / "P_status.txt")) == [0]
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def test_limits_are_exact(held: Held) -> None:
    """Two contexts on one node, each with a limit, and a driver that is killed whenever a task has ended."""
    held.gated(12)
    held.gated(2)
    options = ("-s", "localhost:2", "-C", "4")
    run = held.beginning(*options)
    run.until(lambda: len(held.ran()) == 2, "two tasks")
    attached = held.attach("-s", "localhost:2", "-C", "3")
    run.until(lambda: len(held.ran()) == 4, "two tasks there")
    for count in range(1, 6):
        held.let_pass(1)
        held.until_recorded(count)
        if count % 2:
            held.kill(run)
            run.__exit__(None, None, None)
            run = held.taking_over()
            run.until_said("all engines are there")
    held.let_pass(8)
    with run:
        assert run.ended() == 3, run.err
    assert attached.wait(DEADLINE) == 0
    assert held.ranks() == Counter({0: 4, 1: 3})
    assert len(tasks(held.directory / "P_status.txt")) == 7
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def test_limit_and_an_engine_that_is_replaced(held: Held) -> None:
    """Its results stand beside the status file when the next driver comes; its successor counts from 0."""
    held.gated(6)
    held.begin_and_kill(0, 1, options=("-s", "localhost:2", "-C", "3", "--orphan-patience", "2"))
    held.let_pass(2)
    gone(lambda: processes(str(held.directory)), "the end of the engine")
    with held.taking_over() as run:
        run.until(lambda: len(held.ran()) == 4, "two more tasks")
        held.let_pass(6)
        assert run.ended() == 3
        assert "ended after 3 tasks, as -C asks" in run.err
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1, 2, 3, 4]


def test_close_and_what_was_handed_in(held: Held) -> None:
    held.task(0)
    with held.beginning("-s", "localhost:1", "--keep-open") as run:
        run.until(lambda: len(held.ran()) == 1, "a task")
        assert held.dbutil("submit", QUICK, QUICK) == "tasks 1-2\n"
        held.dbutil("close")
        held.kill(run)
    with held.taking_over() as run:
        run.until_said("still in effect from before the takeover: no more tasks are taken")
        run.until_said("all engines are there")
        held.let_go(0)
        assert run.ended() == 0, run.err
    held.check(3)
