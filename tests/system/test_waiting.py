"""Runs without nodes that wait for some: -S, --wait-for-engines."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from command import Running, records, tasks
from pool_run import HELD, RAN, Pool

from disbatch.model.statusline import Mark

HERE = socket.gethostname()
WAITS = "no engines are there; waiting for some"
RESUME = "resume    disbatch -S "


def _ticks(pid: int) -> int:
    """CPU time that a process has used, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_waiting_takes_no_cpu(pool: Pool) -> None:
    """Less than a hundredth of the time that it waits, the end of the run included."""
    pool.tasks(RAN)
    with pool.start("-S", "--wait-for-engines", "20") as run:
        run.until_said(f"{WAITS} for 20 s: ./P_dbUtil.sh")
        before = _ticks(run.pid)
        _, status, usage = os.wait4(run.pid, 0)
        run.process.returncode = os.waitstatus_to_exitcode(status)
        assert run.process.returncode == 3
        used = usage.ru_utime + usage.ru_stime - before / os.sysconf("SC_CLK_TCK")
        assert used < 0.2, used
    assert "disbatch: no engines were attached: 0 tasks" in run.err and f"{RESUME}--wait" in run.err


def test_what_dbutil_says_to_one_that_waits(pool: Pool) -> None:
    pool.tasks(RAN, RAN, RAN)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        assert pool.asked("pause") == (0, "paused: no more tasks start; 0 tasks running\n")
        assert pool.asked("cancel", "1") == (0, "task 1: will not run\n")
        with pool.attach("-s", "localhost:1") as attach:
            attach.until_said("joined with 1 slot")
            assert pool.asked("resume") == (0, "resumed: tasks start again\n")
            assert attach.ended() == 0
        assert run.ended() == 0
    assert tasks(pool.status)[1].return_code == -15
    assert sorted(task for _, task in pool.ran()) == [0, 2]


def test_ids_that_it_does_not_have(pool: Pool) -> None:
    """A list that was read to its end takes no more tasks."""
    pool.tasks(RAN, RAN)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        none = f"dbutil: {pool.directory}/P: no task has the id 2: the run has the ids 0 to 1\n"
        assert pool.asked("cancel", "1-2") == (2, none)


def test_finish_while_it_waits(pool: Pool) -> None:
    pool.tasks(RAN)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        assert pool.asked("finish") == (0, "ending the run, to be resumed; 0 tasks running\n")
        assert run.ended() == 3
    assert "disbatch: ended by dbutil finish: 0 tasks" in run.err and RESUME in run.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_it_waits(pool: Pool, number: signal.Signals) -> None:
    pool.tasks(RAN)
    with pool.start("-S") as run:
        run.until_said(WAITS)
        run.signal(number)
        assert run.ended() == 128 + number
    assert RESUME in run.err
    pool.until_gone()


def test_all_nodes_lost(pool: Pool) -> None:
    """A run that is told to waits, and then ends; then it is resumed, without nodes."""
    pool.tasks(f"#DISBATCH REPEAT 3 {HELD}")
    with pool.start("-s", "localhost:1", "--wait-for-engines", "2") as run:
        pool.until_ran(1)
        assert pool.asked("stop", HERE)[0] == 0
        run.until_said(f"{WAITS} for 2 s")
        assert run.ended() == 3
    assert "disbatch: no engine is left: 0 tasks" in run.err
    pool.open_gate()
    first = pool.leave_status()
    with pool.start("-S", "-r", first.name) as run:
        run.until_said(WAITS)
        with pool.attach("-s", "localhost:2"):
            assert run.ended() == 0
    assert sorted(tasks(pool.status)) == [0, 1, 2]


