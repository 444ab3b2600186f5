"""What the monitor shows: the head with the throughput curve, and the tables of nodes, running tasks,
failures and log."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from disbatch.model.task import how_ended
from disbatch.model.text import count, counted, duration, per_second, shortened, whole_seconds
from disbatch.model.view import CoursePoint, EngineRow, FailureKind, FailureRow, LogRow, RunningRow, RunView
from disbatch.watch.report.text import area, bar
from disbatch.watch.run_state import Standing
from disbatch.watch.status_text import (
    GONE,
    LONGEST_NODE,
    clock,
    headline,
    kind_cells,
    memory_words,
    tasks_words,
)

BAD, DIM, PLAIN = "bad", "dim", ""
LONGEST = 400
"""The most characters of a cell."""


class Column(NamedTuple):
    """`number`: the column holds numbers, aligned to the right. On a narrow terminal, columns with the
    highest `drop` are omitted first; those with 0 stay. The last column takes the remaining width."""

    title: str
    number: bool = False
    drop: int = 0


class Row(NamedTuple):
    """`key` stays when the rest changes. The cells are sorted by `values`. `details` are pairs of label and
    text. `engine`: the one to drain or stop; `task`: the one to cancel."""

    key: str
    cells: tuple[str, ...]
    values: tuple[float | str, ...]
    style: str
    details: tuple[tuple[str, str], ...]
    engine: str = ""
    task: int = -1


class Pane(NamedTuple):
    """One table. `sort`: the initial sort column; `down`: largest first. `total` returns the number of all
    rows."""

    title: str
    columns: tuple[Column, ...]
    rows: Callable[[RunView], list[Row]]
    total: Callable[[RunView], int]
    sort: int
    down: bool
    empty: str


# ---- nodes ----


def nodes(view: RunView) -> list[Row]:
    """A row for each engine; those that have left come last in every order by state."""
    return [_node(row, at, view.rate) for at, row in enumerate(view.engines)]


def _node(row: EngineRow, at: int, beside: float | None) -> Row:
    gone, heard = row.state in GONE, _heard(row)
    share = (row.memory_used or 0) / row.memory_total if row.memory_total else -1.0
    used = f"{count(row.running)}/{count(row.slots)}" if row.slots else "-"
    cells = (
        shortened(row.place, LONGEST_NODE),
        row.state,
        used,
        count(row.done),
        count(row.failed),
        per_second(row.rate, beside) if row.rate else "-",
        heard,
        "-" if row.load is None else f"{row.load:.1f}",
        memory_words(row),
    )
    values = (row.node, _STATES.get(row.state, 9), row.running, row.done, row.failed, row.rate or 0.0)
    heard_value = -1.0 if row.heard is None else row.heard
    style = DIM if gone else BAD if row.state == "lost" else PLAIN
    return Row(
        key=row.engine or f"{row.node}/{at}",
        cells=cells,
        values=(*values, heard_value, -1.0 if row.load is None else row.load, share),
        style=style,
        details=(
            ("node", row.node),
            ("engine", f"{row.engine or '-'}, number {row.rank}"),
            ("label", row.label or "-"),
            ("state", row.state),
            ("slots", f"{used} used, {counted(row.waiting, 'task waits', 'tasks wait')} for the next ones"),
            ("tasks", f"{count(row.done)} done, {count(row.failed)} of them failed"),
            ("rate", cells[5]),
            ("heard", f"{heard} ago"),
            ("load", cells[7]),
            ("memory", cells[8]),
        ),
        engine="" if gone else row.engine,
    )


_ORDER = ("lost", "launching", "starting", "draining", "leaving", "active", "left", "failed")
_STATES = {state: at for at, state in enumerate(_ORDER)}


def _heard(row: EngineRow) -> str:
    return "-" if row.heard is None else whole_seconds(row.heard)


# ---- tasks ----


def _running(row: RunningRow) -> Row:
    seconds = "new" if row.seconds is None else whole_seconds(row.seconds)
    cells = (str(row.id), str(row.line), shortened(row.place, LONGEST_NODE), seconds)
    return Row(
        key=f"{row.engine}/{row.id}",
        cells=(*cells, shortened(row.command, LONGEST)),
        values=(row.id, row.line, row.node, row.seconds or 0.0, row.command),
        style=PLAIN,
        details=(
            ("task", f"{row.id}, line {row.line}"),
            ("node", row.place),
            ("runs for", "less than a heartbeat" if row.seconds is None else seconds),
            ("command", row.command),
        ),
        task=row.id,
    )


def _failure(row: FailureRow) -> Row:
    said = shortened(row.last_line or row.snippet, LONGEST)
    ended = how_ended(row.return_code, row.reason)
    short = ended.removeprefix("killed by ")
    cells = (clock(row.time), str(row.id), str(row.line), shortened(row.place, LONGEST_NODE), short)
    text = f"{said}  |  {shortened(row.command, LONGEST)}" if said else shortened(row.command, LONGEST)
    return Row(
        key=str(row.number),
        cells=(*cells, duration(row.seconds), text),
        values=(row.number, row.id, row.line, row.node, row.return_code, row.seconds, text),
        style=PLAIN,
        details=(
            ("task", f"{row.id}, line {row.line}"),
            ("node", row.place),
            ("how", f"{ended}, after {duration(row.seconds)}, at {clock(row.time)}"),
            ("last line", row.last_line or row.snippet.strip() or "nothing"),
            ("command", row.command),
        ),
    )


def _kind(kind: FailureKind) -> Row:
    cells = tuple(kind_cells(kind))
    return Row(
        key=str(kind.id),
        cells=cells,
        values=(kind.count, cells[1], kind.id, kind.nodes, cells[4]),
        style=PLAIN,
        details=(
            ("tasks", cells[0]),
            ("how", cells[1]),
            ("on", cells[3]),
            ("last line", cells[4]),
            ("e.g. task", f"{kind.id}, line {kind.line}, on {kind.node}"),
            ("command", kind.command),
        ),
    )


# ---- log ----


def _message(row: LogRow, at: int) -> Row:
    return Row(
        key=f"{row.time}/{at}",
        cells=(clock(row.time), shortened(row.text, LONGEST)),
        values=(at, row.text),
        style=PLAIN,
        details=(("time", clock(row.time)), ("text", row.text)),
    )


NODES = Pane(
    "Nodes",
    (
        *(
            Column("NODE"),
            Column("STATE"),
            Column("BUSY", True),
            Column("DONE", True),
            Column("FAILED", True),
        ),
        *(
            Column("RATE", True, 3),
            Column("HEARD", True, 2),
            Column("LOAD", True, 4),
            Column("MEMORY", True, 5),
        ),
    ),
    nodes,
    lambda view: view.engines_count,
    *(1, False, "there are no nodes"),
)
RUNNING = Pane(
    "Running",
    (Column("TASK", True), Column("LINE", True, 1), Column("NODE"), Column("FOR", True), Column("COMMAND")),
    lambda view: [*map(_running, view.running_tasks)],
    lambda view: view.running,
    *(3, True, "no task is running"),
)
FAILED = Pane(
    "Failed",
    (
        *(Column("AT"), Column("TASK", True), Column("LINE", True, 1), Column("NODE", False, 2)),
        *(Column("HOW"), Column("AFTER", True, 3), Column("SAID | COMMAND")),
    ),
    lambda view: [*map(_failure, view.failures)],
    lambda view: view.failed + view.lost,
    *(0, True, "no task has failed"),
)
LOG = Pane(
    "Log",
    (Column("AT"), Column("SAID")),
    lambda view: [_message(row, at) for at, row in enumerate(view.log)],
    lambda view: len(view.log),
    *(0, True, "there are no messages"),
)
KINDS = Pane(
    "Kinds",
    (
        *(Column("FAILURES", True), Column("HOW"), Column("E.G. TASK", True, 2), Column("NODES", False, 3)),
        Column("SAID LAST"),
    ),
    lambda view: [*map(_kind, view.failure_kinds)],
    lambda view: view.failure_kinds_count,
    *(0, True, "no task has failed"),
)
PANES: Sequence[Pane] = (NODES, RUNNING, FAILED, LOG, KINDS)


SHORTEST = 2.0
BARS = ((110, 20), (60, 10))
"""Minimum width of the terminal, and width of a bar there."""


def head_lines(standing: Standing, width: int) -> list[str]:
    """The state and the tasks of the run, in lines of this width."""
    view = standing.view
    run = shortened(os.path.basename(standing.run), max(10, width // 3))  # noqa: PTH119 - plain names
    head, slots = f"{run}: {headline(standing)}", ""
    if view.slots:
        slots = f"{count(view.running)} of {counted(view.slots, 'slot')} used"
    room = width - len(head) - len(slots)
    head = f"{head}{' ' * room}{slots}" if room > 1 else head
    return [shortened(head, width), shortened(_tasks(view, width), width)]


def _tasks(view: RunView, width: int) -> str:
    wide = next((columns for least, columns in BARS if width >= least), 0)
    if not view.total or not wide:
        return tasks_words(view)
    share = min(1.0, view.finished / view.total)
    return f"▕{bar(share, wide):<{wide}}▏ {share:.0%}  {tasks_words(view)}"


def words_line(standing: Standing, width: int) -> str:
    """The notice of the run; empty if there is none."""
    barrier = standing.view.barrier
    waits = f"waiting at the barrier in line {barrier.line}" if barrier is not None else ""
    return shortened("; ".join(each for each in (standing.words, waits) if each), width)


def curve_lines(
    points: Sequence[CoursePoint], width: int, height: int, beside: float | None = None
) -> list[str]:
    """Tasks a second over the time of the run, from the top line down, and the maximum of that; `beside` is
    the present rate."""
    if len(points) < 2 or points[-1].seconds <= points[0].seconds or width < 20:
        return [""] * height
    first, last = points[0], points[-1]
    label = 9
    columns = width - label - 1
    rates = rates_of(points, columns)
    most = max(rates)
    lines = area([rate / most if most else 0.0 for rate in rates], height)
    labels = [""] * height
    labels[0] = per_second(most, beside) if most else "0/s"
    if height > 1:
        labels[-1] = whole_seconds(last.seconds - first.seconds)
    return [f"{text:>{label}} {line}" for text, line in zip(labels, lines, strict=True)]


def rates_of(points: Sequence[CoursePoint], columns: int) -> list[float]:
    """Tasks a second in each of so many equal intervals, averaged over at least SHORTEST seconds, so shorter
    intervals have the rates of their neighbours."""
    first, last = points[0].seconds, points[-1].seconds
    parts = max(1, min(columns, int((last - first) / SHORTEST)))
    step = (last - first) / parts
    done = _done_at(points, [first + step * at for at in range(parts)] + [last])
    rates = [max(0.0, after - before) / max(step, 1.0) for before, after in pairwise(done)]
    return [rates[at * parts // columns] for at in range(columns)]


def _done_at(points: Sequence[CoursePoint], moments: Sequence[float]) -> list[float]:
    """How many tasks were done at these times; interpolated linearly."""
    found, at = [], 0
    for moment in moments:
        while at < len(points) - 2 and points[at + 1].seconds < moment:
            at += 1
        before, after = points[at], points[at + 1]
        span = after.seconds - before.seconds
        share = min(1.0, max(0.0, (moment - before.seconds) / span)) if span > 0 else 1.0
        found.append(before.done + share * (after.done - before.done))
    return found
