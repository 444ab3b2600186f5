"""The state of a run as text: a head, a table of engines, and the running and failed tasks."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Sequence

from disbatch.model.failure import how_failed
from disbatch.model.task import how_ended
from disbatch.model.text import (
    count,
    counted,
    duration,
    memory,
    per_second,
    run_time,
    shortened,
    whole_seconds,
)
from disbatch.model.view import EngineRow, FailureKind, FailureRow, RunningRow, RunView
from disbatch.watch.run_state import Standing

LABEL = 9
LONGEST_NODE = 24
GONE = ("left", "failed")
SHOWN_KINDS = 5

Row = Sequence[str]


def render(standing: Standing, width: int, engines: int) -> str:
    """Lines of at most `width` columns, with at most so many engines; without a final line end."""
    view = standing.view
    lines = [*_head(standing, width), "", *_engines(view, engines)]
    if view.running_tasks:
        lines += ["", *_running(view)]
    if view.failure_kinds:
        lines += ["", *_kinds(view)]
    if view.failures:
        lines += ["", *_failures(view)]
    if view.log:
        lines += ["", "LOG", *(f"  {clock(row.time)}  {row.text}" for row in view.log)]
    return "\n".join(printable_line(line, width) for line in lines)


def printable_line(line: str, width: int) -> str:
    """Keeps blanks at its beginning."""
    indent = line[: len(line) - len(line.lstrip(" "))]
    return indent + shortened(line, width - len(indent))


def clock(moment: float) -> str:
    """`12:01:03`, of today or another day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))


# ---- the head ----


def _head(standing: Standing, width: int) -> Iterator[str]:
    view = standing.view
    yield f"{standing.run}: {headline(standing)}"
    yield _labelled("tasks", tasks_words(view))
    if view.slots:
        there = [row for row in view.engines if row.slots and row.state in ("active", "draining", "starting")]
        nodes = len({row.node for row in there})
        slots = f"{count(view.running)} of {counted(view.slots, 'slot')} used, on {counted(nodes, 'node')}"
        yield _labelled("slots", slots)
    if view.barrier is not None:
        yield _labelled("barrier", f"waiting at that in line {view.barrier.line}")
    if standing.words:
        yield from _wrapped("note", standing.words, width)


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{LABEL}}{text}"


def _wrapped(label: str, text: str, width: int) -> Iterator[str]:
    """Lines with all of the text."""
    for line in textwrap.wrap(shortened(text, 2000), max(20, width - LABEL - 2), break_on_hyphens=False):
        yield _labelled(label, line)
        label = ""


def headline(standing: Standing) -> str:
    """`running for 5:12, 3.2/s, 4:05 left`."""
    view = standing.view
    state = "paused" if view.paused and standing.state == "running" else standing.state
    parts = [f"{state} for {whole_seconds(view.seconds)}"]
    if state == "over":
        parts = [f"over, {run_time(view.seconds)}"]
    elif state == "paused":  # since when is not known
        parts = [f"paused, began {whole_seconds(view.seconds)} ago"]
    if not standing.is_heard:
        parts = [f"{state}, last heard of at {clock(view.time)}"]
    if view.rate:
        parts.append(per_second(view.rate))
    if view.remaining is not None and standing.is_heard and view.mode == "running" and not view.paused:
        parts.append(f"{whole_seconds(view.remaining)} left")
    return ", ".join(parts)


def still_waiting(view: RunView) -> int:
    """Tasks that have not started: of the complete list if its length is known, else of the tasks read so
    far."""
    if view.total is None or view.mode != "running":
        return view.waiting
    return max(view.waiting, view.total - view.done - view.skipped - view.lost - view.running)


def tasks_words(view: RunView) -> str:
    """`621 of 1,000 done, 3 failed, 8 running, 40 waiting`."""
    total = "" if view.total is None else f" of {count(view.total)}"
    parts = [f"{count(view.finished)}{total} done"]
    for number, word in (
        (view.failed - view.cancelled, "failed"),
        (view.cancelled, "cancelled"),
        (view.skipped, "of them before"),
        (view.lost - view.not_run, "lost"),
        (view.not_run, "not run"),
        (view.running, "running"),
        (still_waiting(view), "waiting"),
        (view.retried, "run again"),
    ):
        if number:
            parts.append(f"{count(number)} {word}")
    return ", ".join(parts)


# ---- tables ----


