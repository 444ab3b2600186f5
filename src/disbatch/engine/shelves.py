"""Each task's output as files of its own, in directories of a thousand.

Theory of operation
-------------------
    ID.out                    the plain file
    ID.out.ENGINE.ATTEMPT     the same of an attempt that found one of its plain files there: "aside"

A file is written only by the one who made it (O_EXCL), through the descriptor that this gave. So no two
attempts ever write into one file, whatever they know of each other. As a rule the plain file is not there
when a task prints for the first time: it is made, written to, closed; an empty one is never made.

If a plain file of the task is there, of a former run or of an attempt that was lost, the new attempt writes
aside. When it has ended by itself, its files take the place of the plain ones (a rename, so each is there
whole at any time), and a plain file of which it has nothing goes: no stdout of one attempt stays beside the
stderr of another. What was ended by order, or killed with its engine, replaces nothing.

Two attempts at once, on two nodes, come of a link that was cut for so long that the driver gave the first
node up. The second attempt is the one that counts then, as a rule, and the first one must not take its place.
The engine of the first does not know of the second, but it knows that it was not heard for long, or had to
introduce itself again: it is in *doubt* about the attempts that ran at the time (`engine.contact`), and what
is in doubt does not take a place that is taken:

| first attempt, in doubt | second attempt | the plain file is that |
|---|---|---|
| made the plain file, ends before or after | writes aside, takes the place at its end | of the second |
| ends and makes it before the second prints | the same | of the second |
| prints only after the second did | made the plain file | of the second; the first stays aside |
| its engine comes back, and it counts after all | is ended by order, stays aside | of the first |

What stays aside bears the time of the attempt's end as its file time, as the status file has it, so that
`dbutil cat` finds it if it is what the record tells of. One case is left: the second attempt has ended and
taken the place, its engine dies before the driver hears of it, and then the first comes back with its result,
which counts. The plain file is that of the second attempt then: it ran to its end, too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from disbatch.engine.filing import Done
from disbatch.model.output import aside, left_out, place
from disbatch.model.pack import Piece


class _File:
    """An open file of one stream of an attempt; `reached` is how far in the stream it goes."""

    __slots__ = ("aside", "descriptor", "path", "reached")

    def __init__(self, path: bytes, *, aside: bool) -> None:
        self.path = path
        self.aside = aside
        self.descriptor = _open_new(path)
        self.reached = 0


class Shelves:
    """Writes below `directory`, for one engine. `certain(begun)`: no other engine can have been given an
    attempt that runs here since then. `failed(error)` is told of everything that could not be written, which
    is then missing, and marked if something follows it."""

    clears = True
    """An attempt without output has something to do here at its end: former files go."""
    descriptors = 2

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
        self._open: dict[tuple[int, int], _File] = {}
        self._aside: set[int] = set()
        """Attempts that found a plain file."""

    def file(self, work: list[Piece | Done]) -> None:
        """Write these, in this order."""
        for each in work:
            try:
                if type(each) is Piece:
                    self._write(each)
                elif type(each) is Done:
                    self._end(each)
            except OSError as error:
                self._failed(error)

    def sync(self) -> None:
        """Not needed: a file is closed when its task has ended."""

    def close(self) -> None:
        """Close what is open."""
        for file in self._open.values():
            with contextlib.suppress(OSError):
                os.close(file.descriptor)
        self._open.clear()

    def _path(self, name: str) -> bytes:
        return self._directory + b"/" + name.encode()

    # ---- a piece ----

    def _write(self, piece: Piece) -> None:
        key = (piece.attempt, piece.stream)
        file = self._open.get(key)
        if file is not None:
            self._put(file, piece.position, piece.data)
            return
        file = self._open[key] = self._create(piece)
        try:
            self._put(file, piece.position, piece.data)
        except OSError:
            if not file.reached:  # the disk is full: no empty files
                del self._open[key]
                os.close(file.descriptor)
                os.unlink(file.path)  # noqa: PTH108 - bytes
            raise

    def _put(self, file: _File, position: int, data: bytes) -> None:
        """Append; a gap before it is told of."""
        if position > file.reached:
            _write_all(file.descriptor, left_out(position - file.reached))
            file.reached = position
        rest = memoryview(data)
        while rest:
            written = os.write(file.descriptor, rest)
            file.reached += written
            rest = rest[written:]

    def _create(self, piece: Piece) -> _File:
        task, attempt = piece.task, piece.attempt
        if attempt not in self._aside:
            if (attempt, 1 - piece.stream) in self._open or not self._is_there(task, 1 - piece.stream):
                try:
                    return _File(self._path(place(task, piece.stream)), aside=False)
                except FileExistsError:
                    pass
            self._aside.add(attempt)
        return _File(self._path(aside(task, piece.stream, self._engine, attempt)), aside=True)

    def _is_there(self, task: int, stream: int) -> bool:
        return os.path.lexists(self._path(place(task, stream)))

    # ---- an end ----

    def _end(self, done: Done) -> None:
        self._aside.discard(done.attempt)
        for stream, total in enumerate((done.how.out_bytes, done.how.err_bytes)):
            file = self._open.pop((done.attempt, stream), None)
            try:
                if file is not None:
                    self._finish(file, done, total)
                if file is None or file.aside:
                    self._settle(file, done, stream)
            except OSError as error:
                self._failed(error)

    def _finish(self, file: _File, done: Done, total: int) -> None:
        try:
            self._put(file, total, b"")
        finally:
            if file.aside:
                when = round(done.how.finish * 1e6) * 1000
                os.utime(file.descriptor, ns=(when, when))
            os.close(file.descriptor)

    def _settle(self, file: _File | None, done: Done, stream: int) -> None:
        """Give the plain file's place to `file`, or to nothing, if this attempt is the one."""
        if not done.own:
            return
        path = self._path(place(done.task, stream))
        # A server that was cut off answers late, and the task may be somebody else's by then: look, and ask
        # only after that.
        taken = os.path.lexists(path)
        if not self._certain(done.begun):
            return
        if file is not None:
            os.replace(file.path, path)  # noqa: PTH105 - bytes
        elif taken:
            os.unlink(path)  # noqa: PTH108 - bytes


def _open_new(path: bytes) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 - bytes
        return os.open(path, flags, 0o666)


def prepare(directory: bytes, name: str) -> None:
    """Make the directory, and see whether files can be made in it; `name` is the caller's own. OSError."""
    probe = b"%b/.%b" % (directory, name.encode())
    os.makedirs(directory, exist_ok=True)  # noqa: PTH103 - bytes
    os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.unlink(probe)  # noqa: PTH108 - bytes


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
