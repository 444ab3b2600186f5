"""An engine's way to the driver inside an ssh connection: for a driver that nobody can connect to (--tunnel).

Theory of operation
-------------------
ssh forwards a Unix socket over there to the driver's Unix socket here, so no TCP port is open anywhere. The
engine connects to one path for as long as it lives; the connection beneath may break and is then made anew,
with a new socket moved to that path (see `contexts.ssh.tunnel_argv`). Messages that were on their way are
sent again by the session above it, so a broken tunnel costs time, nothing else.

The tunnel ends with this process: its ssh sees the end of stdin. The directory over there is removed when
the tunnel is closed in order; if the driver was killed it stays, with a dead socket in it, until one that
takes the run over makes a tunnel to the same place.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import Callable

from disbatch.contexts.child import Child
from disbatch.contexts.spawn import spawn
from disbatch.contexts.ssh import FAREWELL, SshOptions, tunnel_argv
from disbatch.contexts.words import TUNNEL_MARK, tunnel_words
from disbatch.model.errors import LaunchError

DELAY_FIRST = 0.5
DELAY_MOST = 30.0
"""Seconds before a broken tunnel is tried again: the first time, and at most; it doubles in between."""
_READY = re.compile(TUNNEL_MARK.encode() + rb"\r?\n")


def new_place() -> str:
    """The directory of a new tunnel's end, over there. Not in TMPDIR: a socket's path must be short.
    Unguessable, so nobody else can have taken the name."""
    return f"/tmp/disbatch-{secrets.token_hex(16)}"


class Tunnel:
    """Keeps `address` on `host` leading to `local_socket` here, from `open` (or `open_again`) to `close`.

    `place`: as `new_place` made it; an engine may be there already. `trouble` gets a line for the user when
    the tunnel breaks, and when it is there again. `timeout`: seconds that one attempt may take.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        host: str,
        options: SshOptions,
        local_socket: str,
        place: str,
        *,
        trouble: Callable[[str], None],
        timeout: float,
    ) -> None:
        self._loop = loop
        self._host = host
        self._options = options
        self._local_socket = local_socket
        self._trouble = trouble
        self._timeout = timeout
        self._place = place
        self._child: Child | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where the engine on `host` finds the driver."""
        return f"ipc://{self._place}/s"

    async def open(self) -> None:
        """Make the tunnel; LaunchError says in one line why that cannot be."""
        child = await self._connect()
        self._keeper = self._loop.create_task(self._keep(child))

    def open_again(self, room: asyncio.Semaphore) -> None:
        """Make the tunnel in the background, when there is `room`, and however long it takes: it was another
        process's, which is dead."""
        self._keeper = self._loop.create_task(self._keep_again(room))

    async def _connect(self) -> Child:
        attempt = secrets.token_hex(4)
        argv = tunnel_argv(self._host, self._options, self._place, attempt, self._local_socket)
        try:
            child = self._child = Child(self._loop, spawn(argv, merged=True))
        except OSError as error:
            raise LaunchError(self._host, f"cannot run ssh: {error.strerror or error}") from error
        try:
            async with asyncio.timeout(self._timeout):
                ready = await child.until(_READY)
        except TimeoutError:
            ready = None
        if ready is not None:
            return child
        code = child.returncode
        await child.dismiss(0)
        if code is None:
            raise LaunchError(
                self._host, f"no tunnel within {self._timeout:g} s; waited for ssh to set it up"
            )
        raise LaunchError(self._host, f"no tunnel: {tunnel_words(self._host, code, child.out, child.err)}")

    async def _keep_again(self, room: asyncio.Semaphore) -> None:
        try:
            async with room:
                child = await self._connect()
        except LaunchError as error:
            self._trouble(f"{error}; trying again")
            child = await self._again()
            self._trouble(f"{self._host}: the tunnel is there again")
        await self._keep(child)

    async def _keep(self, child: Child) -> None:
        while True:
            code = await asyncio.shield(child.exited)
            why = tunnel_words(self._host, code, child.out, child.err)
            self._trouble(f"{self._host}: the tunnel broke: {why}; it is being made again")
            child = await self._again()
            self._trouble(f"{self._host}: the tunnel is there again")

    async def _again(self) -> Child:
        delay = DELAY_FIRST
        while True:
            await asyncio.sleep(delay)
            delay = min(2 * delay, DELAY_MOST)
            with contextlib.suppress(LaunchError):
                return await self._connect()

    async def close(self, patience: float) -> None:
        """End the tunnel and remove its directory over there, if that can be done in `patience` seconds."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        child = self._child
        if child is not None and child.returncode is None:
            await child.feed(FAREWELL)
            child.close_stdin()
            await child.dismiss(patience if _READY.search(child.out) else 0)
