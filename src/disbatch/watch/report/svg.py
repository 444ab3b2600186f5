"""The pictures of the page: plots, and a timeline of what each slot did, as hand-written SVG.

Hand-written SVG is a tenth of the size of what a plotting library writes. It holds only shapes, and is
stretched to the width of the page; the labels of the axes are text of the page, placed in per cent. So they
are readable on a phone, and colours follow the page's, dark or light.

In the timeline, few tasks are shown one by one, in a row for each slot. Of many tasks, a row shows how busy
its slot was in each of a few hundred intervals; if there are many slots, too, a row is a node or several
nodes.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from disbatch.model.text import count, counted, duration
from disbatch.watch.report.axis import Tick, bin_ticks, time_ticks
from disbatch.watch.report.data import COUNTS, Counts, Lines
from disbatch.watch.report.figures import Bin, Run, Spread
from disbatch.watch.report.slots import Place, RunSpan, covered
from disbatch.watch.report.wording import clean

MOST_ROWS = 200
_MOST_BARS = 20_000
_MOST_BARS_A_ROW = 300
_COLUMNS = 250
_FEWEST_COLUMNS = 10
_MANY_FAIL = 1 / 3
"""From this share of failed tasks on, an interval is shown as failing."""

FINE, FAILED, UNCOUNTED = range(3)


_Part = tuple[Place, Sequence[int]]
"""Some attempts of a place, as indexes into its columns."""


@dataclass(frozen=True)
class Bar:
    """One attempt: its row, its span, when it began and ended there (seconds), its result, and its
    line."""

    row: int
    span: int
    start: float
    finish: float
    ending: int
    line: int


@dataclass(frozen=True)
class Cell:
    """An interval of a row in a span (seconds), how busy it was (0 to 1), and whether many tasks failed in
    it."""

    row: int
    span: int
    start: float
    finish: float
    busy: float
    failing: bool


@dataclass
class Timeline:
    """Either `bars` or `cells` in `rows` rows. `labels`: a name, its first row and its number of rows. `what`
    is what a row stands for: "slot", "node", or how many nodes."""

    rows: int
    what: str
    labels: list[tuple[str, int, int]]
    bars: list[Bar] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)


def draw_timeline(lines: Lines, counts: Counts, spans: Sequence[RunSpan]) -> Timeline:
    """The timeline of all runs."""
    return _Drawing(lines, counts, spans).timeline()


class _Drawing:
    def __init__(self, lines: Lines, counts: Counts, spans: Sequence[RunSpan]) -> None:
        self._lines = lines
        self._counts = counts
        self._spans = spans
        self._seconds = sum(span.seconds for span in spans)
        self._names = lines.node_names

    def timeline(self) -> Timeline:
        slots: dict[int, int] = {}
        attempts = 0
        for span in self._spans:
            for place in span.places:
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
        for number, span in enumerate(self._spans):
            for place in span.places:
                for i, line in enumerate(place.rows):
                    start, finish = place.starts[i] - span.start, place.finishes[i] - span.start
                    row = first[place.node] + place.slot_of[i]
                    yield Bar(row, number, start, finish, self._ending(line), line)

    def _ending(self, line: int) -> int:
        if self._counts.roles[line] != COUNTS:
            return UNCOUNTED
        return FAILED if self._lines.codes[line] else FINE

    def _slot_cells(self, first: dict[int, int]) -> Iterator[Cell]:
        for number, span in enumerate(self._spans):
            for place in span.places:
                of_slot = [array("q") for _ in range(place.slots)]
                for i, slot in enumerate(place.slot_of):
                    of_slot[slot].append(i)
                for slot, chosen in enumerate(of_slot):
                    yield from self._cells(number, first[place.node] + slot, [(place, chosen)], 1)

    def _by_node(self, nodes: list[int]) -> Timeline:
        """A row for each node, or for several neighbouring nodes."""
        each = math.ceil(len(nodes) / MOST_ROWS)
        rows = math.ceil(len(nodes) / each)
        row_of = {node: at // each for at, node in enumerate(nodes)}
        labels = []
        for row in range(rows):
            names = [self._names[node] for node in nodes[row * each : (row + 1) * each]]
            labels.append((names[0] if len(names) == 1 else f"{names[0]} – {names[-1]}", row, 1))
        timeline = Timeline(rows, "node" if each == 1 else f"{each} nodes", labels)
        for number, span in enumerate(self._spans):
            parts: dict[int, list[_Part]] = {}
            for place in span.places:
                parts.setdefault(row_of[place.node], []).append((place, range(len(place.rows))))
            for row, part in parts.items():
                slots = sum(place.slots for place, _ in part)
                timeline.cells += self._cells(number, row, part, slots)
        return timeline

    def _cells(self, number: int, row: int, parts: Sequence[_Part], slots: int) -> Iterator[Cell]:
        """The intervals of a row in which anything ran."""
        span = self._spans[number]
        if span.seconds <= 0:
            return
        columns = max(_FEWEST_COLUMNS, round(_COLUMNS * span.seconds / self._seconds))
        step = span.seconds / columns
        edges = [span.start + step * at for at in range(columns + 1)]
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
    """Sorts node2 before node10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split("([0-9]{1,18})", name)]


