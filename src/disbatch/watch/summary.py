"""The summary at the end of a run, in at most ten rows of a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from disbatch.model.failure import how_failed, is_cancelled
from disbatch.model.text import (
    cells,
    count,
    counted,
    duration,
    one_line,
    per_second,
    run_time,
    shell_command,
    shortened,
    shown_path,
    wrapped,
)
from disbatch.model.view import FailureKind, RunView, Summary

WIDTH = 80
"""Columns where there is no terminal."""
LEAST_WIDTH = 40
MOST_ROWS = 10
LABEL = 12
SHOWN_SLOWEST = 3
LONGEST = 1000
_OF_THE_SHELL = re.compile(r"^/bin/bash: line [0-9]+: ")
"""The prefix of messages of the task's own shell, which carries no information."""


def render(summary: Summary, width: int = WIDTH) -> str:
    """The closing lines for a terminal of so many columns, without a final line end. Commands and paths are
    meant to be copied: they are never broken, and may take more than one row."""
    return "\n".join(_Closing(summary, max(LEAST_WIDTH, width or WIDTH)).lines())


class _Closing:
    """Beside the mandatory lines, the rest of MOST_ROWS is used for kinds of failures, then for the longest
    tasks."""

    def __init__(self, summary: Summary, width: int) -> None:
        self._summary = summary
        self._view = summary.view
        self._width = width
        self._room = width - LABEL

    def lines(self) -> list[str]:
        """All lines."""
        head, used, last, report = self._head(), self._used(), self._last(), self._report()
        wanted = self._view.failure_kinds_count
        if self._left(head, used, last, report) < wanted:
            used = []
        if self._left(head, last, report) < min(3, wanted):
            report = []
        kinds = self._kinds(self._left(head, used, last, report))
        slowest = self._slowest(self._left(head, used, kinds, last, report))
        return [*head, *used, *kinds, *slowest, *last, *report]

    def _left(self, *parts: Sequence[str]) -> int:
        """The number of rows that remain beside these."""
        rows = sum(max(1, -(-cells(line) // self._width)) for part in parts for line in part)
        return max(0, MOST_ROWS - rows)

    # ---- mandatory lines ----

    def _head(self) -> list[str]:
        summary = self._summary
        words = f"disbatch: {shortened(summary.conclusion, LONGEST)}: {_how_fast(summary)}"
        first, *others = wrapped(words, self._width - 2)
        done = wrapped(_counts(self._view, summary.ended), self._room)
        return [first, *(f"  {line}" for line in others), *_labelled("done", done)]

    def _used(self) -> list[str]:
        summary = self._summary
        if summary.utilisation is None:
            return []
        where = f"{counted(summary.slots, 'slot')} on {counted(summary.nodes, 'node')}"
        return [_row("used", f"{summary.utilisation:.0%} of {where}")]

    def _last(self) -> list[str]:
        summary = self._summary
        lines = [_row("status", shown_path(summary.status_file))]
        if summary.resume:
            lines.append(_row("resume", summary.resume))
        elif summary.retry:
            lines.append(_row("retry", summary.retry))
        return lines

    def _report(self) -> list[str]:
        summary = self._summary
        if summary.resume or not summary.retry:
            return []
        return [_row("report", shell_command(["dbutil", "report", summary.status_file]))]

    # ---- lines where there is room ----

    def _kinds(self, most: int) -> list[str]:
        """At most so many rows: one for each kind, the most frequent first, cancelled tasks after failed
        ones; then the other last lines; then the task of the example."""
        kinds, total = self._view.failure_kinds, self._view.failure_kinds_count
        shown = kinds[: most if total <= most else max(0, most - 1)]
        shown = sorted(shown, key=lambda kind: is_cancelled(kind.reason))
        more = total - len(shown)
        spare = most - len(shown) - (more > 0)
        blocks = []
        for kind in shown:
            block = _at_most(1 + spare, wrapped(_kind_words(kind), self._room), self._room)
            spare -= len(block) - 1
            blocks.append(block)
        if spare >= len(shown):
            for kind, block in zip(shown, blocks, strict=True):
                block.append("  " + shortened(f"{_place(kind)}: {kind.command}", self._room - 2))
        of_failed = sum(not is_cancelled(kind.reason) for kind in shown)
        rows = [row for block in blocks[:of_failed] for row in block]
        cancelled = [row for block in blocks[of_failed:] for row in block]
        if more > 0 and most:
            known = sum(kind.count for kind in shown)
            rest = counted(max(0, self._view.failed + self._view.lost - known), "task")
            all_cancelled = all(is_cancelled(kind.reason) for kind in kinds)
            (cancelled if cancelled or all_cancelled else rows).append(
                f"and {counted(more, 'more kind')} ({rest})" if shown else counted(more, "kind")
            )
        return [*_labelled("failed", rows), *_labelled("cancelled", cancelled)]

    def _slowest(self, most: int) -> list[str]:
        if self._view.done < 2:
            return []
        rows = []
        for task in self._summary.slowest[: min(most, SHOWN_SLOWEST)]:
            words = f"{duration(task.elapsed)}, task {task.id} (line {task.line}) on {task.place}: "
            rows.append(shortened(words + one_line(task.command, LONGEST), self._room))
        return _labelled("slowest", rows)


def _row(label: str, text: str) -> str:
    return f"  {label:<{LABEL - 2}}{text}".rstrip()


def _labelled(label: str, rows: Sequence[str]) -> list[str]:
    return [_row("" if at else label, row) for at, row in enumerate(rows)]


def _at_most(most: int, rows: list[str], width: int) -> list[str]:
    """So many of them; the last one tells whether there are more."""
    return rows if len(rows) <= most else [*rows[: most - 1], shortened(" ".join(rows[most - 1 :]), width)]


def _kind_words(kind: FailureKind) -> str:
    line = _OF_THE_SHELL.sub("", shortened(kind.last_line, LONGEST))
    how = how_failed(kind.return_code, kind.reason)
    said, _, meaning = how.partition(" (")
    if meaning and meaning.rstrip(")").lower() in line.lower():
        how = said
    how = "" if is_cancelled(kind.reason) else f": {how}"
    if kind.count == 1:
        words = f"task {kind.id}{how}"
    else:
        words = f"{counted(kind.count, 'task')}{how}, e.g. task {kind.id}"
    if kind.various:
        words += ": various lines"
    return f"{words}: {line}" if line else words


def _place(kind: FailureKind) -> str:
    return f"line {kind.line} on {shortened(kind.node, LONGEST)}"


def _how_fast(summary: Summary) -> str:
    """Time and rate of this driver."""
    seconds, done = summary.view.seconds, summary.view.done
    words = f"{counted(done, 'task')} in {run_time(seconds)}"
    if summary.view.driver:
        words, done = counted(done, "task"), done - summary.view.inherited
        words += f", {count(done)} of them in the {run_time(seconds)} since the takeover"
    return f"{words}, {per_second(done / seconds)}" if done and seconds > 0 else words


def _counts(view: RunView, ended: int) -> str:
    """`ended`: attempts that were ended on purpose."""
    parts = [f"{count(view.done - view.failed)} succeeded"]
    if view.failed > view.cancelled:
        parts.append(f"{count(view.failed - view.cancelled)} failed")
    if view.cancelled:
        parts.append(f"{count(view.cancelled)} cancelled")
    if view.skipped:
        failed = f" ({count(view.skipped_failed)} did not succeed)" if view.skipped_failed else ""
        parts.append(f"{count(view.skipped)} done before{failed}")
    lost = view.lost - view.not_run
    if lost:
        parts.append(f"{count(lost)} lost with {'its node' if lost == 1 else 'their nodes'}")
    if view.not_run:
        parts.append(f"{count(view.not_run)} not run")
    left = 0 if view.total is None else view.total - view.finished - view.lost
    if left > 0:
        parts.append(f"{count(left)} not done")
    if ended:
        they = "it was" if ended == 1 else "they were"
        words = f"{counted(ended, 'attempt')} ended before {they} done"
        parts[-1:] = [f"{parts[-1]} ({words})"] if left > 0 else [parts[-1], words]
    return ", ".join(parts)
