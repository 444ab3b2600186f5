"""Lines of the status file that a killed driver may have written already."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from disbatch.driver.roster import Member, Tally
from disbatch.driver.scribe import Scribe
from disbatch.driver.sofar import SoFar
from disbatch.model.outcome import Ending, Outcome
from disbatch.model.status import Mark, parse_line
from disbatch.model.task import PerEngine, Phase, Task
from disbatch.plan.events import RecordPerEngine, RecordTask, Verdict

TASK = Task(0, 1, -1, b"sleep 9")
COMMAND = PerEngine(0, 2, Phase.START, b"warm up")


def outcome(attempt: int, return_code: int, pid: int = 77) -> Outcome:
    return Outcome(attempt, 0, pid, return_code, 1.5, 1.0, 2.0, 0, b"", 3, b"oh\t", Ending.ORDERED)


def scribe(lines: list[bytes], so_far: SoFar | None = None) -> Scribe:
    members = {"e": Member("e", "n1", 0, 2)}
    return Scribe(
        lines.append,
        Tally(),
        members,
        say=lambda text: None,
        source_name="Tasks",
        hostname="n1",
        barriers_read=deque(),
        is_written=(lambda line: False) if so_far is None else so_far.is_written,
    )


def record(scribe: Scribe, *, pid: int = 77) -> None:
    """What the engine tells again to the next driver, if nobody told it that it is safe."""
    for action in (
        RecordPerEngine("e", COMMAND, outcome(1, 3, pid)),
        RecordTask("e", TASK, outcome(2, -15, pid), Verdict.ENDED),
    ):
        scribe.performers[type(action)](action)


def test_lines_that_do_not_count_are_not_written_twice(tmp_path: Path) -> None:
    first: list[bytes] = []
    record(scribe(first))
    marks = [line.mark for line in map(parse_line, first) if line is not None]
    assert marks == [Mark.PER_ENGINE, Mark.SUPERSEDED]
    status = tmp_path / "P_status.txt"
    status.write_bytes(b"".join(first))
    so_far = SoFar.read(status, "Tasks")
    again: list[bytes] = []
    record(scribe(again, so_far))
    assert again == []
    record(scribe(again, so_far), pid=78)
    assert len(again) == 2
    so_far.close()


def test_lines_beside_the_status_file_are_not_those_of_the_run(tmp_path: Path) -> None:
    lines: list[bytes] = []
    record(scribe(lines))
    (tmp_path / "P_n1_unrecorded.txt").write_bytes(b"".join(lines))
    (tmp_path / "P_status.txt").write_bytes(b"")
    so_far = SoFar.read(tmp_path / "P_status.txt", "Tasks")
    again: list[bytes] = []
    record(scribe(again, so_far))
    assert again == lines
    so_far.close()
