"""Where the driver of a run can be reached from here, as far as its connect file tells."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

from disbatch.model.errors import SilenceError, UsageError
from disbatch.wire.keys import ConnectFile

LOOPBACK = ("127.0.0.1", "::1", "localhost")
KNOCK = 1.0
"""Seconds for a local socket to take a connection, which the kernel does for whoever listens there."""
CLIENT = "@client"
"""Stands in an address for where an engine's launcher came from."""


def is_here(connect: ConnectFile) -> bool:
    """True if the driver runs (or ran) on this host."""
    return connect.host == socket.gethostname()


def listens_here(connect: ConnectFile) -> bool:
    """True if somebody on this host listens at the driver's Unix socket, be it busy or stopped."""
    return any(_listens(address.removeprefix("ipc://")) for address in sockets(connect))


def sockets(connect: ConnectFile) -> list[str]:
    """The driver's Unix socket."""
    return [address for address in connect.addresses if address.startswith("ipc://")]


def is_loopback(address: str) -> bool:
    """This address of a port is one of its own host alone."""
    return address.removeprefix("tcp://").rpartition(":")[0].strip("[]") in LOOPBACK


def ways(connect: ConnectFile, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Where to try: the driver's Unix socket if it is seen from here, whatever this host is called now; else
    its port, also at the computer from which we were logged in here, which may be the driver's, or Slurm
    says that the job came. SilenceError or UsageError if there is no way."""
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
    where = f"the driver (pid {connect.pid}) on {connect.host}"
    if is_here(connect):
        raise SilenceError(f"{where} does not listen any more: was it killed?")
    raise UsageError(
        f"{where} can be asked on that machine alone, as the run has no port for other hosts: do it there "
        f"(`ssh {connect.host}`), or start the run with --use-address {connect.host}:0"
    )


def _came_from(environ: Mapping[str, str]) -> list[str]:
    """Addresses of computers from which somebody came to this one."""
    found = []
    for name in ("SSH_CONNECTION", "SLURM_LAUNCH_NODE_IPADDR"):
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
