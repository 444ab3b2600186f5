"""Which lines count: each task once, however often it stands in the files.

As for `-r`: success beats failure, a failure beats a task that was lost with its node, and of two equals the
later one holds. The line of a task that ran beats a copy of it (flag S) in the file of the run that went on.
"""

from __future__ import annotations

from array import array
from collections.abc import MutableMapping, MutableSequence

from disbatch.model.outcome import LOST_RETURN_CODE
from disbatch.watch.report.figures import Tasks
from disbatch.watch.report.lines import BARRIER, CANCELLED, ENDED, NOT_RUN, PER_ENGINE, SKIPPED, TASK, Lines

NOTHING, COUNTS, COPY, UNCOUNTED = range(4)
"""What a line is: no task's; the one that counts for its task; the same, copied from a file that was not
given; an attempt that took time and does not count."""

_ALWAYS_DENSE = 1 << 20
_MOST_HOLES = 16


class Counts:
    """`roles` has one of the above for each line; `differing` holds pairs of lines of one task id, a few, for
    who wants to know whether their commands are the same. `barriers`: the ids of barriers, in order."""

    def __init__(self, lines: Lines) -> None:
        self.roles = bytearray(len(lines))
        self.pairs: list[tuple[int, int]] = []
        self.barriers = sorted(
            {id for id, mark in zip(lines.ids, lines.marks, strict=True) if mark == BARRIER}
        )
        self._lines = lines
        self._repeated = 0
        self._choose()

    def _choose(self) -> None:
        lines, roles = self._lines, self.roles
        marks, best = lines.marks, _index(lines.ids)
        for row, id in enumerate(lines.ids):
            mark = marks[row]
            if mark not in (TASK, SKIPPED):
                roles[row] = UNCOUNTED if mark == ENDED else NOTHING
                continue
            role = COUNTS if mark == TASK else COPY
            former = best[id]
            if former:
                if self._beats(former - 1, row):
                    roles[row] = self._beaten(row)
                    continue
                roles[former - 1] = self._beaten(former - 1)
            best[id] = row + 1
            roles[row] = role

    def _beats(self, former: int, row: int) -> bool:
        if len(self.pairs) < 100:
            self.pairs.append((former, row))
        return self._rank(former) > self._rank(row)

    def _rank(self, row: int) -> tuple[int, bool]:
        rank = 2 if self._lines.codes[row] == 0 else int(not self.is_given_up(row))
        return rank, self._lines.marks[row] == TASK

    def is_given_up(self, row: int) -> bool:
        """It was lost with its engines, or could not be run."""
        return self._lines.codes[row] == LOST_RETURN_CODE or self._lines.reasons[row] == NOT_RUN

    def _beaten(self, row: int) -> int:
        if self._lines.marks[row] == SKIPPED:
            return NOTHING
        self._repeated += 1
        return UNCOUNTED

    def tasks(self) -> Tasks:
        """The totals."""
        lines = self._lines
        failed = lost = skipped_failed = cancelled = not_run = 0
        for row in [row for row, code in enumerate(lines.codes) if code]:
            role = self.roles[row]
            if role in (COUNTS, COPY):
                is_lost = self.is_given_up(row)
                cancelled += lines.reasons[row] == CANCELLED
                not_run += lines.reasons[row] == NOT_RUN
                lost += is_lost
                failed += not is_lost
                skipped_failed += role == COPY and not is_lost
        skipped = self.roles.count(COPY)
        known = self.roles.count(COUNTS) + skipped
        ids = zip(lines.ids, lines.marks, strict=True)
        highest = max(
            [id for id, mark in ids if mark != PER_ENGINE] if PER_ENGINE in lines.marks else lines.ids,
            default=-1,
        )
        return Tasks(
            known=known,
            succeeded=known - failed - lost,
            failed=failed,
            lost=lost,
            skipped=skipped,
            skipped_failed=skipped_failed,
            repeated=self._repeated,
            ended_attempts=lines.marks.count(ENDED),
            without_line=max(0, highest + 1 - known - len(self.barriers)),
            highest=highest,
            cancelled=cancelled,
            not_run=not_run,
        )


class _Scattered(dict[int, int]):
    def __missing__(self, id: int) -> int:
        return 0


def _index(ids: array[int]) -> MutableSequence[int] | MutableMapping[int, int]:
    """1 + the row of an id, at first 0 for each."""
    highest = max(ids, default=0)
    if highest < max(_ALWAYS_DENSE, _MOST_HOLES * len(ids)):
        return array("q", bytes(8 * (highest + 1)))
    return _Scattered()
