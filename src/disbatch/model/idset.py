"""Sets of task ids stored as ranges, and ranges of ids with a count of those that have not ended.

Memory depends on the number of ranges, not on the number of ids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from disbatch.model.taskfile import LARGEST


class IdSet:
    """Ids from 0, as ranges that neither overlap nor touch."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in sorted(ranges):
            self.add(first, last)

    def add(self, first: int, last: int) -> None:
        """Add `first` to `last`, both included."""
        firsts, lasts = self._firsts, self._lasts
        begin = bisect_left(lasts, first - 1)
        end = bisect_right(firsts, last + 1)
        if begin < end:
            first, last = min(first, firsts[begin]), max(last, lasts[end - 1])
        firsts[begin:end], lasts[begin:end] = [first], [last]

    def __contains__(self, id: int) -> bool:
        at = bisect_left(self._lasts, id)
        return at < len(self._firsts) and self._firsts[at] <= id

    @property
    def count(self) -> int:
        """The number of ids."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The ranges, in order."""
        return zip(self._firsts, self._lasts, strict=True)


class OpenIds:
    """Ranges of ids, each with the number of its ids that have not ended; `left` is the sum of these."""

    def __init__(self) -> None:
        self.left = 0
        self.next = 0
        """One more than the last id."""
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._open: list[int] = []
        self._ended = 0
        """Ranges in which every id has ended."""

    def add(self, first: int, last: int) -> None:
        """Add a range of ids that follow all earlier ones; none if `last` is less than `first`."""
        if last < first:
            return
        count = last - first + 1
        self.left += count
        self.next = last + 1
        if self._lasts and self._lasts[-1] + 1 == first and self._open[-1]:
            self._lasts[-1] = last
            self._open[-1] += count
            return
        if self._ended * 2 > len(self._firsts):
            self._drop_ended()
        self._firsts.append(first)
        self._lasts.append(last)
        self._open.append(count)

    def end(self, id: int) -> bool:
        """Record that this id has ended; true if it is in a range. No id ends twice."""
        at = bisect_right(self._firsts, id) - 1
        if at < 0 or id > self._lasts[at] or not self._open[at]:
            return False
        self._open[at] -= 1
        self._ended += not self._open[at]
        self.left -= 1
        return True

    def ranges(self, most: int, *, and_later: bool = False) -> list[tuple[int, int]]:
        """(first, last) of at most `most` ranges that hold all ids that have not ended, and possibly others.
        `and_later`: include all ids that are yet to come."""
        found = list(self._live())
        if and_later:
            found.append((self.next, LARGEST))
        step = -(-len(found) // most)
        if step <= 1:
            return found
        return [(found[at][0], found[at : at + step][-1][1]) for at in range(0, len(found), step)]

    def _live(self) -> Iterator[tuple[int, int]]:
        for first, last, count in zip(self._firsts, self._lasts, self._open, strict=True):
            if count:
                yield first, last

    def _drop_ended(self) -> None:
        live = [at for at, count in enumerate(self._open) if count]
        self._firsts = [self._firsts[at] for at in live]
        self._lasts = [self._lasts[at] for at in live]
        self._open = [self._open[at] for at in live]
        self._ended = 0
