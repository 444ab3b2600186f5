"""A context: where engines come from and go back to, as its user asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm.job import Allocation
from disbatch.contexts.slurm.srun import SrunOptions
from disbatch.contexts.ssh import SshOptions

GIVE_BACK_AFTER = 5.0
"""Seconds that an engine must have been spare before its node goes back to Slurm: a job that is resized stays
so, and what the batch script does next may want all of it."""


@dataclass(frozen=True)
class Context:
    """Times in seconds.

    `task_limit`: -C. `retire_command`: -k, or Slurm's own if `retire_default`; None: none. `allocation`: the
    Slurm job that we are in, if its nodes are used; `srun` how steps are started there. `label`: --label, a
    name for all these nodes. `gpu`: -g; `share`: -E; `bind`: --bind, None for "cores if they are ours alone".
    `time_limit_margin`: of the option of that name, if given.
    """

    nodes: list[Node] = field(default_factory=list)
    label: str = ""
    task_limit: int | None = None
    retire_command: str | None = None
    retire_default: bool = False
    allocation: Allocation | None = None
    srun: SrunOptions | None = None
    ssh: SshOptions = field(default_factory=SshOptions)
    gpu: bool = False
    share: list[str] = field(default_factory=list)
    bind: bool | None = False
    time_limit_margin: float | None = None
    tunnel: bool = False

    @property
    def spare_after(self) -> float | None:
        """How long an engine must have had nothing to expect before it is let go; None: it is not. For the
        user's own retire command it goes at once."""
        if not self.retire_command:
            return None
        return GIVE_BACK_AFTER if self.retire_default else 0.0

    @property
    def keep(self) -> frozenset[str]:
        """Nodes that are never given back."""
        return frozenset() if self.allocation is None else self.allocation.keep

    def name_of(self, node: Node, hostname: str) -> str:
        """How the run calls the node: as the user or Slurm does, but this machine by its own name."""
        return hostname if node.local and self.allocation is None else node.name
