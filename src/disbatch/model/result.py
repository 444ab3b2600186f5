r"""A status line as a `TaskResult` for programs, and as a JSON report with the field names of the original.

| name in the report | field of the status file |
|---|---|
| `Flags` | the flags, four columns, or five |
| `TaskId`, `TaskStreamIndex`, `TaskRepIndex` | id, line, repeat index |
| `Host`, `PID`, `ReturnCode` | node, shell, return code |
| `Elapsed`, `Start`, `End` | seconds |
| `OutBytes`, `OutData`, `ErrBytes`, `ErrData` | captured output as text; bytes that are not UTF-8: `\xNN` |
| `TaskCmd` | the command, as text |
"""

from __future__ import annotations

import os
from typing import Literal, cast

import msgspec

from disbatch.model.errors import EXIT_FAILED, DisbatchError
from disbatch.model.statusline import Mark, Record, parse_line, unquoted
from disbatch.model.task import LOST_RETURN_CODE, how_ended
from disbatch.model.text import valid

Kind = Literal["task", "skipped", "barrier", "perengine", "superseded"]
Why = Literal["", "cancelled", "time limit", "memory", "not run"]
KINDS: dict[Mark, Kind] = {
    Mark.TASK: "task",
    Mark.SKIPPED: "skipped",
    Mark.BARRIER: "barrier",
    Mark.PER_ENGINE: "perengine",
    Mark.SUPERSEDED: "superseded",
}


class TaskResult(msgspec.Struct, frozen=True, gc=False):
    """One line of the status file: how a task ended, where and when.

    `id` counts from 0 in the order of submission; `line` is the line in PREFIX_tasks.txt, or in the task
    file, from 1; `repeat` is the task's DISBATCH_REPEAT_INDEX, -1 if it has none. `node` is where it ran,
    `pid` the process id of its shell. `return_code` is minus the signal's number if a signal ended it.
    `elapsed` is in seconds; `start` and `finish` are in seconds since 1970, by the node's clock. `out_bytes`
    and `err_bytes` count the bytes that it wrote to its standard output and error, and `out` and `err` are
    the first and last 40 bytes of these, with `...` between if some were left out. `command` includes PREFIX
    and SUFFIX; bytes that are not UTF-8 are represented as in file names (`os.fsdecode`).

    `kind` is "task", or "skipped" (a former run completed it, and these are its fields), or, in a status
    file, "barrier", "perengine" (a PERENGINE command; these have ids of their own) or "superseded" (an
    attempt that does not count).

    `reason` is why it ended, if more is known than the return code says: "cancelled", "time limit", "memory",
    "not run" (something that it needs is not available; it is still to be done), or "".
    """

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
    out: bytes
    err_bytes: int
    err: bytes
    command: str
    kind: Kind = "task"
    reason: Why = ""

    @property
    def ok(self) -> bool:
        """True if the return code is 0."""
        return self.return_code == 0

    @property
    def lost(self) -> bool:
        """True if it was given up because its nodes were lost too often."""
        return self.return_code == LOST_RETURN_CODE and self.reason != "not run"

    @property
    def counts(self) -> bool:
        """True if the line is a task's result; each task of a run has one such line."""
        return self.kind in ("task", "skipped")

    @property
    def command_bytes(self) -> bytes:
        """The command, as bytes."""
        return os.fsencode(self.command)

    def check(self) -> TaskResult:
        """Return self if the task succeeded. Raises TaskFailedError if not."""
        if self.ok:
            return self
        raise TaskFailedError(self)

    def __str__(self) -> str:
        how = f"return code {self.return_code}"
        if self.reason:
            how = how_ended(self.return_code, self.reason)
        elif self.lost:
            how = "given up because its nodes were lost"
        elif self.return_code < 0:
            how = f"ended by signal {-self.return_code}"
        return f"task {self.id} on {self.node}: {how}, {self.elapsed:.3f} s: {self.command}"


class TaskFailedError(DisbatchError):
    """A task failed; `result` is its result."""

    exit_code = EXIT_FAILED

    def __init__(self, result: TaskResult) -> None:
        err = result.err.decode("utf-8", "replace").strip()
        super().__init__(f"{result}" + (f" ({err})" if err else ""))
        self.result = result

    def __reduce__(self) -> tuple[type[TaskFailedError], tuple[TaskResult]]:
        return type(self), (self.result,)


def result_of(record: Record, command: bytes | None = None) -> TaskResult:
    """The result in the line `record` of a status file; `command` replaces the recorded one."""
    if command is None:
        command = unquoted(record.command)
    if command is None:
        command = record.command  # bare, as the original writes it
    return TaskResult(
        record.id,
        record.line,
        record.repeat,
        record.node,
        record.pid,
        record.return_code,
        record.elapsed,
        record.start,
        record.finish,
        record.out_bytes,
        unquoted(record.out) or b"",
        record.err_bytes,
        unquoted(record.err) or b"",
        command.decode("utf-8", "surrogateescape"),
        KINDS[record.mark],
        cast(Why, record.reason.words),
    )


LONGEST_COMMAND = 1 << 20
"""The longest command in a report, in bytes."""


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
    """A report; times in seconds."""

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
        """The value that is put into the key store."""
        return msgspec.json.encode(self)


def report_of(line: bytes) -> Report | None:
    """The report of a line of the status file; None if the line is not about a task."""
    r = parse_line(line)
    if r is None or r.mark not in (Mark.TASK, Mark.SKIPPED):
        return None
    return Report(
        flags=line.partition(b"\t")[0].decode(),
        id=r.id,
        line=r.line,
        repeat=r.repeat,
        node=valid(r.node),
        pid=r.pid,
        return_code=r.return_code,
        elapsed=r.elapsed,
        start=r.start,
        finish=r.finish,
        out_bytes=r.out_bytes,
        out=_text(unquoted(r.out) or b""),
        err_bytes=r.err_bytes,
        err=_text(unquoted(r.err) or b""),
        command=_text((unquoted(r.command) or b"")[:LONGEST_COMMAND]),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
