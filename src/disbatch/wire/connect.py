"""The keys of a run, its connect file, and the addresses at which its driver can be reached from here.

Each run generates two CURVE key pairs: the server's, and one for all clients. The client secret key is the
only admission to a run. Keys travel only through an engine's standard input and through PREFIX_connect.json
(mode 0600), never on a command line or in an environment.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec
import zmq

from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.job import STARTED_FROM
from disbatch.model.text import printable_json
from disbatch.wire.ownfile import read_own

CONNECT_FILE_LIMIT = 1 << 20


class RunKeys(msgspec.Struct, frozen=True):
    """The CURVE keys of a run as Z85 text (40 characters each)."""

    server_key: str
    server_secret: str
    client_key: str
    client_secret: str

    @classmethod
    def generate(cls) -> RunKeys:
        """Fresh keys for a new run."""
        server, server_secret = zmq.curve_keypair()
        client, client_secret = zmq.curve_keypair()
        return cls(server.decode(), server_secret.decode(), client.decode(), client_secret.decode())

    def __repr__(self) -> str:
        return "RunKeys(...)"


class ConnectFile(msgspec.Struct, frozen=True):
    """PREFIX_connect.json: where the driver of a run listens, and the keys to it.

    `addresses` as in `wire.engine_protocol.Bootstrap`; `host` and `pid` are the driver's; `started` is in
    seconds since the epoch. The server's secret key is for a driver that takes the run over.
    `cores_per_task`: -c, as given; it applies to attached nodes, too.
    """

    protocol: int
    jobid: str
    host: str
    pid: int
    started: float
    addresses: list[str]
    server_key: str
    server_secret: str
    client_key: str
    client_secret: str
    status_file: str
    directory: str
    cores_per_task: float | None = None

    @property
    def keys(self) -> RunKeys:
        """The keys of the run."""
        return RunKeys(self.server_key, self.server_secret, self.client_key, self.client_secret)

    @property
    def driver(self) -> str:
        """What messages call the driver."""
        return f"the driver (pid {self.pid}) on {self.host}"

    def replace(self, path: Path) -> None:
        """Replace the existing file with this one."""
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        self.write(new)
        new.replace(path)

    def write(self, path: Path) -> None:
        """Create the file with mode 0600; FileExistsError if the name is taken."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(printable_json(msgspec.json.format(msgspec.json.encode(self), indent=1)) + b"\n")

    @classmethod
    def read(cls, path: Path, *, trusted: int | None = None) -> ConnectFile:
        """Read the file, which must belong to our user or to `trusted`; UsageError says in one line why it
        cannot be read."""
        try:
            data = read_own(path, CONNECT_FILE_LIMIT, trusted=trusted)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise UsageError(f"{path}: not a connect file: {error}") from error


LOOPBACK = ("127.0.0.1", "::1", "localhost")
KNOCK = 1.0
"""Seconds for a local socket to accept a connection, which the kernel does for every listener."""
CLIENT = "@client"
"""Stands in an address for the host that an engine was launched from."""


def is_here(connect: ConnectFile) -> bool:
    """True if the driver runs (or ran) on this host."""
    return connect.host == socket.gethostname()


def listens_here(connect: ConnectFile) -> bool:
    """True if a process on this host listens at the driver's Unix socket, even a busy or stopped one."""
    return any(_listens(address.removeprefix("ipc://")) for address in sockets(connect))


def sockets(connect: ConnectFile) -> list[str]:
    """The driver's Unix socket."""
    return [address for address in connect.addresses if address.startswith("ipc://")]


def is_loopback(address: str) -> bool:
    """True if this address of a port is reachable only from its own host."""
    return address.removeprefix("tcp://").rpartition(":")[0].strip("[]") in LOOPBACK


def ways(connect: ConnectFile, environ: Mapping[str, str] = os.environ) -> list[str]:
    """The addresses to try: the driver's Unix socket if it is visible from here, whatever the present name of
    this host; else its port, also at the computer from which our user logged in here, or from which the
    scheduler says that the job came, as that may be the driver's. SilenceError or UsageError if there is
    none."""
    if listens_here(connect):
        return sockets(connect)
    clients = _came_from(environ)
    ports = []
    for address in connect.addresses:
        if address.startswith("tcp://") and (is_here(connect) or not is_loopback(address)):
            offered = [address] if CLIENT not in address else [address.replace(CLIENT, c) for c in clients]
            ports += [one for one in offered if one not in ports]
    if ports:
        return ports
    if is_here(connect):
        raise SilenceError(f"{connect.driver} does not listen any more: was it killed?")
    raise UsageError(
        f"{connect.driver} can be asked on that machine alone, as the run has no port for other hosts: do it "
        f"there (`ssh {connect.host}`), or start the run with --use-address {connect.host}:0"
    )


def _came_from(environ: Mapping[str, str]) -> list[str]:
    """Addresses of computers from which our user logged in to this one."""
    found = []
    for name in STARTED_FROM:
        words = environ.get(name, "").split()
        if words:
            host = words[0].strip("[]")
            found.append(f"[{host}]" if ":" in host else host)
    return found


def _listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(KNOCK)
        try:
            probe.connect(os.fsencode(path))
        except OSError as error:
            return isinstance(error, TimeoutError) or error.errno == errno.EAGAIN  # its queue is full
        return True
