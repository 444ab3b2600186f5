"""The run's TCP port: opened here, served by the relay (`wire.relay`), a process that is started again if it
ends."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import msgspec

from disbatch.contexts.child import Child
from disbatch.contexts.spawn import spawn
from disbatch.contexts.words import ended_how, lines
from disbatch.model.errors import UsageError
from disbatch.wire.messages import SECRET_VARIABLES
from disbatch.wire.reach import LOOPBACK
from disbatch.wire.relay import CROWDED, LAST_WORDS, Told

BACKLOG = 4096
FORMER = 5.0
"""Seconds that the relay of a driver that was killed has to leave the port."""
AGAIN_FIRST = 0.1
AGAIN_MOST = 30.0
"""Seconds before a relay that ended is started again: the first time, and at most; it doubles in between."""
_CROWDED = re.compile(CROWDED.encode() + rb" (\d+)\n")


class Port:
    """A port whose clients reach the Unix socket `to`. `say` gets lines for the user."""

    def __init__(self, to: str, say: Callable[[str], None]) -> None:
        self._to = to
        self._marker = f"{to}.port"
        self._say = say
        self._socket: socket.socket | None = None
        self._child: Child | None = None
        self._serving: asyncio.Task[None] | None = None

    def open(self, host: str, port: int) -> int:
        """Listen at `host` if that is a loopback address, else at all of ours; 0: any port; returns the
        actual one. UsageError."""
        self._wait_for_former()
        # A name of ours that others use may be no address of this machine, hence all.
        here = host.strip("[]")
        at = here if here in LOOPBACK else "*"
        try:
            self._socket = _listen("" if at == "*" else at, port)
        except OSError as error:
            shown = f"[{at}]" if ":" in at else at
            raise UsageError(f"cannot listen at tcp://{shown}:{port or '*'}: {error.strerror}") from error
        self._serving = asyncio.get_running_loop().create_task(self._serve(self._socket))
        return int(self._socket.getsockname()[1])

    def _wait_for_former(self) -> None:
        """The relay of the driver before us may need a moment to see that its driver is gone."""
        with socket.socket(socket.AF_UNIX) as knock, suppress(OSError):
            knock.settimeout(FORMER)
            knock.connect(self._marker)
            knock.recv(1)

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        delay, crowded = AGAIN_FIRST, False
        while True:
            begun = loop.time()
            try:
                child = self._child = self._spawn(listening)
            except OSError as error:
                why = f"cannot be started: {error.strerror or error}"
            else:
                found = await child.until(_CROWDED)
                if found and not crowded:
                    crowded = True
                    self._say(
                        f"{found[1].decode()} connections to our port know nothing of this run: others must "
                        "wait while they stay; engines that are connected do not notice"
                    )
                code = await asyncio.shield(child.exited)
                why = next(reversed(lines(child.err)), "") or ended_how(code)
            delay = AGAIN_FIRST if loop.time() - begun > AGAIN_MOST else min(2 * delay, AGAIN_MOST)
            self._say(f"the process that serves our port: {why}; starting it again in {delay:g} s")
            await asyncio.sleep(delay)

    def _spawn(self, listening: socket.socket) -> Child:
        mine = {k: v for k, v in os.environ.items() if os.fsencode(k) not in SECRET_VARIABLES}
        listening.set_inheritable(True)
        try:
            argv = [sys.executable, "-P", "-m", "disbatch.wire.relay"]
            spawned = spawn(argv, mine, merged=True)
        finally:
            listening.set_inheritable(False)
        told = Told(listening.fileno(), self._to, self._marker)
        os.write(spawned.stdin, msgspec.json.encode(told) + b"\n")
        return Child(asyncio.get_running_loop(), spawned)

    async def close(self) -> None:
        """Nobody else is taken; those who are connected get what was sent to them."""
        if self._socket is None or self._serving is None:
            return
        self._serving.cancel()
        self._socket.close()
        if self._child is not None:
            self._child.close_stdin()
            await self._child.dismiss(LAST_WORDS + 1)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket at a loopback address, or without `host` at all addresses that there are."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
    else:
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and not host:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening
