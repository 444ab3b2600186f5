"""Open files whose names are derived from a run's prefix or a node's name, but only if they belong to our
user.

In a directory that others can write to, such a name may be a symbolic link to another file of ours, a named
pipe that blocks its reader, or a file with somebody else's content. So only a regular file of our own user is
accepted; for root, one of root's.

Some network file systems show another owner for all files. So if the owner is not our user, it is compared
with the owner of a file that we create in the same directory.
"""

from __future__ import annotations

import errno
import os
import stat


class NotOwnError(OSError):
    """The file with this name is not a regular file of our user; `strerror` says what it is."""


def open_own(
    path: str | bytes | os.PathLike[str], flags: int, mode: int = 0o666, *, trusted: int | None = None
) -> int:
    """As os.open, without blocking, and not inherited by child processes. A file of the user `trusted` is
    accepted, too. OSError; NotOwnError if something else has the name."""
    name = os.fsdecode(path)
    try:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        _say_what_it_is(name, trusted, error)
        raise
    try:
        problem = _problem(os.fstat(descriptor), name, trusted)
    except OSError:
        os.close(descriptor)
        raise
    if problem:
        os.close(descriptor)
        raise NotOwnError(errno.EPERM, problem, name)
    return descriptor


def owner_of(path: str | os.PathLike[str]) -> int | None:
    """The owner of that file; None if it cannot be determined."""
    try:
        return os.stat(path).st_uid  # noqa: PTH116 - its like below
    except OSError:
        return None


def is_foreign(path: str | os.PathLike[str], *, trusted: int | None = None) -> bool:
    """True if the file with this name is not a regular file of our user, or of `trusted`."""
    try:
        os.close(open_own(path, os.O_RDONLY, trusted=trusted))
    except (NotOwnError, FileNotFoundError):
        return True
    except OSError:
        pass  # our own, but not readable; whoever reads it reports that
    return False


def read_own(path: str | os.PathLike[str], limit: int, *, trusted: int | None = None) -> bytes:
    """The first `limit` bytes. OSError as for `open_own`."""
    with os.fdopen(open_own(path, os.O_RDONLY, trusted=trusted), "rb") as file:
        return file.read(limit)


def make_own_directory(path: str | bytes) -> None:
    """Create a directory; an existing one may belong to our user, or to the owner of its parent. OSError;
    NotOwnError if something else has the name."""
    name = os.fsdecode(path)
    try:
        os.mkdir(name)  # noqa: PTH102 - a plain name
    except FileExistsError:
        status, around = os.lstat(name), os.stat(os.path.dirname(name) or ".")  # noqa: PTH116, PTH120
        if not stat.S_ISDIR(status.st_mode):
            raise NotOwnError(errno.ENOTDIR, "is no directory", name) from None
        if not _is_ours(status.st_uid, name, around.st_uid):
            raise NotOwnError(errno.EPERM, "belongs to another user", name) from None


def _say_what_it_is(name: str, trusted: int | None, error: OSError) -> None:
    """NotOwnError if the kernel refused to open a file that is not ours, or is not a regular file."""
    try:
        status = os.lstat(name)
    except OSError:
        return
    if stat.S_ISLNK(status.st_mode):
        raise NotOwnError(error.errno, "is a symbolic link", name) from error
    problem = _problem(status, name, trusted)
    if problem and not stat.S_ISDIR(status.st_mode):
        raise NotOwnError(error.errno, problem, name) from error


def _problem(status: os.stat_result, name: str, trusted: int | None) -> str:
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return "" if _is_ours(status.st_uid, name, trusted) else "belongs to another user"


def _is_ours(owner: int, name: str, trusted: int | None) -> bool:
    if owner == os.geteuid() or owner == trusted:
        return True
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(name) or ".") as ours:  # noqa: PTH120 - a plain name
            return os.fstat(ours.fileno()).st_uid == owner
    except OSError:
        return False
