"""The state of a run as `dbutil status` reports it: from its driver, or as far as its status file tells.

The JSON document is a promise to scripts (docs/watching.md lists its names). Fields may be added; a field
that changes its meaning gets another name, and removing one raises SCHEMA.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from itertools import compress
from operator import and_
from pathlib import Path
from typing import NamedTuple

import msgspec

from disbatch.model.errors import UsageError
from disbatch.model.failure import MOST_KINDS, Kinds, line_of_record
from disbatch.model.statusline import Record, unquoted
from disbatch.model.text import printable_json, valid
from disbatch.model.view import CoursePoint, EndedTask, EngineRow, FailureRow, RunView, former_engine
from disbatch.rundir.runscript import status_file
from disbatch.watch.report.data import CANCELLED, COPY, COUNTS, REASONS, Counts, Lines
from disbatch.watch.report.statistics import last_lines

SCHEMA = 1
DRIVER, STATUS_FILE = "driver", "status file"
DEAD, SILENT, OVER = "dead", "silent", "over"
_LEFT_OUT = {"number", "driver", "mode", "notice", "course", "inherited"}
"""Fields of a view that are of no use to scripts, or have another name in the document."""


class Standing(NamedTuple):
    """The state of a run. `run`: its prefix. `state`: the mode of the view (see `RunView.mode`), or `dead`
    (the driver was killed), or `silent` (it does not answer, or cannot be asked). `words`: what the user
    should know. `told_by`: DRIVER, or STATUS_FILE, which knows only of tasks that have ended."""

    run: str
    state: str
    words: str
    told_by: str
    view: RunView

    @property
    def is_heard(self) -> bool:
        """True if the driver answers, or the run is over."""
        return self.state not in (DEAD, SILENT)

    def json(self) -> bytes:
        """The JSON document, on one line."""
        view = msgspec.to_builtins(self.view)
        told = {name: value for name, value in view.items() if name not in _LEFT_OUT}
        head = {"schema": SCHEMA, "run": valid(self.run), "state": self.state}
        words = {"words": valid(self.words), "told_by": self.told_by}
        return printable_json(msgspec.json.encode(head | words | told))


def of_driver(run: str, view: RunView) -> Standing:
    """The state in an answer of the driver."""
    return Standing(run, view.mode, view.notice, DRIVER, view)


def of_file(run: str, state: str, words: str, failures: int) -> Standing:
    """The state as far as the status file of the run with this prefix tells it, with the last `failures`
    failures. UsageError as for `view_of`."""
    view = view_of(status_file(run), name=Path(run).name, failures=failures)
    return Standing(run, state, words, STATUS_FILE, view)


POINTS = 240
CAUSES = 100
"""Kinds of failures that are shown with the last line of a task."""
_COUNTS = bytes(role == COUNTS for role in range(256))


def view_of(status: str, *, name: str, failures: int) -> RunView:
    """The view of a run from its status file, with the last `failures` failures. UsageError if it cannot be
    read, or is not a status file."""
    lines = Lines.read([status])
    try:
        return _view(lines, Counts(lines), status, name, failures)
    finally:
        lines.close()


def _view(lines: Lines, counts: Counts, status: str, name: str, failures: int) -> RunView:
    tasks = counts.tasks()
    starts = sorted(compress(lines.starts, lines.timed))
    finishes = sorted(compress(lines.finishes, lines.timed))
    begun, ended = (starts[0], finishes[-1]) if starts else (_changed(status), _changed(status))
    ran = bytes(map(and_, counts.roles.translate(_COUNTS), lines.timed))
    failed = [row for row, code in enumerate(lines.codes) if code and counts.roles[row] in (COUNTS, COPY)]
    done = tasks.known - tasks.skipped - tasks.lost
    engines = _engines(lines, ran, failed)
    kinds = _kinds(lines, failed)
    return RunView(
        number=0,
        driver=0,
        jobid="",
        name=valid(name),
        time=_changed(status),
        started=begun,
        seconds=max(0.0, ended - begun),
        mode="over",
        notice="",
        paused=False,
        barrier=None,
        total=None,
        done=done,
        failed=tasks.failed - tasks.skipped_failed,
        cancelled=sum(lines.reasons[row] == CANCELLED and counts.roles[row] == COUNTS for row in failed),
        not_run=tasks.not_run,
        skipped=tasks.skipped,
        skipped_failed=tasks.skipped_failed,
        running=0,
        waiting=0,
        lost=tasks.lost,
        retried=tasks.ended_attempts + tasks.repeated,
        slots=0,
        rate=done / (ended - begun) if ended > begun else None,
        remaining=None,
        engines_count=len(engines),
        engines=engines,
        running_tasks=[],
        failures=_failures(lines, failed, failures),
        failure_kinds=kinds.most_frequent(MOST_KINDS),
        failure_kinds_count=kinds.count,
        log=[],
        course=_course(lines, ran, failed, starts, finishes),
    )


def _changed(status: str) -> float:
    try:
        return Path(status).stat().st_mtime
    except OSError as error:
        raise UsageError(f"{status}: cannot be read: {error.strerror}") from error


def _engines(lines: Lines, ran: bytes, failed: list[int]) -> list[EngineRow]:
    """A row for each node on which tasks ran; `ran`: 1 for each line that counts."""
    done = Counter(compress(lines.nodes, ran))
    bad = Counter(lines.nodes[row] for row in failed if ran[row] and lines.reasons[row] != CANCELLED)
    names = lines.node_names
    return [former_engine(names[node], rank, done[node], bad[node]) for rank, node in enumerate(sorted(done))]


def _failures(lines: Lines, failed: list[int], most: int) -> list[FailureRow]:
    first = max(0, len(failed) - most)
    whole = last_lines(lines, failed[first:])
    found = ((number, row, lines.record(row)) for number, row in enumerate(failed[first:], first + 1))
    return [
        FailureRow.of(number, record.finish, _task(record, whole.get(row, "")))
        for number, row, record in found
        if record is not None
    ]


def _kinds(lines: Lines, failed: list[int]) -> Kinds:
    """Reads one line again for each of the most frequent causes."""
    sizes = Counter(lines.causes[row] for row in failed)
    most = {cause for cause, _ in sizes.most_common(CAUSES)}
    first: dict[int, int] = {}
    nodes: dict[int, set[str]] = {}
    for row in failed:
        cause = lines.causes[row]
        first.setdefault(cause, row)
        if cause in most:
            nodes.setdefault(cause, set()).add(valid(lines.node_names[lines.nodes[row]]))
    kinds, whole = Kinds(), last_lines(lines, [first[cause] for cause in most])
    for cause, row in first.items():
        record = lines.record(row) if cause in most else None
        if record is not None:
            kinds.add(_task(record, whole.get(row, "")), sizes[cause], nodes[cause])
        else:
            kinds.add_various(_task_without_line(lines, row), sizes[cause])
    return kinds


def _task(record: Record, last_line: str) -> EndedTask:
    command = unquoted(record.command) or record.command
    snippet = unquoted(record.err if record.err_bytes else record.out) or b""
    return EndedTask(
        *(record.id, record.line, valid(record.node), record.return_code, record.elapsed, command, snippet),
        reason=record.reason.words,
        last_line=last_line or line_of_record(record),
    )


def _task_without_line(lines: Lines, row: int) -> EndedTask:
    node, reason = valid(lines.node_names[lines.nodes[row]]), REASONS[lines.reasons[row]]
    return EndedTask(
        *(lines.ids[row], -1, node, lines.codes[row], lines.elapsed[row], b"", b""), reason=reason.words
    )


def _course(
    lines: Lines, ran: bytes, failed: list[int], starts: list[float], finishes: list[float]
) -> list[CoursePoint]:
    """Points from the first start to the last finish."""
    if not starts or finishes[-1] <= starts[0]:
        return []
    done = sorted(compress(lines.finishes, ran))
    bad = sorted(lines.finishes[row] for row in failed if ran[row])
    step = (finishes[-1] - starts[0]) / POINTS
    moments = [starts[0] + step * at for at in range(POINTS)] + [finishes[-1]]
    return [
        CoursePoint(
            seconds=moment - starts[0],
            done=bisect_right(done, moment),
            failed=bisect_right(bad, moment),
            running=max(0, bisect_right(starts, moment) - bisect_right(finishes, moment)),
            slots=0,
        )
        for moment in moments
    ]
