"""A real engine runs tasks for a fake driver: environment, output, slots, orders that come and go."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import EngineProcess, FakeDriver, alive, all_gone, wait_until

from disbatch.model.task import Ending, Phase
from disbatch.wire.engine_protocol import Beat, Goodbye, Hello, Recalled


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


@pytest.fixture
def engine(driver: FakeDriver) -> Iterator[EngineProcess]:
    engine = EngineProcess(driver.bootstrap())
    yield engine
    engine.finish()


def test_greets_with_what_it_is(driver: FakeDriver, engine: EngineProcess) -> None:
    hello = driver.expect(Hello)
    assert (hello.engine, hello.node, hello.slots, hello.pid) == ("engine-of-tests", "here", 2, engine.pid)
    assert hello.holding == []
    assert driver.expect(Beat).running == []


def test_leaves_when_told_and_idle(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.expect(Hello)
    child = engine.engine()
    driver.start("exit 3")
    assert driver.leave()
    assert driver.outcomes[1].return_code == 3
    assert engine.wait() == 0
    all_gone([child])
    assert engine.process.stderr is not None and engine.process.stderr.read() == b""


def test_environment_of_a_task(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.expect(Hello)
    outcome = driver.run("env -0 > found; pwd > where; cat; ls -l /proc/self/fd | grep -c ' -> ' > open")
    assert (outcome.return_code, outcome.slot, outcome.ending) == (0, 0, Ending.OWN)
    found = dict(line.split("=", 1) for line in (tmp_path / "found").read_text().split("\0") if "=" in line)
    expected = {
        "DISBATCH_JOBID": "4711",
        "DISBATCH_NAMETASKS": "Tasks",
        "DISBATCH_TASKID": "101",
        "DISBATCH_TASKID_ZP": "000101",
        "DISBATCH_STREAM_INDEX": "201",
        "DISBATCH_STREAM_INDEX_ZP": "000201",
        "DISBATCH_REPEAT_INDEX": "-1",
        "DISBATCH_REPEAT_INDEX_ZP": "-00001",
        "DISBATCH_CORES_PER_TASK": "1.5",
        "DISBATCH_ENGINE_RANK": "3",
        "DISBATCH_CYLINDER_RANK": "0",
        "GREETING": "hello",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "DISBATCH_SMTP" not in found
    assert (tmp_path / "where").read_text() == f"{tmp_path}\n"
    # Its three, and the folder that ls itself reads: nothing of the engine's.
    assert (tmp_path / "open").read_text() == "4\n"


def test_task_starts_with_default_signals_in_its_own_session(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.expect(Hello)
    outcome = driver.run(
        "grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status > signals; ps -o sid= -p $$ > sid; "
        "yes | head -n 1; exit ${PIPESTATUS[0]}"
    )
    ignored = {
        line.split()[0]: int(line.split()[1], 16) for line in (tmp_path / "signals").read_text().splitlines()
    }
    # 32 and 33 belong to the C library, which lets nobody set them.
    assert ignored["SigIgn:"] & ~(0b11 << 31) == ignored["SigBlk:"] == 0
    assert int((tmp_path / "sid").read_text()) == outcome.pid
    assert outcome.return_code == 128 + signal.SIGPIPE
    assert outcome.out_snippet == b"y\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 7", 7), ("kill -9 $$", -9), ("kill $$", -15), ("nonesuch_command", 127), ("(", 2)],
)
def test_return_code(driver: FakeDriver, engine: EngineProcess, command: str, code: int) -> None:
    assert driver.run(command).return_code == code


def test_output_is_counted_and_kept_at_its_ends(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start(
        "printf %080d 7; printf %081d 7 >&2",
        "printf '\\377\\0x'",
        "for i in 1 2 3; do echo $i; sleep 0.01; done",
    )
    first, second, third = (driver.outcome(attempt) for attempt in (1, 2, 3))
    assert (first.out_bytes, first.out_snippet) == (80, b"0" * 79 + b"7")
    assert (first.err_bytes, first.err_snippet) == (81, b"0" * 40 + b"..." + b"0" * 39 + b"7")
    assert second.out_snippet == b"\xff\0x"
    assert (third.out_bytes, third.out_snippet) == (6, b"1\n2\n3\n")


def test_much_output_does_not_grow_the_engine(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.run("printf warm")

    def resident() -> int:
        status = Path(f"/proc/{engine.engine()}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    before = resident()
    outcome = driver.run("head -c 200000000 /dev/zero; printf end", attempt=2)
    assert (outcome.out_bytes, outcome.out_snippet) == (
        200_000_003,
        b"\0" * 40 + b"..." + b"\0" * 37 + b"end",
    )
    assert resident() - before < 4096, "KiB"


@pytest.mark.parametrize("size", [119_990, 120_000, 131_072, 400_000, 1_000_000])
def test_long_command(driver: FakeDriver, engine: EngineProcess, size: int) -> None:
    tail = "; printf '%s' ${#a} $- $0; ls -l /proc/self/fd | grep -c ' -> '; exit 5"
    command = "a=" + "x" * (size - len(tail) - 2) + tail
    outcome = driver.run(command)
    assert outcome.err_snippet == b""
    assert outcome.out_snippet == b"%dhBc/bin/bash4\n" % (size - len(tail) - 2)
    assert outcome.return_code == 5


def test_task_that_cannot_start_is_told_and_the_engine_goes_on(driver: FakeDriver, tmp_path: Path) -> None:
    # An environment beyond what Linux lets a program start with.
    big = {b"BIG%d" % n: b"x" * 100_000 for n in range(80)}
    engine = EngineProcess(driver.bootstrap(environment=big))
    try:
        driver.start(":", ":")
        for outcome in (driver.outcome(1), driver.outcome(2)):
            assert (outcome.ending, outcome.return_code, outcome.pid) == (Ending.UNSTARTED, 126, 0)
            assert b"Argument list too long" in outcome.err_snippet
            assert outcome.err_bytes == len(outcome.err_snippet)
        driver.leave()
        assert engine.wait() == 0
    finally:
        engine.finish()


def test_command_with_a_nul_byte_does_not_stop_the_engine(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start(b"echo a\0b", "exit 1")
    assert driver.outcome(1).ending is Ending.UNSTARTED
    assert driver.outcome(2).return_code == 1


def test_background_child_holds_the_pipe_but_not_the_task(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    child = "trap 'echo got >> pipe; exit' PIPE; echo $BASHPID > pid; until [ -e go ]; do sleep 0.02; done; "
    child += "for i in {1..2000}; do echo {1..20}; done; echo done > through"
    outcome = driver.run(f"printf before; ({child}) & printf after")
    assert (outcome.return_code, outcome.out_snippet) == (0, b"beforeafter")
    (pid,) = [int((tmp_path / "pid").read_text())]
    assert alive(pid), "its task's end is not its own"
    (tmp_path / "go").touch()
    wait_until((tmp_path / "through").exists, "a child that is not killed by SIGPIPE")
    assert not (tmp_path / "pipe").exists()


def test_many_parked_pipes(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.start(*["sleep 1000 & echo $! >> pids"] * 80)
    driver.serve_until(lambda: len(driver.outcomes) == 80, "80 outcomes")
    pids = driver.pids(80)
    assert all(alive(pid) for pid in pids)
    assert len(os.listdir(f"/proc/{engine.engine()}/fd")) < 64 + 40
    driver.leave()
    assert engine.wait() == 0
    assert not any(alive(pid) for pid in pids), "what ended tasks left running goes with the engine"


def test_slots_lowest_first_and_in_order(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.start("sleep 1000", "echo 2 >> order", "echo 3 >> order", "echo 4 >> order")
    slots = [driver.outcome(attempt).slot for attempt in (2, 3, 4)]
    assert slots == [1, 1, 1]
    assert (tmp_path / "order").read_text() == "2\n3\n4\n"
    driver.end(1)
    assert driver.outcome(1).slot == 0


def test_recall_gives_back_what_has_not_started(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start("sleep 1000", "sleep 1000", ":", ":")
    driver.running(1, 2)
    driver.recall(2, 3, 4, 99)
    assert sorted(driver.expect(Recalled).attempts) == [3, 4]
    driver.recall(3)
    assert driver.expect(Recalled).attempts == []
    driver.end(1, 2)
    assert driver.outcome(1).ending is driver.outcome(2).ending is Ending.ORDERED
    driver.leave()
    assert set(driver.outcomes) == {1, 2}


def test_per_engine_commands(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.start_per_engine(Phase.START, 1, "sleep 0.05; echo first $DISBATCH_CYLINDER_RANK >> log")
    driver.start_per_engine(Phase.START, 2, "echo second $DISBATCH_CYLINDER_RANK >> log")
    driver.start("echo task $DISBATCH_CYLINDER_RANK >> log", first=3)
    driver.outcome(3)
    driver.start_per_engine(Phase.STOP, 4, "echo stop >> log")
    driver.leave()
    assert (tmp_path / "log").read_text() == "first -1\nsecond -1\ntask 0\nstop\n"
    assert driver.outcomes[2].slot == -1
    assert engine.wait() == 0


def test_many_quick_tasks_each_exactly_once(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start(*[":"] * 2000)
    driver.serve_until(lambda: len(driver.outcomes) == 2000, "2000 outcomes", 120)
    assert {outcome.return_code for outcome in driver.outcomes.values()} == {0}
    assert set(driver.outcomes) == set(range(1, 2001))
    assert isinstance(driver.leave(), Goodbye)
    assert engine.wait() == 0


def test_results_arrive_once_through_a_broken_connection(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.acknowledges = False
    driver.start(*[":"] * 20, "until [ -e go ]; do sleep 0.01; done; touch after")
    driver.serve_until(lambda: len(driver.outcomes) == 20, "20 outcomes")
    driver.hang_up()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "after").exists, "a task that runs without a driver")
    driver.messages.clear()
    driver.acknowledges = True
    driver.listen()
    hello = driver.expect(Hello)
    assert {(c.attempt, c.task_id) for c in hello.holding} == {(n, n + 100) for n in range(1, 22)}
    driver.serve_until(lambda: len(driver.outcomes) == 21, "21 outcomes")
    driver.leave()
    assert engine.wait() == 0
