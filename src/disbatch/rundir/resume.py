"""The resume index by task id: what former runs completed, for -r, -R and --force-resume.

Theory of operation
-------------------
A former run may have had ten million tasks, so no record is kept in memory: the index holds eight bytes for
each task, which are the file and offset of its line, and whether it failed. `lookup` reads the line again
when its task is reached; tasks are reached in about the order in which they ended, so a few pages of the file
serve many.

A line counts if it tells how a task ended. Lines of barriers and per-engine commands do not count, nor do
superseded attempts, nor tasks that were given up because their engines were lost, or were not run because
something was not available. If a task has several lines, success beats failure, and of two equals the later
one counts. The last line of a file may be torn; any other line that is not a status line means that the user
named the wrong file.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain, islice
from pathlib import Path

from disbatch.model.errors import ResumeError
from disbatch.model.statusline import (
    UNRECORDED_END,
    Mark,
    Record,
    command_matches,
    command_of,
    is_given_up,
    is_header,
    parse_line,
    quoted,
    scan_line,
)
from disbatch.model.task import Barrier, Item, Task
from disbatch.model.taskfile import shown
from disbatch.rundir.lock import is_held
from disbatch.rundir.runscript import prefix_of
from disbatch.rundir.statusfile import LONGEST_LINE, OpenStatusFile
from disbatch.wire.ownfile import is_foreign, owner_of

STATUS_END = "_status.txt"

_PAGE = 1 << 16
_PAGES = 32
_MOST_FILES = 1 << 10
_MOST_SCATTERED = 2_000_000
_ALWAYS_DENSE = 4_000_000
_MOST_HOLES = 16  # a dictionary entry takes as much memory as this many array entries

_COUNTED = frozenset((Mark.TASK, Mark.SKIPPED))
ASIDE = frozenset((Mark.SUPERSEDED, Mark.PER_ENGINE))
"""Lines about something that was run, but not about a completed task."""

# An entry of the index: 1 + (file, 10 bits; offset, 50 bits; failed, 1 bit); 0 means none.
_OFFSET_BITS = 50


class StatusFile(OpenStatusFile):
    """A status file, kept open, with a cache of recently read pages."""

    def __init__(self, path: Path, *, mine: bool = False) -> None:
        super().__init__(os.fspath(path), "-r needs the status file of a former run", ResumeError)
        self._pages: dict[int, bytes] = {}
        if not mine and is_held(self.descriptor):
            self.close()
            raise ResumeError(f"{path}: a run is still writing it; wait for its end, or end it, then resume")

    def line_at(self, offset: int) -> bytes:
        """The line that begins at `offset`, with its line feed; b"" if the file is shorter now."""
        number, at = divmod(offset, _PAGE)
        page = self._pages.get(number)
        if page is None:
            if len(self._pages) >= _PAGES:
                del self._pages[next(iter(self._pages))]
            page = self._pages[number] = self.read(number * _PAGE, _PAGE)
        end = page.find(b"\n", at) + 1
        if end:
            return page[at:end]
        size = _PAGE
        while True:
            text = self.read(offset, size)
            end = text.find(b"\n") + 1
            if end or len(text) < size or size > LONGEST_LINE:
                return text[:end]
            size *= 4

    def line_number(self, offset: int) -> int:
        """The number, from 1, of the line at `offset`: counted, since only messages need it."""
        return 1 + sum(block.count(b"\n") for _, block in self.blocks(end=offset))


class Former:
    """The tasks that former runs completed, by id.

    `count` is how many, `failures` how many of them failed; `highest` the highest id, -1 if there is none.
    `files` are open. `asides`, if `whole`: hashes of the lines that are not about a completed task.
    """

    def __init__(
        self, files: list[StatusFile], *, source: str, retry: bool, force: bool, whole: bool
    ) -> None:
        self.count = 0
        self.failures = 0
        self.highest = -1
        self.asides: set[int] = set()
        self.foreign: list[Path] = []
        """Files beside the status files that look like results of engines, but have another owner."""
        self.files = files
        self._source = source
        self._retry = retry
        self._force = force
        self._forced = 0
        """Tasks that are skipped although their commands differ; `_first_forced` is the line of the first."""
        self._first_forced = 0
        self._whole = whole
        self._counted = _COUNTED | {Mark.BARRIER} if whole else _COUNTED
        self._dense = array("q")
        self._scattered: dict[int, int] = {}
        for number, file in enumerate(files):
            self._index(number, file)

    @classmethod
    def read(
        cls,
        paths: Iterable[str],
        *,
        source: str,
        retry: bool = False,
        force: bool = False,
        whole: bool = False,
    ) -> Former:
        """Read the status files `paths` (-r), and the results beside each that engines could not deliver.

        `source` is the task file's name in messages; `retry` is -R, `force` --force-resume. `whole`: the
        first file is our own record, with barriers and lost tasks, and takes precedence; differences are
        allowed in tasks that it records as skipped. Raises ResumeError.
        """
        files: list[StatusFile] = []
        foreign: list[Path] = []
        known: set[tuple[int, int]] = set()
        try:
            for path in paths:
                for each in (Path(path), *unrecorded(Path(path), foreign)):
                    file = StatusFile(each, mine=whole)
                    files.append(file)
                    identity = (file.status.st_dev, file.status.st_ino)
                    if identity in known:
                        files.pop().close()
                    elif len(files) > _MOST_FILES:
                        raise ResumeError(f"{path}: more than {_MOST_FILES} status files; join some with cat")
                    known.add(identity)
            former = cls(files, source=source, retry=retry, force=force, whole=whole)
            former.foreign = foreign
            return former
        except BaseException:
            for file in files:
                file.close()
            raise

    def release(self) -> list[StatusFile]:
        """The files, for the caller to close; no lookups are possible any more."""
        files, self.files = self.files, []
        return files

    def close(self) -> None:
        """Close the files; no lookups are possible any more."""
        for file in self.files:
            file.close()
        self.files = []

    def look_beside(self) -> None:
        """Add what engines have left beside the first file since it was read. ResumeError."""
        known = {(file.status.st_ino, file.status.st_size) for file in self.files}
        for path in unrecorded(Path(self.files[0].path)):
            file = StatusFile(path, mine=True)
            if (file.status.st_ino, file.status.st_size) in known:
                file.close()
            else:
                self.files.append(file)
                self._index(len(self.files) - 1, file)

    def lookup(self, task: Task) -> Record | None:
        """The record of `task` if it need not run again: it was completed and, with -R, did not fail.

        ResumeError if its command was another one, unless forced.
        """
        entry = self._entry(task.id)
        if not entry or (self._retry and entry - 1 & 1):
            return None
        file, offset = self._place(entry)
        record = parse_line(file.line_at(offset))
        if record is None or record.id != task.id:
            raise ResumeError(
                f"{file.path}: has changed since it was read; resume again when it no longer changes"
            )
        if not command_matches(record.command, task.command):
            if not self._force or (self._whole and record.mark is not Mark.SKIPPED):
                raise self._mismatch(task.line, f"task {task.id}", task.command, entry, record)
            self._forced += 1
            self._first_forced = self._first_forced or task.line
        return record

    def pass_over(self, task: Task) -> None:
        """Count `task`, which need not be looked up."""

    def entries(self) -> Iterator[tuple[int, int, bool]]:
        """Each completed task in the order of their ids: in which file and where its line begins, and whether
        it failed."""
        dense = ((id, entry) for id, entry in enumerate(self._dense) if entry)
        for _, entry in merge(dense, sorted(self._scattered.items())):
            place = entry - 1 >> 1
            yield place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1, bool(entry - 1 & 1)

    def line(self, item: Task | Barrier) -> tuple[Record, bool] | None:
        """The record of `item`, and whether it stands in the first file. ResumeError as for `lookup`."""
        entry = self._entry(item.id)
        if not entry:
            return None
        file, offset = self._place(entry)
        if isinstance(item, Task):
            record = self.lookup(item)
        else:
            self._verify_barrier(item)
            record = parse_line(file.line_at(offset))
        return None if record is None else (record, file is self.files[0])

    def lines_from(self, first: int) -> Iterator[Record]:
        """The lines that count, of that id and higher ones."""
        for id in chain(range(first, len(self._dense)), (id for id in self._scattered if id >= first)):
            entry = self._entry(id)
            if entry:
                file, offset = self._place(entry)
                record = parse_line(file.line_at(offset))
                if record is not None:
                    yield record

    def has(self, id: int) -> bool:
        """There is a line of that id."""
        return bool(self._entry(id))

    def verify(self, items: Iterable[Item], ids: int) -> list[str]:
        """Look up each task of a whole task file before anything runs; `ids` is how many ids the file has.

        Goes no further than the highest former id. Returns what the user should know; raises ResumeError as
        `lookup` does, and, unless forced, for a barrier where a task was.
        """
        self._forced = 0
        for item in items:
            if isinstance(item, Task):
                if item.id > self.highest:
                    break
                if not self._stands(item):
                    self.lookup(item)
            elif isinstance(item, Barrier) and (self._whole or not self._force):
                self._verify_barrier(item)
        words, self._forced = self.in_hindsight(), 0
        words += [f"{path}: does not belong to you: ignored" for path in self.foreign]
        return words + self.beyond(ids)

    def in_hindsight(self) -> list[str]:
        """Messages about the tasks that were looked up since `verify`, if that was called at all."""
        if not self._forced or self._whole:
            return []
        where = f"the first: {self._source}:{self._first_forced}"
        tasks = "1 task" if self._forced == 1 else f"{self._forced:,} tasks"
        return [
            f"--force-resume: {tasks} done before had another command ({where}), and will not run: the new "
            "status file shows the command that ran"
        ]

    def knows(self, id: int) -> bool:
        """True if there is a record of that task or barrier."""
        return bool(self._entry(id))

    # ---- the index ----

    def _entry(self, id: int) -> int:
        if self._scattered:
            entry = self._scattered.get(id)
            if entry is not None:
                return entry
        return self._dense[id] if id < len(self._dense) else 0

    def _place(self, entry: int) -> tuple[StatusFile, int]:
        place = entry - 1 >> 1
        return self.files[place >> _OFFSET_BITS], place & (1 << _OFFSET_BITS) - 1

    def _index(self, number: int, file: StatusFile) -> None:
        """Add every line of `file`."""
        line_number = 0
        for at, block in file.blocks():
            base, begin = number << _OFFSET_BITS | at, 0
            while begin < len(block):
                line_number += 1
                found = scan_line(block, begin)
                if found is None:
                    end = block.index(b"\n", begin) + 1
                    if not is_header(block[begin : end - 1]):
                        raise _not_status(file.path, line_number)
                else:
                    end, mark, id, return_code, reason = found
                    if self._whole and mark in ASIDE and not number:
                        self.asides.add(hash(block[begin:end]))
                    if mark in self._counted and (self._whole or not is_given_up(return_code, reason)):
                        self._enter(id, base + begin, return_code != 0)
                begin = end

    def _enter(self, id: int, place: int, failed: bool) -> None:
        former = self._entry(id)
        if former and self._whole and place >> _OFFSET_BITS:
            return
        if former:
            formerly_failed = bool(former - 1 & 1)
            if failed and not formerly_failed:
                return
            self.failures += failed - formerly_failed
        else:
            self.count += 1
            self.failures += failed
            self.highest = max(self.highest, id)
        entry = 1 + (place << 1 | failed)
        if id < len(self._dense) and id not in self._scattered:
            self._dense[id] = entry
        elif former or id > max(_ALWAYS_DENSE, _MOST_HOLES * self.count):
            if len(self._scattered) >= _MOST_SCATTERED:
                raise ResumeError(
                    f"task {id}: task numbers of the status files are too far apart to resume from"
                )
            self._scattered[id] = entry
        else:
            more = max(id + 1 - len(self._dense), len(self._dense) >> 3)
            self._dense.frombytes(bytes(self._dense.itemsize * more))
            self._dense[id] = entry

    # ---- messages ----

    def beyond(self, ids: int) -> list[str]:
        """A warning if former tasks have ids beyond the end of a task file with `ids` ids."""
        if self.highest < ids:
            return []
        count = sum(map(bool, islice(self._dense, ids, None))) + sum(id >= ids for id in self._scattered)
        return [
            f"{self._source}: {count} of the tasks in the former status file are beyond its end "
            f"(it has ids up to {ids - 1}, they go up to {self.highest}); is it the same task file?"
        ]

    def _stands(self, task: Task) -> bool:
        """A quick check that is true if nothing prevents `task` from running; the usual case, faster than
        `lookup`."""
        entry = self._entry(task.id)
        if not entry:
            return True
        file, offset = self._place(entry)
        return file.line_at(offset).endswith(b"\t%b\n" % quoted(task.command).encode())

    def _verify_barrier(self, barrier: Barrier) -> None:
        entry = self._entry(barrier.id)
        if entry and not (self._retry and entry - 1 & 1):
            file, offset = self._place(entry)
            record = parse_line(file.line_at(offset))
            if record is not None and record.mark is not Mark.BARRIER:
                raise self._mismatch(barrier.line, f"barrier {barrier.id}", barrier.text, entry, record)

    def _mismatch(self, line: int, what: str, now: bytes, entry: int, record: Record) -> ResumeError:
        file, offset = self._place(entry)
        advice = (
            "a run that is taken over needs the same tasks"
            if self._whole
            else "if lines were added, removed or moved, add --resume-by command"
        )
        return ResumeError(
            f"{self._source}:{line}: {what} is not the one in {file.path}:{file.line_number(offset)} "
            f"(now: {shown(now)}, then: {shown(command_of(record.command))}); {advice}"
        )


def unrecorded(path: Path, foreign: list[Path] | None = None) -> list[Path]:
    """Results that engines of the run with this status file could not deliver: PREFIX_NODE_unrecorded.txt;
    see `of_nodes`."""
    return of_nodes(path, UNRECORDED_END, foreign)


def of_nodes(path: Path, ending: str, foreign: list[Path] | None = None) -> list[Path]:
    """Files that engines of the run with this status file have left beside it: PREFIX_NODE and that ending.

    Only files of our user, or of the owner of the status file, count; others are added to `foreign`. The
    prefix of another run in the same directory may begin with this one's and `_`; its files are not this
    run's. ResumeError if the directory cannot be listed: there may be some.
    """
    if not path.name.endswith(STATUS_END):
        return []
    try:
        names = [each.name for each in path.parent.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []  # the status file is missing, too, which is reported elsewhere
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ResumeError(
            f"{path.parent}: cannot be listed: {why}; results that engines "
            f"could not deliver may be there: make it readable, or copy {path.name} elsewhere"
        ) from error
    mine = Path(prefix_of(str(path))).name + "_"
    others = [
        other
        for name in names
        if name.endswith(STATUS_END)
        and len(other := name.removesuffix(STATUS_END) + "_") > len(mine)
        and other.startswith(mine)
    ]
    found = [
        path.with_name(name)
        for name in sorted(names)
        if name.startswith(mine) and name.endswith(ending) and not name.startswith(tuple(others))
    ]
    owner = owner_of(path)
    passed_over = {each for each in found if is_foreign(each, trusted=owner)}
    if foreign is not None:
        foreign += sorted(passed_over)
    return [each for each in found if each not in passed_over]


def _not_status(path: str, line: int) -> ResumeError:
    return ResumeError(
        f"{path}:{line}: not a line of a status file; -r needs the status file of a former run"
    )
