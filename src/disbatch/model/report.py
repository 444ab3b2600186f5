"""How a task ended, for the program that gave it: JSON with the names of the original's reports.

| name | as in the status file |
|---|---|
| `Flags` | the flags, four columns, or five |
| `TaskId`, `TaskStreamIndex`, `TaskRepIndex` | id, line, repeat index |
| `Host`, `PID`, `ReturnCode` | node, shell, return code |
| `Elapsed`, `Start`, `End` | seconds |
| `OutBytes`, `OutData`, `ErrBytes`, `ErrData` | what leaked, as text: what is not UTF-8 in it reads `\\xNN` |
| `TaskCmd` | the command, as text |
"""

from __future__ import annotations

import msgspec

from disbatch.model.snippet import unquoted
from disbatch.model.status import Mark, parse_line
from disbatch.model.text import valid

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


def report_of(line: bytes) -> Report | None:
    """What a line of the status file says of a task; None if it is not about one."""
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
