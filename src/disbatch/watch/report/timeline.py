"""What each slot did when, thinned to what a picture can show.

Few tasks are shown one by one, in a row for each slot. Of many, a row shows how busy it was in each of a few
hundred parts of the time; and where slots are many, too, a row is a node or several nodes.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from disbatch.watch.report.counts import COUNTS, Counts
from disbatch.watch.report.lines import Lines
from disbatch.watch.report.slots import Place, Stretch, covered

MOST_ROWS = 200
_MOST_BARS = 20_000
_MOST_BARS_A_ROW = 300
_COLUMNS = 250
_FEWEST_COLUMNS = 10
_MANY_FAIL = 1 / 3
"""From this share of failed tasks on, a part of the time is shown as failing."""

FINE, FAILED, UNCOUNTED = range(3)


_Part = tuple[Place, Sequence[int]]
"""Some attempts of a place, as indexes into its columns."""


@dataclass(frozen=True)
class Bar:
    """One attempt: its row, in which stretch, when it began and ended there (seconds), what came of it, and
    its line."""

    row: int
    stretch: int
    start: float
    finish: float
    ending: int
    line: int


@dataclass(frozen=True)
class Cell:
    """Part of a row of a stretch (seconds), how busy it was (0 to 1), and whether many tasks failed there."""

    row: int
    stretch: int
    start: float
    finish: float
    busy: float
    failing: bool


@dataclass
class Timeline:
    """Either `bars` or `cells` in `rows` rows. `labels`: a name, its first row and how many rows it has.
    `what` says what a row is: "slot", "node", or how many nodes."""

    rows: int
    what: str
    labels: list[tuple[str, int, int]]
    bars: list[Bar] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)


def draw_timeline(lines: Lines, counts: Counts, stretches: Sequence[Stretch]) -> Timeline:
    """The timeline of all runs."""
    return _Drawing(lines, counts, stretches).timeline()


class _Drawing:
    def __init__(self, lines: Lines, counts: Counts, stretches: Sequence[Stretch]) -> None:
        self._lines = lines
        self._counts = counts
        self._stretches = stretches
        self._seconds = sum(stretch.seconds for stretch in stretches)
        self._names = lines.node_names

    def timeline(self) -> Timeline:
        slots: dict[int, int] = {}
        attempts = 0
        for stretch in self._stretches:
            for place in stretch.places:
                slots[place.node] = max(slots.get(place.node, 0), place.slots)
                attempts += len(place.rows)
        nodes = sorted(slots, key=lambda node: _natural(self._names[node]))
        total = sum(slots.values())
        if total > MOST_ROWS:
            return self._by_node(nodes)
        labels, first = [], {}
        row = 0
        for node in nodes:
            first[node] = row
            labels.append((self._names[node], row, slots[node]))
            row += slots[node]
        timeline = Timeline(total, "slot", labels)
        if attempts <= min(_MOST_BARS, _MOST_BARS_A_ROW * total):
            timeline.bars = list(self._bars(first))
        else:
            timeline.cells = list(self._slot_cells(first))
        return timeline

    def _bars(self, first: dict[int, int]) -> Iterator[Bar]:
        for number, stretch in enumerate(self._stretches):
            for place in stretch.places:
                for i, line in enumerate(place.rows):
                    start, finish = place.starts[i] - stretch.start, place.finishes[i] - stretch.start
                    row = first[place.node] + place.slot_of[i]
                    yield Bar(row, number, start, finish, self._ending(line), line)

    def _ending(self, line: int) -> int:
        if self._counts.roles[line] != COUNTS:
            return UNCOUNTED
        return FAILED if self._lines.codes[line] else FINE

    def _slot_cells(self, first: dict[int, int]) -> Iterator[Cell]:
        for number, stretch in enumerate(self._stretches):
            for place in stretch.places:
                of_slot = [array("q") for _ in range(place.slots)]
                for i, slot in enumerate(place.slot_of):
                    of_slot[slot].append(i)
                for slot, chosen in enumerate(of_slot):
                    yield from self._cells(number, first[place.node] + slot, [(place, chosen)], 1)

    def _by_node(self, nodes: list[int]) -> Timeline:
        """A row for each node, or for neighbours."""
        each = math.ceil(len(nodes) / MOST_ROWS)
        rows = math.ceil(len(nodes) / each)
        row_of = {node: at // each for at, node in enumerate(nodes)}
        labels = []
        for row in range(rows):
            names = [self._names[node] for node in nodes[row * each : (row + 1) * each]]
            labels.append((names[0] if len(names) == 1 else f"{names[0]} – {names[-1]}", row, 1))
        timeline = Timeline(rows, "node" if each == 1 else f"{each} nodes", labels)
        for number, stretch in enumerate(self._stretches):
            parts: dict[int, list[_Part]] = {}
            for place in stretch.places:
                parts.setdefault(row_of[place.node], []).append((place, range(len(place.rows))))
            for row, part in parts.items():
                slots = sum(place.slots for place, _ in part)
                timeline.cells += self._cells(number, row, part, slots)
        return timeline

    def _cells(self, number: int, row: int, parts: Sequence[_Part], slots: int) -> Iterator[Cell]:
        """The parts of the time of a row in which anything ran."""
        stretch = self._stretches[number]
        if stretch.seconds <= 0:
            return
        columns = max(_FEWEST_COLUMNS, round(_COLUMNS * stretch.seconds / self._seconds))
        step = stretch.seconds / columns
        edges = [stretch.start + step * at for at in range(columns + 1)]
        busy, ended, failed = [0.0] * columns, [0] * columns, [0] * columns
        for place, chosen in parts:
            starts = [place.starts[i] for i in chosen]
            finishes = [place.finishes[i] for i in chosen]
            codes, roles = self._lines.codes, self._counts.roles
            rows = enumerate(map(place.rows.__getitem__, chosen))
            bad = sorted(finishes[i] for i, row in rows if codes[row] and roles[row] == COUNTS)
            finishes.sort()
            for at, seconds in enumerate(covered(starts, finishes, edges)):
                busy[at] += seconds
            for tally, moments in ((ended, finishes), (failed, bad)):
                passed = [*(bisect_left(moments, edge) for edge in edges[:-1]), len(moments)]
                for at in range(columns):
                    tally[at] += passed[at + 1] - passed[at]
        for at in range(columns):
            if busy[at] > 0:
                failing = failed[at] > 0 and failed[at] >= _MANY_FAIL * ended[at]
                share = min(1.0, busy[at] / step / slots)
                yield Cell(row, number, at * step, (at + 1) * step, share, failing)


def _natural(name: str) -> list[tuple[int, str]]:
    """node2 before node10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]{1,18})", name)]
