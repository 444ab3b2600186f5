"""Failed tasks, grouped by what they returned and said."""

from __future__ import annotations

from collections import Counter

from disbatch.model.failure import how_failed
from disbatch.model.snippet import unquoted
from disbatch.watch.report.counts import COPY, COUNTS, Counts
from disbatch.watch.report.figures import Failure
from disbatch.watch.report.lines import REASONS, Lines

MOST_GROUPS = 100
MOST_EXAMPLES = 10


def find_failures(lines: Lines, counts: Counts) -> tuple[list[Failure], int]:
    """The most frequent groups, and how many there are."""
    rows: dict[int, list[int]] = {}
    sizes: Counter[int] = Counter()
    on: dict[int, Counter[int]] = {}
    for row, cause in enumerate(lines.causes):
        if cause < 0 or counts.roles[row] not in (COUNTS, COPY):
            continue
        sizes[cause] += 1
        on.setdefault(cause, Counter())[lines.nodes[row]] += 1
        examples = rows.setdefault(cause, [])
        if len(examples) < MOST_EXAMPLES:
            examples.append(row)
    names = lines.node_names
    found = []
    for cause, count in sizes.most_common(MOST_GROUPS):
        code, reason = lines.codes[rows[cause][0]], REASONS[lines.reasons[rows[cause][0]]]
        node, most = on[cause].most_common(1)[0]
        found.append(
            Failure(
                return_code=code,
                how=how_failed(code, reason.words),
                snippet=_snippet(lines, rows[cause][0]),
                count=count,
                tasks=sorted(lines.ids[row] for row in rows[cause]),
                nodes=len(on[cause]),
                most_on=names[node],
                most=most,
                reason=reason.words,
            )
        )
    return found, len(sizes)


def _snippet(lines: Lines, row: int) -> str:
    """That of error output, or else of output; what is not UTF-8 as \\xNN."""
    record = lines.record(row)
    if record is None:
        return ""
    said = unquoted(record.err) or unquoted(record.out) or b""
    return said.decode("utf-8", "backslashreplace")
