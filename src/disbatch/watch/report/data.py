"""The lines of status files as columns, 47 bytes a line, and which of the lines count.

Theory of operation
-------------------
A block of lines is split by one regular expression and turned into numbers column by column, so that Python
does little for each line. A block with an invalid line is parsed line by line, to report the bad ones. Fields
that are needed of few lines only (command, line number) are read again from the file.

Each task counts once, however often it stands in the files. As for `-r`: success beats failure, a failure
beats a task that was lost with its node, and of two equals the later one counts. The line of a task that ran
beats a copy of it (flag S) in the file of the resumed run.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, MutableMapping, MutableSequence, Sequence
from functools import cache
from operator import itemgetter, sub
from pathlib import Path

from disbatch.model.failure import line_of_snippet, masked
from disbatch.model.statusline import Mark, Record, is_header, mark_of, reason_of, scan_block, unquoted
from disbatch.model.task import LOST_RETURN_CODE, Reason
from disbatch.rundir.resume import unrecorded
from disbatch.rundir.statusfile import Source, not_status
from disbatch.watch.report.figures import File, Tasks

TASK, BARRIER, PER_ENGINE, SKIPPED, ENDED = range(5)
NUMBER = {
    Mark.TASK: TASK,
    Mark.BARRIER: BARRIER,
    Mark.PER_ENGINE: PER_ENGINE,
    Mark.SKIPPED: SKIPPED,
    Mark.SUPERSEDED: ENDED,
}
"""Marks as numbers in a column."""
REASONS = tuple(Reason)
NO_REASON, CANCELLED, NOT_RUN = map(REASONS.index, (Reason.NONE, Reason.CANCELLED, Reason.NOT_RUN))

BLOCK = 1 << 16
"""Bytes that are read at a time, and again for a single line."""
_MOST_CAUSES = 50_000
_MOST_SECONDS = 1e12
_NUMBERS = re.compile(rb"0x[0-9a-fA-F]+|[0-9]+")
_BLANK = re.compile(rb"""['"](?: |\\[nrt])*['"]""")
"""A snippet without a line to show."""
_SET = 1.0
"""Seconds: if start and finish differ from the elapsed time by more, the clock was set."""
_FIRST = itemgetter(0)

_Column = Sequence[bytes]


class Lines:
    """All lines of some files, in order; the columns are public and of equal length.

    `marks`: as in `NUMBER`. `reasons`: an index into REASONS. `timed`: 1 if it ran, and its times are valid.
    `ids`, `codes`: integers. `nodes`: an index into `node_names`. `starts`, `finishes`: times; `elapsed`:
    seconds. `causes`: a number for each return code, reason and last line of failed tasks, as far as their
    snippets show it, where all numbers in lines count as equal; else -1.
    """

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.files: list[File] = []
        self.duplicates: list[str] = []
        """Files that were named twice, and read once."""
        self.marks = bytearray()
        self.reasons = bytearray()
        self.timed = bytearray()
        self.ids = array("q")
        self.codes = array("q")
        self.nodes = array("i")
        self.causes = array("i")
        self.elapsed = array("d")
        self.starts = array("d")
        self.finishes = array("d")
        self._blocks: list[tuple[int, int, int, Source]] = []
        """First row, offset and size of blocks that have a row for each of their lines."""
        self._first_rows: list[int] = []
        self._nodes: dict[bytes, int] = {}
        self._kinds: dict[tuple[int, int, str], int] = {}
        self._causes: dict[tuple[int, int, bytes], int] = {}
        """The number of the kind for each snippet so far; most differ only in numbers."""

    @classmethod
    def read(cls, paths: Iterable[str]) -> Lines:
        """Read the files, and beside each the results that engines could not deliver. UsageError if one
        cannot be read or is not a status file. Must be closed in any case."""
        lines = cls()
        try:
            for run, path in enumerate(paths):
                for each in (path, *map(str, unrecorded(Path(path)))):
                    lines._enter(Source(each, run))
        except BaseException:
            lines.close()
            raise
        return lines

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def node_names(self) -> list[str]:
        r"""The names of nodes by number; bytes that are not UTF-8 are shown as \xNN."""
        return [name.decode("utf-8", "backslashreplace") for name in self._nodes]

    def close(self) -> None:
        """Close the files; no record can be read any more."""
        for source in self.sources:
            source.close()
        self.sources = []

    def rows_of(self, file: int) -> range:
        """The rows of a file's lines."""
        ends = [*self._first_rows[1:], len(self)]
        return range(self._first_rows[file], ends[file])

    def source(self, row: int) -> Source:
        """The file of a line."""
        return self._block_of(row)[3]

    def record(self, row: int) -> Record | None:
        """The complete line, read again; None if the file has changed since."""
        first, offset, size, source = self._block_of(row)
        return source.record(offset, size, row - first)

    def _block_of(self, row: int) -> tuple[int, int, int, Source]:
        return self._blocks[bisect_right(self._blocks, row, key=_FIRST) - 1]

    # ---- reading ----

    def _enter(self, source: Source) -> None:
        if any(source.identity == other.identity for other in self.sources):
            self.duplicates.append(source.name)
            source.close()
            return
        self.sources.append(source)
        first = len(self)
        self._first_rows.append(first)
        bad = first_bad = line_number = 0
        for offset, block in source.blocks(size=BLOCK):
            if not self._take(source, offset, block):
                for number in self._take_singly(source, offset, block):
                    first_bad = first_bad or line_number + number
                    bad += 1
            if bad and len(self) == first:
                raise not_status(source.path, f"line {first_bad} is not a line of one")
            line_number += block.count(b"\n")
        count = len(self) - first
        self.files.append(File(source.name, count, bad, first_bad, source.torn, source.live))

    def _take_singly(self, source: Source, offset: int, block: bytes) -> Iterator[int]:
        """Add the valid lines; yields the numbers, from 1, of the others."""
        for number, line in enumerate(block[:-1].split(b"\n"), 1):
            if not self._take(source, offset, line + b"\n") and not is_header(line):
                yield number
            offset += len(line) + 1

    def _take(self, source: Source, offset: int, block: bytes) -> bool:
        """Add the lines of a block; False, and nothing is added, if one of them is invalid."""
        rows = scan_block(block)
        if rows is None:
            return False
        flags, ids, nodes, pids, codes, elapsed, starts, finishes, outs, errs = zip(*rows, strict=True)
        try:
            integers = [array("q", map(int, column)) for column in (ids, codes)]
            seconds = [array("d", map(float, column)) for column in (elapsed, starts, finishes)]
        except (ValueError, OverflowError):
            return False
        timed = _timed(pids, integers[1], seconds)
        _heal(*seconds)
        marks, reasons = bytes(map(_mark, flags)), bytes(map(_reason, flags))
        self._blocks.append((len(self), offset, len(block), source))
        self.causes.extend(self._causes_of(marks, reasons, integers[1], outs, errs))
        self.marks += marks
        self.reasons += reasons
        self.timed += timed
        for column, more in zip((self.ids, self.codes), integers, strict=True):
            column.extend(more)
        for moments, times in zip((self.elapsed, self.starts, self.finishes), seconds, strict=True):
            moments.extend(times)
        for node in sorted(set(nodes) - self._nodes.keys()):
            self._nodes[node] = len(self._nodes)
        self.nodes.extend(map(self._nodes.__getitem__, nodes))
        return True

    def _causes_of(
        self, marks: bytes, reasons: bytes, codes: array[int], outs: _Column, errs: _Column
    ) -> array[int]:
        found = array("i", [-1]) * len(codes)
        for i in [i for i, code in enumerate(codes) if code]:
            if marks[i] in (TASK, SKIPPED):
                snippet = outs[i] if _BLANK.fullmatch(errs[i]) else errs[i]
                key = codes[i], reasons[i], _NUMBERS.sub(b"#", snippet)
                cause = self._causes.get(key)
                if cause is None:
                    cause = self._kind_of(codes[i], reasons[i], snippet)
                    if len(self._causes) < _MOST_CAUSES:
                        self._causes[key] = cause
                found[i] = cause
        return found

    def _kind_of(self, code: int, reason: int, snippet: bytes) -> int:
        full = len(self._kinds) >= _MOST_CAUSES
        kind = code, reason, "" if full else masked(line_in(snippet))
        return self._kinds.setdefault(kind, len(self._kinds))


