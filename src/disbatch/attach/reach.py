"""Where the engines of an attached context find the driver, and what their tasks find in their
environment."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.contexts.context import Context
from disbatch.contexts.nodes import Node
from disbatch.engine.environment import merge
from disbatch.model.errors import UsageError
from disbatch.model.way import Way
from disbatch.wire.keys import ConnectFile
from disbatch.wire.messages import SECRET_VARIABLES
from disbatch.wire.reach import CLIENT, is_loopback, listens_here, sockets, ways

OF_A_SCHEDULER = (b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_", b"PBS_", b"LSB_", b"SGE_")
"""A job is somebody's place: what tasks are told of one is told of the context's, not of the driver's."""
OF_DEVICES = frozenset(
    b"CUDA_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
    b"ZE_AFFINITY_MASK".split()
)


class Reach:
    """How the driver of `connect` is reached: from here, and from the nodes of `context`. UsageError if it
    cannot be reached from there."""

    def __init__(self, connect: ConnectFile, context: Context) -> None:
        self._here = ways(connect)
        self._sockets = sockets(connect) if listens_here(connect) else []
        # Who comes from here comes from the driver's host only if we are there.
        offered = [a for a in connect.addresses if self._sockets or CLIENT not in a]
        ports = [a for a in (*offered, *self._here) if a.startswith("tcp://") and not is_loopback(a)]
        self._ports = list(dict.fromkeys(ports))
        far = {node.way for node in context.nodes} - {Way.CHILD}
        if Way.SSH in far and context.tunnel:
            far.discard(Way.SSH)
        self.wants_port = bool(far) and bool(self._sockets) and self._sockets == connect.addresses
        """The driver is to open a port before anything can be started."""
        if far and not self._ports and not self.wants_port:
            way = "attach them with --tunnel" if Way.SSH in far else "not even for the nodes of a job"
            raise UsageError(f"the driver has no port for other hosts: {way}")

    def prefer(self, address: str) -> None:
        """Our own connection leads there: try that first."""
        for addresses in (self._here, self._ports):
            if address in addresses:
                addresses.remove(address)
                addresses.insert(0, address)

    def addresses(self, node: Node) -> list[str]:
        """What an engine on that node shall try, in order."""
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
    """The run's environment, as on another node; of schedulers and devices what is so here (`own`)."""
    of_the_run = {
        name: value
        for name, value in run.items()
        if name not in OF_DEVICES and not name.startswith(OF_A_SCHEDULER)
    }
    merged = merge(of_the_run, own) | {b"PWD": directory}
    return {name: value for name, value in merged.items() if name not in SECRET_VARIABLES}
