"""Failed tasks, grouped by what they returned and said last."""

from __future__ import annotations

import heapq
from collections import Counter

from disbatch.model.failure import CUT, how_failed, line_of_record, masked
from disbatch.model.snippet import unquoted
from disbatch.watch.report.counts import COPY, COUNTS, Counts
from disbatch.watch.report.figures import Failure
from disbatch.watch.report.lines import REASONS, Lines
from disbatch.watch.report.printed import last_lines

MOST_GROUPS = 100
MOST_EXAMPLES = 10
LEAST_END = 20
"""Characters that two cut lines have in common if they are taken for the same line."""


class _Group:
    """Tasks that failed in one way: `rows` are examples, the first ones; `on` counts them by node."""

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
    """The most frequent groups, and how many there are. A snippet may tell only the end of a line. So whole
    lines are looked for in what the runs kept, for one task of each of the most frequent groups; and groups
    become one that differ only by where their lines were cut."""
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
    """Lines with masked numbers; of two that were cut, the shorter one may be the end of the other."""
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
    """The last line that the status file tells."""
    record = lines.record(row)
    return "" if record is None else line_of_record(record)


def _snippet(lines: Lines, row: int) -> str:
    """That of error output, or else of output; what is not UTF-8 as \\xNN."""
    record = lines.record(row)
    if record is None:
        return ""
    said = unquoted(record.err) or unquoted(record.out) or b""
    return said.decode("utf-8", "backslashreplace")
