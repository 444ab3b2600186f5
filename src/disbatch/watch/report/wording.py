"""What the text and the page of a report have in common: sentences, titles, and the cells of their tables."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

from disbatch.model.text import count, counted, duration, one_line, per_second
from disbatch.watch.report.figures import Durations, Failure, Node, Report, SlotSeconds, Tasks

UNBROKEN = 1 << 16
"""Columns of a command to be copied."""

SLOT_TIME = (
    ("tasks", "tasks", "green", "tasks that count"),
    (
        "uncounted",
        "other attempts",
        "magenta",
        "attempts that do not count: ended before their end, or run again",
    ),
    ("startup", "start-up", "cyan", "before the first task of a slot"),
    ("barriers", "barriers", "yellow", "waiting for the last task before a barrier"),
    ("tail", "tail", "blue", "after the last task of a slot"),
    ("other", "between tasks", "bright_black", "from one task of a slot to its next"),
)
"""Parts of the slots' time: field of `SlotSeconds`, name, colour of the terminal, meaning."""


def outcomes(tasks: Tasks) -> str:
    """`4,876 succeeded, 119 failed, 3 lost with their nodes`."""
    parts = [f"{count(tasks.succeeded)} succeeded"]
    failed, lost = tasks.failed - tasks.cancelled, tasks.lost - tasks.not_run
    if failed:
        parts.append(f"{count(failed)} failed")
    if tasks.cancelled:
        parts.append(f"{count(tasks.cancelled)} cancelled")
    if lost:
        parts.append(f"{count(lost)} lost with {'its node' if lost == 1 else 'their nodes'}")
    if tasks.not_run:
        parts.append(f"{count(tasks.not_run)} not run")
    return ", ".join(parts)


def besides(tasks: Tasks) -> list[str]:
    """Further statements about tasks, one line each."""
    said = []
    if tasks.skipped:
        failed = f" ({count(tasks.skipped_failed)} did not succeed)" if tasks.skipped_failed else ""
        said.append(f"{count(tasks.skipped)} of them done by a former run{failed}")
    if tasks.repeated:
        said.append(f"{counted(tasks.repeated, 'line')} not counted: the task ran again")
    if tasks.ended_attempts:
        said.append(f"{counted(tasks.ended_attempts, 'attempt')} ended early, not counted")
    if tasks.without_line > 0:
        said.append(
            f"{counted(tasks.without_line, 'task number')} below {count(tasks.highest)} without a line"
        )
    return said


def by_interest(nodes: Iterable[Node]) -> list[Node]:
    """Those with a remark first, then the slowest."""
    return sorted(nodes, key=lambda node: (not node.remarks, -(node.ratio or 0.0), node.name))


def title_of_failures(tasks: Tasks) -> str:
    """The title of the table of kinds."""
    return "Failures" if tasks.failed > tasks.cancelled or tasks.lost else "Cancelled tasks"


def where(failure: Failure) -> str:
    """`, all on node3`; empty if no node stands out."""
    if failure.count < 2:
        return f", on {clean(failure.most_on, 30)}"
    if failure.nodes == 1:
        return f", all on {clean(failure.most_on, 30)}"
    if failure.most >= 0.5 * failure.count and failure.most > 2:
        return f", {count(failure.most)} of them on {clean(failure.most_on, 30)}"
    return f", on {counted(failure.nodes, 'node')}"


def examples(failure: Failure, room: int) -> str:
    """`tasks 17, 203 and 28 more`, within this width."""
    words = "task" if failure.count == 1 else "tasks"
    shown: list[str] = []
    for task in map(str, failure.tasks):
        if shown and len(words) + sum(len(each) + 2 for each in shown) + len(task) + 20 > room:
            break
        shown.append(task)
    more = failure.count - len(shown)
    return f"{words} {', '.join(shown)}" + (f" and {count(more)} more" if more else "")


def rate(report: Report) -> str:
    """Tasks per time; empty if they took none."""
    return per_second(sum(run.tasks for run in report.runs) / report.seconds) if report.seconds > 0 else ""


def slot_time_rows(parts: SlotSeconds) -> list[tuple[str, str, str, str, float, float]]:
    """The parts of the slots' time that are not empty: as in `SLOT_TIME`, with seconds and share."""
    seconds = [(*each, getattr(parts, each[0])) for each in SLOT_TIME]
    return [(*each, each[-1] / parts.whole) for each in seconds if each[-1] > 0]


def percentiles(durations: Durations) -> list[list[str]]:
    """A row for tasks that succeeded, and one for those that failed: how many, and how long they took."""
    rows = []
    for label, s in (("succeeded", durations.succeeded), ("failed", durations.failed)):
        if s is not None:
            points = (s.shortest, s.p5, s.median, s.mean, s.p95, s.p99, s.longest)
            rows.append([label, count(s.count), *map(duration, points)])
    return rows


def cells(node: Node) -> list[str]:
    """A node's tasks, failures, median duration, its ratio to that of all nodes, and how busy it was."""
    return [
        count(node.tasks),
        count(node.failed) if node.failed else "",
        duration(node.durations.median) if node.durations else "",
        f"×{node.ratio:.2f}" if node.ratio is not None else "",
        share(node.busy) if node.busy is not None else "",
    ]


def commands(report: Report) -> list[tuple[list[str], str]]:
    """The commands that continue the run, each with what it does, in clauses."""
    found = []
    if report.resume.rest:
        found.append((["run the tasks that have no result"], report.resume.rest))
    if report.tasks.failed:
        again = ["all tasks have ended", "run the unsuccessful ones again"]
        found.append((["run these and the unsuccessful ones"] if found else again, report.resume.failed))
    return found


def share(part: float) -> str:
    """`83.6%`; values near 0 or 1 are not rounded to them."""
    if 0 < part < 0.0005:
        return "<0.1%"
    return f"{part:.1%}"


def moment(seconds: float) -> str:
    """A time as local time of this machine."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


def clean(text: str, width: int) -> str:
    """Foreign text on one line, at most so many columns."""
    shown = one_line(text.encode("utf-8", "replace"), width)
    return shown if cell_len(shown) <= width else set_cell_size(shown, width - 1).rstrip() + "…"
