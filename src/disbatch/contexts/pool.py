"""The nodes of a run or of an attached context, and how the user wants them to be used."""

from __future__ import annotations

from dataclasses import dataclass, field

from disbatch.contexts.context import Context
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.nodes import Node
from disbatch.contexts.ssh import SshOptions

RELEASE_AFTER = 5.0
"""Seconds that an engine must have been idle before its node goes back to the scheduler: a job cannot grow
again, and the rest of the batch script may need all nodes."""


@dataclass(frozen=True)
class Pool:
    """Times in seconds.

    `context`: where the engines of `nodes` come from. `task_limit`: -C. `retire_command`: -k; None: none.
    `release`: nodes that are no longer needed go back to the scheduler. `label`: --label, a name for all
    these nodes. `ssh`: how tunnels are made, if `tunnel`. `gpu`: -g. `share`: -E. `bind`: --bind; None:
    cores, if they are ours alone. `time_limit_margin`: the option of that name, if given.
    """

    nodes: list[Node] = field(default_factory=list)
    context: Context = field(default_factory=Hosts)
    label: str = ""
    task_limit: int | None = None
    retire_command: str | None = None
    release: bool = False
    ssh: SshOptions = field(default_factory=SshOptions)
    gpu: bool = False
    share: list[str] = field(default_factory=list)
    bind: bool | None = False
    time_limit_margin: float | None = None
    tunnel: bool = False

    @property
    def spare_after(self) -> float | None:
        """Seconds that an engine must have been idle before it is released; None: it is not released. With
        the user's own retire command it is released at once."""
        if self.retire_command:
            return 0.0
        return RELEASE_AFTER if self.release else None
