"""How a run went, in a few aligned lines."""

from __future__ import annotations

from disbatch.model.outcome import how_ended
from disbatch.model.quantity import counted
from disbatch.model.snapshot import Summary, TaskView
from disbatch.model.text import printable, shell_command, shown_path
from disbatch.watch.words import count, duration, one_line, per_second, run_time

WIDTH = 110
LABEL = 10
SHOWN_FAILURES = 5
SHOWN_SLOWEST = 3


def render(summary: Summary) -> str:
    """The closing lines, without a final line end."""
    snapshot = summary.snapshot
    done = snapshot.done
    lines = [f"disbatch: {summary.conclusion}: {_how_fast(summary)}", _row("done", _counts(summary))]
    if summary.utilisation is not None:
        nodes = len({engine.node for engine in snapshot.engines})
        slots = sum(engine.slots for engine in snapshot.engines)
        where = f"{counted(slots, 'slot')} on {counted(nodes, 'node')}"
        lines.append(_row("used", f"{summary.utilisation:.0%} of {where}"))
    lines += _tasks("failed", summary.failures[:SHOWN_FAILURES], failed=True)
    more = snapshot.failed - min(len(summary.failures), SHOWN_FAILURES)
    if more > 0:
        lines.append(_row("", f"and {count(more)} more"))
    if done > 1:
        lines += _tasks("slowest", summary.slowest[:SHOWN_SLOWEST], failed=False)
    lines.append(_row("status", shown_path(summary.status_file)))
    if summary.resume:
        lines.append(_row("resume", summary.resume))
    elif summary.retry:
        lines.append(_row("retry", summary.retry))
        lines.append(_row("report", shell_command(["dbutil", "report", summary.status_file])))
    return "\n".join(map(printable, lines))


def _how_fast(summary: Summary) -> str:
    """Time and rate are those of this driver."""
    seconds, done = summary.snapshot.seconds, summary.snapshot.done
    words = f"{counted(done, 'task')} in {run_time(seconds)}"
    if summary.inherited is not None:
        words, done = counted(done, "task"), done - summary.inherited
        words += f", {count(done)} of them in the {run_time(seconds)} since the takeover"
    return f"{words}, {per_second(done / seconds)}" if done and seconds > 0 else words


def _row(label: str, text: str) -> str:
    return f"  {label:<{LABEL}}{text}".rstrip()


def _counts(summary: Summary) -> str:
    snapshot = summary.snapshot
    parts = [f"{count(snapshot.done - snapshot.failed)} succeeded"]
    if snapshot.failed > snapshot.cancelled:
        parts.append(f"{count(snapshot.failed - snapshot.cancelled)} failed")
    if snapshot.cancelled:
        parts.append(f"{count(snapshot.cancelled)} cancelled")
    if snapshot.skipped:
        failed = f" ({count(snapshot.skipped_failed)} did not succeed)" if snapshot.skipped_failed else ""
        parts.append(f"{count(snapshot.skipped)} done before{failed}")
    lost = summary.lost - summary.not_run
    if lost:
        parts.append(f"{count(lost)} lost with {'its node' if lost == 1 else 'their nodes'}")
    if summary.not_run:
        parts.append(f"{count(summary.not_run)} not run")
    ended = (
        f"{counted(summary.ended, 'attempt')} ended before it was done"
        if summary.ended == 1
        else (f"{counted(summary.ended, 'attempt')} ended before they were done")
    )
    left = 0
    if snapshot.total is not None:
        left = snapshot.total - snapshot.done - snapshot.skipped - summary.lost
    if left > 0:
        parts.append(f"{count(left)} not done")
    if summary.ended:
        parts[-1:] = [f"{parts[-1]} ({ended})"] if left > 0 else [parts[-1], ended]
    return ", ".join(parts)


def _tasks(label: str, tasks: list[TaskView], *, failed: bool) -> list[str]:
    rows = []
    for i, task in enumerate(tasks):
        what = how_ended(task.return_code, task.reason) if failed else duration(task.elapsed)
        words = f"line {task.line}, task {task.id} on {task.place}, {what}: "
        room = WIDTH - LABEL - 2
        row = words + one_line(task.command, max(20, room - len(words)))
        rows.append(_row(label if i == 0 else "", row))
        if failed and task.snippet:
            rows.append(_row("", "  > " + one_line(task.snippet, room - 4)))
    return rows