WIDE = 1000.0
"""Units from left to right, whatever the width of the page; from top to bottom the units are pixels."""
_GAP = 12.0
_LEVELS = 8
_MOST_NAMED_BARS = 2000
_CLASSES = {FINE: ("a", "b"), FAILED: ("failed", "failed"), UNCOUNTED: ("uncounted", "uncounted")}


class Axis:
    """Runs side by side, with widths in proportion to their durations, but never too narrow to be visible."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.seconds = seconds
        room = WIDE - _GAP * (len(seconds) - 1)
        least = 0.2 * room / len(seconds)
        whole = sum(seconds)
        shares = [room * each / whole if whole > 0 else room for each in seconds]
        widths = [max(share, least) for share in shares]
        self._widths = [width * room / sum(widths) for width in widths]
        self._lefts = [sum(self._widths[:at]) + _GAP * at for at in range(len(seconds))]

    def at(self, span: int, seconds: float) -> float:
        """The position of a time in a run."""
        whole = self.seconds[span]
        share = min(1.0, max(0.0, seconds / whole)) if whole > 0 else 0.0
        return self._lefts[span] + self._widths[span] * share

    def ticks(self) -> list[Tick]:
        """Labels: the time since the beginning of each run."""
        found = []
        for number, seconds in enumerate(self.seconds):
            most = max(1, round(8 * self._widths[number] / WIDE))
            ticks = time_ticks(seconds, most)
            found += [(self.at(number, share * seconds) / WIDE, words) for share, words in ticks]
        return found

    def grounds(self, height: float) -> str:
        """The background of each run."""
        return "".join(
            f'<rect class="ground" x="{_n(left)}" width="{_n(width)}" height="{_n(height)}"/>'
            for left, width in zip(self._lefts, self._widths, strict=True)
        )


def busy_plot(runs: Sequence[Run], axis: Axis) -> str:
    """Busy slots over time."""
    height = 150.0
    top = max(run.slots for run in runs)
    shapes = []
    for number, run in enumerate(runs):
        points = [f"M{_n(axis.at(number, 0))} {_n(height)}"]
        for at, busy in enumerate(run.busy):
            y = height * (1 - min(1.0, busy / top))
            points.append(f"V{_n(y)}H{_n(axis.at(number, (at + 1) * run.step))}")
        shapes.append(f'<path class="a" d="{"".join(points)}V{_n(height)}Z"/>')
        y = height * (1 - run.slots / top)
        left, right = axis.at(number, 0), axis.at(number, run.seconds)
        shapes.append(f'<path class="top" d="M{_n(left)} {_n(max(0.5, y))}H{_n(right)}"/>')
    said = f"Slots at work over time, of {counted(top, 'slot')}; the table above has the shares."
    shapes.insert(0, axis.grounds(height))
    return _figure(said, height, "".join(shapes), axis.ticks(), [(0.0, count(top)), (1.0, "0")])


def histogram_plot(bins: Sequence[Bin], logarithmic: bool) -> str:
    """The histogram of durations."""
    height = 150.0
    top = max(each.count for each in bins)
    wide = WIDE / len(bins)
    shapes = [f'<rect class="ground" width="{_n(WIDE)}" height="{_n(height)}"/>']
    for at, each in enumerate(bins):
        failed = f", {count(each.failed)} of them failed" if each.failed else ""
        words = f"{duration(each.low)} to {duration(each.high)}: {counted(each.count, 'task')}{failed}"
        good, bad = (height * number / top for number in (each.count - each.failed, each.failed))
        for name, tall, above in (("a", good, 0.0), ("failed", bad, good)):
            if tall > 0:
                place = f'x="{_n(at * wide + 1)}" y="{_n(height - above - tall)}"'
                size = f'width="{_n(wide - 2)}" height="{_n(tall)}"'
                shapes.append(f'<rect class="{name}" {place} {size}>{_title(words)}</rect>')
    said = "How many tasks took how long; the table below has percentiles."
    ticks = bin_ticks(bins, logarithmic)
    return _figure(said, height, "".join(shapes), ticks, [(0.0, count(top)), (1.0, "0")])


def timeline_plot(timeline: Timeline, axis: Axis, describe: Callable[[Bar], str]) -> str:
    """The work of the slots; `describe` returns the title of an attempt."""
    each = max(2, min(16, round(480 / timeline.rows)))
    parted = len(timeline.labels) > 1 and timeline.what == "slot" and each >= 4
    lines = [first for _, first, _ in timeline.labels] if parted else []
    height = float(each * timeline.rows)
    shapes = [axis.grounds(height)]
    if timeline.bars:
        shapes += _bars(timeline, axis, each, describe)
    else:
        shapes += _cells(timeline.cells, axis, each)
    shapes += [f'<path class="line" d="M0 {_n(row * each)}H{_n(WIDE)}"/>' for row in lines[1:]]
    labels, free = [], -1.0
    for name, first, rows in timeline.labels:
        middle = (first + rows / 2) * each
        if middle - 7 >= free:
            labels.append((middle / height, clean(name, 30)))
            free = middle + 7
    said = f"What the slots did over time, a row for each {timeline.what}; the tables say it in numbers."
    return _figure(said, height, "".join(shapes), axis.ticks(), labels, names=True)


def _bars(timeline: Timeline, axis: Axis, each: float, describe: Callable[[Bar], str]) -> Iterable[str]:
    """Neighbours alternate in shade, so that their boundaries are visible."""
    named = len(timeline.bars) <= _MOST_NAMED_BARS
    paths: dict[str, list[str]] = {}
    tone: dict[int, int] = {}
    found = []
    for bar in timeline.bars:
        tone[bar.row] = 1 - tone.get(bar.row, 1)
        name = _CLASSES[bar.ending][tone[bar.row]]
        left, right = axis.at(bar.span, bar.start), axis.at(bar.span, bar.finish)
        least = 1.0 if bar.ending == FINE else 2.0
        stroke = f"M{_n(left)} {_n((bar.row + 0.5) * each)}h{_n(max(least, right - left))}"
        if named:
            found.append(f'<path class="s {name}" d="{stroke}">{_title(describe(bar))}</path>')
        else:
            paths.setdefault(name, []).append(stroke)
    found += [f'<path class="s {name}" d="{"".join(strokes)}"/>' for name, strokes in sorted(paths.items())]
    return [f'<g stroke-width="{_n(max(1.0, each - 1))}">', *found, "</g>"]


def _cells(cells: Sequence[Cell], axis: Axis, each: float) -> Iterable[str]:
    """A path for each shade; neighbours of the same shade are one stroke."""
    paths: dict[tuple[bool, int], list[str]] = {}
    open_strokes: dict[tuple[int, int], tuple[float, float, tuple[bool, int]]] = {}

    def close(place: tuple[int, int]) -> None:
        left, right, shade = open_strokes.pop(place)
        paths.setdefault(shade, []).append(f"M{_n(left)} {_n((place[0] + 0.5) * each)}h{_n(right - left)}")

    for cell in cells:
        place = cell.row, cell.span
        shade = cell.failing, max(1, round(cell.busy * _LEVELS))
        left, right = axis.at(cell.span, cell.start), axis.at(cell.span, cell.finish)
        stroke = open_strokes.get(place)
        if stroke is not None and stroke[2] == shade and abs(stroke[1] - left) < 0.01:
            left = stroke[0]
        elif stroke is not None:
            close(place)
        open_strokes[place] = left, right, shade
    for place in list(open_strokes):
        close(place)
    drawn = []
    for (failing, level), strokes in sorted(paths.items()):
        look = f'class="s {"failed" if failing else "a"}" opacity="{level / _LEVELS:g}"'
        drawn.append(f'<path {look} d="{"".join(strokes)}"/>')
    return [f'<g stroke-width="{_n(each if each < 4 else each - 1)}">', *drawn, "</g>"]


def spread_plot(spread: Spread | None, low: float, high: float, failing: bool) -> str:
    """One node's durations on a common scale: from 5% to 95%, the middle half, the median."""
    if spread is None or high <= low:
        return ""

    def at(seconds: float) -> float:
        return 200 * min(1.0, max(0.0, (seconds - low) / (high - low)))

    p5, p25, middle, p75, p95 = map(at, (spread.p5, spread.p25, spread.median, spread.p75, spread.p95))
    name = "failed" if failing else "a"
    return (
        '<svg class="spread" viewBox="0 0 200 14" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="b" x="{_n(p5)}" y="6" width="{_n(max(1, p95 - p5))}" height="2"/>'
        f'<rect class="{name}" x="{_n(p25)}" y="3" width="{_n(max(1, p75 - p25))}" height="8"/>'
        f'<rect class="mark" x="{_n(middle - 1)}" width="2" height="14"/></svg>'
    )