def _engines(view: RunView, most: int) -> Iterator[str]:
    rows = sorted(view.engines, key=lambda row: (row.state in GONE, row.rank))
    shown = rows[:most]
    if not shown:
        yield "no engines"
        return
    head = ("NODE", "STATE", "SLOTS", "BUSY", "DONE", "FAILED", "RATE", "HEARD", "LOAD", "MEMORY")
    yield from aligned([head, *(engine_cells(row, view.rate) for row in shown)], left=2)
    if view.engines_count > len(shown):
        yield f"and {count(view.engines_count - len(shown))} more"


def engine_cells(row: EngineRow, beside: float | None) -> Row:
    """The cells of an engine's row; `beside` is the rate of the run."""
    return (
        shortened(row.place, LONGEST_NODE),
        row.state,
        count(row.slots) if row.slots else "-",
        count(row.running) if row.slots else "-",
        count(row.done),
        count(row.failed),
        per_second(row.rate, beside) if row.rate else "-",
        "-" if row.heard is None else whole_seconds(row.heard),
        "-" if row.load is None else f"{row.load:.1f}",
        memory_words(row),
    )


def memory_words(row: EngineRow) -> str:
    """`42% of 64 GB`."""
    if row.memory_used is None or not row.memory_total:
        return "-"
    return f"{row.memory_used / row.memory_total:.0%} of {memory(row.memory_total)}"


def _running(view: RunView) -> Iterator[str]:
    head = ("RUNNING", "LINE", "NODE", "FOR", "COMMAND")
    more = view.running - len(view.running_tasks)
    yield from aligned([head, *map(running_cells, view.running_tasks)], left=0, text=(2, 4))
    if more > 0:
        yield f"and {count(more)} more"


def running_cells(row: RunningRow) -> Row:
    """The cells of a running task."""
    seconds = "new" if row.seconds is None else whole_seconds(row.seconds)
    return (
        str(row.id),
        str(row.line),
        shortened(row.place, LONGEST_NODE),
        seconds,
        shortened(row.command, 400),
    )


def _kinds(view: RunView) -> Iterator[str]:
    head = (_title(view, "FAILURES"), "HOW", "E.G. TASK", "NODES", "SAID LAST")
    shown = view.failure_kinds[:SHOWN_KINDS]
    yield from aligned([head, *map(kind_cells, shown)], left=0, text=(1, 3, 4))
    more = view.failure_kinds_count - len(shown)
    if more > 0:
        rest = max(0, view.failed + view.lost - sum(kind.count for kind in shown))
        yield f"and {counted(more, 'more kind')} ({counted(rest, 'task')})"


def _title(view: RunView, usual: str) -> str:
    """The title of a table of tasks that did not succeed."""
    return "CANCELLED" if view.failed == view.cancelled and not view.lost else usual


def kind_cells(kind: FailureKind) -> Row:
    """The cells of a kind of failures."""
    return (
        count(kind.count),
        how_failed(kind.return_code, kind.reason),
        str(kind.id),
        shortened(kind.node, LONGEST_NODE) if kind.nodes == 1 else counted(kind.nodes, "node"),
        said_last(kind),
    )


def said_last(kind: FailureKind) -> str:
    """The last line that tasks of a kind printed."""
    if not kind.various:
        return shortened(kind.last_line, 400) or "nothing"
    return f"various lines, e.g. {shortened(kind.last_line, 400)}" if kind.last_line else "various lines"


def _failures(view: RunView) -> Iterator[str]:
    head = (_title(view, "FAILED"), "LINE", "NODE", "HOW", "AFTER", "COMMAND")
    rows = list(reversed(view.failures))
    cells = list(aligned([head, *map(failure_cells, rows)], left=0, text=(2, 3, 5)))
    yield cells[0]
    for row, cell in zip(rows, cells[1:], strict=True):
        yield cell
        if row.last_line or row.snippet.strip():  # a driver of an older version reports only the snippet
            yield f"    {shortened(row.last_line or row.snippet, 400)}"
    more = view.failed + view.lost - len(rows)
    if more > 0:
        yield f"and {count(more)} before"


def failure_cells(row: FailureRow) -> Row:
    """The cells of a failed task."""
    return (
        str(row.id),
        str(row.line),
        shortened(row.place, LONGEST_NODE),
        how_ended(row.return_code, row.reason),
        duration(row.seconds),
        shortened(row.command, 400),
    )


def aligned(rows: Sequence[Row], *, left: int, text: Sequence[int] = ()) -> Iterator[str]:
    """Aligned columns; the first `left` ones and those in `text` hold text, the others numbers."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if column < left or column in text else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
