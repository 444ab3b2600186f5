"""Write each task's output to files of its own, one for each stream, in directories of a thousand tasks.

Theory of operation
-------------------
    ID.out                    the plain file
    ID.out.ENGINE.ATTEMPT     the file aside: of an attempt for which a plain file existed already

Only the attempt that created a file (O_EXCL) writes to it, so no two attempts ever write to the same file. As
a rule the plain file does not exist when a task first prints: it is created, written and closed. Empty files
are never created. Files are closed when descriptors are scarce, and opened again.

If a plain file of the task exists, from a former run or from an attempt that was lost, the new attempt writes
aside. When it has ended by itself, its files replace the plain ones (by renaming, so that each is complete at
any time), and a plain file without a counterpart is removed: stdout of one attempt never stays beside stderr
of another. An attempt that was ended by order, or killed with its engine, replaces nothing.

Two attempts run at once, on two nodes, if a link was cut for so long that the driver gave the first node up.
As a rule the second attempt counts, and the first one must not replace its files. The engine of the first
does not know of the second, but it knows that it has not heard the driver for long: it is in *doubt* about
the attempts that ran at the time (`engine.liveness`), and an attempt in doubt does not replace an existing
file:

| first attempt, in doubt | second attempt | the plain file is that |
|---|---|---|
| made the plain file, ends before or after | writes aside, replaces it at its end | of the second |
| ends and makes it before the second prints | the same | of the second |
| prints only after the second did | made the plain file | of the second; the first stays aside |
| its engine comes back, and it counts after all | is ended by order, stays aside | of the first |

A file that stays aside has the time of the attempt's end as its modification time, the same as in the status
file, so that `dbutil cat` finds it if the status line is of that attempt. In one case the plain file is not
that of the attempt that counts: the second attempt ended and replaced the files, its engine died before the
driver received the result, and then the first engine returned with its result, which counts. The plain file
is then that of the second attempt, which also ran to its end.

A file could take its plain name only when the driver has acknowledged that its result counts. But then
`tail -f` of the plain name could not follow a running task, and an engine that is killed after its result was
recorded would leave the complete file without its plain name.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from disbatch.engine.limits import Reserve
from disbatch.engine.output_writer import Done
from disbatch.model.output import aside, left_out, place, shard
from disbatch.model.pack import Piece
from disbatch.wire.ownfile import make_own_directory, open_own


class Replaced(OSError):
    """The file's path now names another file, of a later attempt, or nothing."""


