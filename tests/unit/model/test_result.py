"""model/result.py: what a program is told of its tasks."""

from __future__ import annotations

import json

import pytest

from disbatch.model.result import LONGEST_COMMAND, report_of
from disbatch.model.statusline import Mark, format_barrier, format_line, format_skipped, parse_line
from disbatch.model.task import Barrier, Outcome, Task

TASK = Task(7, 9, -1, b"echo \xff\t'\"")
OUTCOME = Outcome(1, 0, 42, 3, 1.5, 100.25, 101.75, 5, b"a\n\xfe", 0, b"")
LINE = format_line(7, 9, -1, TASK.command, "node1", OUTCOME)


def test_the_originals_names_and_bare_values() -> None:
    report = report_of(LINE)
    assert report is not None
    assert json.loads(report.json()) == {
        "Flags": "RO  ",
        "TaskId": 7,
        "TaskStreamIndex": 9,
        "TaskRepIndex": -1,
        "Host": "node1",
        "PID": 42,
        "ReturnCode": 3,
        "Elapsed": 1.5,
        "Start": 100.25,
        "End": 101.75,
        "OutBytes": 5,
        "OutData": "a\n\\xfe",
        "ErrBytes": 0,
        "ErrData": "",
        "TaskCmd": "echo \\xff\t'\"",
    }


def test_a_task_of_a_former_run() -> None:
    record = parse_line(LINE)
    assert record is not None
    report = report_of(format_skipped(record, TASK))
    assert report is not None
    assert (report.flags, report.return_code, report.pid) == ("RO S", 3, 42)


@pytest.mark.parametrize(
    "line",
    [
        format_line(7, 9, -1, b"true", "node1", OUTCOME, Mark.SUPERSEDED),
        format_line(7, 9, -1, b"true", "node1", OUTCOME, Mark.PER_ENGINE),
        format_barrier(Barrier(1, 2, b"k", False, b"BARRIER"), "n", 1, elapsed=0, start=0, finish=0),
        b"something else\n",
    ],
)
def test_what_there_is_no_report_of(line: bytes) -> None:
    assert report_of(line) is None


def test_a_very_long_command_is_cut() -> None:
    report = report_of(format_line(7, 9, -1, b"x" * (LONGEST_COMMAND + 1), "n", OUTCOME))
    assert report is not None
    assert len(report.command) == LONGEST_COMMAND
