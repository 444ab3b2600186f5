"""What is left for a driver that takes a run over: the run file, and a status file of whole lines."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.recorder import Recorder
from disbatch.driver.tally import Tally
from disbatch.model.errors import ResumeError, UsageError
from disbatch.model.statusline import format_barrier, format_line
from disbatch.model.task import LOST_RETURN_CODE, Barrier, Ending, Outcome, PerEngine, Phase, Task, Way
from disbatch.plan.events import RecordPerEngine, RecordTask, Verdict
from disbatch.rundir.journal import (
    Asked,
    AttachedContext,
    Cancelled,
    Closed,
    Counted,
    Gone,
    Here,
    JournalLine,
    JournalState,
    Paused,
    RenamedFiles,
    TakenOver,
    Unwanted,
)
from disbatch.rundir.journal_file import JournalFile, read
from disbatch.rundir.takeover import SoFar, cut_torn_line
from disbatch.wire.client_protocol import Attach, Newcomer

NAME = b"caf\xe9"
ASKED = Asked("0", [b"-p", NAME], b"/", "7", "Tasks", b"/log", 3, 4, 600.0, [(b"A", NAME)])
NODE = Node("n1", 4, 2, Way.SSH, 2.0)


def here(engine: str, pid: int = 0, context: str = "") -> Here:
    return Here(engine, engine.upper(), 0, 2, None if context else NODE, "host", pid, context)


def attach(limit: int) -> Attach:
    return Attach("rack", "host", 7, [Newcomer("c", "C", 2)], limit=limit)


HISTORY: list[JournalLine] = [
    here("a"),
    here("b"),
    here("b", 5),
    AttachedContext("c1", attach(9)),
    here("c", context="c1"),
    Paused(True),
    Cancelled([(3, 4)]),
    Unwanted("a", stop=False),
    Unwanted("a", stop=True),
    Unwanted("b", stop=False),
    Counted("c1", [(3, 3), (5, 5)]),
    Counted("c1", [(4, 4)]),
    Gone("a"),
    Gone("c", lost=True),
    Cancelled([(5, 5), (20, 29)]),
    Closed(),
    RenamedFiles(b"/there/P-2_status.txt", NAME),
]


def check_history(told: JournalState) -> None:
    """What that comes to."""
    assert told.asked == ASKED
    assert told.engines == {"b": here("b", 5)} and told.lost == {"c": here("c", context="c1")}
    assert told.unwanted == {"b": False} and told.avoid == {"n1"}
    assert told.run_orders() == [Cancelled([(3, 5), (20, 29)]), Paused(True), Closed()]
    assert told.elsewhere == RenamedFiles(b"/there/P-2_status.txt", NAME)
    assert told.attached == {"c1": attach(9)} and list(told.counted["c1"]) == [(3, 5)]


def test_tells_what_was_asked_and_what_became_of_it(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    assert all(file.add(line) for line in HISTORY)
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    check_history(file.told)
    check_history(read(path))


def test_written_anew_it_tells_the_same(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    for line in HISTORY:
        file.add(line)
    file.close()
    for number in (1, 2):
        told = read(path)
        told.learn(TakenOver("host", 9, told.number + 1))
        JournalFile.go_on(path, told).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        check_history(read(path))
        assert read(path).number == number
    assert [each.name for each in tmp_path.iterdir()] == ["P_run.json"]


def test_engine_that_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    for line in (here("a", 1), Unwanted("a", stop=False), Gone("a", lost=True), here("a", 1)):
        file.add(line)
    assert (read(path).engines, read(path).lost) == ({"a": here("a", 1)}, {})
    assert read(path).unwanted == {"a": False}
    file.add(Unwanted("nobody", stop=True))
    file.add(Gone("a", lost=True))
    file.add(Gone("a"))
    file.close()
    assert (read(path).engines, read(path).lost, read(path).unwanted) == ({}, {}, {})


def test_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    file.add(here("a"))
    file.close()
    with path.open("ab") as torn:
        torn.write(b'{"type":"gone","eng')
    file = JournalFile.go_on(path, read(path))
    file.add(here("b"))
    file.close()
    assert set(read(path).engines) == {"a", "b"}


@pytest.mark.parametrize("damage", [b"\0" * 20, b'{"type":"gone","engine":7}', b"", b"[" * 5000, b'{"ty'])
def test_damage_is_told_and_where(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    file.add(here("a"), here("b"))
    first, _, third = path.read_bytes().splitlines(keepends=True)
    for number, lines in enumerate(([damage + b"\n", first], [first, damage + b"\n", third]), 1):
        path.unlink()
        path.write_bytes(b"".join(lines))
        with pytest.raises(UsageError, match=rf"P_run\.json:{number}: this line is damaged: .* with -r"):
            read(path)
    assert not file.is_taken_over() and file.write_again()  # as it is our own, and we know it all
    assert set(read(path).engines) == {"a", "b"}
    file.close()


def test_a_damaged_file_of_another_driver_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    told = read(path)
    told.learn(TakenOver("elsewhere", 9, 1))
    JournalFile.go_on(path, told).close()
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b"x\n", *others]))
    assert file.is_taken_over()
    file.close()


def test_passes_over_lines_of_a_later_version(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    with path.open("ab") as later:
        later.write(b'{"type":"invented later","engine":7}\n')
    file.add(here("a"))
    file.close()
    assert set(read(path).engines) == {"a"}


def test_stays_small_however_long_the_run_lasts(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED, small=10_000)
    file.add(Cancelled([(1, 2)]))
    for number in range(2_000):
        file.add(here("a", number), Paused(number % 2 == 0))
        assert path.stat().st_size < 11_000
    file.close()
    assert read(path).engines == {"a": here("a", 1_999)}
    assert read(path).run_orders() == [Cancelled([(1, 2)])]


def test_full_disk_and_then_room(tmp_path: Path) -> None:
    """Nothing is lost by that, and no half line spoils the next one."""
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    before = path.stat().st_size
    with file_size_limit(before + 10):
        assert not file.add(here("a"))
        assert not file.add(Paused(True))
        assert path.stat().st_size <= before + 10
        assert read(path).engines == {} and not read(path).run_orders()
    assert file.add(here("b"))
    file.close()
    told = read(path)
    assert (set(told.engines), told.run_orders()) == ({"a", "b"}, [Paused(True)])
    assert [each.name for each in tmp_path.iterdir()] == ["P_run.json"]


def test_does_not_take_the_place_of_another_drivers_file(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED, small=1)
    other = JournalFile.go_on(path, read(path))
    assert not file.is_taken_over() and not other.is_taken_over()  # a copy of our own
    other.close()
    told = read(path)
    told.learn(TakenOver("elsewhere", 9, 1))
    other = JournalFile.go_on(path, told, small=1)
    assert (file.is_taken_over(), other.is_taken_over()) == (True, False)
    for number in range(100):
        file.add(here("a", number))
    assert read(path).engines == {} and not other.is_taken_over()
    assert not file.write_again()
    path.unlink()
    assert not file.is_taken_over() and not other.is_taken_over()
    assert other.write_again() and not other.write_again()
    assert read(path).driver == TakenOver("elsewhere", 9, 1)
    file.close()
    other.close()


def test_removed_or_put_back_is_no_other_driver(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = JournalFile.create(path, ASKED)
    before = path.read_bytes()
    file.add(here("a"))
    path.unlink()
    file.add(here("b"))
    assert not file.is_taken_over() and file.write_again()
    assert set(read(path).engines) == {"a", "b"}
    copy = tmp_path / "copy"
    copy.write_bytes(before)
    copy.replace(path)
    assert not file.is_taken_over() and file.write_again()
    assert set(read(path).engines) == {"a", "b"}
    copy.write_text("mine")
    copy.replace(path)
    assert not file.is_taken_over()
    with pytest.raises(FileExistsError, match="is another file now"):
        file.write_again()
    assert path.read_text() == "mine"
    file.close()


def test_file_system_that_does_not_say_whose_the_run_is(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    file = JournalFile.create(folder / "P_run.json", ASKED)
    folder.rename(tmp_path / "away")
    (tmp_path / "folder").write_text("")
    with pytest.raises(NotADirectoryError):
        file.is_taken_over()
    (tmp_path / "folder").unlink()
    (tmp_path / "away").rename(folder)
    assert not file.is_taken_over()
    file.close()


def test_is_not_written_over_anything(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    path.write_text("mine")
    with pytest.raises(UsageError, match="cannot be created: File exists"):
        JournalFile.create(path, ASKED)
    assert path.read_text() == "mine"


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process can grow beyond that: as on a full disk, but with another error."""
    former, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("text", [b"", b"nonsense\n", b'{"type":"gone","engine":"a"}\n'])
