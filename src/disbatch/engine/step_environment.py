"""What the tasks of an engine that is a scheduler's step (Slurm's, by srun) find in their environment."""

from __future__ import annotations

from collections.abc import Mapping

from disbatch.engine.environment import Environment
from disbatch.wire.messages import SECRET_VARIABLES, SRUN_VARIABLES

_OF_SLURM = (b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_")
_OF_THE_NODE = frozenset(
    b"SLURM_CONF SLURM_NODEID SLURM_LOCALID SLURM_PROCID SLURM_GTIDS SLURM_TASK_PID SLURM_CPUS_ON_NODE "
    b"SLURM_GPUS_ON_NODE SLURM_JOB_GPUS SLURM_STEP_GPUS SLURM_TOPOLOGY_ADDR "
    b"SLURM_TOPOLOGY_ADDR_PATTERN".split()
)
"""What Slurm tells a batch script, too, and what differs from node to node."""


def merge_step(run: Mapping[bytes, bytes], step: Mapping[bytes, bytes]) -> Environment:
    """The tasks' environment from the `run`'s and the `step`'s own, which is the run's, as srun passes it on,
    with what slurmd, SPANK plugins and a TaskProlog changed on that node (TMPDIR, CUDA_VISIBLE_DEVICES, ...).

    So the step's values count, but for Slurm's own variables: a step of one task on one node says so in
    SLURM_NTASKS and many others, and an `srun` or an MPI program in a task would take that for its orders.
    They are the job's again, or none if the job had none, but for those of _OF_THE_NODE. There is no
    SLURM_STEP_ID: Open MPI would take each program for one that srun had started.

    The variables that were meant for srun alone are the run's again, too, and LC_CTYPE, which Python sets for
    itself in the C locale.
    """
    others = frozenset([b"LC_CTYPE", *step.get(SRUN_VARIABLES, b"").split(b":")])

    def of_the_run(name: bytes) -> bool:
        return (name.startswith(_OF_SLURM) and name not in _OF_THE_NODE) or name in others

    merged = {name: value for name, value in step.items() if not of_the_run(name)}
    merged |= {name: value for name, value in run.items() if of_the_run(name)}
    for name in (SRUN_VARIABLES, *SECRET_VARIABLES):
        merged.pop(name, None)
    return merged
