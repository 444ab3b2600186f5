"""Find the output of a run's tasks: of the attempt in the record, or of the latest one.

Theory of operation
-------------------
Several attempts of a task may have left output (`engine.output_files`, `model.pack`): of former runs, or of
engines that were lost. The status file tells which one counts, by the process id of its shell and the times
of its start and end. In a pack these are in the record of the attempt's end; a file aside has its end as its
modification time, and the plain file belongs to the attempt that counts unless such a file does. As long as
nothing is recorded, the latest file holds what the task prints now.

A task that was skipped because a former run completed it has that run's record, and its output may be in that
run's directory: under its own id or, if tasks had other ids there, under the id of the same record in that
run's status file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from disbatch.model.errors import UsageError
from disbatch.model.output import LEAST_LIMIT, parse_aside, place, shard
from disbatch.model.pack import PACK_END
from disbatch.model.statusline import FIELDS, Mark, Record, is_given_up, parse_line
from disbatch.model.task import Reason
from disbatch.rundir.output_manifest import OutputFile
from disbatch.rundir.saved_packs import Attempt, Pack, Printed
from disbatch.rundir.statusfile import BLOCK, OpenStatusFile
from disbatch.wire.ownfile import open_own, owner_of

_PID = FIELDS.index("pid")
_SAME = 2e-6
"""Seconds: the times of a record have microseconds."""


class Line(NamedTuple):
    """What the status file records of a task."""

    mark: Mark
    node: str
    pid: int
    return_code: int
    start: float
    finish: float
    sizes: tuple[int, int]
    reason: Reason = Reason.NONE

    @property
    def ran(self) -> bool:
        """False if it describes no attempt: of a barrier, or a task that was lost, not run, or cancelled
        before it began."""
        given_up = is_given_up(self.return_code, self.reason)
        return self.mark is not Mark.BARRIER and self.pid > 0 and not given_up


class Found:
    """The output of a task, in the file or pack `path`; `blocks` reads it. `expected`: at least so many bytes
    should be there."""

    def __init__(self, path: Path, expected: int, stored: Printed | Plain) -> None:
        self.path = path
        self.blocks = stored.blocks()
        self._expected = expected
        self._stored = stored

    @property
    def is_damaged(self) -> bool:
        """True if a part of it cannot be read; known when all blocks have been read."""
        return self._stored.is_damaged

    def end(self, size: int) -> bytes | None:
        """The last `size` bytes, or all; None if they are missing. Instead of `blocks`."""
        return self._stored.end(size, self._expected)

    @property
    def lacks(self) -> int:
        """The number of missing bytes; known when all blocks have been read."""
        return max(0, self._expected - self._stored.size)


def read_lines(status: Path, tasks: Collection[int]) -> dict[int, Line]:
    """The lines of the status file that count for these tasks. UsageError if it cannot be read."""
    found: dict[int, Line] = {}
    with _open_status(status) as file:
        for _, line in file.lines():
            begin = line.find(b"\t") + 1
            id = line[begin : line.find(b"\t", begin)]
            if id.isdigit() and len(id) < 20 and int(id) in tasks:
                record = parse_line(line)
                if record is not None and record.mark not in (Mark.SUPERSEDED, Mark.PER_ENGINE):
                    found[record.id] = line_of(record)
    return found


def _open_status(path: Path) -> OpenStatusFile:
    return OpenStatusFile(str(path), "it tells which output counts")


def line_of(r: Record) -> Line:
    """The part of a record that is needed here."""
    return Line(r.mark, r.node, r.pid, r.return_code, r.start, r.finish, (r.out_bytes, r.err_bytes), r.reason)


class _Numbered:
    """Directories in which tasks have the same ids, and the attempts of `tasks` in their packs."""

    def __init__(self, directories: list[str], tasks: Collection[int]) -> None:
        self.directories = [Path(name) for name in directories]
        self._packs: list[Pack] = []
        self.damaged: list[Path] = []
        """Packs that are cut or overwritten."""
        self._places: dict[int, list[tuple[Pack, int]]] = {}
        for directory in self.directories if tasks else ():
            self._look_for_packs(directory, tasks)

    def close(self) -> None:
        """Close the packs."""
        for each in self._packs:
            each.close()

    def attempts(self, task: int) -> list[Attempt]:
        """The attempts of a task in packs."""
        found = [each.attempt(last) for each, last in self._places.get(task, ())]
        return [attempt for attempt in found if attempt is not None]

    def _look_for_packs(self, directory: Path, tasks: Collection[int]) -> None:
        try:
            paths = sorted(path for path in directory.iterdir() if path.name.endswith(PACK_END))
        except OSError:
            return
        for path in paths:
            try:
                opened = Pack.open(path, trusted=owner_of(directory))
                if opened is None:
                    self.damaged.append(path)
                    continue
                found = opened.find(tasks)
            except OSError:
                continue
            if opened.is_damaged:
                self.damaged.append(path)
            if not found:
                opened.close()
                continue
            self._packs.append(opened)
            for (task, _), last in found.items():
                self._places.setdefault(task, []).append((opened, last))


class SavedOutput:
    """The output of a run's `tasks`, in the directories of the manifest `told`; `lines` are their lines in
    the status file."""

    def __init__(self, told: OutputFile, tasks: Collection[int], lines: dict[int, Line]) -> None:
        self._told = told
        self._lines = lines
        self._own = _Numbered([told.directory, *told.former], tasks)
        self._others: list[tuple[_Numbered, dict[int, int]]] = []
        """Runs with other ids: also the id there of each of `tasks` that was skipped."""
        skipped = {task: line for task, line in lines.items() if line.mark is Mark.SKIPPED}
        for run in told.renumbered if skipped else ():
            numbers = _numbers_in(Path(run.status), skipped)
            self._others.append((_Numbered(run.directories, set(numbers.values())), numbers))

    def close(self) -> None:
        """Close the packs."""
        for each in (self._own, *(other for other, _ in self._others)):
            each.close()

    @property
    def damaged(self) -> list[Path]:
        """Packs that are cut or overwritten, and may have held missing output."""
        return [path for each in (self._own, *(other for other, _ in self._others)) for path in each.damaged]

    def find(self, task: int, stream: int) -> Found | None:
        """The output of that task to that stream, if there is any."""
        line = self._lines.get(task)
        if line is not None and not line.ran:
            line = None
        if line is not None and not line.sizes[stream]:
            return None
        skipped = line is not None and line.mark is Mark.SKIPPED
        if self._told.packed or skipped:
            attempt = self._in_packs(task, line)
            if attempt is not None:
                printed = attempt.printed(stream)
                if not (printed.offsets or printed.total or printed.is_damaged):
                    return None
                return Found(attempt.pack.path, self._expected(line, stream), printed)
        if not self._told.packed or skipped:
            for directory in self._own.directories if skipped else self._own.directories[:1]:
                plain = _open_file(directory, task, stream, line)
                if plain is not None:
                    return Found(plain.path, self._expected(line, stream), plain)
        return self._find_elsewhere(task, stream, line) if line is not None and skipped else None

    def _find_elsewhere(self, task: int, stream: int, line: Line) -> Found | None:
        """The output of a skipped task under its former id."""
        for numbered, numbers in self._others:
            number = numbers.get(task)
            if number is None:
                continue
            for attempt in numbered.attempts(number):
                if _is_of(attempt, line):
                    printed = attempt.printed(stream)
                    return Found(attempt.pack.path, self._expected(line, stream), printed)
            for directory in numbered.directories:
                plain = _open_file(directory, number, stream, line)
                if plain is not None:
                    return Found(plain.path, self._expected(line, stream), plain)
        return None

    def _expected(self, line: Line | None, stream: int) -> int:
        if line is None:
            return 0
        # The run that ran a skipped task may have had another limit.
        limit = LEAST_LIMIT if line.mark is Mark.SKIPPED else self._told.limit
        return min(line.sizes[stream], limit)

    def _in_packs(self, task: int, line: Line | None) -> Attempt | None:
        """The attempt of `line`, or the latest of this run that has not ended."""
        attempts = self._own.attempts(task)
        if line is not None:
            for attempt in attempts:
                if attempt.end is not None and _is_of(attempt, line):
                    return attempt
            attempts = [a for a in attempts if a.end is None and a.pack.about.node == line.node]
        own = [attempt for attempt in attempts if attempt.pack.about.run == self._told.run]
        return max(own, key=lambda attempt: attempt.number, default=None)


def _numbers_in(status: Path, wanted: dict[int, Line]) -> dict[int, int]:
    """The ids of these tasks in another status file that has the same records; empty if that file is gone."""
    by_shell: dict[bytes, list[int]] = {}
    for task, line in wanted.items():
        by_shell.setdefault(b"%d" % line.pid, []).append(task)
    found: dict[int, int] = {}
    with suppress(UsageError), _open_status(status) as file:
        for _, text in file.lines():
            fields = text.split(b"\t", _PID + 1)
            tasks = by_shell.get(fields[_PID], ()) if len(fields) > _PID else ()
            record = parse_line(text) if tasks else None
            if record is not None and record.mark in (Mark.TASK, Mark.SKIPPED):
                there = line_of(record)
                found |= {task: record.id for task in tasks if _is_same(wanted[task], there)}
    return found


def _is_same(one: Line, other: Line) -> bool:
    """True if both describe the same attempt."""
    times = max(abs(one.start - other.start), abs(one.finish - other.finish))
    return times < _SAME and one == other._replace(mark=one.mark, start=one.start, finish=one.finish)


def _is_of(attempt: Attempt, line: Line) -> bool:
    end = attempt.end
    return (
        end is not None
        and end.pid == line.pid
        and abs(end.start - line.start) < _SAME
        and abs(end.finish - line.finish) < _SAME
    )


# ---- separate files ----


class Plain:
    """The open file at `path`; `size`: bytes of it that `blocks` has read. `is_damaged`: it could not be read
    to its end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.is_damaged = False
        self.size = 0

    def blocks(self) -> Iterator[bytes]:
        """Its content."""
        with self._file:
            while data := self._read():
                self.size += len(data)
                yield data

    def end(self, size: int, expected: int) -> bytes | None:
        """The last bytes; None if there are fewer than `expected` in all."""
        with self._file as file:
            try:
                there = file.seek(0, os.SEEK_END)
                file.seek(max(0, there - size))
                return file.read(size) if there >= expected else None
            except OSError:
                return None

    def _read(self) -> bytes:
        try:
            return self._file.read(BLOCK)
        except OSError:
            self.is_damaged = True
            return b""


def _open_file(directory: Path, task: int, stream: int, line: Line | None) -> Plain | None:
    """The file of the attempt in `line`; without one, the latest file."""
    plain = directory / place(task, stream)
    asides = []
    try:
        for each in (directory / shard(task)).iterdir():
            known = parse_aside(each.name)
            if known is not None and (known.task, known.stream) == (task, stream):
                asides.append((each.stat().st_mtime, each))
    except OSError:
        pass
    if line is not None:
        chosen = next((path for when, path in asides if _is_time(when, line.finish)), plain)
    else:
        try:
            asides.append((plain.stat().st_mtime, plain))
        except OSError:
            pass
        chosen = max(asides)[1] if asides else plain
    return _open(chosen, owner_of(directory))


def _is_time(file_time: float, finish: float) -> bool:
    """True if the times are equal; some file systems keep whole seconds only."""
    return abs(file_time - finish) < _SAME or (file_time == int(file_time) == int(finish))


def _open(path: Path, owner: int | None) -> Plain | None:
    """Open a file of our user, or of the owner of the top directory."""
    try:
        descriptor = open_own(path, os.O_RDONLY, trusted=owner)
    except OSError:
        return None
    return Plain(path, os.fdopen(descriptor, "rb", buffering=0))
