"""What the tables of the monitor hold: nodes, running tasks, failures, the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from disbatch.model.outcome import how_ended
from disbatch.model.quantity import counted
from disbatch.model.snapshot import EngineRow, FailureKind, FailureRow, LogRow, RunningRow, View
from disbatch.watch.table import GONE, LONGEST_NODE, clock, kind_cells, memory_words
from disbatch.watch.words import count, duration, per_second, printable, whole_seconds

BAD, DIM, PLAIN = "bad", "dim", ""
LONGEST = 400
"""Characters of a cell."""


class Column(NamedTuple):
    """`number`: it holds numbers, to the right. Where the terminal is narrow, columns with the highest `drop`
    go first, and those with 0 stay. The last column takes what is left."""

    title: str
    number: bool = False
    drop: int = 0


class Row(NamedTuple):
    """`key` stays when the rest changes. `values` are what the cells are sorted by. `details` are label and
    text. `engine`: the one to drain or stop; `task`: the one to cancel."""

    key: str
    cells: tuple[str, ...]
    values: tuple[float | str, ...]
    style: str
    details: tuple[tuple[str, str], ...]
    engine: str = ""
    task: int = -1


class Pane(NamedTuple):
    """One table. `sort`: the column that it is sorted by at first; `down`: largest first. `total` tells how
    many there are."""

    title: str
    columns: tuple[Column, ...]
    rows: Callable[[View], list[Row]]
    total: Callable[[View], int]
    sort: int
    down: bool
    empty: str


# ---- nodes ----


def nodes(view: View) -> list[Row]:
    """A row for each engine; those that have left come last however the table is sorted by state."""
    return [_node(row, at, view.rate) for at, row in enumerate(view.engines)]


def _node(row: EngineRow, at: int, beside: float | None) -> Row:
    gone, heard = row.state in GONE, _heard(row)
    share = (row.memory_used or 0) / row.memory_total if row.memory_total else -1.0
    used = f"{count(row.running)}/{count(row.slots)}" if row.slots else "-"
    cells = (
        printable(row.place, LONGEST_NODE),
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


def running(view: View) -> list[Row]:
    """The longest of those that run."""
    return [_running(row) for row in view.running_tasks]


def _running(row: RunningRow) -> Row:
    seconds = "new" if row.seconds is None else whole_seconds(row.seconds)
    cells = (str(row.id), str(row.line), printable(row.place, LONGEST_NODE), seconds)
    return Row(
        key=f"{row.engine}/{row.id}",
        cells=(*cells, printable(row.command, LONGEST)),
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


def failures(view: View) -> list[Row]:
    """Those that failed last."""
    return [_failure(row) for row in view.failures]


def _failure(row: FailureRow) -> Row:
    said = printable(row.last_line or row.snippet, LONGEST)
    ended = how_ended(row.return_code, row.reason)
    short = ended.removeprefix("killed by ")
    cells = (clock(row.time), str(row.id), str(row.line), printable(row.place, LONGEST_NODE), short)
    text = f"{said}  |  {printable(row.command, LONGEST)}" if said else printable(row.command, LONGEST)
    return Row(
        key=str(row.number),
        cells=(*cells, duration(row.seconds), text),
        values=(row.number, row.id, row.line, row.node, row.return_code, row.seconds, text),
        style=PLAIN,
        details=(
            ("task", f"{row.id}, line {row.line}"),
            ("node", row.place),
            ("how", f"{ended}, after {duration(row.seconds)}, at {clock(row.time)}"),
            ("said last", row.last_line or row.snippet.strip() or "nothing"),
            ("command", row.command),
        ),
    )


def kinds(view: View) -> list[Row]:
    """The most frequent kinds of failures."""
    return [_kind(kind) for kind in view.failure_kinds]


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
            ("said last", cells[4]),
            ("e.g. task", f"{kind.id}, line {kind.line}, on {kind.node}"),
            ("command", kind.command),
        ),
    )


# ---- log ----


def log(view: View) -> list[Row]:
    """What was said to the user."""
    return [_said(row, at) for at, row in enumerate(view.log)]


def _said(row: LogRow, at: int) -> Row:
    return Row(
        key=f"{row.time}/{at}",
        cells=(clock(row.time), printable(row.text, LONGEST)),
        values=(at, row.text),
        style=PLAIN,
        details=(("at", clock(row.time)), ("said", row.text)),
    )


NODES = Pane(
    "Nodes",
    (
        Column("NODE"),
        Column("STATE"),
        Column("BUSY", True),
        Column("DONE", True),
        Column("FAILED", True),
        Column("RATE", True, 3),
        Column("HEARD", True, 2),
        Column("LOAD", True, 4),
        Column("MEMORY", True, 5),
    ),
    nodes,
    lambda view: view.engines_count,
    *(1, False, "no node is there"),
)
RUNNING = Pane(
    "Running",
    (Column("TASK", True), Column("LINE", True, 1), Column("NODE"), Column("FOR", True), Column("COMMAND")),
    running,
    lambda view: view.running,
    *(3, True, "nothing runs"),
)
FAILED = Pane(
    "Failed",
    (
        Column("AT"),
        Column("TASK", True),
        Column("LINE", True, 1),
        Column("NODE", False, 2),
        Column("HOW"),
        Column("AFTER", True, 3),
        Column("SAID | COMMAND"),
    ),
    failures,
    lambda view: view.failed + view.lost,
    *(0, True, "nothing has failed"),
)
LOG = Pane(
    "Log",
    (Column("AT"), Column("SAID")),
    log,
    lambda view: len(view.log),
    *(0, True, "nothing was said"),
)
KINDS = Pane(
    "Kinds",
    (
        Column("FAILURES", True),
        Column("HOW"),
        Column("E.G. TASK", True, 2),
        Column("NODES", False, 3),
        Column("SAID LAST"),
    ),
    kinds,
    lambda view: view.failure_kinds_count,
    *(0, True, "nothing has failed"),
)
PANES: Sequence[Pane] = (NODES, RUNNING, FAILED, LOG, KINDS)
