"""Where the driver listens, and the connect file that tells it to those who may know.

Local engines come through a Unix socket in a directory of the run's own (0700). A TCP port is there for
engines on other hosts; not if all is to go through tunnels. A run that has no such engines opens a port at
once in a scheduler's job, without nodes of its own (-S), or if --use-address asks for it, and goes on without
if that cannot be; any other opens one when engines on other hosts are attached.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from disbatch.contexts.nodes import Node
from disbatch.driver.files import remove
from disbatch.driver.port import Port
from disbatch.driver.settings import Settings, Takeover
from disbatch.driver.told import Told
from disbatch.model.errors import UsageError
from disbatch.model.text import valid
from disbatch.model.way import Way
from disbatch.wire.hub import Hub
from disbatch.wire.keys import ConnectFile, RunKeys
from disbatch.wire.messages import PROTOCOL

log = logging.getLogger(__name__)

PREFIX = "disbatch-"
"""Of the directories around the sockets."""
SOCKET_PATH_LIMIT = 100
"""Unix socket paths are limited to 107 bytes on Linux and 103 on macOS."""


class Addresses:
    """The driver's ears. `socket` is the path of the Unix socket, `folder` the directory around it, which
    goes with the run. `port_to` makes the port whose clients reach a Unix socket."""

    def __init__(self, settings: Settings, hub: Hub, port_to: Callable[[str], Port]) -> None:
        self._settings = settings
        allocation = settings.context.allocation
        self._own_node = "" if allocation is None else allocation.own_node
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
        """Open the socket, and a port if one is needed. UsageError if that cannot be."""
        self._hub.bind(f"ipc://{self.socket}")
        s = self._settings
        if self._takeover is not None and self._listen_again(self._takeover.told):
            return
        far = not all(node.local for node in s.context.nodes)
        if s.listen is None and (s.context.tunnel or not (far or s.on_network)):
            return
        try:
            self._tcp = self._open_port()
        except UsageError as error:
            if s.listen is not None or far:
                raise
            log.warning("no port, so that nobody can join from another host: %s", error)

    def for_others(self) -> list[str]:
        """Where engines find us that are to be attached on other hosts: a port is opened if there is none.
        UsageError."""
        if not self._tcp:
            if self._settings.context.tunnel:
                raise UsageError("the driver has no port for other hosts: attach them with --tunnel")
            self._tcp = self._open_port()
            self._publish()
        return [f"ipc://{self.socket}", *self._tcp]

    def _listen_again(self, told: Told) -> bool:
        """At the former driver's port; False if there is none, or it is taken and nobody waits there.
        UsageError if somebody does."""
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
        """Where somebody with the connect file finds us, from anywhere if that can be."""
        return self._tcp[-1] if self._tcp else f"ipc://{self.socket}"

    def for_node(self, node: Node) -> list[str]:
        """What an engine on that node shall try, in order."""
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
        """Remove the connect file and the socket; but not what a run has that could not be taken over.
        `keep_run`: who resumes the run must know of its engines. `say` gets a line for the user."""
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
    """The directory of the former driver; or a new one if that cannot be and nobody looks for us there."""
    told = takeover.told
    try:
        return _folder_again(takeover.connect.addresses)
    except UsageError:
        if told.engines or told.lost or told.attached:
            raise
        return _short_folder()


def _folder_again(addresses: list[str]) -> Path:
    """The directory of the former driver, made again if it is not there any more."""
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
    """Remove the directory around the socket of a driver that was killed, if it is ours."""
    for address in addresses:
        folder = Path(address.removeprefix("ipc://")).parent
        if address.startswith("ipc://") and folder.name.startswith(PREFIX):
            with contextlib.suppress(OSError):
                if folder.lstat().st_uid == os.geteuid() and not folder.is_symlink():
                    shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path:
    """A new directory of ours alone with a path short enough for a Unix socket."""
    for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        if place and len(os.fsencode(place)) < SOCKET_PATH_LIMIT - 30:
            try:
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
            except OSError:
                continue
    raise UsageError("no temporary directory can be written: set TMPDIR to one with a short path")
