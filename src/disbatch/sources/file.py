"""Tasks from a regular file: checked as a whole before anything runs, then read just ahead of need.

What is read again must be what was checked, so the check keeps a checksum of each block.

Theory of operation
-------------------
Ten million lines must not cost a Python step each. The file is cut into blocks of whole lines. In a block,
directives are found with `bytes.find` and given to the real parser; between two of them is a *stretch* of
plain lines, which is counted by a regular expression and searched for NUL bytes in C. Only a stretch that
holds a NUL, or is so long that one of its lines may be too long, goes through the parser line by line. So the
parser alone decides what is valid, and errors come in the order of the file.
"""

from __future__ import annotations

import os
import re
import zlib
from array import array
from collections.abc import Callable, Iterator

import msgspec

from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import Item
from disbatch.model.taskfile import MARK, MAX_COMMAND, TaskParser, is_directive
from disbatch.sources.source import ItemQueue, LineSplitter

BLOCK = 1 << 20
"""Bytes of a block."""


class Checksums:
    """The checksums of a text that is added from its beginning; `size` in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = array("I")
        self._last = 0

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK - self.size % BLOCK]
            self._last = zlib.crc32(part, self._last)
            self.size += len(part)
            rest = rest[len(part) :]
            if self.size % BLOCK == 0:
                self._whole.append(self._last)
                self._last = 0

    def at(self, end: int) -> int:
        """The checksum of the block that ends at `end`, which is the end of the text or of a whole block."""
        return self._last if end % BLOCK else self._whole[end // BLOCK - 1]


class Verifier:
    """Compares a text with `checksums`, which may still grow, while it is read from its beginning."""

    def __init__(self, checksums: Checksums) -> None:
        self._checksums = checksums
        self._at = 0
        self._sum = 0

    @property
    def room(self) -> int:
        """How many bytes to read next: never beyond a block, or beyond what is known; 0 at the end of
        that."""
        return min(BLOCK - self._at % BLOCK, self._checksums.size - self._at)

    def accept(self, data: bytes) -> bool:
        """True if these are the next `room` bytes."""
        if len(data) != self.room:
            return False
        self._sum = zlib.crc32(data, self._sum if self._at % BLOCK else 0)
        self._at += len(data)
        return self._sum == self._checksums.at(self._at)


CHUNK = 1 << 20
"""Bytes read at a time."""
TAIL = 1 << 12
"""Bytes before the next read that are compared again once the file has grown."""

CHANGED = "the file was changed, here or further down, while it was read"


def unreadable(name: str, error: OSError) -> UsageError:
    """The one-line error for input that cannot be opened or read."""
    return UsageError(f"{name}: cannot be read: {(error.strerror or str(error)).lower()}")


class FileSource:
    """A `Source` that reads whenever it needs more: a regular file, or a device that a loop cannot wait for.

    It owns `descriptor` and reads from its present offset. If the file becomes invalid while it is read (it
    was checked, but it may change), the source ends with `error` after the valid items, as a stream does.

    `checksums` are those of a regular file when it was checked: if it were truncated or overwritten, a
    command might run that was never checked, or one that is half old and half new. So each block must be the
    one that was checked. The file may grow: then before each read the last bytes that were read must still be
    there. Once everything that was checked has been read, changes no longer matter: that is the end.

    `retry(error)`, if given, is called when the file system fails, and arranges for another read later;
    otherwise the failure is the end.
    """

    def __init__(
        self,
        name: str,
        descriptor: int,
        checksums: Checksums | None = None,
        retry: Callable[[OSError], None] | None = None,
    ) -> None:
        self._name = name
        self._retry = retry
        self._descriptor: int | None = descriptor
        self._splitter = LineSplitter()
        self._items = ItemQueue(name)
        self._read_error: UsageError | None = None
        self._verifier = None if checksums is None else Verifier(checksums)
        self._tail = b""
        self._fill()

    @property
    def name(self) -> str:
        return self._name

    @property
    def ended(self) -> bool:
        return self._items.empty and (self._descriptor is None or self._items.error is not None)

    @property
    def error(self) -> UsageError | None:
        if not self._items.empty:
            return None
        return self._items.error or self._read_error

    def take(self, most: int) -> list[Item]:
        taken = self._items.take(most)
        self._fill()
        while len(taken) < most and not self._items.empty:
            taken += self._items.take(most - len(taken))
            self._fill()
        return taken

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _fill(self) -> None:
        """Read until there is an item, the end, or an error."""
        while self._items.empty and self._descriptor is not None and self._items.error is None:
            try:
                data = self._read(self._descriptor)
            except OSError as error:
                if self._retry is not None:
                    self._retry(error)
                    return
                self._read_error = unreadable(self._name, error)
                self.close()
                return
            except TaskFileError as error:
                self._read_error = error
                self.close()
                return
            if data:
                self._items.add(*self._splitter.feed(data))
            else:
                self._items.add(*self._splitter.finish())
                self.close()

    def _read(self, descriptor: int) -> bytes:
        """The next bytes; none at the end. TaskFileError if the file lost or changed what was to come."""
        if self._verifier is None:
            return os.read(descriptor, CHUNK)
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        if room := self._verifier.room:
            data = _pread(descriptor, room, at)
            if not self._verifier.accept(data):
                raise TaskFileError(self._name, self._splitter.number, CHANGED)
        else:
            before = self._tail
            changed = os.pread(descriptor, len(before), at - len(before)) != before
            data = b"" if changed else os.pread(descriptor, CHUNK, at)
        os.lseek(descriptor, at + len(data), os.SEEK_SET)
        self._tail = data[-TAIL:]
        return data


def _pread(descriptor: int, size: int, at: int) -> bytes:
    """So many bytes from there, fewer only at the file's end: some file systems return less at a time."""
    parts: list[bytes] = []
    while size and (part := os.pread(descriptor, size, at)):
        parts.append(part)
        size, at = size - len(part), at + len(part)
    return b"".join(parts)


