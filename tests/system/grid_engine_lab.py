"""A real Grid Engine on this machine; see tests/lab/sge-up."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from command import environment
from slurm_lab import LAB

PATIENCE = 120.0
"""Seconds that a job, or a script of the lab, may take."""


class GridEngineLab:
    """All its state is in `directory`; jobs of root's run in `jobs` below it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.jobs = directory / "jobs"

    def up(self) -> None:
        """Start it."""
        self.directory.chmod(0o755)
        self.jobs.mkdir()
        self._lab("sge-up")

    def down(self) -> None:
        """Stop it, and remove its files."""
        self._lab("sge-down")
        shutil.rmtree(self.directory)

    def _lab(self, script: str) -> None:
        done = subprocess.run(
            [LAB / script, self.directory],
            check=False,
            env={**environment(), "LAB_PORT": "free"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr

    def run(self, options: str, command: str) -> tuple[int, str]:
        """Submit a job and wait for its end: its exit code, and what it wrote to both streams."""
        output = self.jobs / "output"
        output.unlink(missing_ok=True)
        qsub = f"qsub -sync y -b y -V -N job -cwd -j y -o output {options} {shlex.quote(command)}"
        done = subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(self.directory / 'env'))}; {qsub}"],
            check=False,
            cwd=self.jobs,
            env={**environment(), "SHELL": os.environ.get("SHELL", "/bin/bash")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return done.returncode, output.read_text() if output.exists() else done.stdout + done.stderr
