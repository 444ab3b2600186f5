"""model/report.py: what a program is told of its tasks."""

from __future__ import annotations

import json

import msgspec

from disbatch.model.outcome import Outcome
from disbatch.model.report import LONGEST_COMMAND, report_of, report_of_record
from disbatch.model.status import Mark, format_line, parse_line
from disbatch.model.task import Task

TASK = Task(7, 9, -1, b"echo \xff\t'\"")
OUTCOME = Outcome(1, 0, 42, 3, 1.5, 100.25, 101.75, 5, b"a\n\xfe", 0, b"")


def test_the_originals_names_and_bare_values() -> None:
    assert json.loads(report_of(TASK, OUTCOME, "node1").json()) == {
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
    record = parse_line(format_line(7, 9, -1, TASK.command, "node1", OUTCOME))
    assert record is not None
    assert report_of_record(TASK, record, Mark.TASK) == report_of(TASK, OUTCOME, "node1")
    assert report_of_record(TASK, record, Mark.SKIPPED).flags == "RO S"


def test_a_very_long_command_is_cut() -> None:
    task = msgspec.structs.replace(TASK, command=b"x" * (LONGEST_COMMAND + 1))
    assert len(report_of(task, OUTCOME, "n").command) == LONGEST_COMMAND
