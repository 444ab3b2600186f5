"""Whether we are in a job of a scheduler, which then has a say in what is ours and how it ends."""

from __future__ import annotations

from collections.abc import Mapping

OF_A_JOB = (
    *(b"SLURM_JOB_ID", b"PBS_JOBID", b"LSB_JOBID", b"SGE_TASK_ID"),
    *(b"OAR_JOB_ID", b"_CONDOR_MACHINE_AD", b"FLUX_JOB_ID", b"COBALT_JOBID"),
)


def in_job(environment: Mapping[bytes, bytes]) -> bool:
    """True if this is the environment of a scheduler's job."""
    return any(name in environment for name in OF_A_JOB)