def test_file_that_does_not_tell(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "P_run.json"
    path.write_bytes(text)
    with pytest.raises(UsageError, match="cannot be taken over"):
        read(path)
    path.unlink()
    with pytest.raises(UsageError, match="No such file"):
        read(path)


@pytest.mark.parametrize(
    ("text", "kept"),
    [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b"a\nto", b"a\n"), (b"to", b""), (b"a\n" + b"x" * 200_000, b"a\n")],
)
def test_cuts_a_torn_line(tmp_path: Path, text: bytes, kept: bytes) -> None:
    path = tmp_path / "status"
    path.write_bytes(text)
    descriptor = os.open(path, os.O_RDWR)
    assert cut_torn_line(descriptor) == len(kept)
    os.close(descriptor)
    assert path.read_bytes() == kept


def line(id: int, return_code: int = 0, command: bytes = b":") -> bytes:
    outcome = Outcome(0, 0, 1, return_code, 1.0, 1.0, 2.0, 0, b"", 0, b"")
    return format_line(id, id + 1, -1, command, "n1", outcome)


def test_so_far(tmp_path: Path) -> None:
    """Barriers and lost tasks are done with, too; the run's own record goes before what engines left."""
    barrier = Barrier(1, 2, None, False, b"#DISBATCH BARRIER")
    done = format_barrier(barrier, "n1", 1, elapsed=1.0, start=1.0, finish=2.0)
    (tmp_path / "P_status.txt").write_bytes(line(0, 3) + done + line(2, LOST_RETURN_CODE))
    (tmp_path / "P_n1_unrecorded.txt").write_bytes(line(0) + line(4))
    so_far = SoFar.read(tmp_path / "P_status.txt", "Tasks")

    def found(item: Task | Barrier) -> tuple[bool, bool] | None:
        recorded = so_far.recorded(item)
        return None if recorded is None else (recorded.failed, recorded.record.written)  # type: ignore[attr-defined]

    tasks = [Task(id, id + 1, -1, b":") for id in range(5)]
    assert found(tasks[0]) == (True, True)
    assert found(barrier) == (False, True)
    assert found(tasks[2]) == (True, True)
    assert found(tasks[3]) is None
    assert found(tasks[4]) == (False, False)
    assert so_far.verify([tasks[0], barrier, *tasks[2:]], 5) == []
    with pytest.raises(ResumeError, match="is not the one"):
        so_far.recorded(Task(0, 1, -1, b"another"))
    so_far.close()


def test_what_was_ended_is_not_written_twice(tmp_path: Path) -> None:
    """An engine sends again what the former driver wrote, but did not answer any more."""
    known, new = (Outcome(n, 0, n, -15, 1.0, 1.0, 2.0, 0, b"", 0, b"", Ending.ORDERED) for n in (1, 2))
    task, start = Task(7, 8, -1, b":"), PerEngine(0, 1, Phase.START, b":")
    written: list[bytes] = []

    def recorder(asides: set[int]) -> Recorder:
        entries = {"e": EngineEntry("e", "n1", 0, 1)}
        return Recorder(
            written.append,
            Tally(),
            entries,
            notify_user=lambda text: None,
            source_name=lambda id: "Tasks",
            hostname="here",
            barriers_read=deque(),
            asides=asides,
            keyed=lambda barrier: None,
        )

    def tell(recorder: Recorder, outcome: Outcome) -> None:
        recorder.performers[RecordTask](RecordTask("e", task, outcome, Verdict.ENDED))
        recorder.performers[RecordPerEngine](RecordPerEngine("e", start, outcome))

    tell(recorder(set()), known)
    assert len(written) == 2
    (tmp_path / "P_status.txt").write_bytes(line(0) + b"".join(written))
    so_far = SoFar.read(tmp_path / "P_status.txt", "Tasks")
    again = recorder(so_far.asides)
    tell(again, known)
    assert len(written) == 2
    tell(again, new)
    assert len(written) == 4
    so_far.close()
