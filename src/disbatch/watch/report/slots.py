"""Reconstruct the slots of a run, which a status file does not name, and detect nodes whose clocks are wrong.

Theory of operation
-------------------
The tasks of a node are intervals of its clock. In the order of their starts, each is assigned to the slot
that has been free for longest, or to a new one if none is free: so the number of slots is the largest number
of tasks that ran at once. They may differ from the slots that the tasks really had, but times and numbers are
the same.

A gap between two tasks of a slot is attributed to a barrier if the id of a barrier lies between theirs: no
clock is needed. The beginning and the end of each run are the same moment for all nodes, so start-up and tail
do depend on the clocks.

A driver writes a line as soon as it learns of a task's end, so lines are in the order of time, whatever the
clocks of the nodes say. A finish that is far from those of another node in the lines just before and after it
reveals a wrong clock. Pictures and shares of time use corrected clocks; nothing else does.
"""

from __future__ import annotations

import heapq
import math
from array import array
from bisect import bisect, bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median, median_high, median_low

from disbatch.watch.report.data import BARRIER, COUNTS, PER_ENGINE, UNCOUNTED, Counts, Lines
from disbatch.watch.report.figures import SlotSeconds

TOLERANCE = 5.0
"""Seconds: results may arrive late, and smaller differences hardly matter."""
_SAMPLES = 101


