"""A run under test to which nodes are attached: `P`, in a directory of its own."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from command import Running, call, gone, kill, processes, tasks, until, write

MARK = "OF_THIS_TEST"
"""In the environment of all processes of the run."""
RAN = "echo $DISBATCH_ENGINE_RANK $DISBATCH_TASKID >> ran"
HELD = f"{RAN}; : < gate"
"""A task that says which engine runs it, and ends when the gate is open."""
STUBBORN = f"trap '' TERM; {HELD}"


class Attaching(Running):
    """PREFIX_dbUtil.sh while it runs."""

    def __init__(
        self,
        script: Path,
        directory: Path,
        *arguments: str,
        env: Mapping[str, str],
        wrapper: Sequence[str] = (),
    ) -> None:
        self.program = str(script)
        super().__init__(directory, *arguments, env=env, wrapper=wrapper)

    @property
    def said(self) -> list[str]:
        """Its lines."""
        return self.err.splitlines()


class Pool:
    """The run P; `ran` in its directory tells who ran what, `gate` holds tasks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.env = {MARK: str(directory)}
        self._gates: list[int] = []
        os.mkfifo(directory / "gate")

    def tasks(self, *lines: str) -> None:
        write(self.directory / "Tasks", lines)

    def start(self, *options: str, taskfile: str = "Tasks", stdin: int = subprocess.DEVNULL) -> Running:
        """`disbatch OPTIONS -p P Tasks`."""
        return Running(self.directory, *options, "-p", "P", taskfile, env=self.env, stdin=stdin)

    def taking_over(self) -> Running:
        return Running(self.directory, "--takeover", "P", env=self.env)

    @property
    def script(self) -> Path:
        return self.directory / "P_dbUtil.sh"

    def attach(
        self, *options: str, directory: Path | None = None, env: Mapping[str, str] | None = None
    ) -> Attaching:
        """`P_dbUtil.sh OPTIONS`."""
        until((self.directory / "P_connect.json").exists, "the connect file", self.directory)
        where = directory or self.directory
        return Attaching(self.script, where, *options, env={**self.env, **(env or {})})

    def asked(self, *words: str) -> tuple[int, str]:
        """`P_dbUtil.sh WORDS`: its exit code, and what it says."""
        done = call([self.script, *words], self.directory, self.env)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def open_gate(self) -> None:
        """Tasks that are held may end, and others need not wait."""
        self._gates.append(os.open(self.directory / "gate", os.O_RDWR | os.O_CLOEXEC))

    def ran(self) -> list[tuple[int, int]]:
        """Who (rank) ran what (task)."""
        path = self.directory / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(rank), int(task)) for rank, task in (line.split() for line in lines)]

    def until_ran(self, count: int) -> None:
        until(lambda: len(self.ran()) >= count, f"{count} starts", self.directory)

    def by_rank(self) -> Counter[int]:
        """How many each engine started."""
        return Counter(rank for rank, _ in self.ran())

    @property
    def status(self) -> Path:
        return self.directory / "P_status.txt"

    def leave_status(self) -> Path:
        """The run is over: leave nothing but its status file, for one that resumes it; under this name."""
        first = self.status.rename(self.directory / "first.txt")
        for path in self.directory.glob("P_*"):
            path.unlink()
        return first

    def check_each(self, count: int) -> None:
        """Tasks 0 to count - 1 each have one line that counts."""
        assert sorted(tasks(self.status)) == list(range(count))

    def check_each_once(self, count: int) -> None:
        """... and were started once."""
        self.check_each(count)
        assert Counter(task for _, task in self.ran()) == Counter(range(count))

    def until_gone(self) -> None:
        gone(lambda: processes(f"{MARK}={self.directory}"), "the end of all processes")

    def close(self) -> None:
        for descriptor in self._gates:
            os.close(descriptor)
        for pid in processes(f"{MARK}={self.directory}"):
            kill(pid)
