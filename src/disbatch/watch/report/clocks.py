"""Nodes whose clocks are wrong, found by the order of the lines.

A driver writes a line as soon as it hears of a task's end, so lines stand in the order of time, whatever the
clocks of the nodes say. A finish that lies far from those of another node in the lines just before and after
it tells of a clock. Pictures and shares of time are made with clocks put right; nothing else is.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect
from collections.abc import Mapping, Sequence
from statistics import median, median_high, median_low

TOLERANCE = 5.0
"""Seconds: results may come late, and what differs less hardly shows."""
_SAMPLES = 101


def clock_errors(rows: Mapping[int, Sequence[int]], finishes: array[float]) -> dict[int, float]:
    """For the nodes whose clock is wrong: seconds that it is ahead of most others.

    `rows` are those of each node in one file, in order; `finishes` the column.
    """
    if len(rows) < 2:
        return {}
    yardstick = max(rows, key=lambda node: (len(rows[node]), -node))
    ahead = {node: _ahead(rows[node], rows[yardstick], finishes) for node in rows if node != yardstick}
    ahead[yardstick] = 0.0
    usual = min(median_low(ahead.values()), median_high(ahead.values()), key=abs)
    return {node: by - usual for node, by in ahead.items() if abs(by - usual) > TOLERANCE}


def _ahead(rows: Sequence[int], yardstick: Sequence[int], finishes: array[float]) -> float:
    """How far the clock that wrote `rows` is ahead of the yardstick's; 0 if the order does not contradict
    that."""
    least, most = [], []
    for row in rows[:: max(1, len(rows) // _SAMPLES)]:
        at = bisect(yardstick, row)
        before = finishes[yardstick[at - 1]] if at else -math.inf
        after = finishes[yardstick[at]] if at < len(yardstick) else math.inf
        least.append(finishes[row] - after)
        most.append(finishes[row] - before)
    low, high = median(least), median(most)
    if low <= TOLERANCE and high >= -TOLERANCE:
        return 0.0
    if math.isinf(low) or math.isinf(high):
        return high if math.isinf(low) else low
    return (low + high) / 2
