"""A run in a Slurm job under test: sbatch or salloc, the nodes that it holds, and what became of it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from processes import TOKEN, command_line
from slurm_lab import SlurmLab
from ssh_run import Run, most_at_once

from deadline import DEADLINE
from disbatch.model.statusline import Mark, Record

BIN = Path(sys.executable).parent
DISBATCH = str(BIN / "disbatch")


class Ended(NamedTuple):
    """How a job ended as Slurm says it: its state, such as CANCELLED, and the exit code of the script."""

    state: str
    code: int


class SlurmRun(Run):
    """Jobs of one test in a directory of its own, which belongs to `user`; tasks tell as those over ssh do.

    `process` is salloc, or for a batch job something that ends with the last process that may still write to
    the job's output; in both cases what the command says comes through it. Commands find disbatch in PATH.
    """

    lab: SlurmLab

    def __init__(self, lab: SlurmLab, directory: Path, user: str = "root") -> None:
        super().__init__(lab, directory)
        self.user = user
        self.name = f"test-{self.token[:12]}"
        self.job = 0
        self._runs = 0
        if user != "root":
            for path in (directory, *directory.iterdir()):
                lab.give(path, user)

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{BIN}:{self.lab.env['PATH']}"
        return {**self.lab.env, "PATH": path, TOKEN: self.token, **self.environment}

    def _popen(self, argv: list[str]) -> None:
        self.stderr = ""
        self.process = subprocess.Popen(
            argv,
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)

    def make_gate(self, name: str) -> None:
        """A FIFO that the tasks can open."""
        os.mkfifo(self.directory / name)
        self.lab.give(self.directory / name, self.user)

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as the user, on the head, outside of all jobs."""
        return subprocess.run(
            self.lab.as_user(self.user, list(argv)),
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def salloc(self, options: str, *command: str) -> None:
        """`salloc OPTIONS COMMAND...`, with the command on the head. A single string is a line for bash."""
        argv = ["bash", "-c", *command] if len(command) == 1 else list(command)
        salloc = ["salloc", "-Q", "-J", self.name, *shlex.split(options)]
        self._popen(self.lab.as_user(self.user, [*salloc, *argv]))

    def sbatch(self, options: str, script: str) -> int:
        """A batch job of these lines of bash; its id."""
        self._runs += 1
        path = self.directory / f"job-{self._runs}.sh"
        path.write_text(f"#!/bin/bash\n{script}\n")
        return self.submit(*shlex.split(options), path.name)

    def submit(self, *arguments: str) -> int:
        """`sbatch ARGUMENTS`, the script among them; the job's id."""
        self._runs += 1
        said = self.directory / f"said-{self._runs}"
        os.mkfifo(said)
        self.lab.give(said, self.user)
        self._popen(["sh", "-c", 'exec cat "$1" >&2', "-", str(said)])
        done = self.call("sbatch", "--parsable", "-J", self.name, "-o", said.name, *arguments)
        assert done.returncode == 0, done.stderr
        self.job = int(done.stdout)
        return self.job

    def end(self) -> int:
        """Wait for the end of `process`; salloc ends with the code of its command."""
        assert self.process is not None
        return super().end() if self.process.returncode is None else self.process.returncode

    def ended(self) -> Ended:
        """Wait until the batch job is over."""
        self.end()
        return Ended(*self.lab.ended(self.job))

    def scancel(self, *options: str) -> None:
        """Cancel the job."""
        self.lab.call("scancel", *options, str(self.job))

    def until_job(self) -> int:
        """The id of salloc's job, which is there when a task has started."""
        # Not one of an earlier salloc, which Slurm may still be cleaning up after.
        self.job = int(self.lab.call("squeue", "-h", "-t", "RUNNING", "-n", self.name, "-o", "%A"))
        return self.job

    def close(self) -> None:
        if self.lab.whole and self.lab.call("squeue", "-h", "-n", self.name, "-o", "%A"):
            self.lab.call("scancel", "-n", self.name)
            self.lab.whole = False  # whatever the test left there, the next one gets fresh nodes
        super().close()

    def driver(self) -> int:
        """The process of disbatch itself, wherever it runs."""
        (driver,) = self.drivers("Tasks")
        return driver

    def drivers(self, word: str) -> list[int]:
        """Processes of disbatch that were started with this word; a batch script of Slurm's is one, too."""
        commands = {pid: command_line(pid).split() for pid in self.processes()}
        return [
            pid
            for pid, words in commands.items()
            if word in words and "python" in words[0] and words[1].endswith(("/disbatch", "/slurm_script"))
        ]

    # ---- what came of it ----

    def most_at_once(self) -> Counter[str]:
        """How many tasks ran at the same time at most, by node."""
        by_node: dict[str, list[Record]] = {}
        for record in self.counting():
            by_node.setdefault(record.node, []).append(record)
        return Counter({node: most_at_once(records) for node, records in by_node.items()})

    def all_records(self) -> list[Record]:
        """The lines of all status files."""
        return [record for path in self.directory.glob("*_status.txt") for record in self.records(path)]

    def status_files(self) -> list[str]:
        """Their names, the oldest first."""
        paths = self.directory.glob("*_status.txt")
        return [path.name for path in sorted(paths, key=lambda path: path.stat().st_ctime_ns)]

    def done(self) -> dict[int, Record]:
        """Tasks that are recorded as ended in the newest status file or skipped there, by id; none twice."""
        records = [record for record in self.records() if record.mark in (Mark.TASK, Mark.SKIPPED)]
        by_id = {record.id: record for record in records}
        assert len(by_id) == len(records), f"a task is recorded twice\n{self}"
        return by_id
