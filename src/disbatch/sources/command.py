"""The command of --taskcommand: a process that gives the tasks through the key store.

It runs in the driver's directory, in a session of its own, with nothing on its standard input, and ends with
the driver, also if that is killed. What it prints is not about tasks: it goes where our own output goes; on a
terminal, line by line past the progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import cast

from disbatch.contexts.bound import bound
from disbatch.contexts.spawn import limited
from disbatch.contexts.words import ended_how, lines
from disbatch.sources.desk import Desk

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_LINE = 1 << 12
"""Bytes of a line without an end after which it is shown as it is."""


class TaskCommand(asyncio.SubprocessProtocol):
    """The process of `command`; a `sources.store.Giver`. `start` it, `end` it."""

    def __init__(self, command: str, desk: Desk, loop: asyncio.AbstractEventLoop) -> None:
        self.over: asyncio.Future[str | None] = loop.create_future()
        self._command = command
        self._desk = desk
        self._loop = loop
        self._transport: asyncio.SubprocessTransport | None = None
        self._rest = {1: b"", 2: b""}
        self._starting = loop.create_task(self._start())

    async def _start(self) -> None:
        """Terminals are ours to draw on, so what goes there passes through us."""
        out, err = (asyncio.subprocess.PIPE if os.isatty(each) else None for each in (1, 2))
        try:
            transport, _ = await self._loop.subprocess_exec(
                lambda: self,
                *limited(bound(["/bin/bash", "-c", self._command])),
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(self._desk.environment),
                start_new_session=True,
            )
        except OSError as error:
            self._is_over(f"cannot be started: {error.strerror or error}")
            return
        self._transport = transport

    # ---- what the loop calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        data = self._rest[fd] + data
        whole, _, self._rest[fd] = data.rpartition(b"\n")
        if len(self._rest[fd]) > LONGEST_LINE:
            whole, self._rest[fd] = data, b""
        for line in lines(whole):
            self._desk.say(f"task command: {line}")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        for line in lines(self._rest.pop(fd, b"")):
            self._desk.say(f"task command: {line}")

    def process_exited(self) -> None:
        assert self._transport is not None
        code = self._transport.get_returncode() or 0
        self._is_over(f"ended with {ended_how(code)}" if code else None)

    def _is_over(self, words: str | None) -> None:
        if not self.over.done():
            self.over.set_result(words)

    # ---- ending it ----

    async def end(self) -> None:
        """See that it has ended; SIGTERM to it and to what it started, then SIGKILL."""
        await asyncio.wait([self._starting])
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.over.done():
                break
            self._signal(number)
            await asyncio.wait([self.over], timeout=GRACE)
        if self._transport is not None:
            self._transport.close()

    def _signal(self, number: int) -> None:
        if self._transport is not None and self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), number)
