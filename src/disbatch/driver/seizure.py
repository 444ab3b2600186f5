"""Takes the files of a run whose driver was killed, so that nobody else writes its record: neither another
one that takes the run over at the same time, nor that driver, should it live after all.

Theory of operation
-------------------
A living driver holds a lock on the status file (`held`), also over NFS, and the kernel takes it away with the
process. So whoever gets the lock is alone, if the driver was on this host, whatever the file system.

A driver on another host may live where no lock tells of it (a file system without locks, or with such as hold
on one host alone), and may only have been stopped, or cut off. Then the run file and the status file are
written anew, and put in the place of the old ones, in that order. That driver writes into files that have no
name any more; it acknowledges nothing that went there, and leaves the run alone as soon as it sees it.
"""

from __future__ import annotations

import os

from disbatch.driver.files import ClaimedFiles, RunFiles
from disbatch.driver.held import hold
from disbatch.driver.runfile import RunFile
from disbatch.driver.told import Told
from disbatch.model.errors import UsageError
from disbatch.wire.naming import copy_text, end_naming
from disbatch.wire.ownfile import open_own

NEW = ".new"
"""How the status file is called while it is copied."""
_BLOCK = 1 << 16


def seize(files: RunFiles) -> int:
    """Lock the status file; its descriptor. UsageError if another process has it, or it cannot be written."""
    try:
        if files.renamed.status is not None:
            end_naming(files.status)
        status = open_own(files.status, os.O_RDWR)
    except OSError as error:
        raise UsageError(f"{files.status}: cannot be written: {error.strerror}") from error
    if not hold(status):
        os.close(status)
        raise UsageError(f"{files.prefix}: a driver has this run: {files.status.name} is locked")
    return status


def claim_again(files: RunFiles, status: int, told: Told, *, apart: bool, own_log: bool) -> ClaimedFiles:
    """The files of the run, for us to write; `status` was seized. `apart`: the former driver was on another
    host. `own_log`: the user did not name the log. UsageError if they cannot be written."""
    try:
        if apart:
            RunFile.go_on(files.run, told).close()
            status = _renewed(files, status)
        recorded = cut_torn_line(status)
        log = _log(files, own=own_log)
    except OSError as error:
        path = error.filename or files.status
        raise UsageError(f"{os.fsdecode(path)}: cannot be written: {error.strerror}") from error
    return ClaimedFiles(
        *(files, status, log),
        own_log=False,
        new=False,
        recorded=recorded,
    )


def _log(files: RunFiles, *, own: bool) -> int:
    """As it was claimed: one that the user named, with -l, may be anything. OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if own:
        return open_own(files.log, flags)
    # Without O_NONBLOCK a named pipe that nobody reads would keep us here.
    log = os.open(files.log, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    os.set_blocking(log, True)
    return log


def _renewed(files: RunFiles, status: int) -> int:
    """A copy of the status file in its place; the descriptor. OSError."""
    path = files.status.with_name(files.status.name + NEW)
    path.unlink(missing_ok=True)
    mode = os.fstat(status).st_mode & 0o777
    copy = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        hold(copy)
        copy_text(status, copy, os.fstat(status).st_size)
        os.fsync(copy)
        path.replace(files.status)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    os.close(status)
    return copy


def cut_torn_line(descriptor: int) -> int:
    """A driver that was killed may have written a part of a line: no engine was told that its result is safe,
    so that part is cut off. Returns the length of the file, bytes. OSError."""
    size = os.fstat(descriptor).st_size
    at = size
    while at > 0:
        begin = max(0, at - _BLOCK)
        found = os.pread(descriptor, at - begin, begin).rfind(b"\n")
        if found >= 0:
            at = begin + found + 1
            break
        at = begin
    if at < size:
        os.ftruncate(descriptor, at)
    return at
