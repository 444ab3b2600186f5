"""Ends of all sorts, on a real engine: tasks that resist, and engine, keeper and driver killed in turn."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import EngineProcess, FakeDriver, alive, all_gone, command_line, read_pids, wait_until

from disbatch.model.statusline import parse_line
from disbatch.model.task import Ending, Phase
from disbatch.wire.engine_protocol import Goodbye, Hello, Recalled, Refuse


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


@pytest.fixture
def attached(driver: FakeDriver) -> Iterator[EngineProcess]:
    """An engine that a context has started, which was attached to the run."""
    engine = EngineProcess(driver.bootstrap(by_driver=False))
    yield engine
    engine.finish()


def test_end_of_a_task_that_heeds_sigterm(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.welcome["grace"] = 1000.0
    driver.start("trap 'echo bye; exit 9' TERM; echo $$ >> pids; while :; do sleep 0.05; done")
    driver.pids(1)
    driver.end(1)
    outcome = driver.outcome(1)
    assert (outcome.ending, outcome.return_code, outcome.out_snippet) == (Ending.ORDERED, 9, b"bye\n")


def test_end_of_a_task_that_ignores_sigterm_and_one_that_changed_session(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.start(
        "trap '' TERM; echo $$ >> pids; sleep 1000 & echo $! >> pids; while :; do sleep 1000; done",
        "setsid bash -c 'echo $$ >> pids; sleep 1000 & echo $! >> pids; wait' & sleep 1000",
    )
    pids = driver.pids(4)
    driver.end(1, 2)
    first, second = driver.outcome(1), driver.outcome(2)
    assert first.ending is second.ending is Ending.ORDERED
    assert (first.return_code, second.return_code) == (-signal.SIGKILL, -signal.SIGTERM)
    assert not any(alive(pid) for pid in pids), "the outcome comes when all of the task is gone"
    assert first.elapsed >= 0.5, "the grace"


def test_end_at_once_and_of_a_stopped_task(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.welcome["grace"] = 1000.0
    driver.start("trap '' TERM; echo $$ >> pids; sleep 1000; :", "echo $$ >> pids; kill -STOP $$; :")
    pids = driver.pids(2)
    driver.end(2)
    assert driver.outcome(2).return_code == -signal.SIGTERM
    driver.end(1)
    driver.end(1, at_once=True)
    assert driver.outcome(1).return_code == -signal.SIGKILL
    assert not any(alive(pid) for pid in pids)


def test_orders_that_come_while_the_engine_goes(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    """They do not keep it, and are not run: the driver gives them to others when it hears Goodbye."""
    driver.welcome["grace"] = 1000.0
    os.mkfifo(tmp_path / "gate")
    driver.start(
        "trap 'echo $$ >> pids; : < gate; exit 0' TERM; echo $$ >> pids; while :; do sleep 0.05; done"
    )
    driver.pids(1)
    os.kill(engine.pid, signal.SIGTERM)
    driver.pids(2)
    driver.start("touch ran", first=2)
    driver.start_per_engine(Phase.STOP, 3, "touch ran")
    driver.recall(4)
    driver.expect(Recalled)  # what came before has been heard, too
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    driver.expect(Goodbye)
    os.close(gate)
    assert engine.wait() == 128 + signal.SIGTERM
    assert set(driver.outcomes) == {1}
    assert not (tmp_path / "ran").exists()


def test_end_of_a_task_that_forks_all_the_time(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    forks = "trap '' TERM; f() { echo $BASHPID >> pids; sleep 0.02; f & wait; }; f & f & f & f & wait"
    driver.start(forks)
    pids = driver.pids(40)
    driver.end(1)
    assert driver.outcome(1).ending is Ending.ORDERED
    pids = read_pids(tmp_path / "pids")
    assert not any(alive(pid) for pid in pids)


def test_end_of_what_waits_and_of_what_is_over(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.start("sleep 1000", "sleep 1000", ":")
    driver.running(1, 2)
    driver.end(3, 77)
    outcome = driver.outcome(3)
    assert (outcome.ending, outcome.pid, outcome.return_code) == (Ending.ORDERED, 0, -15)
    driver.end(1)
    assert driver.outcome(1).ending is Ending.ORDERED
    assert driver.run("exit 4", attempt=4).ending is Ending.OWN
    driver.end(4, 1)
    driver.end(2)
    driver.outcome(2)
    driver.leave()
    assert set(driver.outcomes) == {1, 2, 3, 4}


def test_end_leaves_other_tasks_alone(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.start("sleep 1000", "until [ -e go ]; do sleep 0.02; done; exit 6")
    driver.running(1, 2)
    driver.end(1)
    driver.outcome(1)
    (tmp_path / "go").touch()
    outcome = driver.outcome(2)
    assert (outcome.ending, outcome.return_code) == (Ending.OWN, 6)


TASKS_THAT_HIDE = (
    "echo $$ >> pids; trap '' TERM; sleep 1000; :",
    "setsid sleep 1000 & echo $! >> pids; wait",
    "env -i sleep 1000 & echo $! >> pids; wait",
    "env -i setsid sleep 1000 & echo $! >> pids; wait",
    "(setsid sleep 1000 & echo $! >> pids); sleep 1000",
)


def test_killed_engine_leaves_no_task(driver: FakeDriver, tmp_path: Path) -> None:
    engine = EngineProcess(driver.bootstrap(slots=8))
    try:
        driver.start("sleep 1000 & echo $! >> pids", *TASKS_THAT_HIDE)
        pids = driver.pids(6)
        driver.outcome(1)
        os.kill(engine.engine(), signal.SIGKILL)
        assert engine.wait() == -signal.SIGKILL
        assert not any(alive(pid) for pid in pids), "the keeper ends when all is gone"
    finally:
        engine.finish()


HIDDEN = "(env -i setsid sleep 1000 & echo $! >> pids)"


def test_killed_engine_leaves_nothing_that_its_tasks_had_hidden_from_it(
    driver: FakeDriver, engine: EngineProcess
) -> None:
    driver.welcome["heartbeat"] = 1000.0
    driver.run(HIDDEN)
    pids = driver.pids(1)
    assert alive(pids[0])
    os.kill(engine.engine(), signal.SIGKILL)
    assert engine.wait() == -signal.SIGKILL
    assert not alive(pids[0])


def test_killed_engine_in_the_midst_of_starting_leaves_no_task(driver: FakeDriver, tmp_path: Path) -> None:
    engine = EngineProcess(driver.bootstrap(slots=50))
    try:
        driver.start(*["echo $$ >> pids; exec sleep 1000"] * 50)
        driver.serve_until((tmp_path / "pids").exists, "the first task")
        os.kill(engine.engine(), signal.SIGKILL)
        assert engine.wait() == -signal.SIGKILL
        assert not any(alive(pid) for pid in read_pids(tmp_path / "pids"))
    finally:
        engine.finish()


def test_what_tasks_leave_running_is_reaped_at_once(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.welcome["heartbeat"] = 1000.0
    driver.run("for i in {1..50}; do (setsid true &); done; (sleep 1000 & echo $! >> pids)")
    driver.pids(1)
    stat = Path(f"/proc/{engine.engine()}/task/{engine.engine()}/children")

    def only_the_sleeper() -> bool:
        return stat.read_text().split() == [str(driver.pids(1)[0])]

    wait_until(only_the_sleeper, "no child that has ended")


def test_killed_keeper_ends_the_engine_and_all_its_tasks(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.welcome["heartbeat"] = 1000.0
    driver.run(HIDDEN)
    driver.start("exec env -i sh -c 'echo $$ >> pids; sleep 1000; :'", first=2)
    pids = driver.pids(2)
    child = engine.engine()
    os.kill(engine.pid, signal.SIGKILL)
    assert driver.outcome(2).ending is Ending.ORDERED
    assert driver.expect(Goodbye).reason == "its keeper was killed"
    all_gone([child])
    assert not any(alive(pid) for pid in pids)


def test_engine_that_does_not_answer_is_ended_by_its_keeper(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.start("echo $$ >> pids; sleep 1000; :")
    pids = driver.pids(1)
    os.kill(engine.engine(), signal.SIGSTOP)
    os.kill(engine.pid, signal.SIGQUIT)
    assert engine.wait() == -signal.SIGKILL
    assert not alive(pids[0])


def test_keeper_holds_nothing_of_the_engines(driver: FakeDriver, engine: EngineProcess) -> None:
    driver.expect(Hello)
    wait_until(lambda: "keeper" in command_line(engine.pid), "an interpreter of its own")
    links = [os.readlink(f"/proc/{engine.pid}/fd/{n}") for n in os.listdir(f"/proc/{engine.pid}/fd")]
    assert not any("engine.txt" in name or name.startswith("socket") for name in links)
    assert "/dev/null" in links, "the lifeline is the engine's alone"
    assert os.getsid(engine.engine()) == engine.engine() != os.getsid(engine.pid) == engine.pid


def test_driver_that_is_gone_for_long_ends_a_local_engine(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.welcome["orphan_patience"] = 0.5
    driver.acknowledges = False
    driver.start("exit 7", "echo $$ >> pids; sleep 1000; :")
    driver.outcome(1)
    pids = driver.pids(1)
    driver.hang_up()
    engine.close_lifeline()
    assert engine.wait() == 3
    assert not alive(pids[0])
    lines = (tmp_path / "run_here_unrecorded.txt").read_bytes().splitlines()
    record = parse_line(lines[0])
    assert record is not None
    assert (record.id, record.line, record.return_code, record.node) == (101, 201, 7, "here")
    assert len(lines) == 1, "what was ended is no result"


def test_end_of_a_driver_that_took_over_is_known(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    """It is no parent of the engine; but as long as its process is there, stopped or not, it is there."""
    driver.welcome["orphan_patience"] = 0.5
    driver.start("until [ -e go ]; do sleep 0.01; done")
    driver.running(1)
    driver.hang_up()
    engine.close_lifeline()
    process = subprocess.Popen(["sleep", "1000"])
    other = FakeDriver(tmp_path, driver.keys)
    other.welcome |= {"orphan_patience": 0.5, "pid": process.pid}
    try:
        other.expect(Hello)
        other.running(1)
    finally:
        other.hang_up()
        process.kill()
        process.wait()
    assert engine.wait() == 3
    assert (tmp_path / "run_here_engine.txt").read_text().count("WARNING the driver is gone; `") == 2


def test_driver_that_is_gone_ends_an_engine_of_an_attached_context(
    driver: FakeDriver, attached: EngineProcess, tmp_path: Path
) -> None:
    """The context, whose child it is, lives on; that says nothing of the driver."""
    driver.welcome["orphan_patience"] = 2.0  # it hears nothing as soon as its tasks are started
    driver.acknowledges = False
    driver.start("exit 7", "echo $$ >> pids; sleep 1000; :")
    driver.outcome(1)
    pids = driver.pids(1)
    driver.hang_up()
    assert attached.wait() == 3
    assert not alive(pids[0])
    assert len((tmp_path / "run_here_unrecorded.txt").read_bytes().splitlines()) == 1


def test_end_of_an_attached_context_is_not_the_drivers(
    driver: FakeDriver, attached: EngineProcess, tmp_path: Path
) -> None:
    driver.start("until [ -e go ]; do sleep 0.01; done")
    driver.running(1)
    attached.close_lifeline()
    log = tmp_path / "run_here_engine.txt"
    wait_until(lambda: "standard input ended" in log.read_text(), "a word about it")
    assert "--takeover" not in log.read_text()
    (tmp_path / "go").touch()
    assert driver.outcome(1).return_code == 0
    driver.leave()
    assert attached.wait() == 0


def test_driver_that_never_answers(driver: FakeDriver) -> None:
    """Somebody listens at its address, and never answers."""
    attached = EngineProcess(driver.bootstrap(by_driver=False, orphan_patience=0.5))
    try:
        assert attached.wait() == 3
    finally:
        attached.finish()


def test_another_driver_goes_on_with_what_runs(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    """The engine says what it has: what runs, what ended meanwhile, which PERENGINE commands it ran."""
    driver.start_per_engine(Phase.START, 9, "echo started >> start")
    driver.start("until [ -e go ]; do sleep 0.01; done", "until [ -e go2 ]; do sleep 0.01; done")
    driver.outcome(9)
    driver.running(1, 2)
    driver.hang_up()
    engine.close_lifeline()
    (tmp_path / "go").touch()
    log = tmp_path / "run_here_engine.txt"
    wait_until(lambda: "`disbatch --takeover" in log.read_text(), "a word about the way to go on")

    other = FakeDriver(tmp_path, driver.keys)
    try:
        hello = other.expect(Hello)
        assert {(c.attempt, c.task_id) for c in hello.holding} >= {(1, 101), (2, 102)}
        assert hello.ran == [(Phase.START, 109)] and not hello.leaving
        assert other.outcome(1).return_code == 0
        (tmp_path / "go2").touch()
        assert other.outcome(2).return_code == 0
        other.leave()
        assert engine.wait() == 0
    finally:
        other.close()


def test_acknowledged_results_are_not_written_again(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.start(":", ":")
    driver.outcome(1)
    driver.outcome(2)
    driver.leave()
    assert engine.wait() == 0
    assert not (tmp_path / "run_here_unrecorded.txt").exists()


def test_driver_that_is_silent_is_given_up(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.welcome["orphan_patience"] = 0.5
    driver.acknowledges = False
    driver.start("exit 3", "echo $$ >> pids; sleep 1000; :")
    driver.outcome(1)
    pids = driver.pids(1)
    driver.hang_up()
    engine.close_lifeline()
    assert engine.wait() == 3
    assert not alive(pids[0])
    assert len((tmp_path / "run_here_unrecorded.txt").read_bytes().splitlines()) == 1


def test_refused_engine_goes(driver: FakeDriver, engine: EngineProcess, tmp_path: Path) -> None:
    driver.start("echo $$ >> pids; sleep 1000; :")
    pids = driver.pids(1)
    driver.session.tell(Refuse("the run is over"))
    assert engine.wait() == 4
    assert not alive(pids[0])
    assert "the run is over" in (tmp_path / "run_here_engine.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_engine_that_is_told_to_end_by_a_signal(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path, number: signal.Signals
) -> None:
    driver.start("echo $$ >> pids; sleep 1000; :")
    pids = driver.pids(1)
    os.kill(engine.pid, number)
    assert driver.outcome(1).ending is Ending.ORDERED
    assert number.name in driver.expect(Goodbye).reason
    assert engine.wait() == 128 + number
    assert not alive(pids[0])


def test_second_signal_does_not_wait_for_the_grace(
    driver: FakeDriver, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.welcome["grace"] = 1000.0
    driver.start("trap 'echo told >> told' TERM; echo $$ >> pids; while :; do sleep 1000 & wait; done")
    driver.pids(1)
    os.kill(engine.pid, signal.SIGTERM)
    driver.serve_until((tmp_path / "told").exists, "a task that was told")
    os.kill(engine.pid, signal.SIGTERM)
    assert driver.outcome(1).return_code == -signal.SIGKILL
    driver.expect(Goodbye)
    assert engine.wait() == 128 + signal.SIGTERM
