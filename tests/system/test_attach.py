"""Nodes that are attached to a run while it goes on, on this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections import Counter

import pytest
from command import Running, records, tasks, until
from pool_run import HELD, RAN, STUBBORN, Pool

from disbatch.model.statusline import Mark

HERE = socket.gethostname()
WAITS = "no engines are there; waiting for some"


def finish(pool: Pool, run: Running, count: int) -> None:
    """The run ends well."""
    assert run.ended() == 0, run.err
    pool.check_each(count)
    assert not list(pool.directory.glob("P_connect.json")) + list(pool.directory.glob("P_run.json"))


# ---- coming ----


def test_from_another_directory(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> None:
    pool.tasks("pwd > where; echo $PWD >> where; echo $DISBATCH_CORES_PER_TASK >> where", "true")
    with pool.start("-S") as run:
        run.until_said(f"{WAITS}: ./P_dbUtil.sh -s HOST:CORES adds some, as does submitting it")
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        with pool.attach("-s", "localhost:4", "-c", "2", "-l", "rack", directory=elsewhere) as attach:
            assert attach.ended() == 0
            assert attach.said[0] == f"dbutil: {HERE}: joined with 2 slots"
        finish(pool, run, 2)
    assert f"attached from {HERE}: {HERE} (2 slots, label rack)" in run.err
    assert (pool.directory / "where").read_text() == f"{pool.directory}\n" * 2 + "2\n"
    pool.until_gone()


def test_to_a_run_that_has_nodes(pool: Pool) -> None:
    """The whole machine, by default; twice at the same instant."""
    pool.tasks(f"#DISBATCH REPEAT 60 {HELD}")
    with pool.start("-s", "localhost:1") as run:
        pool.until_ran(1)
        with pool.attach("-t", "1") as first, pool.attach("-t", "1") as second:
            pool.until_ran(3)
            pool.open_gate()
            assert (first.ended(), second.ended()) == (0, 0)
        finish(pool, run, 60)
    assert set(pool.by_rank()) == {0, 1, 2}
    pool.check_each_once(60)


def test_cores_per_task_are_those_of_the_run(pool: Pool) -> None:
    pool.tasks(HELD)
    with pool.start("-S", "--wait-for-engines", "60") as run, pool.attach("-s", "localhost:3") as attach:
        attach.until_said("joined with 3 slots")
        pool.open_gate()
        finish(pool, run, 1)


# ---- so many tasks and no more ----


@pytest.mark.parametrize("task", [RAN, f"{RAN}; false", f"{RAN}; sleep 0.05"])
def test_so_many_tasks_exactly(pool: Pool, task: str) -> None:
    """Two contexts with different limits at once, with queues; each leaves, the run waits for more."""
    pool.tasks(f"#DISBATCH REPEAT 200 {task}")
    with pool.start("-S") as run:
        seven, many = (
            pool.attach("-s", "localhost:3", "-C", "7"),
            pool.attach("-s", "localhost:2", "-C", "31"),
        )
        with seven, many:
            assert (seven.ended(), many.ended()) == (0, 0)
            assert many.said[-1] == f"dbutil: {HERE}: left"
        assert sorted(pool.by_rank().values()) == [7, 31]
        assert len(tasks(pool.status)) == 38
        with pool.attach("-s", "localhost:2"):
            finish(pool, run, 200)
    pool.check_each_once(200)


def test_a_task_that_was_ended_does_not_count(pool: Pool) -> None:
    """Two engines under one limit: what one of them was told to end, the other runs."""
    pool.tasks(f"#DISBATCH REPEAT 9 {HELD}")
    run = pool.start("-S", "--grace", "1")
    with run, pool.attach("-s", "localhost:1", "-C", "4", "-l", "first") as first:
        pool.until_ran(1)
        with pool.attach("-s", "localhost:1") as other:
            pool.until_ran(2)
            assert pool.asked("stop", "first")[0] == 0
            assert first.ended() == 0
            pool.open_gate()
            finish(pool, run, 9)
            assert other.ended() == 0
    assert sum(record.mark is Mark.SUPERSEDED for record in records(pool.status)) == 1


# ---- letting go ----


def test_drain_and_stop_of_a_label(pool: Pool) -> None:
    pool.tasks(f"#DISBATCH REPEAT 12 {HELD}")
    with pool.start("-S", "--grace", "1") as run:
        with (
            pool.attach("-s", "localhost:2", "-l", "a") as a,
            pool.attach("-s", "localhost:2", "-l", "b") as b,
            pool.attach("-s", "localhost:1", "-l", "c") as c,
        ):
            pool.until_ran(5)
            assert pool.asked("drain", "a") == (0, f"{HERE} (a): draining; 2 tasks are running there\n")
            code, said = pool.asked("stop", "b")
            assert (code, said) == (0, f"{HERE} (b): ending 2 tasks, which run again elsewhere\n")
            assert b.ended() == 0
            alone = "no other node is there: with the last one gone the run waits for some to be attached"
            assert pool.asked("drain", "c")[1].splitlines()[1] == alone
            code, said = pool.asked("drain", "nobody")
            assert code == 2 and f"no node or label nobody; there are: {HERE}, " in said
            pool.open_gate()
            assert (a.ended(), c.ended()) == (0, 0)
        with pool.attach("-s", "localhost:4"):
            finish(pool, run, 12)
    ended = [record for record in records(pool.status) if record.mark is Mark.SUPERSEDED]
    assert [record.return_code for record in ended] == [-15, -15]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_takes_the_nodes_out_of_the_run(pool: Pool, number: signal.Signals) -> None:
    pool.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    with pool.start("-S", "--grace", "1") as run:
        with pool.attach("-s", "localhost:2") as attach:
            pool.until_ran(2)
            attach.signal(number)
            assert attach.ended() == 128 + number
        once_more = "leaving; what runs here runs again elsewhere; once more to leave at once"
        assert attach.said[1:] == [f"dbutil: {number.name}: {once_more}", f"dbutil: {HERE}: left"]
        run.until(lambda: run.err.count(WAITS) == 2, "waiting again")
        assert f"disbatch: {HERE}: leaving; its tasks run again elsewhere" in run.err
        pool.open_gate()
        with pool.attach("-s", "localhost:2"):
            finish(pool, run, 6)


def test_a_second_signal_waits_for_nobody(pool: Pool) -> None:
    pool.tasks(f"#DISBATCH REPEAT 2 {STUBBORN}")
    with pool.start("-S", "--grace", "1000") as run:
        with pool.attach("-s", "localhost:2") as attach:
            pool.until_ran(2)
            attach.signal(signal.SIGINT)
            run.until_said("leaving; its tasks run again elsewhere")
            attach.signal(signal.SIGINT)
            assert attach.ended() == 130
        run.until(lambda: run.err.count(WAITS) == 2, "waiting again")
        assert pool.asked("finish")[0] == 0
        assert run.ended() == 3
    pool.until_gone()


def test_killed_local_nodes_go_on(pool: Pool) -> None:
    pool.tasks(f"#DISBATCH REPEAT 6 {HELD}")
    with pool.start("-S") as run:
        with pool.attach("-s", "localhost:2") as attach:
            pool.until_ran(2)
            attach.signal(signal.SIGKILL)
            assert attach.ended() == -signal.SIGKILL
        pool.open_gate()
        finish(pool, run, 6)
    pool.check_each_once(6)
    pool.until_gone()


def test_an_engine_that_is_killed(pool: Pool) -> None:
    """Its context notices, and has nobody left."""
    pool.tasks(f"#DISBATCH REPEAT 4 {HELD}")
    with pool.start("-S") as run:
        with pool.attach("-s", "localhost:2") as attach:
            pool.until_ran(2)
            os.kill(_engine(pool), signal.SIGKILL)
            assert attach.ended() == 0
            assert attach.said[1:] == [f"dbutil: {HERE}: its engine is gone: it ended with signal 9"]
        run.until_said(f"{HERE}: engine lost")
        with pool.attach("-s", "localhost:2"):
            pool.open_gate()
            finish(pool, run, 4)


def _engine(pool: Pool) -> int:
    """The process of the only engine."""
    log = pool.directory / f"P_{HERE}_engine.txt"
    (line,) = [line for line in log.read_text().splitlines() if " INFO engine " in line]
    return int(line.split(" pid ")[1].split(",")[0])


# ---- the driver goes ----


def test_takeover(pool: Pool) -> None:
    """Contexts go on, with their labels, and the rest of their limits."""
    pool.tasks(*[RAN] * 3, *[HELD] * 40)
    first = pool.start("-S", "--patience", "5", "--heartbeat", "1")
    with first, pool.attach("-s", "localhost:2", "-C", "8", "-l", "eight") as eight:
        pool.until_ran(5)
        until(lambda: len(tasks(pool.status)) == 3, "three lines", pool.directory)
        with pool.attach("-s", "localhost:2", "-l", "more") as more:
            pool.until_ran(7)
            first.signal(signal.SIGKILL)
            assert first.ended() == -signal.SIGKILL
            with pool.taking_over() as run:
                run.until_said("all engines are there")
                assert pool.asked("drain", "more")[1].startswith(f"{HERE} (more): draining; 2 tasks")
                pool.open_gate()
                assert (eight.ended(), more.ended()) == (0, 0)
                assert pool.by_rank() == Counter({0: 8, 1: 2})
                with pool.attach("-s", "localhost:2"):
                    finish(pool, run, 43)
    pool.check_each_once(43)
    pool.until_gone()


def test_a_driver_that_is_gone_for_good(pool: Pool) -> None:
    pool.tasks(HELD)
    run = pool.start("-S", "--orphan-patience", "2", "--patience", "2", "--heartbeat", "0.5")
    with run, pool.attach("-s", "localhost:1") as attach:
        pool.until_ran(1)
        run.signal(signal.SIGKILL)
        assert attach.ended() == 3
        assert f"the driver (pid {run.pid}) on {HERE} is dead; waiting for a driver" in " ".join(attach.said)
        assert re.search(r"\) on \S+ (was not heard for 2 s|is dead); giving up$", attach.said[-1])
        assert "no message from the driver" in (pool.directory / f"P_{HERE}_engine.txt").read_text()
    pool.until_gone()


def test_a_driver_that_stood_still(pool: Pool) -> None:
    pool.tasks(HELD, RAN)
    with pool.start("-S") as run, pool.attach("-s", "localhost:1") as attach:
        pool.until_ran(1)
        run.signal(signal.SIGSTOP)
        attach.until_said("is not heard; waiting for it, or for one that takes the run over")
        run.signal(signal.SIGCONT)
        attach.until_said("the driver is heard again")
        pool.open_gate()
        assert attach.ended() == 0
        finish(pool, run, 2)
    pool.check_each_once(2)
