"""Notice that an open file has lost its name, and write its text to that name again.

A file of the run may be removed, renamed or replaced by mistake. What is written to it then goes into a file
that nobody can open, although no write fails. A failing file system may return any error for a while: only
"no such entry", or another file under the name, means that the name is lost.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import count
from pathlib import Path

from disbatch.wire.ownfile import NotOwnError, open_own

AGAIN = ".again"
"""The end of a file's name while its text is written again."""
_BLOCK = 1 << 20
_TAIL = 1 << 16


class Sight(Enum):
    """What has the name of an open file."""

    ITSELF = "itself"
    NOTHING = "nothing"
    ANOTHER = "another file"
    OVERWRITTEN = "itself, but somebody wrote over it"


def look(descriptor: int, path: Path) -> Sight:
    """What is at `path`, where this file was. OSError if that cannot be determined now."""
    try:
        there = os.stat(path)  # noqa: PTH116 - its like below
    except FileNotFoundError:
        return Sight.NOTHING
    return Sight.ITSELF if os.path.samestat(there, os.fstat(descriptor)) else Sight.ANOTHER


def is_continued(descriptor: int, path: Path, size: int) -> bool:
    """True if the file at `path`, where this one was, is another one that begins with the first `size` bytes
    of it, and continues. OSError if that cannot be determined now."""
    if not size or look(descriptor, path) is not Sight.ANOTHER:
        return False
    try:
        other = open_own(path, os.O_RDONLY)
    except NotOwnError:
        return False
    try:
        begin = max(0, size - _TAIL)
        ours = os.pread(descriptor, size - begin, begin)
        return os.fstat(other).st_size > size and os.pread(other, size - begin, begin) == ours
    finally:
        os.close(other)


def is_gone(path: str | os.PathLike[str]) -> bool:
    """True if there is nothing at this name; False as well while that cannot be determined."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def name_again(
    descriptor: int,
    path: Path,
    size: int,
    *,
    note: Callable[[Path], object] = lambda path: None,
    hold: Callable[[int], object] = lambda descriptor: None,
) -> Path:
    """Write the first `size` bytes of this file again, at `path` or, if something is there, at a similar
    name; afterwards `descriptor` refers to the new file. It appears completely or not at all; `hold` gets it
    before. OSError.

    `note` gets the name before the file has it, and may raise OSError: if this process is killed in between,
    the name of the file has been recorded, and its successor calls `end_naming`. A file at the old name is
    ignored.
    """
    new = path.with_name(path.name + AGAIN)
    new.unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    flags |= fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    copy = os.open(new, flags, os.fstat(descriptor).st_mode & 0o777)
    try:
        hold(copy)
        copy_text(descriptor, copy, size)
        os.fsync(copy)
        chosen = _name(new, path, note)
        os.dup2(copy, descriptor, inheritable=False)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    finally:
        os.close(copy)
    return chosen


def copy_text(old: int, new: int, size: int) -> None:
    """Copy the first `size` bytes, or as many as there are. OSError."""
    at = 0
    while at < size and (data := os.pread(old, min(_BLOCK, size - at), at)):
        rest = memoryview(data)
        while rest:
            written = os.write(new, rest)
            rest, at = rest[written:], at + written


def end_naming(path: Path) -> None:
    """Give a file this name, which was recorded, if its writer was killed before the file had it. OSError."""
    new = path.with_name(path.name + AGAIN)
    if is_gone(path) and not is_gone(new):
        _give(new, path)


def _name(new: Path, path: Path, note: Callable[[Path], object]) -> Path:
    """Give the file at `new` the first free name. OSError."""
    for name in _names(path):
        if os.path.lexists(name):
            continue
        new = new.rename(name.with_name(name.name + AGAIN))
        try:
            note(name)
            if _give(new, name):
                return name
        except OSError:
            new.unlink(missing_ok=True)
            note(path)
            raise
    raise AssertionError("there are always more names")


def _give(new: Path, name: Path) -> bool:
    """Move the file at `new` to `name`; False if there is another one. OSError."""
    try:
        name.hardlink_to(new)
    except FileExistsError:
        return False
    except PermissionError:  # a file system without links
        if os.path.lexists(name):
            return False
        new.rename(name)
        return True
    new.unlink()
    return True


def _names(path: Path) -> Iterator[Path]:
    """PREFIX_status.txt, PREFIX-2_status.txt, and so on."""
    yield path
    prefix, _, ending = path.name.rpartition("_")
    for number in count(2):
        yield path.with_name(f"{prefix}-{number}_{ending}")