@cache
def _mark(flags: bytes) -> int:
    return NUMBER[mark_of(flags)]


@cache
def _reason(flags: bytes) -> int:
    return REASONS.index(reason_of(flags))


def line_in(snippet: bytes) -> str:
    """The last line in a snippet that is quoted as in a status file."""
    said = unquoted(snippet) or b""
    return line_of_snippet(said, len(said))


def _heal(elapsed: array[float], starts: array[float], finishes: array[float]) -> None:
    """If a clock was set while a task ran, compute the finish from the elapsed time."""
    off = map(sub, map(sub, finishes, starts), elapsed)
    if max(map(abs, off)) < _SET and min(map(sub, finishes, starts)) >= 0:
        return
    for i, (took, start, finish) in enumerate(zip(elapsed, starts, finishes, strict=True)):
        if finish < start or abs(finish - start - took) >= _SET:
            finishes[i] = start + took


def _are_times(column: array[float]) -> bool:
    return math.isfinite(sum(column)) and min(column) > -_MOST_SECONDS and max(column) < _MOST_SECONDS


def _timed(pids: _Column, codes: array[int], seconds: list[array[float]]) -> bytes:
    """1 for each line of an attempt that ran and has valid times; others get times of 0."""
    count = len(codes)
    usual = (
        b"0" not in pids
        and b"-1" not in pids
        and LOST_RETURN_CODE not in codes
        and min(seconds[0]) >= 0
        and all(_are_times(column) for column in seconds)
    )
    if usual:
        return b"\1" * count
    timed = bytearray(count)
    for i in range(count):
        times = [column[i] for column in seconds]
        plausible = times[0] >= 0 and all(abs(time) < _MOST_SECONDS for time in times)
        timed[i] = plausible and pids[i] not in (b"0", b"-1") and codes[i] != LOST_RETURN_CODE
        if not timed[i]:
            for column in seconds:
                column[i] = 0.0
    return bytes(timed)


NOTHING, COUNTS, COPY, UNCOUNTED = range(4)
"""The role of a line: not about a task; the one that counts for its task; such a line, but copied from a file
that was not given; an attempt that took time and does not count."""

_ALWAYS_DENSE = 1 << 20
_MOST_HOLES = 16


class Counts:
    """Which lines count. `roles` has one of the above for each line; `pairs` holds some pairs of lines with
    the same task id, whose commands can be compared. `barriers`: the ids of barriers, in order."""

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
        """True if it was lost with its engines, or could not be run."""
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


def _index(ids: array[int]) -> MutableSequence[int] | MutableMapping[int, int]:
    """1 + the row of an id; 0 at first."""
    highest = max(ids, default=0)
    if highest < max(_ALWAYS_DENSE, _MOST_HOLES * len(ids)):
        return array("q", bytes(8 * (highest + 1)))
    return defaultdict(int)
