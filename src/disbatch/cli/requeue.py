"""A job that Slurm starts again goes on where its former life ended, without being told to.

A job whose node died, or that was preempted or requeued, keeps its number and runs its script from the
beginning (Slurm's JobRequeue is 1 unless a site or the user says otherwise). Then the same command finds the
status files of its former life under the names that it would take itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from disbatch.driver.files import status_files
from disbatch.driver.held import is_held_at
from disbatch.wire.ownfile import is_foreign


def restarted(environ: Mapping[str, str]) -> bool:
    """True in a job that Slurm has started before."""
    return environ.get("SLURM_RESTART_COUNT", "0").strip("0") != "" and "SLURM_JOB_ID" in environ


def former_life(prefix: str | None, task_name: str, jobid: str, named: list[str]) -> list[str]:
    """Our status files that were written for tasks of this name in this job, besides those `named` with -r,
    and besides those that another run of the job writes now."""
    found = [path for path in status_files(prefix, task_name, jobid) if not is_foreign(path)]
    return [os.path.relpath(path) for path in found if not _is_named(path, named) and not is_held_at(path)]


def _is_named(path: Path, named: list[str]) -> bool:
    return any(Path(name).exists() and path.samefile(name) for name in named)
