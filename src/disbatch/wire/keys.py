"""The secrets of a run, and the file that lets an engine or a monitor join it.

Each run makes two CURVE key pairs: the server's and one client pair. Whoever holds the client's secret key
is let in; nobody else is. Both travel only through an engine's standard input and through
PREFIX_connect.json (mode 0600), never on a command line or in an environment.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import zmq

from disbatch.model.errors import UsageError
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
    """PREFIX_connect.json: where the driver of a run listens and what opens the door.

    `addresses` as in `wire.messages.Bootstrap`; `host` and `pid` are the driver's; `started` seconds since
    the epoch. The server's secret is there for a driver that takes the run over. `cores_per_task`: -c, as
    given; it holds for nodes that are attached, too.
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
        """The run's."""
        return RunKeys(self.server_key, self.server_secret, self.client_key, self.client_secret)

    def replace(self, path: Path) -> None:
        """Put this in the place of the file that is there."""
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
        """Read the file, which must be ours, or belong to `trusted`; UsageError says in one line why that
        cannot be."""
        try:
            data = read_own(path, CONNECT_FILE_LIMIT, trusted=trusted)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.DecodeError as error:
            raise UsageError(f"{path}: not a connect file: {error}") from error
