"""Where the driver listens: its socket, the TCP port behind the relay, and the connect file.

Local engines connect to a Unix socket in a directory of the run (0700). The TCP port is for engines on other
hosts; there is none if all of them use tunnels. A run without such engines opens the port at once in a
scheduler's job, without nodes of its own (-S), or if --use-address asks for it, and continues without it if
that fails; any other run opens it when engines on other hosts are attached. The port is opened here and
served by the relay (`wire.relay`), a process that is restarted if it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from disbatch.contexts.child import Child
from disbatch.contexts.launch_errors import ended_how, lines
from disbatch.contexts.local import own_argv
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import spawn
from disbatch.driver.settings import Settings, Takeover
from disbatch.model.errors import UsageError
from disbatch.model.task import Way
from disbatch.model.text import valid
from disbatch.rundir.journal import JournalState
from disbatch.rundir.paths import remove
from disbatch.wire.connect import LOOPBACK, ConnectFile, RunKeys
from disbatch.wire.driver_socket import Hub
from disbatch.wire.engine_protocol import PROTOCOL, SECRET_VARIABLES
from disbatch.wire.relay import CROWDED, LAST_WORDS, RelayOrders

BACKLOG = 4096
FORMER = 5.0
"""Seconds that the relay of a killed driver has to release the port."""
AGAIN_FIRST = 0.1
AGAIN_MOST = 30.0
"""Seconds before a relay that ended is restarted: at first, and at most; the delay doubles in between."""
_CROWDED = re.compile(CROWDED.encode() + rb" (\d+)\n")


class Port:
    """A TCP port whose connections are forwarded to the Unix socket `to`. `say` gets lines for the user."""

    def __init__(self, to: str, say: Callable[[str], None]) -> None:
        self._to = to
        self._marker = f"{to}.port"
        self._say = say
        self._socket: socket.socket | None = None
        self._child: Child | None = None
        self._serving: asyncio.Task[None] | None = None

    def open(self, host: str, port: int) -> int:
        """Listen at `host` if it is a loopback address, else at all addresses of this machine. Returns the
        port, which the system chooses if `port` is 0. UsageError."""
        self._wait_for_former()
        # A name under which others reach this machine need not resolve to one of its addresses.
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
        """Wait until the relay of the former driver has noticed that this driver is gone."""
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
            spawned = spawn(own_argv("relay"), mine, merged=True)
        finally:
            listening.set_inheritable(False)
        told = RelayOrders(listening.fileno(), self._to, self._marker)
        os.write(spawned.stdin, msgspec.json.encode(told) + b"\n")
        return Child(asyncio.get_running_loop(), spawned)

    async def close(self) -> None:
        """Accept no more connections; the present ones still receive what was sent to them."""
        if self._socket is None or self._serving is None:
            return
        self._serving.cancel()
        self._socket.close()
        if self._child is not None:
            self._child.close_stdin()
            await self._child.dismiss(LAST_WORDS + 1)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens at a loopback address, or at all addresses if `host` is empty."""
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


log = logging.getLogger(__name__)

PREFIX = "disbatch-"
"""The names of the sockets' directories begin with this."""
SOCKET_PATH_LIMIT = 100
"""Unix socket paths are limited to 107 bytes on Linux and 103 on macOS."""


