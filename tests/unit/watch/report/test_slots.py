"""Slots found again, and where their time went."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_lines import BASE, barrier, line, reported, write

from disbatch.model.statusline import Mark
from disbatch.watch.report.slots import covered, partition

moments = st.integers(0, 40).map(float)
intervals = st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))))


@given(intervals)
def test_no_two_tasks_at_once_in_a_slot(times: list[tuple[float, float]]) -> None:
    """And no more slots than tasks ran at once."""
    times.sort()
    slot_of, slots = partition([start for start, _ in times], [finish for _, finish in times])
    assert set(slot_of) == set(range(slots))
    for slot in range(slots):
        own = [each for each, of in zip(times, slot_of, strict=True) if of == slot]
        assert all(before[1] <= after[0] for before, after in pairwise(own))
    # A task without a length is in the way of the others at its moment.
    at_once = [sum(start <= at and (at < end or at == start) for start, end in times) for at, _ in times]
    assert slots <= max(at_once, default=0)


@given(intervals, st.lists(moments, min_size=2, unique=True).map(sorted))
def test_covered_time(times: list[tuple[float, float]], edges: list[float]) -> None:
    times.sort()
    found = covered([start for start, _ in times], [finish for _, finish in times], edges)
    expected = [
        sum(max(0.0, min(finish, right) - max(start, left)) for start, finish in times)
        for left, right in pairwise(edges)
    ]
    assert found == pytest.approx(expected)


def shares(path: Path, *lines: bytes) -> dict[str, float]:
    """What is not nothing, in seconds of slots."""
    report = reported(write(path / "s", *lines))
    parts = report.slot_seconds
    found = {name: round(getattr(parts, name), 3) for name in parts.__struct_fields__}
    assert parts.whole == pytest.approx(report.slots * report.seconds)
    return {name: seconds for name, seconds in found.items() if seconds}


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([line(0, 0, 10)], {"tasks": 10}),
        ([line(0, 0, 10), line(1, 10, 5)], {"tasks": 15}),
        # The second slot begins late and has nothing to do at the end.
        ([line(0, 0, 10), line(1, 1, 5)], {"tasks": 15, "startup": 1, "tail": 4}),
        ([line(0, 0, 10), line(1, 1, 5, node="node2")], {"tasks": 15, "startup": 1, "tail": 4}),
        ([line(0, 0, 4), line(1, 5, 5)], {"tasks": 9, "other": 1}),
        ([line(0, 0, 4, mark=Mark.SUPERSEDED), line(0, 4, 5)], {"tasks": 5, "uncounted": 4}),
        ([line(0, 0, 4, code=1), line(0, 4, 5)], {"tasks": 5, "uncounted": 4}),
        # Set-up commands come before the first task.
        ([line(0, 0, 3, mark=Mark.PER_ENGINE), line(0, 3, 5)], {"tasks": 5, "startup": 3}),
        # Task 1 keeps the others waiting; the barrier has number 3.
        (
            [line(0, 0, 2), line(2, 2, 1), line(1, 0, 9), barrier(3, 9), line(4, 9, 2), line(5, 9, 2)],
            {"tasks": 16, "barriers": 6},
        ),
        # Behind the barrier there is less to do: the wait is the barrier's, the rest the tail's.
        (
            [line(0, 0, 2), line(1, 0, 9), barrier(2, 9), line(3, 9, 5)],
            {"tasks": 16, "barriers": 7, "tail": 5},
        ),
        # Behind the barrier there is more to do than before.
        ([line(0, 0, 9), barrier(1, 9), line(2, 9, 5), line(3, 9, 5)], {"tasks": 19, "barriers": 9}),
        # A barrier at the very end keeps nobody waiting.
        ([line(0, 0, 2), line(1, 0, 9), barrier(2, 9)], {"tasks": 11, "tail": 7}),
        # The driver's clock is a day off; only which task stands behind which barrier counts.
        (
            [line(0, 0, 2), line(1, 0, 9), barrier(2, 86400), line(3, 9, 1), line(4, 9, 1)],
            {"tasks": 13, "barriers": 7},
        ),
        # The clock was set while the task ran: its elapsed time is right.
        ([line(0, 0, 2).replace(b"%.6f" % (BASE + 2), b"%.6f" % (BASE + 3602)), line(1, 2, 1)], {"tasks": 3}),
        ([line(0, 0, 2).replace(b"%.6f" % (BASE + 2), b"%.6f" % (BASE - 50)), line(1, 2, 1)], {"tasks": 3}),
    ],
)
def test_where_time_went(tmp_path: Path, history: Sequence[bytes], expected: dict[str, float]) -> None:
    assert shares(tmp_path, *history) == expected


def test_runs_stand_alone(tmp_path: Path) -> None:
    """What lies between two runs is nobody's loss, and slots of one run are not missed in another."""
    first = write(tmp_path / "1", line(0, 0, 10), line(1, 0, 10))
    second = write(tmp_path / "2", line(0, mark=Mark.SKIPPED), line(2, 86400, 5))
    report = reported(first, second)
    assert (report.seconds, report.slots, report.utilisation) == (15, 2, 1)
    assert [(run.file, run.seconds, run.slots, run.tasks) for run in report.runs] == [
        (first, 10, 2, 2),
        (second, 5, 1, 1),
    ]
    assert all(busy == pytest.approx(2) for busy in report.runs[0].busy)


def test_slots_at_work(tmp_path: Path) -> None:
    run = reported(write(tmp_path / "s", line(0, 0, 10), line(1, 0, 5))).runs[0]
    assert run.step * len(run.busy) == pytest.approx(10)
    half = len(run.busy) // 2
    assert run.busy == pytest.approx([2.0] * half + [1.0] * half, abs=1e-3)


def test_a_task_that_took_no_time(tmp_path: Path) -> None:
    report = reported(write(tmp_path / "s", line(0, 0, 0)))
    assert (report.seconds, report.slots, report.utilisation) == (0, 1, None)
    assert report.runs[0].busy == []


def test_nothing_ran_here(tmp_path: Path) -> None:
    report = reported(write(tmp_path / "s", line(0, mark=Mark.SKIPPED), line(1, elapsed=0, code=-100)))
    assert (report.runs, report.start, report.utilisation, report.slots) == ([], None, None, 0)
    assert report.tasks.known == 2
