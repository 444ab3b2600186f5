"""The complete output of one task, or the reason why it is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from disbatch.model.errors import UsageError
from disbatch.model.text import counted, shown_path
from disbatch.rundir.output_manifest import OutputFile, manifest_of
from disbatch.rundir.runscript import status_file
from disbatch.rundir.saved_output import Found, Line, SavedOutput, read_lines

STREAMS = ("stdout", "stderr")
_NOT_RUN = {
    "cancelled": "cancelled before starting",
    "not run": "not run: something that is needed was not available",
}


def read_output(prefix: str, task: int, *, err: bool = False) -> bytes:
    """All that a task printed to stdout, or to stderr (`err`). UsageError if it is missing, was not kept, or
    is damaged."""
    told, stream = manifest_of(prefix), int(err)
    lines = read_lines(Path(status_file(prefix)), {task})
    kept = SavedOutput(told, {task}, lines)
    reasons = Reasons(told, prefix, lines, stream, kept.damaged)
    try:
        found = kept.find(task, stream)
        if found is not None:
            data = b"".join(found.blocks)
            if found.is_damaged:
                raise UsageError(f"task {task}: {reasons.of_lack(task, found)}")
            return data
    finally:
        kept.close()
    reason = reasons.of(task)
    if reasons.wrong:
        raise UsageError(f"task {task}: {reason}")
    return b""


class Reasons:
    """Words for output that is missing, or missing in part. `wrong`: a task's output was missing although it
    printed some, or it did not run; `is_damaged`: kept output is damaged. `damaged`: the damaged packs."""

    def __init__(
        self, told: OutputFile, prefix: str, lines: dict[int, Line], stream: int, damaged: Sequence[Path]
    ) -> None:
        self.stream = stream
        self.wrong = self.is_damaged = False
        self._damaged = damaged
        self._told = told
        self._prefix = prefix
        self._lines = lines

    def of(self, task: int) -> str:
        """Why a task has no output."""
        line = self._lines.get(task)
        name = STREAMS[self.stream]
        if line is not None and line.ran and not line.sizes[self.stream]:
            other = line.sizes[1 - self.stream]
            option = "without --err" if self.stream else "--err"
            also = f", but {counted(other, 'byte')} to {STREAMS[1 - self.stream]} ({option})" if other else ""
            return f"nothing printed to {name}{also}"
        self.wrong = True
        if line is None:
            if os.path.lexists(f"{self._prefix}_connect.json"):
                return f"no end recorded, and no {name} so far"
            return f"not in {status_file(self._prefix)}: never ended, or no such task"
        if line.mark.name == "BARRIER":
            return "a barrier"
        if not line.ran:
            return _NOT_RUN.get(line.reason.words, "never ran, or lost with the node: nothing is left")
        gone = counted(line.sizes[self.stream], f"byte of {name} is", f"bytes of {name} are")
        if self._damaged:
            self.is_damaged = True
            return f"{gone} not to be found, and {shown_path(str(self._damaged[0]))} is damaged"
        return (
            f"{gone} not in "
            f"{self._told.directory} here, which may "
            f"be another one on {line.node}, where they were printed"
        )

    def of_lack(self, task: int, found: Found) -> str:
        """What is missing of output that was found; empty if it is complete."""
        if not (found.lacks or found.is_damaged):
            return ""
        self.is_damaged = True
        name, path = STREAMS[self.stream], shown_path(str(found.path))
        gone = f"part of its {name}"
        if found.lacks:
            gone = f"{found.lacks:,} of its {counted(self._lines[task].sizes[self.stream], 'byte')} of {name}"
        if found.is_damaged or found.path in self._damaged:
            return f"{gone} cannot be read: {path} is damaged"
        return f"{gone} could not be kept, or {path} is damaged"