class Addresses:
    """The addresses at which the driver listens. `socket` is the path of the Unix socket, `folder` its
    directory, which is removed at the end of the run. `port_to` makes a port that forwards to a socket."""

    def __init__(self, settings: Settings, hub: Hub, port_to: Callable[[str], Port]) -> None:
        self._settings = settings
        self._own_node = settings.pool.context.own_node
        self._takeover = settings.takeover
        self._published = False
        self._former = [] if self._takeover is None else self._takeover.connect.addresses
        self._folder = _short_folder() if self._takeover is None else _folder_of(self._takeover)
        self.folder = str(self._folder)
        self.socket = f"{self._folder}/driver"
        self._hub = hub
        self.port = port_to(self.socket)
        self._tcp: list[str] = []
        self._publish: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Open the socket, and a port if one is needed. UsageError."""
        self._hub.bind(f"ipc://{self.socket}")
        s = self._settings
        if self._takeover is not None and self._listen_again(self._takeover.told):
            return
        far = not all(node.local for node in s.pool.nodes)
        if s.listen is None and (s.pool.tunnel or not (far or s.on_network)):
            return
        try:
            self._tcp = self._open_port()
        except UsageError as error:
            if s.listen is not None or far:
                raise
            log.warning("no port, so that nobody can join from another host: %s", error)

    def for_others(self) -> list[str]:
        """The addresses for engines that are attached on other hosts. Opens a port if there is none.
        UsageError."""
        if not self._tcp:
            if self._settings.pool.tunnel:
                raise UsageError("the driver has no port for other hosts: attach them with --tunnel")
            self._tcp = self._open_port()
            self._publish()
        return [f"ipc://{self.socket}", *self._tcp]

    def _listen_again(self, told: JournalState) -> bool:
        """Listen at the former driver's port. False if it had none, or if another process uses it and no
        engine tries to connect there. UsageError if an engine does."""
        former = [address for address in self._former if address.startswith("tcp://")]
        if not former:
            return False
        host, _, port = former[0].removeprefix("tcp://").rpartition(":")
        try:
            self.port.open(host, int(port))
        except UsageError as error:
            here = (*told.engines.values(), *told.lost.values())
            if told.attached or not all(each.node is not None and each.node.local for each in here):
                raise UsageError(f"{error}; engines wait for the driver there") from error
            log.warning("%s; nobody waits for us there", error)
            return False
        self._tcp = former
        return True

    def _open_port(self) -> list[str]:
        host, port = self._settings.listen or ("", 0)
        if host == "localhost":
            host = "127.0.0.1"  # the name may stand for ::1, too, and only one is tried
        port = self.port.open(host, port)
        if host:
            return [f"tcp://{_bracketed(host)}:{port}"]
        name = socket.gethostname()
        return [f"tcp://@client:{port}", f"tcp://{_bracketed(name)}:{port}"]

    @property
    def public(self) -> str:
        """The address for clients with the connect file: the one that other hosts can use, if there is
        one."""
        return self._tcp[-1] if self._tcp else f"ipc://{self.socket}"

    def for_node(self, node: Node) -> list[str]:
        """The addresses that an engine on that node tries, in order."""
        if node.local:
            return [f"ipc://{self.socket}"]
        if node.way is Way.STEP and node.name == self._own_node:
            return [f"ipc://{self.socket}", *self._tcp]
        return list(self._tcp)

    def publish(self, keys: RunKeys, started: float) -> None:
        """Write the connect file."""
        self._write(keys, started, again=self._takeover is not None)
        self._published = True
        self._publish = lambda: self._write(keys, started, again=True)

    def _write(self, keys: RunKeys, started: float, *, again: bool) -> None:
        files = self._settings.claimed.files
        connect = ConnectFile(
            protocol=PROTOCOL,
            jobid=self._settings.jobid,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=started,
            addresses=[f"ipc://{self.socket}", *self._tcp],
            server_key=keys.server_key,
            server_secret=keys.server_secret,
            client_key=keys.client_key,
            client_secret=keys.client_secret,
            status_file=valid(str(files.status)),
            directory=valid(os.fsdecode(self._settings.directory)),
            cores_per_task=self._settings.cores_per_task,
        )
        try:
            if again:
                connect.replace(files.connect)
            else:
                connect.write(files.connect)
        except OSError as error:
            raise UsageError(f"{files.connect}: cannot be created: {error.strerror}") from error

    def withdraw(self, say: Callable[[str], None], *, keep_run: bool) -> None:
        """Remove the connect file and the socket, unless the takeover of the run has failed. `keep_run`: keep
        the journal, because a resumed run must know its engines. `say` gets lines for the user."""
        if self._takeover is not None and not self._published:
            return
        files = self._settings.claimed.files
        if not keep_run:
            remove(files.run, say)
        remove(files.connect, say)
        shutil.rmtree(self._folder, ignore_errors=True)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _folder_of(takeover: Takeover) -> Path:
    """The directory of the former driver; a new one if that is not usable and no engine knows the former."""
    told = takeover.told
    try:
        return _folder_again(takeover.connect.addresses)
    except UsageError:
        if told.engines or told.lost or told.attached:
            raise
        return _short_folder()


def _folder_again(addresses: list[str]) -> Path:
    """The directory of the former driver, created again if it is missing. UsageError."""
    for address in addresses:
        if address.startswith("ipc://"):
            folder = Path(address.removeprefix("ipc://")).parent
            try:
                folder.mkdir(mode=0o700, exist_ok=True)
                if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                    return folder
            except OSError as error:
                raise UsageError(f"{folder}: cannot be made again: {error.strerror}") from error
            raise UsageError(f"{folder}: is not ours, so that engines do not find us: remove it")
    raise UsageError("the connect file has no socket of this machine")


def remove_folder(addresses: list[str]) -> None:
    """Remove the directory of the socket of a killed driver, if it belongs to our user."""
    for address in addresses:
        folder = Path(address.removeprefix("ipc://")).parent
        if address.startswith("ipc://") and folder.name.startswith(PREFIX):
            with contextlib.suppress(OSError):
                if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path:
    """A new directory (0700) whose path is short enough for a Unix socket. UsageError."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if place and len(os.fsencode(place)) < SOCKET_PATH_LIMIT - 30:
            try:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            except OSError:
                continue
    raise UsageError("no temporary directory can be written: set TMPDIR to one with a short path")
