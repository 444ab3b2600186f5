"""Percentiles, histograms and the labels of axes."""

from __future__ import annotations

from itertools import pairwise
from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.watch.report.axis import bin_ticks, label, time_ticks
from disbatch.watch.report.figures import Bin
from disbatch.watch.report.statistics import histogram, nice_step, percentile, spread_of

seconds = st.one_of(st.floats(0, 1e6), st.integers(0, 100).map(float))
durations = st.lists(seconds, max_size=60).map(sorted)


def test_the_spread_of_nothing() -> None:
    assert spread_of([]) is None


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50).map(sorted))
def test_percentiles(ordered: list[float]) -> None:
    cuts = quantiles(ordered, n=20, method="inclusive")
    spread = spread_of(ordered)
    assert spread is not None
    found = [spread.p5, spread.p25, spread.median, spread.p75, spread.p95]
    assert found == pytest.approx([cuts[0], cuts[4], cuts[9], cuts[14], cuts[18]])
    assert (spread.shortest, spread.longest, spread.count) == (ordered[0], ordered[-1], len(ordered))
    assert percentile(ordered, 1.0) == ordered[-1]


@given(durations, durations)
def test_each_task_is_in_its_bin(good: list[float], bad: list[float]) -> None:
    bins, logarithmic = histogram(good, bad)
    both = sorted(good + bad)
    assert sum(each.count for each in bins) == len(both)
    assert sum(each.failed for each in bins) == len(bad)
    assert len(bins) <= 41
    if not both:
        return
    assert bins[0].low <= max(both[0], 1e-3) * (1 + 1e-9)
    assert bins[-1].high >= both[-1] * (1 - 1e-9)
    for before, after in pairwise(bins):
        assert before.high == after.low
    for each in bins[1:-1]:
        assert each.count == sum(each.low <= took < each.high for took in both)
    ticks = bin_ticks(bins, logarithmic)
    assert all(-1e-9 <= at <= 1 + 1e-9 and words for at, words in ticks)
    assert [at for at, _ in ticks] == sorted(at for at, _ in ticks)


@pytest.mark.parametrize(
    ("good", "logarithmic", "labels"),
    [
        ([1.0, 2.0, 3.0, 4.0], False, ["1 s", "2 s", "3 s", "4 s"]),
        ([5.0], False, None),
        ([0.0, 0.0], False, None),
        ([0.01, 0.2, 3.0, 400.0], True, ["10 ms", "100 ms", "1 s", "10 s", "1:00", "10:00"]),
        ([0.0, 5e3], True, ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "1:00", "10:00", "1:00:00"]),
        ([2.0, 45.0, 46.0], True, ["2 s", "5 s", "10 s", "20 s", "50 s"]),
    ],
)  # fmt: skip
def test_scales(good: list[float], logarithmic: bool, labels: list[str] | None) -> None:
    bins, is_logarithmic = histogram(good, [])
    assert is_logarithmic is logarithmic
    if labels is not None:
        assert [words for _, words in bin_ticks(bins, logarithmic)] == labels


def test_where_labels_stand() -> None:
    bins = [Bin(10.0**at, 10.0 ** (at + 1), 1, 0) for at in range(4)]
    assert bin_ticks(bins, True)[:2] == [(0.0, "1 s"), (pytest.approx(0.25), "10 s")]
    assert time_ticks(100, 4) == [(0.0, "0"), (0.3, "30 s"), (0.6, "1:00"), (pytest.approx(0.9), "1:30")]


@pytest.mark.parametrize(
    ("whole", "labels"),
    [
        (0.0, []),
        (1e-9, None),
        (0.1, ["0", "50 ms", "100 ms"]),
        (7.0, ["0", "2 s", "4 s", "6 s"]),
        (7200.0, ["0", "30:00", "1:00:00", "1:30:00", "2:00:00"]),
        (3e6, ["0", "10d 00:00", "20d 00:00", "30d 00:00"]),
        (1e12, None),
    ],
)
def test_labels_of_time(whole: float, labels: list[str] | None) -> None:
    ticks = time_ticks(whole, 4)
    assert labels is None or [words for _, words in ticks] == labels
    assert len(ticks) <= 6


def test_labels_and_steps() -> None:
    assert [label(each) for each in (0, 0.001, 0.25, 1, 2.5, 60, 3600)] == [
        "0", "1 ms", "250 ms", "1 s", "2.5 s", "1:00", "1:00:00",
    ]  # fmt: skip
    assert [nice_step(each) for each in (1, 1.1, 3, 5.5, 0.03)] == pytest.approx([1, 2, 5, 10, 0.05])
