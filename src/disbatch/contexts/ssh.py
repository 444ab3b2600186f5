"""Engines and tunnels on other hosts, through the user's own ssh.

Theory of operation
-------------------
The command goes through the user's login shell on the other host. It means the same to sh, csh and fish:
words in single quotes, no backslash, no `!`, no newline. It contains no secret.

A tunnel (--tunnel) carries an engine's connection if the host cannot connect to the driver. ssh forwards a
Unix socket on the other host to the driver's Unix socket, so no TCP port is opened. The engine always
connects to one path. If the ssh connection breaks, another one is made, and its socket is moved to that path.
The session above it resends lost messages.

A tunnel ends with this process, because its ssh sees the end of stdin. Its directory on the other host is
removed when the tunnel is closed. If the driver was killed the directory remains, until a driver that takes
the run over makes a tunnel to the same path.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass

from disbatch.contexts.child import Child
from disbatch.contexts.launch_errors import TUNNEL_MARK, not_started, tunnel_words
from disbatch.contexts.local import BOOT
from disbatch.contexts.spawn import spawn
from disbatch.engine.search_path import package_path
from disbatch.model.errors import LaunchError, UsageError

FAREWELL = b"bye\n"
"""Written to the stdin of a tunnel that is no longer needed, so that its directory is removed."""
_HOST_PORT = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[0-9A-Za-z._-]+):[0-9]{1,5}")
_NOT_QUOTABLE = frozenset("!\\\n\r\0")


@dataclass(frozen=True)
class SshOptions:
    """`connect_timeout` in seconds. `python`: the interpreter on the other hosts (--ssh-python, or the user's
    configuration); None: the path of ours if it exists there, else python3. `package`: a directory there that
    may hold the package if it is not installed; None: the path of ours. `alive_interval`: seconds of silence
    after which a tunnel probes the other side; after three probes without an answer it is given up."""

    connect_timeout: int = 10
    alive_interval: int = 5
    python: str | None = None
    package: str | None = None

    def __post_init__(self) -> None:
        for name in (self.python, self.package):
            if name is not None and (not name or not _quotable(name)):
                raise UsageError(
                    f"{name!r}: a path on another host must not be empty or hold '!', '\\' or a line end"
                )
        if self.python is not None and self.python.startswith("-"):
            raise UsageError(f"{self.python}: an interpreter's path cannot start with '-'")


def _quotable(text: str) -> bool:
    return _NOT_QUOTABLE.isdisjoint(text)


_OVERRIDES = (
    "-oIgnoreUnknown=*",
    "-oRemoteCommand=none",
    "-oSessionType=default",
    "-oStdinNull=no",
    "-oForkAfterAuthentication=no",
    "-oLogLevel=INFO",
)
"""Against settings of the user's for logins that would keep our command from running, or its stdin or errors
from arriving. IgnoreUnknown: older versions of ssh do not know all of these options."""


def _ssh(options: SshOptions) -> list[str]:
    # -T -x -a: no terminal, no X11, no agent. ControlMaster=no: use a connection that the user has opened
    # (the only way if a login takes a token), but never become one, which would stay in the background with
    # our pipes. BatchMode: never prompt.
    return [
        "ssh",
        "-T",
        "-x",
        "-a",
        "-oBatchMode=yes",
        f"-oConnectTimeout={options.connect_timeout}",
        "-oControlMaster=no",
        *_OVERRIDES,
    ]


def _for_login_shell(script: str) -> str:
    return f"exec /bin/sh -c {shlex.quote(script)}"


def launch_argv(host: str, options: SshOptions) -> list[str]:
    """The ssh command that starts an engine on `host`; it expects a Bootstrap on stdin.

    The user's own forwardings are left out: another connection has them already, and they would fail.
    """
    package = options.package or package_path()
    words = [shlex.quote(BOOT)] + ([shlex.quote(package)] if _quotable(package) else [])
    if options.python is not None:
        script = f"exec {shlex.quote(options.python)} -c {' '.join(words)}"
    else:
        own = sys.executable if sys.executable and _quotable(sys.executable) else "python3"
        find = f'p={shlex.quote(own)}; test -x "$p" || p=python3; '
        script = f'{find}exec "$p" -c {" ".join(words)}'
    return [*_ssh(options), "-oClearAllForwardings=yes", "--", host, _for_login_shell(script)]


def tunnel_argv(host: str, options: SshOptions, place: str, attempt: str, local_socket: str) -> list[str]:
    """The ssh command that makes `place`/s on `host` lead to `local_socket` here, or to HOST:PORT as seen
    from here.

    sshd makes the new socket as `place`.ATTEMPT, a new name each time, for it cannot replace one that an
    earlier, broken connection left; the command moves it to where the engine looks, says TUNNEL_MARK, and
    stays until its stdin ends. A connection of its own (no ControlPath): a shared one would keep the
    forwarding, and would not notice a cut cable. ExitOnForwardFailure=no: a forwarding of the user's own that
    fails does no harm, and ours is seen by the missing socket.
    """
    if not _HOST_PORT.fullmatch(local_socket) and (":" in local_socket or not local_socket.startswith("/")):
        raise UsageError(f"{local_socket}: a tunnel needs a socket with an absolute path and no ':' in it")
    new = f"{place}.{attempt}"
    script = (
        f"mkdir -p -m 700 {place} && test -O {place} && mv -f {new} {place}/s || exit 3; echo {TUNNEL_MARK}; "
        f'read word; if test "$word" = bye; then rm -rf {place}; fi'
    )
    return [
        *_ssh(options),
        "-oControlPath=none",
        "-oExitOnForwardFailure=no",
        f"-oServerAliveInterval={options.alive_interval}",
        "-oServerAliveCountMax=3",
        "-R",
        f"{new}:{local_socket}",
        "--",
        host,
        _for_login_shell(script),
    ]


DELAY_FIRST = 0.5
DELAY_MOST = 30.0
"""Seconds before a broken tunnel is tried again: the first time, and at most; it doubles in between."""
_READY = re.compile(TUNNEL_MARK.encode() + rb"\r?\n")


def new_place() -> str:
    """The directory of a new tunnel's end on the other host. Not in TMPDIR: the path of a socket must be
    short. Random, so that no other user can have created it."""
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
            raise LaunchError(self._host, not_started(argv, error)) from error
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
            self._trouble(f"{self._host}: the tunnel works again")
        await self._keep(child)

    async def _keep(self, child: Child) -> None:
        while True:
            code = await asyncio.shield(child.exited)
            why = tunnel_words(self._host, code, child.out, child.err)
            self._trouble(f"{self._host}: the tunnel broke: {why}; making it again")
            child = await self._again()
            self._trouble(f"{self._host}: the tunnel works again")

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
