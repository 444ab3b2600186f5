"""What is left for a driver that takes a run over: the run file, and a status file of whole lines."""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path

import pytest

from disbatch.contexts.nodes import Node
from disbatch.driver.roster import Member, Tally
from disbatch.driver.runfile import Asked, Counted, Gone, Here, RunFile, TakenOver, read
from disbatch.driver.scribe import Scribe
from disbatch.driver.sofar import SoFar, cut_torn_line
from disbatch.model.errors import ResumeError, UsageError
from disbatch.model.outcome import LOST_RETURN_CODE, Ending, Outcome
from disbatch.model.status import format_barrier, format_line
from disbatch.model.task import Barrier, PerEngine, Phase, Task
from disbatch.model.way import Way
from disbatch.plan.events import RecordPerEngine, RecordTask, Verdict

NAME = b"caf\xe9"
ASKED = Asked("0", [b"-p", NAME], b"/", "7", "Tasks", b"/log", 3, 4, 600.0, [(b"A", NAME)])
NODE = Node("n1", 4, 2, Way.SSH, 2.0)


def here(engine: str, pid: int = 0) -> Here:
    return Here(engine, "n1", 0, 2, NODE, "host", pid)


def test_tells_what_was_asked_and_who_is_there(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = RunFile.create(path, ASKED)
    file.add([here("a"), here("b")])
    file.add([here("b", 5)])
    file.add([Gone("a")])
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = read(path)
    assert (told.asked, told.engines, told.takeovers) == (ASKED, {"b": here("b", 5)}, 0)


def test_tells_what_counts_against_limits(tmp_path: Path) -> None:
    """Those that were recorded; and one that was ended twice stands there twice."""
    file = RunFile.create(tmp_path / "P_run.json", ASKED)
    file.add([Counted("", 1), Counted("c1", 2), Counted("c1", 3), Counted("c1", 3), Counted("c1", 9)])
    file.close()
    told = read(tmp_path / "P_run.json")
    assert told.counted == {"": {1}, "c1": {2, 3, 9}}
    status = tmp_path / "P_status.txt"
    status.write_bytes(line(1) + line(2) + line(3))
    so_far = SoFar.read(status, "Tasks")
    assert {context: so_far.count(tasks) for context, tasks in told.counted.items()} == {"": 1, "c1": 2}
    so_far.close()


def test_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "P_run.json"
    file = RunFile.create(path, ASKED)
    file.add([here("a")])
    file.close()
    with path.open("ab") as torn:
        torn.write(b'{"type":"gone","eng')
    file = RunFile.go_on(path, TakenOver("host", 9))
    file.add([here("b")])
    file.close()
    told = read(path)
    assert (set(told.engines), told.takeovers) == ({"a", "b"}, 1)


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

    def scribe(asides: set[int]) -> Scribe:
        members = {"e": Member("e", "n1", 0, 1)}
        return Scribe(
            written.append,
            Tally(),
            members,
            say=lambda text: None,
            source_name="Tasks",
            hostname="here",
            barriers_read=deque(),
            asides=asides,
            counted=lambda context, task: None,
        )

    def tell(scribe: Scribe, outcome: Outcome) -> None:
        scribe.performers[RecordTask](RecordTask("e", task, outcome, Verdict.ENDED))
        scribe.performers[RecordPerEngine](RecordPerEngine("e", start, outcome))

    tell(scribe(set()), known)
    assert len(written) == 2
    (tmp_path / "P_status.txt").write_bytes(line(0) + b"".join(written))
    so_far = SoFar.read(tmp_path / "P_status.txt", "Tasks")
    again = scribe(so_far.asides)
    tell(again, known)
    assert len(written) == 2
    tell(again, new)
    assert len(written) == 4
    so_far.close()
