"""How long tasks took: percentiles and a histogram."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from disbatch.watch.report.figures import Bin, Spread

_MOST_BINS = 40
_WIDE = 20.0
"""From this ratio of long to short on, bins are spaced logarithmically."""
_LEAST = 1e-3
"""Seconds: nothing shorter is told apart."""


def spread_of(ordered: Sequence[float]) -> Spread | None:
    """The figures of durations that are in order; None if there are none."""
    if not ordered:
        return None
    total = math.fsum(ordered)
    return Spread(
        count=len(ordered),
        total=total,
        mean=total / len(ordered),
        shortest=ordered[0],
        p5=percentile(ordered, 0.05),
        p25=percentile(ordered, 0.25),
        median=percentile(ordered, 0.5),
        p75=percentile(ordered, 0.75),
        p95=percentile(ordered, 0.95),
        p99=percentile(ordered, 0.99),
        longest=ordered[-1],
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed, between two of them if it falls there."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def histogram(succeeded: Sequence[float], failed: Sequence[float]) -> tuple[list[Bin], bool]:
    """Bins for both, each in order, and whether they are spaced logarithmically."""
    if not succeeded and not failed:
        return [], False
    low = min(each[0] for each in (succeeded, failed) if each)
    high = max(each[-1] for each in (succeeded, failed) if each)
    usual = succeeded or failed
    short = usual[(len(usual) - 1) // 20]
    logarithmic = high > _WIDE * max(short, _LEAST)
    edges = _logarithmic(low, high) if logarithmic else _linear(low, high)
    inner = edges[1:-1]
    counts = [[0, *(bisect_left(each, edge) for edge in inner), len(each)] for each in (succeeded, failed)]
    bins = []
    for i in range(len(edges) - 1):
        good, bad = (each[i + 1] - each[i] for each in counts)
        bins.append(Bin(edges[i], edges[i + 1], good + bad, bad))
    return bins, logarithmic


def _logarithmic(low: float, high: float) -> list[float]:
    """From `low` to beyond `high`, 10, 5 or 3 a decade; the first bin also has what is shorter still."""
    low = max(low, _LEAST)
    for a_decade in (10, 5, 3, 2, 1):
        first, last = math.floor(math.log10(low) * a_decade), math.floor(math.log10(high) * a_decade) + 1
        if last - first <= _MOST_BINS:
            break
    edges = [10 ** (at / a_decade) for at in range(first, last + 1)]
    if edges[-1] <= high:
        edges.append(10 ** ((last + 1) / a_decade))
    return [0.0 if at == 0 and low <= _LEAST else edge for at, edge in enumerate(edges)]


def _linear(low: float, high: float) -> list[float]:
    """From a round number up to `low` to one beyond `high`."""
    step = nice_step(max(high - low, high / 100, _LEAST) / 24)
    first = math.floor(low / step)
    last = math.floor(high / step) + 1
    return [at * step for at in range(first, last + 1)]


def nice_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))
