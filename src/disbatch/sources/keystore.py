"""Tasks from a program through the key store, line by line, until its done token.

Theory of operation
-------------------
A program signs in: it puts one value under each of four keys. Then one asyncio task takes values off its task
key, as many at a time as there are, and passes them to the parser as lines, until HIGH bytes wait there; it
continues below half of that. A value is one line, whatever it holds: a command may span several lines of
text.

--taskcommand starts a process that produces the lines (`Producer`): in the driver's directory, in a session
of its own, with nothing on its standard input; it ends with the driver, even if that is killed. Its output
goes where our own output goes, on a terminal line by line above the progress line. If it fails, the source
ends at once; otherwise the rest in the store is read, and must end with the done token.

Other programs may submit tasks, too (`add`), and may end the submissions (`close_soon`), which has the same
effect as the done token.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from disbatch.contexts.command import bound
from disbatch.contexts.launch_errors import ended_how, lines
from disbatch.contexts.spawn import limited
from disbatch.keystore.store import KeyStore
from disbatch.model.errors import DisbatchError, SourceError
from disbatch.model.task import Item
from disbatch.model.taskfile import without_end
from disbatch.model.text import printable
from disbatch.sources.source import ItemQueue
from disbatch.sources.submitted import Batch, InterleavedTasks

SOURCE_NAME = b"task source name"
DONE_TASK = b"task source done task"
RESULT_KEY = b"task source result key"
TASK_KEY = b"task source task key"


@dataclass(frozen=True)
class SignIn:
    """The values of a signed-in source: its name, the line that ends its list (`done`), the key of its lines,
    and the key of its results; without that, results are not wanted."""

    name: bytes
    done: bytes
    results: bytes
    tasks: bytes


@dataclass(frozen=True)
class SourceAccess:
    """What a source needs from the run. `store`: its key store, which `where` names; `environment`: that of
    the task command; `signed_in` is called when a program has signed in, `notify_user` gets a line for the
    user."""

    store: KeyStore
    where: str
    environment: Mapping[bytes, bytes]
    signed_in: Callable[[SignIn], None]
    notify_user: Callable[[str], None]


log = logging.getLogger(__name__)

BATCH = 512
"""The most values that are taken at once."""
HIGH = 1 << 20
"""Bytes of waiting lines at which taking stops."""
NOTIFY_AFTER = 10.0
"""Seconds after the done token until the user is told what the run waits for."""
SIGNING_IN = "signing in as a task source (to run what it prints: COMMAND | disbatch -)"
CLOSING = "`dbutil close`, which ends the submission of tasks"


class Producer(Protocol):
    """A process that produces the lines. `ended` gets what is wrong with its end, or None."""

    ended: asyncio.Future[str | None]


class StoreSource:
    """A `Source` on `loop`; `ready()` is called when there are items, or the end, after `take` returned fewer
    than requested. With a `producer`, it ends after that."""

    def __init__(
        self,
        name: str,
        access: SourceAccess,
        loop: asyncio.AbstractEventLoop,
        ready: Callable[[], None],
        producer: Producer | None = None,
    ) -> None:
        self._name = name
        self._access = access
        self._loop = loop
        self._ready = ready
        self._producer = producer
        self._items = ItemQueue(name)
        self._interleaved = InterleavedTasks()
        self._number = 1
        self._wants_more = True
        self._missing = SIGNING_IN
        self._done = False
        """The done token arrived, or `close_soon` was called."""
        self._complete = False
        """The producer has ended, too."""
        self._error: DisbatchError | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._reading = loop.create_task(self._read())
        if producer is not None:
            producer.ended.add_done_callback(self._producer_ended)

    @property
    def name(self) -> str:
        return self._name

    @property
    def ended(self) -> bool:
        if self._error is not None:
            return True
        return self._items.empty and (self._complete or self._items.error is not None)

    @property
    def error(self) -> DisbatchError | None:
        if self._error is not None:
            return self._error
        return self._items.error if self._items.empty else None

    def take(self, most: int) -> list[Item]:
        if self._error is not None:
            return []
        taken = self._items.take(most)
        self._wants_more = len(taken) < most
        if self._items.error is not None:
            self.close()
        elif self._items.waiting_bytes < HIGH // 2:
            self._room.set()
        return taken

    def close(self) -> None:
        self._reading.cancel()

    # ---- submitted tasks ----

    @property
    def closed(self) -> bool:
        """True if no more tasks are accepted."""
        return self._done or self._error is not None or self._items.error is not None

    @property
    def is_unused(self) -> bool:
        """True: submitted tasks are in no file."""
        return True

    @property
    def former(self) -> Mapping[str, Batch]:
        """Empty: a run with such a source has only one driver."""
        return {}

    def add(self, lines: list[bytes], request: str, source: str, number: int) -> Batch:
        """As `sources.submitted.TaskIntake.add`."""
        batch = self._interleaved.add(self._items, lines, source, number)
        if lines and self._missing == SIGNING_IN:
            self._missing = CLOSING
        self._notify()
        return batch

    def close_soon(self) -> None:
        """No more tasks will come, from any program."""
        if not self._done:
            self._done = True
            self._reading.cancel()
            self._reading = self._loop.create_task(self._end())

    # ---- reading ----

    async def _read(self) -> None:
        try:
            sign_in = await self._signed_in()
            await self._read_lines(sign_in)
            self._done = True
            await self._end()
        except TimeoutError:
            self._fail(SourceError(f"{self._name} ended without {self._missing}"))
        except DisbatchError as error:
            self._fail(error)

    async def _end(self) -> None:
        if self._producer is not None:
            await self._wait_for_end(self._producer)
        self._complete = True
        self._notify()

    async def _wait_for_end(self, producer: Producer) -> None:
        """It may still fetch results. `_producer_ended` reports a failure."""
        if not (await asyncio.wait([producer.ended], timeout=NOTIFY_AFTER))[0]:
            self._access.notify_user(
                f"{self._name} has given its last task; the run ends when that has ended, too"
            )
            await asyncio.wait([producer.ended])

    async def _signed_in(self) -> SignIn:
        keys = (SOURCE_NAME, DONE_TASK, RESULT_KEY, TASK_KEY)
        sign_in = SignIn(*[without_end((await self._next(key, 1))[0]) for key in keys])
        if not sign_in.tasks:
            raise SourceError(f"{self._name} signed in with an empty task key")
        text = sign_in.name.decode(errors="replace")[:100]
        self._items.rename(printable(text) or self._name)
        self._missing = "its done token"
        self._access.signed_in(sign_in)
        return sign_in

    async def _read_lines(self, sign_in: SignIn) -> None:
        while True:
            await self._room.wait()
            lines = [without_end(value) for value in await self._next(sign_in.tasks, BATCH)]
            if sign_in.done in lines:
                last = lines.index(sign_in.done)
                if last + 1 < len(lines):
                    log.warning("%s: %d lines after the done token", self._name, len(lines) - last - 1)
                self._add(lines[:last])
                return
            self._add(lines)

    def _add(self, lines: list[bytes]) -> None:
        self._items.add(self._number, lines)
        self._number += len(lines)
        if self._items.waiting_bytes >= HIGH:
            self._room.clear()
        self._notify()

    async def _next(self, key: bytes, most: int) -> list[bytes]:
        """The next values; TimeoutError if the producer has ended and there are none."""
        store, producer = self._access.store, self._producer
        if producer is None:
            return await store.take(key, most)
        if not producer.ended.done():
            taking = self._loop.create_task(store.take(key, most))
            either: list[asyncio.Future[Any]] = [taking, producer.ended]
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not taking.done():
                    taking.cancel()
                    await asyncio.wait([taking])
            if not taking.cancelled():
                return taking.result()
        return await store.take(key, most, 0)

    def _producer_ended(self, ended: asyncio.Future[str | None]) -> None:
        words = None if ended.cancelled() else ended.result()
        if words is not None:
            self._fail(SourceError(f"{self._name} {words}"))

    def _fail(self, error: DisbatchError) -> None:
        """End the source; values that were not taken are useless."""
        if self._error is None and not self._complete:
            self._error = error
            self.close()
            self._wants_more = True
            self._notify()

    def _notify(self) -> None:
        if self._wants_more and (self.ended or not self._items.empty):
            self._wants_more = False
            self._ready()


GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_LINE = 1 << 12
"""Bytes of a line without an end after which it is shown unfinished."""


class TaskCommand(asyncio.SubprocessProtocol):
    """The process of `command`, a `Producer`; call `end` at the end of the run."""

    def __init__(self, command: str, access: SourceAccess, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[str | None] = loop.create_future()
        self._command = command
        self._access = access
        self._loop = loop
        self._transport: asyncio.SubprocessTransport | None = None
        self._rest = {1: b"", 2: b""}
        self._starting = loop.create_task(self._start())

    async def _start(self) -> None:
        """Start it. Output to a terminal passes through this process, because of the progress line."""
        out, err = (asyncio.subprocess.PIPE if os.isatty(each) else None for each in (1, 2))
        try:
            transport, _ = await self._loop.subprocess_exec(
                lambda: self,
                *limited(bound(["/bin/bash", "-c", self._command])),
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=dict(self._access.environment),
                start_new_session=True,
            )
        except OSError as error:
            self._set_ended(f"cannot be started: {error.strerror or error}")
            return
        self._transport = transport

    # ---- called by the loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        data = self._rest[fd] + data
        whole, _, self._rest[fd] = data.rpartition(b"\n")
        if len(self._rest[fd]) > LONGEST_LINE:
            whole, self._rest[fd] = data, b""
        for line in lines(whole):
            self._access.notify_user(f"task command: {line}")

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        for line in lines(self._rest.pop(fd, b"")):
            self._access.notify_user(f"task command: {line}")

    def process_exited(self) -> None:
        assert self._transport is not None
        code = self._transport.get_returncode() or 0
        self._set_ended(f"ended with {ended_how(code)}" if code else None)

    def _set_ended(self, words: str | None) -> None:
        if not self.ended.done():
            self.ended.set_result(words)

    # ---- ending it ----

    async def end(self) -> None:
        """End it, if it has not ended: SIGTERM to its process group, then SIGKILL."""
        await asyncio.wait([self._starting])
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.ended.done():
                break
            self._signal(number)
            await asyncio.wait([self.ended], timeout=GRACE)
        if self._transport is not None:
            self._transport.close()

    def _signal(self, number: int) -> None:
        if self._transport is not None and self._transport.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._transport.get_pid(), number)
