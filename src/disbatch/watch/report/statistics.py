"""Statistics of a report: percentiles and a histogram of durations, nodes that stand out, failures by kind.

Nodes run different tasks, so a difference between nodes is reported only if it is hardly due to chance: about
half of the tasks of an average node take longer than the median of all, and an average node has its share of
all failures.

The last line of a failed task's output comes from the files of --output where the run kept output, else from
the snippet in the status file.
"""

from __future__ import annotations

import heapq
import math
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disbatch.model.errors import UsageError
from disbatch.model.failure import CUT, how_failed, last_line, line_of_record, masked
from disbatch.model.statusline import Record, unquoted
from disbatch.rundir import output_manifest
from disbatch.rundir.saved_output import SavedOutput, line_of
from disbatch.watch.report.data import CANCELLED, COPY, COUNTS, REASONS, Counts, Lines
from disbatch.watch.report.figures import Bin, Failure, Node, Spread
from disbatch.watch.report.slots import Place, RunSpan
from disbatch.wire.ownfile import owner_of

_MOST_BINS = 40
_WIDE = 20.0
"""From this ratio of longest to shortest on, bins are spaced logarithmically."""
_LEAST = 1e-3
"""Seconds: shorter durations are not distinguished."""


def spread_of(ordered: Sequence[float]) -> Spread | None:
    """The figures of ordered durations; None if there are none."""
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
    """The value that this share of them does not exceed, interpolated between two values."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def histogram(succeeded: Sequence[float], failed: Sequence[float]) -> tuple[list[Bin], bool]:
    """Bins for both, each of them ordered, and whether they are spaced logarithmically."""
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
    """From `low` to beyond `high`, 10, 5 or 3 per decade; the first bin includes shorter durations."""
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


_CHANCE = 0.01
"""If all nodes were equal, at most one run in a hundred would have a remark of a kind."""
_SLOW, _FAST = 1.15, 1 / 1.15
_FEWEST_FAILURES = 3


@dataclass
class _Tally:
    slots: int = 0
    tasks: int = 0
    failed: int = 0
    clock: float = 0.0
    busy: float = 0.0
    there: float = 0.0
    succeeded: list[float] = field(default_factory=list)


def compare_nodes(
    lines: Lines, counts: Counts, spans: Sequence[RunSpan], ordered: Sequence[float]
) -> list[Node]:
    """Every node, in the order of their numbers; `ordered`: the durations of all succeeded tasks, in
    order."""
    tallies: dict[int, _Tally] = {}
    for span in spans:
        for place in span.places:
            _add(tallies.setdefault(place.node, _Tally()), place, lines, counts)
    names = lines.node_names
    usual = percentile(ordered, 0.5) if ordered else 0.0
    whole = _Tally(
        tasks=sum(tally.tasks for tally in tallies.values()),
        failed=sum(tally.failed for tally in tallies.values()),
    )
    return [_node(names[node], tallies[node], usual, whole, len(tallies)) for node in sorted(tallies)]


def _add(tally: _Tally, place: Place, lines: Lines, counts: Counts) -> None:
    codes, roles, elapsed, reasons = lines.codes, counts.roles, lines.elapsed, lines.reasons
    tasks = bytes(map(roles.__getitem__, place.rows)).count(COUNTS)
    succeeded = [elapsed[row] for row in place.rows if codes[row] == 0 and roles[row] == COUNTS]
    tally.slots = max(tally.slots, place.slots)
    tally.tasks += tasks
    cancelled = [row for row in place.rows if reasons[row] == CANCELLED and roles[row] == COUNTS]
    tally.failed += tasks - len(succeeded) - len(cancelled)
    tally.clock = place.clock or tally.clock
    tally.succeeded += succeeded
    tally.busy += sum(map(elapsed.__getitem__, place.rows))
    tally.there += place.slots * (max(place.finishes) - place.starts[0])


def _node(name: str, tally: _Tally, usual: float, whole: _Tally, nodes: int) -> Node:
    took = sorted(tally.succeeded)
    spread = spread_of(took)
    ratio = spread.median / usual if spread and usual > 0 else None
    remarks = []
    if ratio is not None:
        longer = len(took) - bisect_right(took, usual)
        if ratio >= _SLOW and _is_no_chance(longer, len(took), 0.5, nodes):
            remarks.append("slow")
        elif ratio <= _FAST and _is_no_chance(len(took) - longer, len(took), 0.5, nodes):
            remarks.append("fast")
    if _is_failing(tally, whole, nodes):
        remarks.append("fails")
    return Node(
        name=name,
        slots=tally.slots,
        tasks=tally.tasks,
        failed=tally.failed,
        durations=spread,
        ratio=ratio,
        busy=min(1.0, tally.busy / tally.there) if tally.there > 0 else None,
        clock=tally.clock,
        remarks=remarks,
    )


def _is_failing(tally: _Tally, whole: _Tally, nodes: int) -> bool:
    """True if it has more failures than its share of the tasks explains."""
    if tally.failed < _FEWEST_FAILURES or nodes < 2:
        return False
    part = tally.tasks / whole.tasks
    often = tally.failed >= 2 * part * whole.failed or tally.failed == whole.failed
    return often and _is_no_chance(tally.failed, whole.failed, part, nodes)


def _is_no_chance(found: int, tries: int, share: float, nodes: int) -> bool:
    """True if it is unlikely that on any node so many of `tries` are found, when each has probability
    `share`.

    By Chernoff's bound, which also holds for small numbers.
    """
    part = found / tries
    if part <= share:
        return False
    exponent = part * math.log(part / share)
    if part < 1:
        exponent += (1 - part) * math.log((1 - part) / (1 - share))
    return tries * exponent >= math.log(nodes / _CHANCE)


STDOUT, STDERR = range(2)
TAIL = 4096
"""Bytes of the end of a file in which the last line is searched for."""
_STATUS, _OUTPUT = "_status.txt", "_output.json"


def last_lines(lines: Lines, rows: Iterable[int]) -> dict[int, str]:
    """The complete last lines of these rows' tasks, as far as they were kept and can be read here."""
    runs: dict[int, dict[int, Record]] = {}
    for row in rows:
        record = lines.record(row)
        if record is not None:
            runs.setdefault(lines.source(row).run, {})[row] = record
    found: dict[int, str] = {}
    for run, records in runs.items():
        status = next(source.path for source in lines.sources if source.run == run)
        found |= _of_run(status, records)
    return found


