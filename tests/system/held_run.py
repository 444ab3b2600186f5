"""A run on this machine, some of whose tasks wait for a word, and whose driver is killed and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from command import Running, call, environment, gone, kill, processes, tasks, until, write

DBUTIL = str(Path(sys.executable).with_name("dbutil"))
QUICK = "echo $DISBATCH_TASKID $DISBATCH_ENGINE_RANK >> ran"
HELD = f"{QUICK}; read line < fifo{{}}"
GATED = f"{QUICK}; read line < gate"


class Held:
    """A run `P` on this machine, some of whose tasks wait for a word through a FIFO."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.fifos: dict[int, int] = {}
        self.lines: list[str] = []
        self._gate = -1
        self.mark = {"OF_THIS_TEST": str(directory)}
        """In the environment of all processes of its runs."""

    def task(self, held: int | None = None) -> None:
        """One more task; it waits for `let_go(held)`."""
        if held is None:
            self.lines.append(QUICK)
            return
        path = self.directory / f"fifo{held}"
        os.mkfifo(path)
        self.fifos[held] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.lines.append(HELD.format(held))

    def gated(self, count: int) -> None:
        """So many more tasks, which wait until they are let pass."""
        self.lines += [GATED] * count
        if self._gate < 0:
            os.mkfifo(self.directory / "gate")
            self._gate = os.open(self.directory / "gate", os.O_RDWR | os.O_CLOEXEC)

    def let_go(self, held: int) -> None:
        os.write(self.fifos[held], b"go\n")

    def let_pass(self, count: int) -> None:
        """Let so many of the gated tasks end, whichever."""
        os.write(self._gate, b"\n" * count)

    def _told(self) -> list[list[int]]:
        path = self.directory / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        return [[int(word) for word in line.split()] for line in lines]

    def ran(self) -> Counter[int]:
        """How often each task has started."""
        return Counter(id for id, _ in self._told())

    def ranks(self) -> Counter[int]:
        """How many tasks the engine of each rank has started."""
        return Counter(rank for _, rank in self._told())

    def until_recorded(self, count: int) -> None:
        """Wait for so many lines that count."""
        status = self.directory / "P_status.txt"
        until(lambda: len(tasks(status)) >= count, f"{count} records", self.directory)

    def dbutil(self, *words: str) -> str:
        """What it says, without errors."""
        done = call([DBUTIL, *words], self.directory)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def attach(self, *words: str) -> subprocess.Popen[bytes]:
        """A context of this machine, added to the run."""
        with (self.directory / "attached").open("ab") as said:
            return subprocess.Popen(
                [DBUTIL, "attach", "--run", "P", *words],
                cwd=self.directory,
                env=environment(self.mark),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def until_ran(self, *ids: int) -> None:
        until(lambda: set(self.ran()) >= set(ids), f"tasks {ids}", self.directory)

    def begin_and_kill(self, *ids: int, options: tuple[str, ...] = ("-s", "localhost:2")) -> None:
        """Start the run, wait until these have started, kill the driver."""
        with self.beginning(*options) as run:
            run.until(lambda: set(self.ran()) >= set(ids), f"tasks {ids}")
            self.kill(run)

    def beginning(self, *options: str) -> Running:
        """The run, by its first driver."""
        write(self.directory / "Tasks", self.lines)
        return Running(self.directory, *options, "-p", "P", "Tasks", env=self.mark)

    def kill(self, run: Running) -> None:
        """Without a word."""
        run.signal(signal.SIGKILL)
        assert run.ended() == -signal.SIGKILL

    def taking_over(self, *options: str) -> Running:
        return Running(self.directory, "--takeover", "P", *options, env=self.mark)

    def check(self, ids: int) -> None:
        """Every task ran once and is recorded once, and nothing is left."""
        assert self.ran() == Counter(range(ids))
        assert sorted(tasks(self.directory / "P_status.txt")) == list(range(ids))
        assert not (self.directory / "P_connect.json").exists()
        assert not (self.directory / "P_run.json").exists()
        gone(lambda: processes(str(self.directory)), "the end of all processes")

    def close(self) -> None:
        for descriptor in (*self.fifos.values(), *([self._gate] if self._gate >= 0 else [])):
            os.close(descriptor)
        for pid in processes(str(self.directory)):
            kill(pid)
