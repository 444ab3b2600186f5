"""kill -9 of the driver, then `disbatch --takeover`: what runs runs on, what ended is recorded, nothing runs
twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from command import (
    DBUTIL,
    DISBATCH,
    Running,
    disbatch,
    environment,
    gone,
    kill,
    processes,
    records,
    tasks,
    until,
    write,
)
from held_run import Held
from redis_server import RedisServer

from deadline import DEADLINE
from disbatch.model.statusline import Mark


def test_running_ended_and_waiting_tasks(held: Held) -> None:
    held.task()
    held.task(1)
    held.task(2)
    for _ in range(5):
        held.task()
    held.begin_and_kill(1, 2)
    held.let_go(2)  # it ends while no driver is there
    with held.taking_over() as run:
        until(lambda: set(held.ran()) == set(range(8)), "the other tasks", held.directory)
        held.let_go(1)
        assert run.ended() == 0, run.err
        assert "8 tasks" in run.err and "8 succeeded" in run.err
    held.check(8)


def test_barrier_in_progress_and_perengine(held: Held) -> None:
    held.lines += [f"#DISBATCH PERENGINE {phase} echo {phase} >> engine" for phase in ("START", "STOP")]
    held.task()
    held.lines.append("#DISBATCH BARRIER")
    held.task(2)
    held.task(3)
    held.lines.append("#DISBATCH BARRIER CHECK")
    held.task()
    held.begin_and_kill(2, 3)
    with held.taking_over() as run:
        run.until_said("all engines are there")
        held.let_go(2)
        held.let_go(3)
        assert run.ended() == 0, run.err
    assert (held.directory / "engine").read_text().split() == ["START", "STOP"]
    assert held.ran() == Counter((0, 2, 3, 5))
    written = records(held.directory / "P_status.txt")
    assert Counter(record.mark for record in written) == {Mark.TASK: 4, Mark.BARRIER: 2, Mark.PER_ENGINE: 2}
    assert [record.id for record in written if record.mark is Mark.BARRIER] == [1, 4]
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def test_killed_again_and_again(held: Held) -> None:
    for number in range(4):
        held.task(number)
    held.begin_and_kill(0, 1)
    for number in (0, 1):
        with held.taking_over() as run:
            run.until_said("all engines are there")
            held.let_go(number)
            held.until_ran(number + 2)
            run.signal(signal.SIGKILL)
            run.ended()
    with held.taking_over() as run:
        held.let_go(2)
        held.let_go(3)
        assert run.ended() == 0, run.err
    held.check(4)


def test_only_one_driver(held: Held) -> None:
    held.task(0)
    held.begin_and_kill(0)
    with held.taking_over() as run:
        run.until_said("all engines are there")
        second = disbatch(held.directory, "--takeover", "P")
        assert second.returncode == 2
        assert "goes on with the run" in second.stderr and second.stderr.count("\n") == 1
        held.let_go(0)
        assert run.ended() == 0
    held.check(1)
    third = disbatch(held.directory, "--takeover", "P")
    assert (third.returncode, "this run was ended" in third.stderr) == (2, True)


def test_resume_waits_for_the_engines(held: Held) -> None:
    """-r would start what still runs; --force-resume and the engines' end are ways out."""
    held.task(0)
    held.task()
    held.begin_and_kill(0, 1)
    refused = disbatch(held.directory, "-r", "P_status.txt", "Tasks")
    assert refused.returncode == 2
    assert "disbatch --takeover P" in refused.stderr and refused.stderr.count("\n") == 1
    with held.taking_over() as run:
        held.let_go(0)
        assert run.ended() == 0, run.err
    held.check(2)
    resumed = disbatch(held.directory, "-r", "P_status.txt", "Tasks")
    assert resumed.returncode == 0 and "2 done before" in resumed.stderr


def test_orphan_patience_is_over(held: Held) -> None:
    """Results that no driver took are recorded by the next one; what ran runs again."""
    held.task(0)
    held.task(1)
    held.begin_and_kill(0, 1, options=("-s", "localhost:2", "--orphan-patience", "2", "--grace", "0.2"))
    held.let_go(1)
    gone(lambda: processes(str(held.directory)), "the end of the engine")
    with held.taking_over("--patience", "6") as run:
        held.let_go(0)
        assert run.ended() == 0, run.err
    assert held.ran() == Counter({0: 2, 1: 1})
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1]


def test_changed_task_file(held: Held) -> None:
    held.task(0)
    held.begin_and_kill(0)
    path = held.directory / "Tasks"
    with path.open("a") as file:
        file.write(":\n")
    refused = disbatch(held.directory, "--takeover", "P")
    assert refused.returncode == 2 and "has changed" in refused.stderr
    assert (held.directory / "P_connect.json").exists()
    with held.taking_over("--force") as run:
        held.let_go(0)
        assert run.ended() == 0, run.err
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1]


