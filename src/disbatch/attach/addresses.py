"""The addresses of the driver for engines of an attached context, and the environment of their tasks."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.engine.environment import merge
from disbatch.model.errors import UsageError
from disbatch.model.job import PREFIXES
from disbatch.model.task import Way
from disbatch.wire.connect import CLIENT, ConnectFile, is_loopback, listens_here, sockets, ways
from disbatch.wire.engine_protocol import SECRET_VARIABLES

OF_DEVICES = frozenset(
    b"CUDA_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
    b"ZE_AFFINITY_MASK".split()
)


class DriverAddresses:
    """Where the driver of `connect` is reached from here, and from the nodes of `pool`. UsageError if it
    cannot be reached from there."""

    def __init__(self, connect: ConnectFile, pool: Pool) -> None:
        self._here = ways(connect)
        self._sockets = sockets(connect) if listens_here(connect) else []
        # An address of the client is the driver's host only if we are on that host.
        offered = [a for a in connect.addresses if self._sockets or CLIENT not in a]
        ports = [a for a in (*offered, *self._here) if a.startswith("tcp://") and not is_loopback(a)]
        self._ports = list(dict.fromkeys(ports))
        far = {node.way for node in pool.nodes} - {Way.CHILD}
        if Way.SSH in far and pool.tunnel:
            far.discard(Way.SSH)
        self.wants_port = bool(far) and bool(self._sockets) and self._sockets == connect.addresses
        """The driver must open a port before anything can be started."""
        if far and not self._ports and not self.wants_port:
            way = "attach them with --tunnel" if Way.SSH in far else "not even for the nodes of a job"
            raise UsageError(f"the driver has no port for other hosts: {way}")

    def prefer(self, address: str) -> None:
        """Try this address first: our own connection uses it."""
        for addresses in (self._here, self._ports):
            if address in addresses:
                addresses.remove(address)
                addresses.insert(0, address)

    def of(self, node: Node) -> list[str]:
        """The addresses that an engine on that node tries, in order."""
        if node.way is Way.CHILD:
            return self._here
        return [*self._sockets, *self._ports] if node.way is Way.STEP else self._ports

    @property
    def tunnel_end(self) -> str:
        """Where tunnels lead on this side: a socket's path, or HOST:PORT."""
        first = self._here[0]
        return first.removeprefix("ipc://").removeprefix("tcp://")


def environment_of_tasks(
    run: Mapping[bytes, bytes], own: Mapping[bytes, bytes], directory: bytes
) -> dict[bytes, bytes]:
    """The run's environment, merged with that of this node (`own`), which decides what describes a
    scheduler's job and devices: tasks must see the job that has their nodes."""
    of_the_run = {
        name: value for name, value in run.items() if name not in OF_DEVICES and not name.startswith(PREFIXES)
    }
    merged = merge(of_the_run, own) | {b"PWD": directory}
    return {name: value for name, value in merged.items() if name not in SECRET_VARIABLES}
