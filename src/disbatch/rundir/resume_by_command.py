"""The resume index by command: what former runs completed, for --resume-by command, when the task file was
edited.

Theory of operation
-------------------
A task was done before if a former run completed one with the same command (with PREFIX and SUFFIX) and repeat
index. Of several copies, the first in the list corresponds to the copy with the lowest id in that run, the
second to the next one, and so on; so tasks must be looked up in order, and each of them once.

Ids of one run mean nothing to another, and a resumed run repeats the records of its former run. So of several
runs the one with the most copies counts; of the n-th copies, success beats failure, and the later run beats
the earlier one. Because of that a task may run again, but none is left out.

As in `resume`, the index holds no record: a hash of each command, the offset of its line, and the number of
the next copy. A hash table that leads to the first copy holds positions of four bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from disbatch.model.errors import ResumeError
from disbatch.model.statusline import (
    FIELDS,
    UNRECORDED_END,
    Record,
    command_key,
    command_keys,
    command_matches,
    parse_line,
)
from disbatch.model.task import Item, Task
from disbatch.rundir.resume import Former, StatusFile
from disbatch.rundir.runscript import prefix_of

_SPENT = (1 << 32) - 1
"""Marks an entry of the table whose copies have all been used."""
_REPEAT, _COMMAND = FIELDS.index("repeat"), FIELDS.index("command")
_NUMBERED = (b"TASKID", b"STREAM_INDEX")
"""Part of the names of variables that number tasks and lines: DISBATCH_TASKID, DISBATCH_TASKID_ZP, ..."""


class _Tally:
    """The tasks so far: those `done` before, of which `again` failed and run again, and `new` ones; how many
    of them are `numbered`, and the line of the `first` such."""

    def __init__(self) -> None:
        self.done = self.again = self.new = self.numbered = self.first = 0


class Place(NamedTuple):
    """The offset of a completed task's line, and whether it failed."""

    file: StatusFile
    offset: int
    failed: bool


