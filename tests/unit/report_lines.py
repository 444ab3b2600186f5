"""Status files for the tests of the report, written as the driver writes them."""

from __future__ import annotations

from pathlib import Path

from disbatch.model.output import place
from disbatch.model.statusline import Mark, format_line
from disbatch.model.task import Outcome, Reason
from disbatch.rundir import output_manifest
from disbatch.rundir.output_manifest import OutputFile
from disbatch.watch.report.analysis import Analysis
from disbatch.watch.report.figures import Report

BASE = 1_772_366_400.0
"""When the runs of these tests begin: seconds since the epoch."""


def line(
    id: int,
    start: float = 0.0,
    elapsed: float = 1.0,
    *,
    code: int = 0,
    node: str = "node1",
    err: bytes = b"",
    mark: Mark = Mark.TASK,
    command: bytes = b"",
    pid: int = 4711,
    reason: Reason = Reason.NONE,
) -> bytes:
    """One line; `start` in seconds after `BASE`."""
    begun = BASE + start
    outcome = Outcome(
        1, 0, pid, code, elapsed, begun, begun + elapsed, 0, b"", len(err), err[:83], reason=reason
    )
    return format_line(id, id + 1, -1, command or b"./task %d" % id, node, outcome, mark)


def barrier(id: int, finish: float, elapsed: float = 1.0) -> bytes:
    """The line of a barrier that ended then."""
    return line(id, finish - elapsed, elapsed, mark=Mark.BARRIER, command=b"#DISBATCH BARRIER", node="head")


def write(path: Path, *lines: bytes) -> str:
    """A status file of these lines; its name."""
    path.write_bytes(b"".join(lines))
    return str(path)


def reported(*paths: str) -> Report:
    """The report of these files."""
    analysis = Analysis.of(paths)
    try:
        return analysis.report(["Tasks"])
    finally:
        analysis.close()


def keep(status: str, said: dict[int, bytes]) -> None:
    """What those tasks printed to stderr, as a run with --output keeps it."""
    directory = Path(status).parent / "out"
    told = OutputFile(str(directory), packed=False, limit=1 << 20, run=status.removesuffix("_status.txt"))
    output_manifest.write(Path(f"{told.run}_output.json"), told)
    for id, err in said.items():
        path = directory / place(id, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(err)
