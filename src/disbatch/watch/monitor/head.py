"""The run in a few lines, and its throughput as a curve."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

from disbatch.model.quantity import counted
from disbatch.model.snapshot import CoursePoint, View
from disbatch.watch.report.blocks import area, bar
from disbatch.watch.standing import Standing
from disbatch.watch.table import headline, tasks_words
from disbatch.watch.words import count, per_second, printable, whole_seconds

SHORTEST = 2.0
BARS = ((110, 20), (60, 10))
"""From so many columns on, so many for a bar."""


def head_lines(standing: Standing, width: int) -> list[str]:
    """Where it stands, and its tasks; in so many columns each."""
    view = standing.view
    run = printable(os.path.basename(standing.run), max(10, width // 3))  # noqa: PTH119 - plain names
    head, slots = f"{run}: {headline(standing)}", ""
    if view.slots:
        slots = f"{count(view.running)} of {counted(view.slots, 'slot')} used"
    room = width - len(head) - len(slots)
    head = f"{head}{' ' * room}{slots}" if room > 1 else head
    return [printable(head, width), printable(_tasks(view, width), width)]


def _tasks(view: View, width: int) -> str:
    wide = next((columns for least, columns in BARS if width >= least), 0)
    if not view.total or not wide:
        return tasks_words(view)
    share = min(1.0, (view.done + view.skipped) / view.total)
    return f"▕{bar(share, wide):<{wide}}▏ {share:.0%}  {tasks_words(view)}"


def words_line(standing: Standing, width: int) -> str:
    """What people should know; empty: nothing."""
    barrier = standing.view.barrier
    waits = f"waiting at the barrier in line {barrier.line}" if barrier is not None else ""
    return printable("; ".join(each for each in (standing.words, waits) if each), width)


def curve_lines(
    points: Sequence[CoursePoint], width: int, height: int, beside: float | None = None
) -> list[str]:
    """Tasks a second over the time of the run, from the top line down, and what that is at most; `beside`
    the rate that it has now."""
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
    """Tasks a second in each of so many equal parts of the time; over SHORTEST seconds at least, so parts
    that are shorter have those of their neighbours."""
    first, last = points[0].seconds, points[-1].seconds
    parts = max(1, min(columns, int((last - first) / SHORTEST)))
    step = (last - first) / parts
    done = _done_at(points, [first + step * at for at in range(parts)] + [last])
    rates = [max(0.0, after - before) / max(step, 1.0) for before, after in pairwise(done)]
    return [rates[at * parts // columns] for at in range(columns)]


def _done_at(points: Sequence[CoursePoint], moments: Sequence[float]) -> list[float]:
    """How many were done then; in between, as if tasks had ended evenly."""
    found, at = [], 0
    for moment in moments:
        while at < len(points) - 2 and points[at + 1].seconds < moment:
            at += 1
        before, after = points[at], points[at + 1]
        span = after.seconds - before.seconds
        share = min(1.0, max(0.0, (moment - before.seconds) / span)) if span > 0 else 1.0
        found.append(before.done + share * (after.done - before.done))
    return found