class ByCommand:
    """The tasks that former runs completed, by command. `source` is the task file's name in messages; `retry`
    is -R."""

    def __init__(self, runs: Sequence[Former], *, source: str, retry: bool) -> None:
        self._source = source
        self._retry = retry
        self._verified = False
        self._tally = _Tally()
        self._files: list[StatusFile] = []
        self._names = ", ".join(str(run.files[0].path) for run in runs)
        self._keys = array("q")
        self._offsets = array("q")
        """2 * the offset of the line + whether it failed."""
        self._file_of = array("H")
        self._next = array("I")
        """1 + the index of the next copy in the three arrays above; 0: there is none."""
        size = 1 << max(4, (3 * sum(run.count for run in runs) // 2).bit_length())
        self._heads = array("I", bytes(array("I").itemsize * size))
        """The same of the first unused copy."""
        for run in runs:
            self._enter_run(run)
            self._files += run.release()

    @classmethod
    def read(cls, paths: Iterable[str], *, source: str, retry: bool) -> ByCommand:
        """Read the status files `paths` (-r). ResumeError."""
        runs: list[Former] = []
        try:
            for run in _by_run(list(paths)):
                runs.append(Former.read(run, source=source))
            return cls(runs, source=source, retry=retry)
        except BaseException:
            for each in runs:
                each.close()
            raise

    @property
    def count(self) -> int:
        """The number of completed tasks."""
        return len(self._keys)

    def close(self) -> None:
        """Close the files; no lookups are possible any more."""
        for file in self._files:
            file.close()

    def lookup(self, task: Task) -> Record | None:
        """The record of `task` if it need not run again: it was completed and, with -R, did not fail.
        ResumeError if the file has changed."""
        place = self._take(task)
        if place is None or (place.failed and self._retry):
            return None
        record = parse_line(place.file.line_at(place.offset))
        same = record is not None and record.repeat == task.repeat
        if record is None or not same or not command_matches(record.command, task.command):
            raise ResumeError(
                f"{place.file.path}: has changed since it was read; resume again when it no longer changes"
            )
        return record

    def pass_over(self, task: Task) -> None:
        """Count `task`, which need not be looked up."""
        self._take(task)

    def verify(self, items: Iterable[Item], ids: int) -> list[str]:
        """Compare a whole task file before anything runs; returns messages for the user. ResumeError if none
        of it was done before."""
        heads = self._heads[:]
        for item in items:
            if isinstance(item, Task):
                self._take(item)
        told, self._heads = self._tally, heads
        if self.count and not told.done + told.again:
            raise ResumeError(
                f"{self._source}: none of its commands is one that {self._names} has as completed; name the "
                "status file of a run of this list, or run it without -r"
            )
        words = self._words()
        self._verified, self._tally = True, _Tally()
        return words

    def in_hindsight(self) -> list[str]:
        """Messages about the tasks so far, unless `verify` has returned them."""
        return [] if self._verified else self._words()

    def _words(self) -> list[str]:
        tally = self._tally
        parts = [f"{tally.done:,} done before", f"{tally.new:,} new"]
        if tally.again:
            runs = "runs" if tally.again == 1 else "run"
            parts.append(f"{tally.again:,} that failed before {runs} again")
        gone = self.count - tally.done - tally.again
        if gone:
            are = "is" if gone == 1 else "are"
            parts.append(f"{gone:,} of the former tasks {are} no longer in the list")
        words = [f"{self._source}: by command: {', '.join(parts)}"]
        if tally.numbered:
            commands = "1 command mentions" if tally.numbered == 1 else f"{tally.numbered:,} commands mention"
            words.append(
                f"{self._source}:{tally.first}: {commands} TASKID or STREAM_INDEX, which count in the list "
                "as it is now: where a number has changed, results may be mixed up or overwritten"
            )
        return words

    # ---- the index ----

    def _take(self, task: Task) -> Place | None:
        """The next copy of its command."""
        tally, command = self._tally, task.command
        if _NUMBERED[0] in command or _NUMBERED[1] in command:
            tally.numbered += 1
            tally.first = tally.first or task.line
        place = None
        for key in command_keys(command):
            place = place or self._take_copy(hash((key, task.repeat)))
        if place is None:
            tally.new += 1
        elif place.failed and self._retry:
            tally.again += 1
        else:
            tally.done += 1
        return place

    def _take_copy(self, key: int) -> Place | None:
        slot = self._slot(key)
        at = self._heads[slot] - 1
        if at < 0:
            return None
        self._heads[slot] = self._next[at] or _SPENT
        place = self._offsets[at]
        return Place(self._files[self._file_of[at]], place >> 1, bool(place & 1))

    def _slot(self, key: int) -> int:
        """The slot of the table with the first copy of that key, or an empty one."""
        heads, keys, mask = self._heads, self._keys, len(self._heads) - 1
        slot = key & mask
        while (head := heads[slot]) and (head == _SPENT or keys[head - 1] != key):
            slot = slot + 1 & mask
        return slot

    def _enter_run(self, run: Former) -> None:
        base = len(self._files)
        last = array("I", bytes(self._heads.itemsize * len(self._heads)))
        """# By slot: 1 + the index of the last copy in this run."""
        for number, offset, failed in run.entries():
            fields = run.files[number].line_at(offset).rstrip(b"\n").split(b"\t", _COMMAND)
            key = hash((command_key(fields[_COMMAND]), int(fields[_REPEAT])))
            slot = self._slot(key)
            before = last[slot]
            at = (self._next[before - 1] if before else self._heads[slot]) - 1
            if at < 0:
                at = self._append(key)
                if before:
                    self._next[before - 1] = at + 1
                else:
                    self._heads[slot] = at + 1
            elif failed and not self._offsets[at] & 1:
                last[slot] = at + 1
                continue  # it succeeded in another run
            self._offsets[at], self._file_of[at] = offset << 1 | failed, base + number
            last[slot] = at + 1

    def _append(self, key: int) -> int:
        self._keys.append(key)
        self._offsets.append(0)
        self._file_of.append(0)
        self._next.append(0)
        return len(self._keys) - 1


def _by_run(paths: list[str]) -> list[list[str]]:
    """Groups of files of the same run: results that its engines could not deliver have files of their own."""
    runs: list[list[str]] = [[path] for path in paths if not path.endswith(UNRECORDED_END)]
    for path in paths:
        if path.endswith(UNRECORDED_END):
            for run in runs:
                if Path(path).name.startswith(f"{Path(prefix_of(run[0])).name}_"):
                    run.append(path)
                    break
            else:
                runs.append([path])
    return runs
