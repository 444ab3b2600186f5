"""What a run was asked to do, after the command line was read and checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from disbatch.contexts.nodes import Node
from disbatch.contexts.slurm import Allocation
from disbatch.contexts.srun import SrunOptions
from disbatch.contexts.ssh import SshOptions
from disbatch.driver.files import ClaimedFiles
from disbatch.driver.runfile import Asked, Here
from disbatch.wire.keys import ConnectFile


@dataclass(frozen=True)
class Takeover:
    """The run of a driver that was killed: where it listened and with which keys, the engines that it had,
    and which driver of the run this one is (the first is 0). `done`: tasks that the run has completed."""

    connect: ConnectFile
    engines: list[Here]
    generation: int
    done: int


@dataclass(frozen=True)
class Settings:
    """One run. Times in seconds.

    `source_name` is how messages name the task file, `task_name` what the files of the run and
    DISBATCH_NAMETASKS are called after. `total` tasks if the source could be counted. `task_limit`: -C.
    `retire_command`: -k, or Slurm's own if `retire_default`; None: none. `listen`: HOST:PORT of --use-address
    as (host, port), if given.
    `allocation`: the Slurm job that we are in, if its nodes are used; `srun` how steps are started there.
    `label`: --label, a name for all these nodes.
    `asked` is for a driver that takes this run over, `takeover` what this one takes over.
    `gpu`: -g; `share`: -E; `bind`: --bind, None for "cores if they are ours alone". `time_limit_margin`: of
    the option of that name, if given. `grace` is what tasks can have: see `allowance.grace_within`.
    """

    source_name: str
    task_name: str
    jobid: str
    claimed: ClaimedFiles
    nodes: list[Node]
    directory: bytes
    environment: dict[bytes, bytes]
    total: int | None = None
    task_limit: int | None = None
    fail_fast: bool = False
    exit_code: bool = False
    status_header: bool = False
    retire_command: str | None = None
    retire_default: bool = False
    allocation: Allocation | None = None
    srun: SrunOptions | None = None
    gpu: bool = False
    share: list[str] = field(default_factory=list)
    bind: bool | None = False
    time_limit_margin: float | None = None
    listen: tuple[str, int] | None = None
    tunnel: bool = False
    ssh: SshOptions = field(default_factory=SshOptions)
    heartbeat: float = 3.0
    patience: float = 15.0
    orphan_patience: float = 600.0
    max_losses: int = 3
    grace: float = 5.0
    resume_hint: str = ""
    asked: Asked | None = None
    takeover: Takeover | None = None
    label: str = ""