def _figure(
    said: str,
    height: float,
    shapes: str,
    ticks: Iterable[Tick],
    labels: Iterable[Tick],
    *,
    names: bool = False,
) -> str:
    """A plot between its axes; positions of ticks and labels are shares of the width and of the height."""
    across = "".join(_ticks(ticks))
    down = "".join(f'<span style="top:{100 * at:.2f}%">{escape(words)}</span>' for at, words in labels)
    return (
        f'<div class="plot{" names" if names else ""}"><div class="down" aria-hidden="true">{down}</div>'
        f'<svg style="height:{_n(height)}px" viewBox="0 0 {_n(WIDE)} {_n(height)}" '
        f'preserveAspectRatio="none" role="img" aria-label="{escape(said)}">{shapes}</svg>'
        f'<div class="across" aria-hidden="true">{across}</div></div>'
    )


def _ticks(ticks: Iterable[Tick]) -> Iterable[str]:
    """A narrow page shows every second of many ticks; each run begins with one at 0."""
    ticks = list(ticks)
    number = -1
    for at, words in ticks:
        number = 0 if words == "0" else number + 1
        name = "less" if number % 2 and len(ticks) > 4 else ""
        name += " end" if at > 0.93 else ""
        yield f'<span class="{name.strip()}" style="left:{100 * at:.2f}%">{escape(words)}</span>'


def _title(words: str) -> str:
    return f"<title>{escape(words)}</title>"


def _n(number: float) -> str:
    """A coordinate with as few digits as possible."""
    return f"{number:.1f}".removesuffix(".0")
