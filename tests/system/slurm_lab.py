"""A real Slurm for the tests: several nodes on this machine, as tests/lab/slurm-up brings them up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import command
from ports import free_ports
from processes import children, until_ended

import disbatch
from deadline import DEADLINE

LAB = Path(__file__).resolve().parent.parent / "lab"
NODES = 4
CPUS = 4
GPUS = 4

Found = TypeVar("Found")


class SlurmLab:
    """Nodes node1, node2, ... `env` is an environment in which Slurm's commands reach them.

    `directory` can be entered by all users. `whole`: nothing is off, and nothing of a former test is left.
    `settings` are knobs of slurm-up.
    """

    def __init__(self, directory: Path, **settings: int | str) -> None:
        self.directory = directory
        self.settings = {name: str(value) for name, value in settings.items()}
        self.nodes = [f"node{number + 1}" for number in range(int(self.settings.get("LAB_NODES", NODES)))]
        self.whole = False
        self.env = command.environment({"SLURM_CONF": str(directory / "slurm.conf")})

    def up(self) -> None:
        """Bring up fresh nodes."""
        self.down()
        port = free_ports(1 + len(self.nodes))  # of slurmctld, and of slurmd on each node
        opened = ":".join(str(path) for path in (self.directory, *_needed()))
        done = subprocess.run(
            [LAB / "slurm-up", self.directory],
            check=False,
            env={**command.environment(), "LAB_PORT": str(port), "LAB_OPEN": opened, **self.settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert done.returncode == 0, done.stderr
        self.whole = True

    def down(self) -> None:
        self.whole = False
        subprocess.run(
            [LAB / "slurm-down", self.directory], check=True, capture_output=True, timeout=DEADLINE
        )

    def call(self, *argv: str) -> str:
        """What a command of Slurm's says; it must succeed."""
        done = subprocess.run(
            argv,
            env=self.env,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout.strip()

    def as_user(self, user: str, argv: list[str]) -> list[str]:
        """The command that runs `argv` on the head as `user`."""
        return argv if user == "root" else [str(self.directory / "as"), user, *argv]

    def head(self, argv: list[str]) -> list[str]:
        """The head is this machine."""
        return argv

    def give(self, path: Path, user: str) -> None:
        """Let a path belong to a user."""
        if user != "root":
            shutil.chown(path, user)

    def poweroff(self, node: str) -> None:
        """End every process of a node at once, as a power cut would. The next test gets fresh nodes."""
        self.whole = False
        (first,) = children(int((self.directory / "pid" / node).read_text()))
        with until_ended(first):
            subprocess.run([self.directory / "poweroff", node], check=True, timeout=DEADLINE)

    def space(self, node: str) -> str:
        """The node's processes are those whose /proc/PID/ns/pid reads so."""
        (first,) = children(int((self.directory / "pid" / node).read_text()))
        return os.readlink(f"/proc/{first}/ns/pid")

    def nodes_of(self, job: int) -> set[str]:
        """The nodes that a job holds now."""
        names = self.call("squeue", "-h", "-j", str(job), "-o", "%N")
        return set(self.call("scontrol", "show", "hostnames", names).split()) if names else set()

    def until_nodes(self, job: int, nodes: set[str]) -> None:
        """Wait until the job holds these nodes; looked at whenever Slurm writes to its log."""
        self.until(lambda: self.nodes_of(job) == nodes, f"job {job} to hold {nodes}")

    def until(self, condition: Callable[[], Found | None], what: str, *directories: Path) -> Found:
        """Wait until it is so; looked at whenever Slurm logs something or a file in `directories` changes."""
        return command.until(condition, what, self.directory / "log", *directories)

    def ended(self, job: int) -> tuple[str, int]:
        """Wait until a job is over: its state as Slurm names it, and the exit code of its script."""
        words = self.until(lambda: self._completion(job), f"the end of job {job}")
        return words["JobState"], int(words["ExitCode"].split(":")[0])

    def _completion(self, job: int) -> dict[str, str]:
        for line in (self.directory / "log" / "jobcomp.log").read_text().splitlines():
            words = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if words["JobId"] == str(job) and words["JobState"] != "RESIZING" and "ExitCode" in words:
                return words
        return {}


def _needed() -> list[Path]:
    """What users must reach to run the command under test: package, environment and interpreter."""
    needed = [Path(disbatch.__file__).resolve().parent.parent, Path(sys.prefix), Path(sys.base_prefix)]
    hop = Path(sys.executable)
    while hop.is_symlink():
        hop = hop.parent / hop.readlink()
        needed.append(hop.parent)
    return list(dict.fromkeys(path.resolve() for path in needed))
