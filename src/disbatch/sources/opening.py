"""Open the source that the command line names: a file, standard input, a named pipe, `<(command)`, a task
source."""

from __future__ import annotations

import asyncio
import os
import re
import selectors
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from disbatch.model.errors import UsageError
from disbatch.sources.file import FileSource, FileSummary, check, unreadable
from disbatch.sources.source import Source
from disbatch.sources.stream import StreamSource

if TYPE_CHECKING:
    from disbatch.sources.keystore import SourceAccess, TaskCommand

RETRY_INTERVAL = 1.0
"""Seconds between two attempts to read a file: no event reports that its file system answers again."""
STDIN = "-"
STDIN_NAME = "stdin"
_OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/([0-9]{1,9})")


class Opened(msgspec.Struct):
    """An open input; `summary` is the result of `check`, None for a stream, which cannot be checked in
    advance."""

    name: str
    descriptor: int
    pollable: bool
    summary: FileSummary | None

    def source(
        self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None], access: SourceAccess | None = None
    ) -> Source:
        """The items from the beginning; the source owns the descriptor from now on."""
        if self.pollable:
            return StreamSource(self.name, self.descriptor, loop, ready)
        if self.summary is None:
            return FileSource(self.name, self.descriptor)
        retry = None if access is None else _Retry(self.name, loop, ready, access.notify_user).later
        return FileSource(self.name, self.descriptor, self.summary.checksums, retry)

    async def end(self) -> None:
        """Do nothing: there is no process."""


class _Retry:
    """Retries reading a file later; `notify_user` gets a line for the user."""

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        ready: Callable[[], None],
        notify_user: Callable[[str], None],
    ) -> None:
        self._name = name
        self._loop = loop
        self._ready = ready
        self._notify_user = notify_user
        self._reported = self._waiting = False

    def later(self, error: OSError) -> None:
        """Reading failed."""
        if not self._reported:
            self._notify_user(f"{unreadable(self._name, error)}; retrying until it can be read")
        self._reported = True
        if not self._waiting:
            self._waiting = True
            self._loop.call_later(RETRY_INTERVAL, self._try)

    def _try(self) -> None:
        self._waiting = False
        self._ready()


class Expected:
    """Tasks that a program will give through the key store: one that `command` starts, or any that signs
    in."""

    summary: FileSummary | None = None

    def __init__(self, command: str | None = None) -> None:
        self.name = "the task source" if command is None else "the task command"
        self._command = command
        self._process: TaskCommand | None = None

    @property
    def is_started(self) -> bool:
        """True if it is started with the run, and so has ended before it."""
        return self._command is not None

    def source(
        self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None], access: SourceAccess | None
    ) -> Source:
        """The items from the beginning."""
        from disbatch.sources.keystore import StoreSource, TaskCommand

        assert access is not None
        if self._command is None:
            access.notify_user(f"waiting for a task source; the key store is {access.where}")
        else:
            self._process = TaskCommand(self._command, access, loop)
        return StoreSource(self.name, access, loop, ready, self._process)

    async def end(self) -> None:
        """Make sure that the command has ended."""
        if self._process is not None:
            await self._process.end()


def open_tasks(path: str) -> Opened:
    """Open `path` (`-` is standard input) and, if it is a regular file, check it from end to end.

    Raises UsageError if it cannot be opened or is a directory, TaskFileError if one of its lines is invalid.
    """
    name = STDIN_NAME if path == STDIN else path
    try:
        descriptor = _open(path)
    except OSError as error:
        raise unreadable(name, error) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise UsageError(f"{name}: is a directory, not a task file")
        if stat.S_ISREG(mode):
            return Opened(name, descriptor, False, check(name, descriptor))
        return Opened(name, descriptor, is_pollable(descriptor), None)
    except BaseException:
        os.close(descriptor)
        raise


def no_tasks() -> Opened:
    """The input of a run without a task file: all tasks are submitted."""
    return Opened("submitted", os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), False, None)


def _open(path: str) -> int:
    if path in {STDIN, "/dev/stdin"}:
        return os.dup(0)
    own = _OWN_DESCRIPTOR.fullmatch(path)
    if own is None:
        # Without O_NONBLOCK, opening a named pipe would block until it has a writer.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    descriptor = os.dup(int(own[1]))
    if int(own[1]) > 2:
        # Not inherited: otherwise tasks would hold it, and its writer would never notice that there is no
        # reader.
        os.close(int(own[1]))
    return descriptor


def is_pollable(descriptor: int) -> bool:
    """True if an event loop can wait for it, which is not so for /dev/null and the like."""
    with selectors.DefaultSelector() as selector:
        try:
            selector.register(descriptor, selectors.EVENT_READ)
        except (OSError, ValueError):
            return False
    return True
