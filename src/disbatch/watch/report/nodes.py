"""Nodes compared: a slow one, and one on which tasks fail, stand out.

Nodes run different tasks, so a difference is remarked only if chance hardly makes it: were a node like all,
about half of its tasks would take longer than the median of all, and of all failures it would have its share.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from disbatch.watch.report.counts import COUNTS, Counts
from disbatch.watch.report.figures import Node
from disbatch.watch.report.lines import CANCELLED, Lines
from disbatch.watch.report.slots import Place, Stretch
from disbatch.watch.report.spread import percentile, spread_of

_CHANCE = 0.01
"""Of a hundred runs whose nodes are all alike, at most one gets a remark of a kind."""
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
    lines: Lines, counts: Counts, stretches: Sequence[Stretch], ordered: Sequence[float]
) -> list[Node]:
    """Every node, in the order of their numbers; `ordered`: how long all succeeded tasks took, in order."""
    tallies: dict[int, _Tally] = {}
    for stretch in stretches:
        for place in stretch.places:
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
    """More of all failures than its share of the tasks lets expect."""
    if tally.failed < _FEWEST_FAILURES or nodes < 2:
        return False
    part = tally.tasks / whole.tasks
    often = tally.failed >= 2 * part * whole.failed or tally.failed == whole.failed
    return often and _is_no_chance(tally.failed, whole.failed, part, nodes)


def _is_no_chance(found: int, tries: int, share: float, nodes: int) -> bool:
    """True if it is unlikely that on any node so many of `tries` are found, when one is with probability
    `share`.

    By Chernoff's bound, which holds for small numbers, too.
    """
    part = found / tries
    if part <= share:
        return False
    exponent = part * math.log(part / share)
    if part < 1:
        exponent += (1 - part) * math.log((1 - part) / (1 - share))
    return tries * exponent >= math.log(nodes / _CHANCE)