READ_BLOCK = 4 << 20
"""Bytes read at a time."""
MOST_WARNINGS = 10
MOST_ERRORS = 1000
"""The most invalid directives that are reported; a file with so many is not a task file."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# What bytes.lstrip considers blank, as the parser does, without the line feed.
_BLANK_OR_COMMENT = re.compile(rb"\n[ \t\r\v\f]*+(?=[#\n])")
_NEARLY = "a comment; a directive begins with #DISBATCH and a blank, in column 1, upper case"
_CONTINUED = "ends in a backslash, which does not continue the line: the next line is a task of its own"
_AT_BACKSLASH = re.compile(rb"(?<!\\)(?:\\\\)*+\\\r?\n")
_STUCK = b":_-PSRBpsrb"  # may follow the mark immediately in something that was meant as a directive
_NEARLY_DIRECTIVE = re.compile(
    rb"\n[ \t]*+#[ \t]*+DISBATCH[ \t:_-]*+(?:PREFIX|SUFFIX|REPEAT|BARRIER|PERENGINE)(?=[ \t\r\n])",
    re.I,
)


class FileSummary(msgspec.Struct, frozen=True):
    """What a task file holds: tasks (including those of REPEATs), barriers, and messages for the user.
    `checksums` tell whether it is unchanged when it is read again."""

    tasks: int
    barriers: int
    warnings: tuple[str, ...]
    checksums: Checksums

    @property
    def ids(self) -> int:
        """How many ids tasks and barriers take; the last id is one less."""
        return self.tasks + self.barriers


def check(name: str, descriptor: int) -> FileSummary:
    """Check a regular file from the offset of `descriptor`, which does not move; `name` is its name in
    errors.

    Raises TaskFileError for the first invalid directive, NUL byte or overlong line, with later invalid
    directives (`more`) and the warnings, and UsageError if the file cannot be read.
    """
    checker, checksums = _Checker(name), Checksums()
    try:
        for block in _blocks(descriptor, checksums):
            checker.block(block)
    except OSError as error:
        raise unreadable(name, error) from error
    except TaskFileError as error:
        checker.errors.append(error)
    if checker.errors:
        first, *more = checker.errors
        first.more, first.warnings = tuple(more), tuple(checker.warnings)
        raise first
    return FileSummary(checker.parser.tasks, checker.parser.barriers, tuple(checker.warnings), checksums)


def _blocks(descriptor: int, checksums: Checksums) -> Iterator[bytes]:
    """The file in pieces that each begin with an added line feed and end at the end of a line.

    A line that has no end within MAX_COMMAND is cut; it is refused anyway.
    """
    offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    rest = b""
    while data := os.pread(descriptor, READ_BLOCK, offset):
        offset += len(data)
        checksums.add(data)
        end = data.rfind(b"\n") + 1
        if end:
            yield b"".join((b"\n", rest, memoryview(data)[:end]))
            rest = data[end:]
        else:
            rest += data
            if len(rest) > MAX_COMMAND + 1:
                break
    if rest:
        yield b"\n" + rest + b"\n"


class _Checker:
    """Processes blocks in order; `parser` counts, `warnings` and `errors` collect.

    An error is raised only if nothing useful can follow: a file with a NUL byte is not text, and after an
    overlong line the line count is lost.
    """

    def __init__(self, name: str) -> None:
        self.parser = TaskParser(name)
        self.warnings: list[str] = []
        self.errors: list[TaskFileError] = []
        self._name = name
        self._line = 1  # the next line's number

    def block(self, text: bytes) -> None:
        if self._line == 1 and text.startswith(_BYTE_ORDER_MARK, 1):
            if text.startswith(MARK, 1 + len(_BYTE_ORDER_MARK)):  # it would not be read
                problem = "a UTF-8 byte order mark hides a directive; save the file without it"
                raise TaskFileError(self._name, 1, problem)
            self._warn(1, "a UTF-8 byte order mark becomes part of this line; save the file without it")
        mark = b"\n" + MARK
        done = 0  # offset of the line feed up to which everything is done
        at = text.find(mark)
        while at >= 0:
            self._stretch(text, done, at)
            done = text.index(b"\n", at + 1)
            line = text[at + 1 : done + 1]
            if line[len(MARK)] in _STUCK:
                self._look_for_nearly(b"\n" + line)
            self._parse(line)
            at = text.find(mark, done)
        self._stretch(text, done, len(text) - 1)

    def _parse(self, line: bytes) -> None:
        before = self._line
        self._line += 1
        try:
            self.parser.parse(before, line)
        except TaskFileError as error:
            if b"\0" in line or len(line) > MAX_COMMAND:
                raise
            if len(self.errors) == MOST_ERRORS - 1:
                problem = f"{error.problem}; the check ends here, at the {MOST_ERRORS:,}th wrong line"
                raise TaskFileError(self._name, before, problem) from None
            self.errors.append(error)
        self._look_for_backslashes(b"\n" + line, before)

    def _stretch(self, text: bytes, start: int, end: int) -> None:
        """Check the plain lines between the line feeds at `start` and `end`."""
        if start == end:
            return
        stretch = text[start : end + 1] if end - start + 1 < len(text) else text
        if self.parser.glue + len(stretch) > MAX_COMMAND or b"\0" in stretch:
            for line in stretch[1:-1].split(b"\n"):
                self._parse(line + b"\n")
            return
        lines = stretch.count(b"\n") - 1
        skipped = len(_BLANK_OR_COMMENT.findall(stretch))
        if skipped:
            self._look_for_nearly(stretch)
        self.parser.pass_over(lines - skipped)
        self._look_for_backslashes(stretch, self._line)
        self._line += lines

    def _look_for_nearly(self, stretch: bytes) -> None:
        """Warn of comments that may have been meant as directives."""
        for found in _NEARLY_DIRECTIVE.finditer(stretch):
            if len(self.warnings) >= MOST_WARNINGS:
                return
            number = self._line + stretch.count(b"\n", 1, found.end())
            self._warn(number, _NEARLY)

    def _look_for_backslashes(self, stretch: bytes, first: int) -> None:
        """Warn of lines that end in a backslash, as in a shell script where the next line continues them; the
        first line has the number `first`."""
        if b"\\\n" not in stretch and b"\\\r\n" not in stretch:
            return
        for found in _AT_BACKSLASH.finditer(stretch):
            if len(self.warnings) >= MOST_WARNINGS:
                return
            line = stretch[stretch.rindex(b"\n", 0, found.start()) + 1 : found.start()].lstrip()
            if not line.startswith(b"#") or is_directive(line):
                self._warn(first + stretch.count(b"\n", 1, found.start()), _CONTINUED)

    def _warn(self, number: int, text: str) -> None:
        self.warnings.append(str(TaskFileError(self._name, number, text)))