def _of_run(status: str, records: dict[int, Record]) -> dict[int, str]:
    path = Path(status.removesuffix(_STATUS) + _OUTPUT)
    if not status.endswith(_STATUS) or not os.path.lexists(path):
        return {}
    try:
        told = output_manifest.read(path, trusted=owner_of(status))
    except UsageError:
        return {}
    numbers = {record.id for record in records.values()}
    kept = SavedOutput(told, numbers, {record.id: line_of(record) for record in records.values()})
    try:
        found = {row: _last_line(kept, record.id) for row, record in records.items()}
    finally:
        kept.close()
    return {row: line for row, line in found.items() if line}


def _last_line(kept: SavedOutput, task: int) -> str:
    for stream in (STDERR, STDOUT):
        try:
            found = kept.find(task, stream)
            end = b"" if found is None else found.end(TAIL + 1)
        except OSError:
            return ""
        line = "" if end is None else last_line(end[-TAIL:], cut=len(end) > TAIL)
        if line or end is None:
            return line
    return ""


MOST_GROUPS = 100
MOST_EXAMPLES = 10
LEAST_END = 20
"""Characters that two shortened lines must have in common to count as the same line."""


class _Group:
    """Tasks that failed in one way: `rows` are the first of them as examples; `on` counts them by node."""

    __slots__ = ("on", "rows")

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.on: Counter[int] = Counter()

    @property
    def count(self) -> int:
        return self.on.total()

    def add(self, other: _Group) -> None:
        self.rows = sorted(self.rows + other.rows)[:MOST_EXAMPLES]
        self.on += other.on


def find_failures(lines: Lines, counts: Counts) -> tuple[list[Failure], int]:
    """The most frequent groups, and the number of all groups. A snippet may hold only the end of a line. So
    complete lines are read from the kept output, for one task of each of the most frequent groups, and groups
    whose lines differ only by where they were cut are merged."""
    groups: dict[int, _Group] = {}
    for row, cause in enumerate(lines.causes):
        if cause < 0 or counts.roles[row] not in (COUNTS, COPY):
            continue
        group = groups.get(cause)
        if group is None:
            group = groups[cause] = _Group()
        group.on[lines.nodes[row]] += 1
        if len(group.rows) < MOST_EXAMPLES:
            group.rows.append(row)
    most = heapq.nlargest(MOST_GROUPS, groups.values(), key=lambda group: group.count)
    whole = last_lines(lines, [group.rows[0] for group in most])
    merged: dict[tuple[int, int, str], tuple[_Group, str]] = {}
    for group in most:
        row = group.rows[0]
        line = whole.get(row) or _line(lines, row)
        key = lines.codes[row], lines.reasons[row], masked(line)
        same = next((it for it in merged if it[:2] == key[:2] and _is_same(it[2], key[2])), None)
        if same is None:
            merged[key] = group, line
        else:
            merged[same][0].add(group)
    names = lines.node_names
    found = [_failure(lines, names, group, line) for group, line in merged.values()]
    found.sort(key=lambda failure: -failure.count)
    return found, len(groups) - len(most) + len(found)


def _is_same(one: str, other: str) -> bool:
    """Compare lines with masked numbers; of two shortened lines, the shorter one may be the end of the
    other."""
    if one == other or not one.startswith(CUT) or not other.startswith(CUT):
        return one == other
    shorter, longer = sorted((each.removeprefix(CUT).strip() for each in (one, other)), key=len)
    return len(shorter) >= LEAST_END and longer.endswith(shorter)


def _failure(lines: Lines, names: list[str], group: _Group, line: str) -> Failure:
    row = group.rows[0]
    code, reason = lines.codes[row], REASONS[lines.reasons[row]]
    node, most = group.on.most_common(1)[0]
    return Failure(
        return_code=code,
        how=how_failed(code, reason.words),
        snippet=_snippet(lines, row),
        count=group.count,
        tasks=sorted(lines.ids[row] for row in group.rows),
        nodes=len(group.on),
        most_on=names[node],
        most=most,
        reason=reason.words,
        last_line=line,
    )


def _line(lines: Lines, row: int) -> str:
    """The last line in the status file."""
    record = lines.record(row)
    return "" if record is None else line_of_record(record)


def _snippet(lines: Lines, row: int) -> str:
    r"""The snippet of stderr, or else of stdout; bytes that are not UTF-8 as \xNN."""
    record = lines.record(row)
    if record is None:
        return ""
    said = unquoted(record.err) or unquoted(record.out) or b""
    return said.decode("utf-8", "backslashreplace")