def test_driver_on_another_host(held: Held) -> None:
    held.task(0)
    held.begin_and_kill(0)
    connect = held.directory / "P_connect.json"
    host = os.uname().nodename
    connect.write_text(connect.read_text().replace(f'"host": "{host}"', '"host": "elsewhere"'))
    refused = disbatch(held.directory, "--takeover", "P")
    assert refused.returncode == 2 and "elsewhere" in refused.stderr and "--force" in refused.stderr
    with held.taking_over("--force") as run:
        held.let_go(0)
        assert run.ended() == 0, run.err
    held.check(1)


def test_what_the_driver_had_on_another_host_is_started_here(held: Held) -> None:
    held.task(0)
    held.begin_and_kill(0)
    for pid in processes(str(held.directory)):
        kill(pid)
    host = os.uname().nodename
    for name in ("connect", "run"):
        path = held.directory / f"P_{name}.json"
        path.write_text(path.read_text().replace(f'"{host}"', '"elsewhere"'))
    with held.taking_over("--force", "--heartbeat", "0.5", "--patience", "1") as run:
        run.until_said(f"elsewhere: not heard for 6 s; starting anew on {host}\n")
        held.let_go(0)
        assert run.ended() == 0, run.err


def test_from_another_directory(held: Held, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The commands that are told to the user work where the user is."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    held.task(0)
    held.begin_and_kill(0)
    with Running(elsewhere, "--takeover", str(held.directory / "P"), env=held.mark) as run:
        run.until_said("all engines are there")
        run.signal(signal.SIGTERM)
        assert run.ended() == 128 + signal.SIGTERM, run.err
    hint = run.err.partition("  resume    ")[2].strip()
    assert hint.startswith(f"cd {held.directory} && disbatch ")
    held.let_go(0)
    again = subprocess.run(
        hint.replace("disbatch ", f"{DISBATCH} ", 1) + " -p Q",
        shell=True,
        cwd=elsewhere,
        env=environment(held.mark),
        timeout=DEADLINE,
        check=False,
    )
    assert again.returncode == 0
    assert sorted(tasks(held.directory / "Q_status.txt")) == [0]


def test_takeover_that_cannot_begin(held: Held) -> None:
    """The key store is not there: the run stays as it was, for the next try."""
    held.task(0)
    held.begin_and_kill(0)
    files = [held.directory / f"P_{name}" for name in ("connect.json", "run.json", "kvsinfo.txt")]
    before = [path.read_bytes() for path in files]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        store = f"redis://u:secret@127.0.0.1:{nobody.getsockname()[1]}/"
        refused = disbatch(held.directory, "--takeover", "P", "--kvsserver", store, env=held.mark)
    assert refused.returncode == 2 and refused.stderr.endswith("connection refused\n"), refused.stderr
    assert [path.read_bytes() for path in files] == before
    with held.taking_over() as run:
        held.let_go(0)
        assert run.ended() == 0, run.err
    held.check(1)


def test_stream(held: Held) -> None:
    held.task()
    held.task(1)
    held.task()
    write(held.directory / "lines", held.lines)
    with (held.directory / "lines").open("rb") as lines:
        cat = subprocess.Popen(["cat"], stdin=lines, stdout=subprocess.PIPE)
    assert cat.stdout is not None
    with Running(held.directory, "-s", "localhost:2", "-p", "P", "-", stdin=cat.stdout, env=held.mark) as run:
        run.until(lambda: set(held.ran()) == {0, 1, 2}, "all tasks")
        run.until(lambda: len(tasks(held.directory / "P_status.txt")) == 2, "two records")
        run.signal(signal.SIGKILL)
        run.ended()
    cat.wait()
    refused = disbatch(held.directory, "--takeover", "P")
    assert refused.returncode == 2 and "came as a stream" in refused.stderr
    again = subprocess.Popen(
        f"cat lines | {DISBATCH} --takeover P -",
        shell=True,
        cwd=held.directory,
        env=environment(held.mark),
    )
    held.let_go(1)
    assert again.wait(DEADLINE) == 0
    held.check(3)


class Attached:
    """A context of one slot here that is attached to the run `P`."""

    def __init__(self, held: Held, *options: str) -> None:
        argv = [DBUTIL, "attach", "--run", "P", "-s", "localhost:1", *options]
        self.process = subprocess.Popen(argv, cwd=held.directory, env=environment(held.mark))

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()


def test_limit_of_an_attached_context(held: Held) -> None:
    """It has completed two tasks of four when the driver is killed, and runs the third."""
    for number in range(8):
        held.task(number if number in (0, 3) else None)
    write(held.directory / "Tasks", held.lines)
    with Running(held.directory, "-s", "localhost:1", "-p", "P", "Tasks", env=held.mark) as run:
        held.until_ran(0)
        with Attached(held, "-C", "4") as attached:
            held.until_ran(3)
            run.signal(signal.SIGKILL)
            run.ended()
            with held.taking_over() as other:
                held.let_go(3)
                assert attached.process.wait(DEADLINE) == 0
                assert held.ran() == Counter(range(5)), "four tasks, and the one that is held"
                held.let_go(0)
                assert other.ended() == 0, other.err
    held.check(8)


def test_limit_of_the_first_context(held: Held) -> None:
    """What others have completed does not count against it."""
    for number in range(7):
        held.task(number if number in (0, 4) else None)
    write(held.directory / "Tasks", held.lines)
    limited = ("-s", "localhost:1", "-C", "2", "--wait-for-engines", "60")
    with Running(held.directory, *limited, "-p", "P", "Tasks", env=held.mark) as run:
        held.until_ran(0)
        with Attached(held):
            held.until_ran(4)
            run.signal(signal.SIGKILL)
            run.ended()
            with held.taking_over() as other:
                other.until_said("all engines are there")
                held.let_go(0)
                until(lambda: len(held.ran()) == 6, "a sixth one, as the other slot has 4", held.directory)
                held.let_go(4)
                assert other.ended() == 0, other.err
    held.check(7)


def test_torn_last_line(held: Held) -> None:
    held.task()
    held.task(1)
    held.begin_and_kill(0, 1)
    with (held.directory / "P_status.txt").open("ab") as status:
        status.write(b"    \t7\t8\t-1\tnode\t1")
    with held.taking_over() as run:
        held.let_go(1)
        assert run.ended() == 0, run.err
    held.check(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_while_results_wait_for_their_tasks(held: Held, number: signal.Signals) -> None:
    """The new driver has not read the task again whose result it was told: the engine keeps that, and leaves
    it to the next run."""
    held.task(1)
    held.task()
    lines = write(held.directory / "lines", held.lines)
    with lines.open("rb") as tasks_before:
        feed = subprocess.Popen(["cat"], stdin=tasks_before, stdout=subprocess.PIPE)
    with Running(
        held.directory, "-s", "localhost:1", "-p", "P", "-", stdin=feed.stdout, env=held.mark
    ) as run:
        run.until(lambda: held.ran() == Counter([0]), "task 0")
        run.signal(signal.SIGKILL)
        run.ended()
    feed.wait()
    held.let_go(1)
    reading, writing = os.pipe()
    with Running(
        held.directory, "--takeover", "P", "-", stdin=os.fdopen(reading, "rb"), env=held.mark
    ) as again:
        again.until_said("all engines are there")
        held.dbutil("--run", "P", "pause")
        again.signal(number)
        assert again.ended() == 128 + number, again.err
    os.close(writing)
    left = held.directory / f"P_{os.uname().nodename}_unrecorded.txt"
    assert sorted(tasks(left)) == [0] and records(held.directory / "P_status.txt") == []
    gone(lambda: processes(str(held.directory)), "the end of all processes")
    resumed = disbatch(held.directory, "-s", "localhost:1", "-r", "P_status.txt", "lines", env=held.mark)
    assert resumed.returncode == 0 and "1 done before" in resumed.stderr
    assert held.ran() == Counter((0, 1))


def test_killed_when_all_is_done(held: Held) -> None:
    """Only the engine's last command is missing."""
    os.mkfifo(held.directory / "end")
    end = os.open(held.directory / "end", os.O_RDWR | os.O_CLOEXEC)
    held.lines.append("#DISBATCH PERENGINE STOP echo STOP >> engine; read line < end")
    held.task()
    with held.beginning("-s", "localhost:1") as run:
        run.until((held.directory / "engine").exists, "the end")
        held.kill(run)
    with held.taking_over() as run:
        run.until_said("all engines are there")
        held.kill(run)
    os.write(end, b"go\n")
    with held.taking_over() as run:
        assert run.ended() == 0, run.err
    os.close(end)
    assert (held.directory / "engine").read_text() == "STOP\n"
    held.check(1)


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_any_moment(held: Held, seed: int) -> None:
    """... which is when its log has grown by so many lines: while it starts, runs or ends."""
    random = Random(seed)
    held.lines += ["#DISBATCH PERENGINE START true", "#DISBATCH PERENGINE STOP true"]
    for number in range(12):
        held.task()
        if number in (3, 8):
            held.lines.append("#DISBATCH BARRIER")
    run = held.beginning("-s", "localhost:2", "--loglevel", "debug")
    for _ in range(5):
        if not killed_after(run, held.directory / "P_driver.txt", random.randrange(12)):
            break
        if not (held.directory / "P_run.json").exists():  # it had not begun, or it had ended
            gone(lambda: processes(str(held.directory)), "the end of all processes")
            return
        run = held.taking_over("--loglevel", "debug")
    with run:
        assert run.ended() == 0, run.err
    recorded = tasks(held.directory / "P_status.txt")
    assert sorted(recorded) == sorted(held.ran()) and set(held.ran().values()) == {1}
    barriers = [r.id for r in records(held.directory / "P_status.txt") if r.mark is Mark.BARRIER]
    assert barriers == [4, 10]
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def killed_after(run: Running, log: Path, lines: int) -> bool:
    """Kill it when the log has so many lines more; False if it has ended by then."""

    def count() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    before = count()
    run.until(lambda: run.process.poll() is not None or count() > before + lines, "its log", log.parent)
    if run.process.poll() is not None:
        return False
    run.signal(signal.SIGKILL)
    run.ended()
    return True


def test_stream_that_is_not_the_same(held: Held) -> None:
    """Shorter than what ran and what is recorded: what runs and is not in it ends, and both are said."""
    held.task(0)
    held.task()
    held.task(2)
    held.task()
    lines = write(held.directory / "lines", held.lines)
    with lines.open("rb") as stream:
        cat = subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE)
    with Running(held.directory, "-s", "localhost:2", "-p", "P", "-", stdin=cat.stdout, env=held.mark) as run:
        run.until(lambda: set(held.ran()) >= {0, 1, 2}, "three tasks")
        held.let_go(0)
        held.until_recorded(3)  # 0, 1 and 3
        held.kill(run)
    cat.wait()
    write(held.directory / "short", held.lines[:2])
    with (held.directory / "short").open("rb") as stream:
        cat = subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE)
    with Running(held.directory, "--takeover", "P", "-", stdin=cat.stdout, env=held.mark) as run:
        assert run.ended() == 0, run.err
        assert "the same tasks are expected again, from the first on (3 of them are done)" in run.err
        assert "stdin: ended before tasks that engines have, which end: 2\n" in run.err
        assert "stdin: 1 of the tasks in the former status file are beyond its end" in run.err
    cat.wait()
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1, 3]
    gone(lambda: processes(str(held.directory)), "the end of all processes")