def clock_errors(rows: Mapping[int, Sequence[int]], finishes: array[float]) -> dict[int, float]:
    """For each node with a wrong clock, the seconds by which it is ahead of most others.

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
    """How far the clock of `rows` is ahead of the yardstick's; 0 if the order of the lines does not
    contradict equal clocks."""
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


@dataclass(frozen=True)
class Place:
    """A node in a run. `rows` are its attempts in order of their start; with each its `starts` and `finishes`
    (times, with the clock corrected by `clock` seconds) and its slot (`slot_of`, from 0)."""

    run: int
    node: int
    clock: float
    rows: array[int]
    starts: array[float]
    finishes: array[float]
    slot_of: array[int]
    slots: int


@dataclass(frozen=True)
class RunSpan:
    """The time of a run: `start` of the first attempt, `finish` of the last task. `last_phase`: the number of
    barriers before the last task; `last_barrier`: the end of the last of these, or `start`."""

    run: int
    start: float
    finish: float
    places: list[Place]
    last_phase: int
    last_barrier: float

    @property
    def seconds(self) -> float:
        """Its duration."""
        return self.finish - self.start

    @property
    def slots(self) -> int:
        """The slots of all nodes."""
        return sum(place.slots for place in self.places)


def find_spans(lines: Lines, counts: Counts) -> list[RunSpan]:
    """The runs in the order of the files, without those in which nothing ran."""
    found = []
    for run in dict.fromkeys(source.run for source in lines.sources):
        files = [number for number, source in enumerate(lines.sources) if source.run == run]
        rows = _rows_by_node(lines, counts, files)
        if rows:
            found.append(_span(lines, counts, run, files, rows))
    return found


def _rows_by_node(lines: Lines, counts: Counts, files: Iterable[int]) -> dict[int, array[int]]:
    roles, timed, nodes = counts.roles, lines.timed, lines.nodes
    found: dict[int, array[int]] = {}
    for file in files:
        for row in lines.rows_of(file):
            if timed[row] and roles[row] in (COUNTS, UNCOUNTED):
                if nodes[row] not in found:
                    found[nodes[row]] = array("q")
                found[nodes[row]].append(row)
    return found


def _span(
    lines: Lines, counts: Counts, run: int, files: Sequence[int], rows: dict[int, array[int]]
) -> RunSpan:
    recorded = lines.rows_of(files[0])
    in_order = {node: each[: bisect_left(each, recorded.stop)] for node, each in rows.items()}
    errors = clock_errors({node: each for node, each in in_order.items() if each}, lines.finishes)
    places = [_place(lines, run, node, each, errors.get(node, 0.0)) for node, each in rows.items()]
    start = min(place.starts[0] for place in places)
    finish = max(max(place.finishes) for place in places)
    highest = max(max(map(lines.ids.__getitem__, place.rows)) for place in places)
    last_phase = bisect_right(counts.barriers, highest)
    last_barrier = start
    for row in recorded:
        mark = lines.marks[row]
        if mark == PER_ENGINE and lines.timed[row]:
            start = min(start, lines.starts[row] - errors.get(lines.nodes[row], 0.0))
        elif mark == BARRIER and lines.ids[row] < highest:
            last_barrier = min(finish, max(last_barrier, lines.finishes[row]))
    return RunSpan(run, start, finish, places, last_phase, last_barrier)


def _place(lines: Lines, run: int, node: int, rows: array[int], clock: float) -> Place:
    ordered = array("q", sorted(rows, key=lines.starts.__getitem__))
    starts = array("d", map(lines.starts.__getitem__, ordered))
    finishes = array("d", map(lines.finishes.__getitem__, ordered))
    if clock:
        starts, finishes = (
            array("d", [moment - clock for moment in column]) for column in (starts, finishes)
        )
    slot_of, slots = partition(starts, finishes)
    return Place(run, node, clock, ordered, starts, finishes, slot_of, slots)


def partition(starts: Sequence[float], finishes: Sequence[float]) -> tuple[array[int], int]:
    """A slot for each interval, so that none overlap in a slot, and the number of slots, which is minimal.
    `starts` must be in order."""
    slot_of = array("i", bytes(4 * len(starts)))
    free: list[tuple[float, int]] = []
    for i, start in enumerate(starts):
        if free and free[0][0] <= start:
            slot_of[i] = slot = free[0][1]
            heapq.heapreplace(free, (finishes[i], slot))
        else:
            slot_of[i] = len(free)
            heapq.heappush(free, (finishes[i], len(free)))
    return slot_of, len(free)


def covered(starts: Sequence[float], finishes: Iterable[float], edges: Sequence[float]) -> list[float]:
    """Seconds of all intervals together between each two neighbours of `edges`. `starts` must be in order.

    Up to a time t, that is t times the number of intervals begun, minus their starts, minus the same of those
    that have ended.
    """
    base = edges[0]
    ends = sorted(finishes)
    begun = list(accumulate((start - base for start in starts), initial=0.0))
    ended = list(accumulate((end - base for end in ends), initial=0.0))
    sums = []
    for edge in edges:
        i, j = bisect_left(starts, edge), bisect_left(ends, edge)
        sums.append((edge - base) * (i - j) - begun[i] + ended[j])
    return [max(0.0, after - before) for before, after in pairwise(sums)]


def slot_seconds(span: RunSpan, lines: Lines, counts: Counts) -> SlotSeconds:
    """How the time of all slots of a run was used."""
    tasks = uncounted = startup = barriers = tail = other = 0.0
    for place in span.places:
        phases = _phases(place, lines, counts)
        first, first_phase = place.starts[0], phases[0]
        ends = array("d", bytes(8 * place.slots))
        reached = array("q", [-1]) * place.slots
        for i, slot in enumerate(place.slot_of):
            start, finish, phase = place.starts[i], place.finishes[i], phases[i]
            if counts.roles[place.rows[i]] == COUNTS:
                tasks += finish - start
            else:
                uncounted += finish - start
            if reached[slot] < 0:
                startup += first - span.start
                if phase == first_phase:
                    startup += start - first
                else:
                    barriers += start - first
            elif phase == reached[slot]:
                other += start - ends[slot]
            else:
                barriers += start - ends[slot]
            ends[slot], reached[slot] = finish, phase
        for end, phase in zip(ends, reached, strict=True):
            waited = max(0.0, span.last_barrier - end) if phase < span.last_phase else 0.0
            barriers += waited
            tail += span.finish - end - waited
    return SlotSeconds(tasks, uncounted, startup, barriers, tail, other)


def _phases(place: Place, lines: Lines, counts: Counts) -> Sequence[int]:
    """For each attempt, the number of barriers before it."""
    if not counts.barriers:
        return bytes(len(place.rows))
    return array("q", [bisect_right(counts.barriers, lines.ids[row]) for row in place.rows])