def fake_ssh(pool: Pool, tmp_path: Path, *lines: str) -> None:
    """What attached contexts find as ssh."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text("\n".join(["#!/bin/sh", *lines]))
    ssh.chmod(0o755)
    pool.env["PATH"] = f"{ssh.parent}:{os.environ['PATH']}"


def test_a_node_on_its_way_is_waited_for(pool: Pool, tmp_path: Path) -> None:
    """The time to wait begins anew when nobody is on the way any more."""
    pool.tasks(RAN)
    fake_ssh(pool, tmp_path, "sleep 4", "echo no such thing >&2", "exit 255")
    with pool.start("-S", "--wait-for-engines", "3") as run:
        with pool.attach("-s", "elsewhere:1") as attach:
            assert attach.ended() == 3
            assert attach.said == [
                "dbutil: elsewhere: ssh failed: no such thing; try `ssh elsewhere true` by hand"
            ]
        run.until(lambda: run.err.count(WAITS) == 2, "waiting again")
        assert run.ended() == 3


def test_drained_before_it_has_joined(pool: Pool, tmp_path: Path) -> None:
    pool.tasks(RAN)
    os.mkfifo(tmp_path / "never")
    fake_ssh(pool, tmp_path, f"echo called >> {tmp_path}/called; exec cat {tmp_path}/never")
    with pool.start("-S") as run:
        with pool.attach("-s", "elsewhere:1", "-l", "far") as attach:
            run.until((tmp_path / "called").exists, "a launch")
            code, said = pool.asked("drain", "far")
            assert code == 0 and said.startswith("elsewhere (far): has not joined yet, and need not\n")
            assert attach.ended() == 0
            assert attach.said == ["dbutil: elsewhere: no longer needs to join"]
        with pool.attach("-s", "localhost:1"):
            assert run.ended() == 0


def test_no_tasks(pool: Pool) -> None:
    pool.tasks("# nothing")
    with pool.start("-S") as run:
        assert run.ended() == 0
    assert "complete: 0 tasks" in run.err


def test_tasks_from_standard_input(pool: Pool) -> None:
    source, sink = os.pipe()
    with pool.start("-S", taskfile="-", stdin=source) as run, os.fdopen(sink, "w", buffering=1) as lines:
        os.close(source)
        lines.write(f"{RAN}\n")
        with pool.attach("-s", "localhost:2") as attach:
            pool.until_ran(1)
            lines.write(f"{RAN}\n{RAN}\n")
            pool.until_ran(3)
            lines.close()
            assert run.ended() == 0 and attach.ended() == 0
    assert sorted(tasks(pool.status)) == [0, 1, 2]


def _lose_engine(pool: Pool, run: Running, times: int) -> None:
    """Attach one that stands still until it is lost."""
    with pool.attach("-s", "localhost:1") as attach:
        pool.until_ran(times)
        log = (pool.directory / f"P_{HERE}_engine.txt").read_text()
        pid = [line.split(" pid ")[1].split(",")[0] for line in log.splitlines() if " pid " in line][-1]
        os.kill(int(pid), signal.SIGSTOP)
        run.until(lambda: run.err.count("engine lost: not heard for 6 s") == times, "a loss")
        assert attach.ended() == 0, attach.err
        assert "its engine is gone: it ended with signal 9" in attach.err  # the driver has ended it


def test_a_task_that_loses_every_node(pool: Pool) -> None:
    """Heartbeats as quick as they are said to be; the task is given up, and run by who resumes."""
    pool.tasks(HELD)
    quick = ("--heartbeat", "0.5", "--patience", "2", "--max-losses", "1")
    with pool.start("-S", *quick) as run:
        _lose_engine(pool, run, 1)
        _lose_engine(pool, run, 2)
        assert run.ended() == 3
    (record,) = records(pool.status)
    assert (record.mark, record.return_code) == (Mark.TASK, -100)
    pool.open_gate()
    first = pool.leave_status()
    with pool.start("-S", "-r", first.name) as run, pool.attach("-s", "localhost:1"):
        assert run.ended() == 0
    assert tasks(pool.status)[0].return_code == 0