def test_the_key_store_is_slow(held: Held) -> None:
    """Engines look for the new driver all the while: it must not hear them before it knows what they run."""
    server = RedisServer(held.directory)
    try:
        for number in range(2):
            held.task(number)
        address = f"127.0.0.1:{server.port}"
        held.begin_and_kill(0, 1, options=("-s", "localhost:2", "--kvsserver", address))
        server.halt()
        with held.taking_over() as run:
            log = held.directory / "P_driver.txt"
            until(lambda: log.read_text().count(", pid ") == 2, "the new driver", held.directory)
            assert "all engines are there" not in run.err
            server.go_on()
            run.until_said("all engines are there")
            held.let_go(0)
            held.let_go(1)
            assert run.ended() == 0, run.err
    finally:
        server.kill()
    assert held.ran() == Counter(range(2))
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 1]


def test_stream_with_another_command(held: Held) -> None:
    """What is recorded was another command: the reading stops there, and it is said what ends."""
    held.task()
    held.task(1)
    held.task()
    lines = write(held.directory / "lines", held.lines)
    with lines.open("rb") as stream:
        cat = subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE)
    with Running(held.directory, "-s", "localhost:2", "-p", "P", "-", stdin=cat.stdout, env=held.mark) as run:
        run.until(lambda: set(held.ran()) == {0, 1, 2}, "all tasks")
        held.until_recorded(2)
        held.kill(run)
    cat.wait()
    write(held.directory / "other", ["echo other", *held.lines[1:]])
    with (held.directory / "other").open("rb") as stream:
        cat = subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.PIPE)
    with Running(held.directory, "--takeover", "P", "-", stdin=cat.stdout, env=held.mark) as run:
        assert run.ended() == 2, run.err
        assert "stdin:1: task 0 is not the one in" in run.err
        ends = "running ones finish, but for those that were not met again, which end: 1\n"
        assert f"no new task starts, {ends}" in run.err
    cat.wait()
    assert sorted(tasks(held.directory / "P_status.txt")) == [0, 2]
    gone(lambda: processes(str(held.directory)), "the end of all processes")