class StreamFile:
    """The new file of one stream of an attempt, at `path`; OSError if that exists, or cannot be created.
    `aside`: it is not the plain file. `reached`: the position in the stream up to which it is written."""

    __slots__ = ("_descriptor", "_identity", "_size", "aside", "path", "reached")

    def __init__(self, path: bytes, *, aside: bool) -> None:
        self.path = path
        self.aside = aside
        self.reached = 0
        self._size = 0
        self._descriptor = _create(path)
        status = os.fstat(self._descriptor)
        self._identity = (status.st_dev, status.st_ino)

    @property
    def is_open(self) -> bool:
        """True if it holds a descriptor."""
        return self._descriptor >= 0

    def open(self) -> None:
        """Open it again. Replaced if it is not the file that was closed, with the same identity and all of
        its content."""
        descriptor = open_own(self.path, os.O_WRONLY | os.O_APPEND)
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != self._identity or status.st_size != self._size:
            os.close(descriptor)
            raise Replaced
        self._descriptor = descriptor

    def put(self, position: int, data: bytes) -> None:
        """Append `data`, which belongs at `position` of the stream; a gap before it is marked. OSError, with
        `reached` as the position that was written."""
        if position > self.reached:
            gap = left_out(position - self.reached)
            while gap:
                gap = gap[self._write(gap) :]
            self.reached = position
        rest = memoryview(data)
        while rest:
            written = self._write(rest)
            self.reached += written
            rest = rest[written:]

    def _write(self, data: bytes | memoryview) -> int:
        written = os.write(self._descriptor, data)
        self._size += written
        return written

    def date(self, seconds: float) -> None:
        """Set its modification time with the precision of a status line: microseconds."""
        when = round(seconds * 1e6) * 1000
        os.utime(self.path, ns=(when, when), follow_symlinks=False)

    def close(self) -> None:
        """Close the descriptor. OSError if the system reports only now that something was not written."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def discard(self) -> None:
        """Remove it, as nothing could be written to it."""
        self.close()
        os.unlink(self.path)  # noqa: PTH108 - bytes


def _create(path: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        return os.open(path, flags, 0o666)


MOST_OPEN = 64
"""The most files that are kept open; others are opened again for each of their pieces."""

MOST_SHARDS = 1000
"""The most directories that are remembered."""

Key = tuple[int, int]
"""Attempt and stream."""


class OutputDirectory:
    """Writes below `directory`, for one engine. `certain(begun)`: no other engine can have been given an
    attempt that has run here since then. `failed(error)` is called for everything that could not be written,
    which is then missing, and marked if something follows it."""

    clears = True
    """At the end of an attempt without output, files of former attempts are removed."""

    def __init__(
        self,
        directory: bytes,
        engine: str,
        certain: Callable[[float], bool],
        failed: Callable[[OSError], None],
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._certain = certain
        self._failed = failed
        self._files: dict[Key, StreamFile] = {}
        """The files of the attempts that have not ended."""
        self._open: OrderedDict[Key, StreamFile] = OrderedDict()
        """Those of them that are open, least recently written first."""
        self._reserve = Reserve(1)
        self._shards: set[str] = set()
        """Directories that are known to be ours."""
        self._aside: set[int] = set()
        """Attempts that found a plain file."""

    def write(self, work: list[Piece | Done]) -> None:
        """Write these, in this order."""
        for each in work:
            if type(each) is Piece:
                self._guarded(self._write, each)
            elif type(each) is Done:
                self._end(each)

    def sync(self) -> None:
        """Not needed: a file is closed when its task has ended."""

    def close(self) -> None:
        """Close what is open."""
        self._close_all()
        self._reserve.release()

    def _path(self, name: str) -> bytes:
        return self._directory + b"/" + name.encode()

    # ---- a piece ----

    def _write(self, piece: Piece) -> None:
        key = (piece.attempt, piece.stream)
        file = self._files.get(key)
        try:
            file = self._ready(key, file, piece)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # All others are closed, so this one finds room; it must not keep it.
            self._close_all()
            with self._reserve.spent():
                file = self._ready(key, file, piece)
                try:
                    self._put(key, file, piece)
                finally:
                    self._close_all()
            return
        self._put(key, file, piece)
        if len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)[1].close()

    def _ready(self, key: Key, file: StreamFile | None, piece: Piece) -> StreamFile:
        """The file of that stream, open."""
        if file is None:
            file = self._files[key] = self._create(piece)
        elif not file.is_open:
            file.open()
        self._open[key] = file
        self._open.move_to_end(key)
        return file

    def _put(self, key: Key, file: StreamFile, piece: Piece) -> None:
        try:
            file.put(piece.position, piece.data)
        except OSError:
            if not file.reached:  # the disk is full: no empty files
                del self._files[key], self._open[key]
                file.discard()
            raise

    def _create(self, piece: Piece) -> StreamFile:
        task, attempt = piece.task, piece.attempt
        self._ensure_shard(task)
        if attempt not in self._aside:
            if (attempt, 1 - piece.stream) in self._files or not self._is_there(task, 1 - piece.stream):
                try:
                    return StreamFile(self._path(place(task, piece.stream)), aside=False)
                except FileExistsError:
                    pass
            self._aside.add(attempt)
        return StreamFile(self._path(aside(task, piece.stream, self._engine, attempt)), aside=True)

    def _ensure_shard(self, task: int) -> None:
        """Create the directory of this task's files. NotOwnError if another user has created something
        there."""
        name = shard(task)
        if name in self._shards:
            return
        if len(self._shards) >= MOST_SHARDS:
            self._shards.clear()
        outer = name.partition("/")[0]
        try:
            make_own_directory(self._path(outer))
        except FileNotFoundError:  # the whole directory tree was removed
            os.makedirs(self._path(outer))  # noqa: PTH103 - bytes
        make_own_directory(self._path(name))
        self._shards.add(name)

    def _is_there(self, task: int, stream: int) -> bool:
        return os.path.lexists(self._path(place(task, stream)))

    def _close_all(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                self._open.popitem()[1].close()

    # ---- an end ----

    def _end(self, done: Done) -> None:
        self._aside.discard(done.attempt)
        for stream, total in enumerate((done.how.out_bytes, done.how.err_bytes)):
            key = (done.attempt, stream)
            file = self._files.pop(key, None)
            self._open.pop(key, None)
            if file is not None:
                self._guarded(self._finish, file, total)
            if file is None or file.aside:
                self._guarded(self._replace_plain, file, done, stream)

    def _guarded(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except Replaced:
            pass  # of an attempt that does not count
        except OSError as error:
            self._failed(error)

    def _finish(self, file: StreamFile, total: int) -> None:
        try:
            if total > file.reached:
                with self._reserve.spent():
                    if not file.is_open:
                        file.open()
                file.put(total, b"")
        finally:
            file.close()

    def _replace_plain(self, file: StreamFile | None, done: Done, stream: int) -> None:
        """Replace the plain file by `file`, or remove it, if this attempt is the one that counts."""
        path = self._path(place(done.task, stream))
        # A server that was unreachable answers late, and the task may have gone to another engine by then:
        # access the files first, and only then ask.
        taken = os.path.lexists(path)
        if not (done.own and self._certain(done.begun)):
            if file is not None:
                file.date(done.how.finish)
        elif file is not None:
            os.replace(file.path, path)  # noqa: PTH105 - bytes
        elif taken:
            self._ensure_shard(done.task)
            os.unlink(path)  # noqa: PTH108 - bytes


def prepare(directory: bytes, name: str) -> None:
    """Create the directory, and check that files can be created in it; `name` is the caller's own.
    OSError."""
    probe = b"%b/.%b" % (directory, name.encode())
    os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - bytes
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.unlink(probe)  # noqa: PTH108 - bytes
