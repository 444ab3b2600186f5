"""How a task ended, for the program that gave it: JSON with the names of the original's reports.

| name | as in the status file |
|---|---|
| `Flags` | the flags, four columns |
| `TaskId`, `TaskStreamIndex`, `TaskRepIndex` | id, line, repeat index |
| `Host`, `PID`, `ReturnCode` | node, shell, return code |
| `Elapsed`, `Start`, `End` | seconds |
| `OutBytes`, `OutData`, `ErrBytes`, `ErrData` | what leaked, as text: what is not UTF-8 in it reads `\\xNN` |
| `TaskCmd` | the command, as text |
"""

from __future__ import annotations

import msgspec

from disbatch.model.outcome import Outcome
from disbatch.model.snippet import unquoted
from disbatch.model.status import Mark, Record, flags_of
from disbatch.model.task import Task

LONGEST_COMMAND = 1 << 20
"""Bytes of a command that a report has at most."""


class Report(
    msgspec.Struct,
    frozen=True,
    gc=False,
    rename={
        "flags": "Flags",
        "id": "TaskId",
        "line": "TaskStreamIndex",
        "repeat": "TaskRepIndex",
        "node": "Host",
        "pid": "PID",
        "return_code": "ReturnCode",
        "elapsed": "Elapsed",
        "start": "Start",
        "finish": "End",
        "out_bytes": "OutBytes",
        "out": "OutData",
        "err_bytes": "ErrBytes",
        "err": "ErrData",
        "command": "TaskCmd",
    },
):
    """One report; times in seconds."""

    flags: str
    id: int
    line: int
    repeat: int
    node: str
    pid: int
    return_code: int
    elapsed: float
    start: float
    finish: float
    out_bytes: int
    out: str
    err_bytes: int
    err: str
    command: str

    def json(self) -> bytes:
        """As it stands in the key store."""
        return msgspec.json.encode(self)


def report_of(task: Task, outcome: Outcome, node: str, mark: Mark = Mark.TASK) -> Report:
    """What there is to say of this task, that ended so on this node."""
    o = outcome
    return Report(
        flags=flags_of(o.return_code, o.out_bytes, o.err_bytes, mark),
        id=task.id,
        line=task.line,
        repeat=task.repeat,
        node=_text(node.encode("utf-8", "surrogateescape")),
        pid=o.pid,
        return_code=o.return_code,
        elapsed=o.elapsed,
        start=o.start,
        finish=o.finish,
        out_bytes=o.out_bytes,
        out=_text(o.out_snippet),
        err_bytes=o.err_bytes,
        err=_text(o.err_snippet),
        command=_text(task.command[:LONGEST_COMMAND]),
    )


def report_of_record(task: Task, record: Record, mark: Mark) -> Report:
    """The same for one that a former run completed."""
    r = record
    outcome = Outcome(
        *(0, -1, max(r.pid, 0), r.return_code, r.elapsed, r.start, r.finish),
        *(r.out_bytes, unquoted(r.out) or b"", r.err_bytes, unquoted(r.err) or b""),
    )
    return report_of(task, outcome, r.node, mark)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
