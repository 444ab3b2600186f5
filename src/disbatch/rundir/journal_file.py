"""PREFIX_run.json, the journal: what another driver needs in order to take the run over if this one is
killed.

Each record is a line (see `journal`), appended before anything follows from it. The last line may be torn, if
the driver was killed while it wrote; any other unreadable line is damage. When the file has grown to twice
the size that it would have if it were rewritten, and is not small, it is rewritten: so its size depends on
the present state, not on the duration of the run. The new file replaces the old one in one step, so a driver
may be killed at any time; a driver that was replaced, but lives, writes to a file that nobody reads.

The file holds the environment of the tasks, so its mode is 0600. It is removed at the end of the run, as the
connect file is.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import msgspec

from disbatch.model.errors import UsageError
from disbatch.model.text import printable_json
from disbatch.rundir.journal import Asked, JournalLine, JournalState
from disbatch.rundir.paths import identity
from disbatch.wire.ownfile import NotOwnError, open_own
from disbatch.wire.renamed_files import is_gone

log = logging.getLogger(__name__)

SMALL = 1 << 20
"""The size in bytes up to which the file is not rewritten."""
NEW = ".new"
"""The end of the file's name while it is rewritten."""

_lines = msgspec.json.Decoder(JournalLine)
_KNOWN = frozenset(kind.__struct_config__.tag for kind in get_args(JournalLine))


class _Tagged(msgspec.Struct):
    type: str


class JournalFile:
    """The journal while the run goes on; `told` is its content. Failures to write it go to the log: the run
    needs it only if its driver is killed. `small` as SMALL."""

    def __init__(self, path: Path, told: JournalState, small: int = SMALL) -> None:
        self.told = told
        self._path = path
        self._small = small
        self._descriptor = -1
        self._identity = (0, 0)
        self._size = self._most = 0
        self._complete = True
        """The file holds everything in `told`."""
        self._told_of_trouble = False

    @classmethod
    def create(cls, path: Path, asked: Asked, *, small: int = SMALL) -> JournalFile:
        """Begin the file. UsageError if it cannot be created."""
        file = cls(path, JournalState(asked), small)
        try:
            file._write_anew(path)
        except OSError as error:
            raise UsageError(f"{path}: cannot be created: {error.strerror}") from error
        return file

    @classmethod
    def go_on(cls, path: Path, told: JournalState, *, small: int = SMALL) -> JournalFile:
        """Replace a former driver's file. UsageError if it cannot be written."""
        file = cls(path, told, small)
        try:
            file._replace()
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        return file

    def add(self, *lines: JournalLine) -> bool:
        """Append these lines. False if that fails: they are lost if the driver is killed before a later call
        succeeds, which writes them, too."""
        for line in lines:
            self.told.learn(line)
        try:
            if self._complete:
                data = b"".join(map(_encoded, lines))
                self._size += len(data)
                self._complete = False
                self._complete = os.write(self._descriptor, data) == len(data)
            if (not self._complete or self._size > self._most) and not self.is_taken_over():
                self._replace()
            self._told_of_trouble = False
        except OSError as error:
            if not self._told_of_trouble:
                log.warning("%s cannot be written: %s", self._path, error.strerror)
            self._told_of_trouble = True
            self._most *= 2
        return self._complete

    def is_taken_over(self) -> bool:
        """True if the present file names another driver, which has the run now. May be called from any
        thread. OSError if that cannot be determined: the file system may only fail for a while."""
        try:
            if identity(self._path.stat()) == self._identity:
                return False
            other = _read(self._path, damaged=True).driver
        except (FileNotFoundError, NotOwnError, UsageError):
            return False
        return other is not None and other.number >= self.told.number and other != self.told.driver

    @property
    def is_gone(self) -> bool:
        """True if there is nothing at its name. May be called from any thread."""
        return is_gone(self._path)

    def write_again(self) -> bool:
        """Write the file again if it could not be written before, or was removed, or replaced by one that
        names no other driver. True if it was missing. OSError."""
        try:
            there = identity(self._path.stat()) == self._identity
        except FileNotFoundError:
            there = False
        if there and self._complete:
            return False
        if not there:
            _refuse_foreign(self._path)
        if self.is_taken_over():
            return False
        self._replace()
        return not there

    def _replace(self) -> None:
        """Write everything to a new file, and replace the present one. OSError."""
        former, which = self._descriptor, self._identity
        new = self._path.with_name(self._path.name + NEW)
        new.unlink(missing_ok=True)
        try:
            self._write_anew(new)
            os.fsync(self._descriptor)
            new.replace(self._path)
        except OSError:
            self._descriptor, self._identity = former, which
            new.unlink(missing_ok=True)
            raise
        self._complete = True
        if former >= 0:
            os.close(former)

    def _write_anew(self, path: Path) -> None:
        """Create the file and write everything. OSError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(b"".join(map(_encoded, self.told.lines())))
            self._size = len(rest)
            self._most = max(self._small, 2 * self._size)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._identity = identity(os.fstat(descriptor))

    def close(self) -> None:
        os.close(self._descriptor)


def _refuse_foreign(path: Path) -> None:
    """FileExistsError if the file with this name was not written by a driver."""
    try:
        _read(path, damaged=True)
    except FileNotFoundError:
        pass
    except UsageError as error:
        raise FileExistsError(errno.EEXIST, "is another file now", str(path)) from error


def _encoded(line: JournalLine) -> bytes:
    return printable_json(msgspec.json.encode(line)) + b"\n"


def _is_of_another_version(text: bytes) -> bool:
    """True for a line of a kind that this version does not know."""
    try:
        return msgspec.json.decode(text, type=_Tagged).type not in _KNOWN
    except (msgspec.DecodeError, RecursionError):
        return False


def read(path: Path, *, trusted: int | None = None) -> JournalState:
    """Read the file, which must belong to our user or to `trusted`. UsageError if it cannot be read, or is
    not a journal."""
    try:
        return _read(path, trusted)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, trusted: int | None = None, *, damaged: bool = False) -> JournalState:
    """The same; OSError if it cannot be read. It may be `damaged`: then up to the damage."""
    with os.fdopen(open_own(path, os.O_RDONLY, trusted=trusted), "rb") as file:
        return _learn(path, file, damaged)


def _learn(path: Path, lines: Iterable[bytes], damaged: bool) -> JournalState:
    told: JournalState | None = None
    for number, text in enumerate(lines, 1):
        try:
            line = _lines.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            if text.endswith(b"\n") and not damaged and not _is_of_another_version(text):
                raise UsageError(
                    f"{path}:{number}: this line is damaged: the run cannot be taken over, only resumed "
                    "with -r"
                ) from error
            continue
        if told is not None:
            told.learn(line)
        elif isinstance(line, Asked):
            told = JournalState(line)
        else:
            break
    if told is None:
        raise UsageError(f"{path}: the command line is missing: the run cannot be taken over")
    return told
