"""How a run stands as far as its status file tells: tasks that have ended, nodes, failures, the course."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from pathlib import Path

from disbatch.model.errors import UsageError
from disbatch.model.outcome import LOST_RETURN_CODE
from disbatch.model.snapshot import CoursePoint, EngineRow, FailureRow, View
from disbatch.model.snippet import unquoted
from disbatch.model.status import Record
from disbatch.watch.report.counts import COPY, COUNTS, Counts
from disbatch.watch.report.lines import Lines

POINTS = 240
SHOWN = 400
"""Bytes of a command."""


def view_of(status: str, *, name: str, failures: int) -> View:
    """What the file tells, with the last so many failures. UsageError if it cannot be read, or is no status
    file."""
    lines = Lines.read([status])
    try:
        return _view(lines, Counts(lines), status, name, failures)
    finally:
        lines.close()


def _view(lines: Lines, counts: Counts, status: str, name: str, failures: int) -> View:
    tasks = counts.tasks()
    timed = [row for row, is_timed in enumerate(lines.timed) if is_timed]
    starts = sorted(lines.starts[row] for row in timed)
    finishes = sorted(lines.finishes[row] for row in timed)
    begun, ended = (starts[0], finishes[-1]) if timed else (_changed(status), _changed(status))
    done = tasks.known - tasks.skipped - tasks.lost
    engines = _engines(lines, counts)
    return View(
        number=0,
        driver=0,
        jobid="",
        name=name,
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
        failures=_failures(lines, counts, failures),
        log=[],
        course=_course(lines, counts, starts, finishes),
    )


def _changed(status: str) -> float:
    try:
        return Path(status).stat().st_mtime
    except OSError as error:
        raise UsageError(f"{status}: cannot be read: {error.strerror}") from error


def _engines(lines: Lines, counts: Counts) -> list[EngineRow]:
    """One for each node on which tasks ran."""
    ran, failed = Counter[int](), Counter[int]()
    for node, role, code, timed in zip(lines.nodes, counts.roles, lines.codes, lines.timed, strict=True):
        if role == COUNTS and timed:
            ran[node] += 1
            failed[node] += code != 0
    names = lines.node_names
    return [
        EngineRow(
            engine="",
            node=names[node],
            rank=rank,
            label="",
            state="left",
            slots=0,
            running=0,
            waiting=0,
            done=ran[node],
            failed=failed[node],
        )
        for rank, node in enumerate(sorted(ran))
    ]


def _failures(lines: Lines, counts: Counts, most: int) -> list[FailureRow]:
    rows = [
        row
        for row, (role, code) in enumerate(zip(counts.roles, lines.codes, strict=True))
        if code and role in (COUNTS, COPY)
    ]
    first = max(0, len(rows) - most)
    found = ((number, lines.record(row)) for number, row in enumerate(rows[first:], first + 1))
    return [_failure(number, record) for number, record in found if record is not None]


def _failure(number: int, record: Record) -> FailureRow:
    return FailureRow(
        number=number,
        id=record.id,
        line=record.line,
        node=record.node.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        return_code=record.return_code,
        seconds=record.elapsed,
        time=record.finish,
        snippet=_text(unquoted(record.err) or unquoted(record.out) or b""),
        command=_text(unquoted(record.command) or record.command),
    )


def _text(text: bytes) -> str:
    return text[:SHOWN].decode("utf-8", "backslashreplace")


def _course(lines: Lines, counts: Counts, starts: list[float], finishes: list[float]) -> list[CoursePoint]:
    """From the first start to the last finish of those that are timed."""
    if not starts or finishes[-1] <= starts[0]:
        return []
    chosen = list(zip(lines.finishes, counts.roles, lines.timed, lines.codes, strict=True))
    done = sorted(finish for finish, role, timed, _ in chosen if role == COUNTS and timed)
    bad = sorted(
        finish
        for finish, role, timed, code in chosen
        if role == COUNTS and timed and code not in (0, LOST_RETURN_CODE)
    )
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
