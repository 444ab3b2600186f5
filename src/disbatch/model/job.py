"""Environment variables of schedulers' jobs: which ones show that there is a job, and hold its id."""

from __future__ import annotations

from collections.abc import Mapping

IN_JOB = (
    *(b"SLURM_JOB_ID", b"PBS_JOBID", b"LSB_JOBID", b"SGE_TASK_ID"),
    *(b"OAR_JOB_ID", b"_CONDOR_MACHINE_AD", b"FLUX_JOB_ID", b"COBALT_JOBID"),
)
"""One of them is set in each job."""
JOB_IDS = ("SLURM_JOB_ID", "SLURM_JOBID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "DISBATCH_SSH_JOBID")
"""Variables with the job's id, which becomes the id of the run; the first that is set counts."""
PREFIXES = (b"SLURM_", b"SRUN_", b"SBATCH_", b"SALLOC_", b"PBS_", b"LSB_", b"SGE_")
"""Prefixes of the variables that describe a job, its nodes or its steps."""
STARTED_FROM = ("SSH_CONNECTION", "SLURM_LAUNCH_NODE_IPADDR")
"""Variables that begin with the address of the computer from which a login, or a job, came here."""


def is_job(environment: Mapping[bytes, bytes]) -> bool:
    """True if this is the environment of a scheduler's job."""
    return any(name in environment for name in IN_JOB)
