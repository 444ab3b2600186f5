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
from disbatch.wire.reach import CLIENT, listens_here, sockets, ways

OF_A_SCHEDULER = (b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_", b"PBS_", b"LSB_", b"SGE_")
"""A job is somebody's place: what tasks are told of one is told of the context's, not of the driver's."""
OF_DEVICES = frozenset(
    b"CUDA_VISIBLE_DEVICES GPU_DEVICE_ORDINAL ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES "
    b"ZE_AFFINITY_MASK".split()
)


class Reach:
    """How the driver of `connect` is reached: from here, and from the nodes of `context`."""

    def __init__(self, connect: ConnectFile, context: Context) -> None:
        self._here = ways(connect)
        near = listens_here(connect)
        self._near = near
        ports = [a for a in connect.addresses if a.startswith("tcp://") and (near or CLIENT not in a)]
        self._ports = [*ports, *(a for a in self._here if a.startswith("tcp://") and a not in ports)]
        self._sockets = sockets(connect) if near else []
        if not self._ports and not context.tunnel and not all(node.local for node in context.nodes):
            raise UsageError("the driver has no port for other hosts: attach them with --tunnel")

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
