"""A child process on the event loop: write to it, read from it within bounds, notice its end at once.

Theory of operation
-------------------
A pidfd tells that the process ended. Its pipes do not tell, because a process that it left behind may hold
them open. After the end the rest of the pipes is read, and they are closed. Without pidfd a thread waits for
the process.

The process remains a zombie until `_reap`. So its id cannot be reused while `returncode` is None, and
`signal` is safe.

An engine is two processes: its keeper, which was started first and ends last, and the engine itself. If the
keeper was killed, the engine remains until it has ended its tasks. The end of both closes the pipe that they
have for stdout, which no task has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import threading

from disbatch.contexts.spawn import Spawned
from disbatch.engine.keeper import GRACE as KEEPER_GRACE

KEPT = 1 << 16
"""Bytes kept of the end of each output stream, by default."""
_CHUNK = 1 << 16
_DRAIN_READS = 16
"""Reads after the end: the size of a pipe. Another process may still write to it."""
TERM_GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL for a process that does not leave."""
KILL_GRACE = 2.0
UNKNOWN_EXIT = 255
"""Return code of a process that was reaped elsewhere."""


class Child:
    """Takes a spawned process over; `exited` gets its return code (minus the signal's number if killed)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawned: Spawned, kept: int = KEPT) -> None:
        self._loop = loop
        self._kept = kept
        self.pid = spawned.pid
        self.returncode: int | None = None
        self._said = {spawned.stdout: b""}
        """The last `kept` bytes of each output stream."""
        self._out = self._err = spawned.stdout
        if spawned.stderr is not None:
            self._said[spawned.stderr] = b""
            self._err = spawned.stderr
        self._changed = asyncio.Event()
        self.exited: asyncio.Future[int] = loop.create_future()
        self._stdin: int | None = spawned.stdin
        self._writable: asyncio.Future[None] | None = None
        self._outputs = set(self._said)
        """Output streams that are open."""
        for descriptor in (spawned.stdin, *self._outputs):
            os.set_blocking(descriptor, False)
        for descriptor in self._outputs:
            loop.add_reader(descriptor, self._readable, descriptor)
        self._pidfd = -1
        self._watch()

    @property
    def out(self) -> bytes:
        """The last `kept` bytes of its stdout, or of both its streams if they are merged."""
        return self._said[self._out]

    @property
    def err(self) -> bytes:
        """The same of its stderr."""
        return self._said[self._err]

    def _watch(self) -> None:
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):  # a kernel before 5.3, or a filter that knows no pidfd
                self._pidfd = os.pidfd_open(self.pid)
                self._loop.add_reader(self._pidfd, self._reap)
                return
        threading.Thread(target=self._wait_in_thread, daemon=True).start()

    def _wait_in_thread(self) -> None:
        with contextlib.suppress(OSError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._reap)

    def _reap(self) -> None:
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        try:
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            code = UNKNOWN_EXIT
        self._drain()
        self.close_stdin()
        self.returncode = code
        self._changed.set()
        self._finish(code)

    def _drain(self) -> None:
        """Read what it has written before it ended."""
        for descriptor in list(self._outputs):
            for _ in range(_DRAIN_READS):
                if not self._readable(descriptor):
                    break

    def _drop_all(self) -> None:
        for descriptor in list(self._outputs):
            self._drop(descriptor)

    def _finish(self, code: int) -> None:
        self._drop_all()
        if not self.exited.done():
            self.exited.set_result(code)

    def _readable(self, descriptor: int) -> bool:
        """Read once; True if there may be more."""
        if descriptor not in self._outputs:
            return False
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop(descriptor)
            return False
        self._said[descriptor] = (self._said[descriptor] + data)[-self._kept :]
        self._changed.set()
        return True

    def _drop(self, descriptor: int) -> None:
        if descriptor in self._outputs:
            self._outputs.discard(descriptor)
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    async def feed(self, data: bytes) -> bool:
        """Write to its stdin; False if it closed stdin or ended before it read everything. One call at a
        time."""
        rest = memoryview(data)
        while rest:
            if self._stdin is None:
                return False
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await self._until_writable(self._stdin)
            except BrokenPipeError:
                return False
        return True

    async def _until_writable(self, descriptor: int) -> None:
        writable = self._writable = self._loop.create_future()
        self._loop.add_writer(descriptor, self._is_writable)
        try:
            await writable
        finally:
            self._writable = None
            if self._stdin == descriptor:
                self._loop.remove_writer(descriptor)

    def _is_writable(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def close_stdin(self) -> None:
        """Close its stdin."""
        if self._stdin is not None:
            self._loop.remove_writer(self._stdin)
            self._is_writable()
            os.close(self._stdin)
            self._stdin = None

    async def until(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """The first match in its stdout; None if it ended without one. One waiter at a time."""
        while True:
            self._changed.clear()
            match = pattern.search(self.out)
            if match is not None or self.returncode is not None:
                return match
            await self._changed.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Send SIGKILL to its process group, if the process itself still lives."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def dismiss(self, patience: float, grace: float = TERM_GRACE) -> None:
        """End it: after `patience` seconds its stdin is closed and it gets SIGTERM, and `grace` seconds later
        SIGKILL. Returns when it is gone, or cannot be killed."""
        if await self.left_within(patience):
            return
        self.close_stdin()
        self.signal(signal.SIGTERM)
        if not await self.left_within(grace):
            self.signal(signal.SIGKILL)
            await self.left_within(KILL_GRACE)

    async def left_within(self, seconds: float) -> bool:
        """Wait until it ended, at most so long; True if it did."""
        await asyncio.wait([self.exited], timeout=seconds)
        return self.exited.done()


class EngineChild(Child):
    """An engine and its keeper: over when both have ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spawned: Spawned) -> None:
        super().__init__(loop, spawned)
        self._stdout = spawned.stdout

    def _finish(self, code: int) -> None:
        if self._stdout not in self._outputs:
            super()._finish(code)

    def _drop(self, descriptor: int) -> None:
        super()._drop(descriptor)
        if descriptor == self._stdout and self.returncode is not None:
            self._finish(self.returncode)

    async def dismiss(self, patience: float, grace: float = TERM_GRACE) -> None:
        """As for any child, but the keeper is not killed: SIGQUIT tells it to kill the engine, and it ends
        the tasks. If that takes too long, too, the engine counts as ended."""
        if await self.left_within(patience):
            return
        self.close_stdin()
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGQUIT, KEEPER_GRACE + KILL_GRACE)):
            self.signal(number)
            self.signal(signal.SIGCONT)
            if await self.left_within(seconds):
                return
        self._drop_all()
        super()._finish(UNKNOWN_EXIT)
