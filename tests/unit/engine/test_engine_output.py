"""A real engine keeps what tasks print, in files and in packs, whatever ends them or itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import EngineProcess, FakeDriver

from disbatch.model.output import head_and_tail, left_out, place
from disbatch.model.task import Ending, Phase
from disbatch.rundir.saved_packs import Pack
from disbatch.wire.engine_protocol import ERROR_MARK, Hello

LIMIT = 1 << 20


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


class Shelf:
    """What an engine has kept in `DIR`, in either way; attempts are of tasks whose number is 100 more."""

    def __init__(self, directory: Path, packed: bool) -> None:
        self.directory = directory
        self.packed = packed

    def read(self, attempt: int, stream: int = 0) -> bytes | None:
        task = attempt + 100
        if not self.packed:
            path = self.directory / place(task, stream)
            return path.read_bytes() if path.exists() else None
        found = None
        for path in self.directory.glob("*.pack"):
            opened = Pack.open(path)
            assert opened is not None
            last = opened.find({task}).get((task, attempt))
            if last is not None:
                known = opened.attempt(last)
                assert known is not None
                found = b"".join(known.printed(stream).blocks())
            opened.close()
        return found or None


@pytest.fixture(params=[False, True], ids=["files", "pack"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "out", request.param)


def start(driver: FakeDriver, shelf: Shelf, **changes: object) -> EngineProcess:
    output = {"output": os.fsencode(shelf.directory), "output_pack": shelf.packed, "output_limit": LIMIT}
    return EngineProcess(driver.bootstrap(**output | changes))


@pytest.fixture
def engine(driver: FakeDriver, shelf: Shelf) -> Iterator[EngineProcess]:
    engine = start(driver, shelf)
    yield engine
    engine.finish()


def test_both_streams_are_kept_and_counted(driver: FakeDriver, shelf: Shelf, engine: EngineProcess) -> None:
    driver.start("seq 30; seq 50 >&2", "printf '\\0\\377'", ":", "exit 3", "seq 20000")
    first, second, third, fourth, fifth = (driver.outcome(attempt) for attempt in range(1, 6))
    thirty = b"".join(b"%d\n" % n for n in range(1, 31))
    assert shelf.read(1) == thirty
    assert shelf.read(1, 1) == b"".join(b"%d\n" % n for n in range(1, 51))
    assert (first.out_bytes, first.out_snippet) == (81, thirty[:40] + b"..." + thirty[-40:])
    assert (shelf.read(2), second.out_bytes) == (b"\0\xff", 2)
    assert shelf.read(3) is shelf.read(3, 1) is shelf.read(4) is None
    assert (third.out_bytes, fourth.return_code) == (0, 3)
    assert shelf.read(5) == b"".join(b"%d\n" % n for n in range(1, 20001))
    assert fifth.out_bytes == 108_894
    driver.leave()
    assert engine.wait() == 0


def test_silent_tasks_leave_no_files(driver: FakeDriver, shelf: Shelf, engine: EngineProcess) -> None:
    driver.start(*[":"] * 20)
    driver.serve_until(lambda: len(driver.outcomes) == 20, "20 outcomes")
    driver.leave()
    assert engine.wait() == 0
    assert list(shelf.directory.iterdir()) == []


def test_per_engine_commands_are_not_kept(driver: FakeDriver, shelf: Shelf, engine: EngineProcess) -> None:
    driver.start_per_engine(Phase.START, 1, "echo loud")
    assert driver.outcome(1).out_snippet == b"loud\n"
    driver.leave()
    assert engine.wait() == 0
    assert list(shelf.directory.iterdir()) == []


def test_what_is_there_while_the_task_runs(
    driver: FakeDriver, shelf: Shelf, engine: EngineProcess, tmp_path: Path
) -> None:
    driver.start("echo first; until [ -e go ]; do sleep 0.02; done; echo last")
    driver.serve_until(lambda: shelf.read(1) == b"first\n", "the first line")
    (tmp_path / "go").touch()
    driver.outcome(1)
    assert shelf.read(1) == b"first\nlast\n"


def test_a_flood_is_cut_and_takes_no_memory(driver: FakeDriver, shelf: Shelf, engine: EngineProcess) -> None:
    driver.run("seq 100000 >&2", 1)

    def resident() -> int:
        status = Path(f"/proc/{engine.engine()}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    before = resident()
    driver.start("head -c 400000000 /dev/zero; printf end", first=2)
    driver.start("sleep 0.1; echo quiet", first=3)
    assert driver.outcome(3).out_bytes == 6
    outcome = driver.outcome(2)
    assert outcome.out_bytes == 400_000_003
    assert outcome.out_snippet == b"\0" * 40 + b"..." + b"\0" * 37 + b"end"
    head, tail = head_and_tail(LIMIT)
    gap = left_out(400_000_003 - head - tail)
    assert shelf.read(2) == bytes(head) + gap + bytes(tail - 3) + b"end"
    assert shelf.read(3) == b"quiet\n"
    assert resident() - before < 8192, "KiB"


def test_what_is_ended_by_order_is_kept_too(driver: FakeDriver, shelf: Shelf, engine: EngineProcess) -> None:
    driver.start("echo begun; sleep 1000")
    driver.serve_until(lambda: shelf.read(1) == b"begun\n", "its first line")
    driver.end(1)
    assert driver.outcome(1).ending is Ending.ORDERED
    assert shelf.read(1) == b"begun\n"


def test_an_engine_that_is_ended_writes_all_first(
    driver: FakeDriver, shelf: Shelf, engine: EngineProcess
) -> None:
    driver.start(*["trap 'echo caught; exit 5' TERM; echo begun; sleep 1000 & wait"] * 2)
    driver.serve_until(lambda: shelf.read(1) == shelf.read(2) == b"begun\n", "two first lines")
    os.kill(engine.pid, signal.SIGTERM)
    driver.serve_until(lambda: len(driver.outcomes) == 2, "2 outcomes")
    assert engine.wait() == 128 + signal.SIGTERM
    assert shelf.read(1) == shelf.read(2) == b"begun\ncaught\n"


@pytest.mark.parametrize("moment", range(4))
def test_after_kill_9_what_is_recorded_has_its_output(driver: FakeDriver, shelf: Shelf, moment: int) -> None:
    """Tasks print 100 KB each, in a rush; the engine is killed at some moment, another one goes on."""
    line = "x" * 99 + "\n"
    command = "for i in $(seq 1000); do echo {}; done".format("x" * 99)
    expected = (line * 1000).encode()
    count = 30
    engine = start(driver, shelf, slots=4)
    try:
        driver.start(*[command] * count)
        driver.serve_until(lambda: len(driver.outcomes) >= 3 + 5 * moment, "some outcomes")
        os.kill(engine.engine(), signal.SIGKILL)
        engine.wait()
    finally:
        engine.finish()
    done = set(driver.outcomes)
    for attempt in done:
        assert shelf.read(attempt) == expected, f"attempt {attempt} was recorded"
    rest = [attempt for attempt in range(1, count + 1) if attempt not in done]
    partly = [shelf.read(attempt) for attempt in rest]
    assert all(data is None or expected.startswith(data) for data in partly)
    driver.close()
    again = FakeDriver(driver.folder)
    engine = start(again, shelf, engine="another", slots=4)
    try:
        # The same tasks in new attempts: these numbers give the same task numbers in the tests' orders.
        for attempt in rest:
            again.start(command, first=attempt)
        again.serve_until(lambda: len(again.outcomes) == len(rest), "the rest")
        again.leave()
        assert engine.wait() == 0
    finally:
        engine.finish()
        again.close()
    if not shelf.packed:
        assert [shelf.read(attempt) for attempt in range(1, count + 1)] == [expected] * count
        names = {path.name.count(".") for path in shelf.directory.rglob("*.*")}
        assert names == {1}, "nothing is left aside"


@pytest.mark.parametrize("way", ["a file", "below a file"])
def test_an_engine_that_cannot_write_does_not_start(driver: FakeDriver, tmp_path: Path, way: str) -> None:
    (tmp_path / "taken").touch()
    directory = tmp_path / "taken" if way == "a file" else tmp_path / "taken" / "below"
    engine = start(driver, Shelf(directory, packed=True))
    try:
        assert engine.wait() == 2
        assert engine.process.stdout is not None
        said = engine.process.stdout.read().decode()
    finally:
        engine.finish()
    reason = "File exists" if way == "a file" else "Not a directory"
    assert said == f"{ERROR_MARK} --output {directory} cannot be written on here: {reason}\n"


def test_the_directory_is_made(driver: FakeDriver, shelf: Shelf, tmp_path: Path) -> None:
    deep = Shelf(tmp_path / "a" / "b", shelf.packed)
    engine = start(driver, deep)
    try:
        driver.expect(Hello)
        assert list(deep.directory.iterdir()) == []
        driver.leave()
        assert engine.wait() == 0
    finally:
        engine.finish()
