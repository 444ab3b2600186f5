"""Positions and labels of the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from disbatch.model.text import duration
from disbatch.watch.report.figures import Bin
from disbatch.watch.report.statistics import nice_step

_ROUND = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Steps between labels, in seconds."""
_DECADES = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 86400.0, 864000.0, 8640000.0)

SHORTEST = 1e-9
"""The shortest time of an axis with labels, in seconds; real status files have none that is shorter."""

Tick = tuple[float, str]
"""A position on the axis, 0 to 1, and a label."""


def time_ticks(seconds: float, most: int) -> list[Tick]:
    """Labels for a time that begins at 0, at round numbers of seconds, minutes or hours."""
    if seconds < SHORTEST:
        return []
    least = seconds / most
    if least < 0.5:
        step = nice_step(least)
    elif least > 86400:
        step = nice_step(least / 86400) * 86400
    else:
        step = next(each for each in _ROUND if each >= least)
    return [(at * step / seconds, label(at * step)) for at in range(math.floor(seconds / step + 1e-9) + 1)]


def bin_ticks(bins: Sequence[Bin], logarithmic: bool, most: int = 6) -> list[Tick]:
    """Labels for an axis of bins of equal width, at round durations."""
    low, high = bins[0].low, bins[-1].high
    if not logarithmic:
        step = nice_step((high - low) / most)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [((at * step - low) / (high - low), label(at * step)) for at in range(first, last + 1)]
    # The first bin may begin at 0, which has no logarithm; all bins are of equal width.
    top, bottom = math.log10(high), math.log10(bins[0].high)
    wide = (top - bottom) / (len(bins) - 1) if len(bins) > 1 else 1.0
    span = wide * len(bins)
    for choice in (_DECADES, [each * times for each in _DECADES for times in (1, 2, 5)]):
        ticks = [(1 - (top - math.log10(each)) / span, label(each)) for each in choice]
        ticks = [(max(0.0, at), words) for at, words in ticks if -1e-9 <= at <= 1 + 1e-9]
        if len(ticks) > 1:
            break
    return ticks


def label(seconds: float) -> str:
    """A round duration in short form: `0`, `100 ms`, `2 s`, `2.5 s`, `1:00`."""
    if seconds == 0:
        return "0"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 59.95 else duration(seconds)
