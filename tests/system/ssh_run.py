"""A run over ssh under test: its tasks tell when they start, and wait until they may end."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from processes import TOKEN, children, command_line

from deadline import DEADLINE
from disbatch.model.statusline import Mark, Record, parse_line

DISBATCH = str(Path(sys.executable).with_name("disbatch"))
QUICK = ["--patience", "3", "--heartbeat", "0.5", "--grace", "1"]
"""A lost host is noticed after 3 to 4 seconds."""

TELL = 'echo "$DISBATCH_TASKID $(hostname) $DISBATCH_CYLINDER_RANK" > told'
HELD = f"{TELL}; : < gate"
"""A task that says where it starts and then waits until the gate is open; opening is an event for it, too."""


class Told(NamedTuple):
    """What a task says when it starts."""

    task: int
    host: str
    slot: int


class Run:
    """One run in a directory of its own, in which `told` and `gate` are FIFOs.

    Nothing here looks again and again: stderr, `told` and the end of the process wake `until` up.
    """

    def __init__(self, lab: Any, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.token = uuid.uuid4().hex
        self.environment: dict[str, str] = {}
        self.told: list[Told] = []
        self.stderr = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        for name in ("told", "gate"):
            os.mkfifo(directory / name)
        self._reader = os.open(directory / "told", os.O_RDWR | os.O_CLOEXEC)
        self._gates: list[int] = []

    def tasks(self, *lines: str, name: str = "Tasks") -> None:
        (self.directory / name).write_text("".join(line + "\n" for line in lines))

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> None:
        """`disbatch ARGUMENTS` on the head."""
        environment = {**self.lab.env, TOKEN: self.token, **self.environment}
        self.stderr = ""
        self.process = subprocess.Popen(
            self.lab.head([DISBATCH, *arguments]),
            cwd=self.directory,
            env=environment,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait until it is so; looked at whenever a task told something or disbatch said something."""
        deadline = time.monotonic() + DEADLINE
        assert self.process is not None and self.process.stderr is not None
        stderr = self.process.stderr.fileno()
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while not (answer := condition()):
                left = deadline - time.monotonic()
                ready = select.select([self._reader, stderr, pidfd], [], [], max(0, left))[0]
                assert ready, f"not within {DEADLINE:g} s: {what}\n{self}"
                if self._reader in ready:
                    self._listen()
                if stderr in ready:
                    self.stderr += (os.read(stderr, 65536) or b"").decode(errors="replace")
                if pidfd in ready and not (answer := condition()):
                    raise AssertionError(f"disbatch ended before: {what}\n{self}")
            return answer
        finally:
            os.close(pidfd)

    def _listen(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._reader, 65536)).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if len(words) == 3:  # else a signal to the whole task ended `hostname` before it could answer
                task, host, slot = words
                self.told.append(Told(int(task), host, int(slot)))

    def __str__(self) -> str:
        logs = "".join(f"--- {path.name}\n{path.read_text()}" for path in self.directory.glob("*_engine.txt"))
        log = "".join(path.read_text() for path in self.directory.glob("disBatch_*_driver.txt"))
        return f"stderr:\n{self.stderr}\ntold: {self.told}\nlog:\n{log}{logs}"

    def until_told(self, count: int) -> list[Told]:
        """Wait for that many starts (of all since the beginning)."""
        self.until(lambda: len(self.told) >= count, f"{count} starts")
        return self.told

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.stderr, f"saying {text!r}")

    def open_gate(self, name: str = "gate") -> None:
        """Tasks that are held by this FIFO may end, and new ones need not wait."""
        path = self.directory / name
        if not path.exists():
            os.mkfifo(path)
        self._gates.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))

    def end(self) -> int:
        """Wait for the end of disbatch; its exit status."""
        assert self.process is not None and self.process.stderr is not None
        pidfd, stderr = os.pidfd_open(self.process.pid), self.process.stderr.fileno()
        deadline = time.monotonic() + DEADLINE
        ready: list[int] = []
        while pidfd not in ready:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([self._reader, stderr, pidfd], [], [], left)[0]
            assert ready, f"disbatch does not end\n{self}"
            if self._reader in ready:
                self._listen()
            if stderr in ready:
                self.stderr += os.read(stderr, 65536).decode(errors="replace")
        os.close(pidfd)
        code = self.process.wait()
        while data := (self.process.stderr.read() or b""):
            self.stderr += data.decode(errors="replace")
        while select.select([self._reader], [], [], 0)[0]:
            self._listen()
        self.process.stderr.close()
        return code

    def signal(self, number: int) -> None:
        """Send the driver a signal; the wrapper around it has become the driver by exec."""
        assert self.process is not None
        self.process.send_signal(number)

    def children(self) -> list[int]:
        """The driver's own: ssh, and an engine on the head."""
        assert self.process is not None
        return children(self.process.pid)

    def kill_driver(self) -> None:
        """SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        assert self.end() == -signal.SIGKILL

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing behind, whatever the test came to."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for descriptor in (*self._gates, self._reader):
            os.close(descriptor)
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    # ---- what came of it ----

    @property
    def status_file(self) -> Path:
        """The newest one."""
        return max(self.directory.glob("*_status.txt"), key=lambda path: path.stat().st_ctime_ns)

    def log(self, host: str) -> str:
        """The log of a host's engine."""
        (path,) = self.directory.glob(f"*_{host}_engine.txt")
        return path.read_text()

    def records(self, path: Path | None = None) -> list[Record]:
        lines = (path or self.status_file).read_bytes().splitlines()
        records = [parse_line(line) for line in lines]
        return [record for record in records if record is not None]

    def counting(self) -> list[Record]:
        return [record for record in self.records() if record.mark is Mark.TASK]

    def check_each_once(self, number: int) -> list[Record]:
        """Tasks 0 to number - 1 each have exactly one line that counts, and succeeded."""
        records = self.counting()
        assert Counter(record.id for record in records) == Counter(range(number)), str(self)
        assert all(record.return_code == 0 for record in records), str(self)
        return records

    # ---- processes of the run, on all hosts ----

    def processes(self, host: str | None = None) -> list[int]:
        """Engines, keepers and tasks of the run; on one host or everywhere. Numbers as seen from here."""
        space = None if host is None else self.lab.space(host)
        wanted, here = f"{TOKEN}={self.token}".encode(), os.fsencode(self.directory)
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if space is not None and os.readlink(entry / "ns/pid") != space:
                    continue
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    continue
                environment = (entry / "environ").read_bytes().split(b"\0")
                working = os.fsencode(os.readlink(entry / "cwd"))
            except OSError:
                continue
            command = command_line(int(entry.name))
            if wanted in environment or (working == here and "disbatch.engine" in command):
                found.append(int(entry.name))
        return found

    def engines(self, host: str) -> list[int]:
        """The engine processes on a host."""
        commands = {pid: command_line(pid) for pid in self.processes(host)}
        return [
            pid for pid, command in commands.items() if re.search(r"disbatch\.engine(?!\.keeper)", command)
        ]

    def attempt(self, task: int, host: str) -> list[int]:
        """The shells that run this task on a host."""
        wanted, found = f"DISBATCH_TASKID={task}".encode(), []
        for pid in self.processes(host):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:
                continue
            if wanted in environment.split(b"\0"):
                found.append(pid)
        return found

    def until_ended(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        assert select.select([pidfd], [], [], DEADLINE)[0], f"{command_line(pid)} stays\n{self}"
        os.close(pidfd)

    def until_gone(self, *hosts: str) -> None:
        """Wait until no process of the run is left (on these hosts)."""
        deadline = time.monotonic() + DEADLINE
        while pids := [pid for host in hosts or (None,) for pid in self.processes(host)]:
            for pid in pids:
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                try:
                    left = max(0.0, deadline - time.monotonic())
                    assert select.select([pidfd], [], [], left)[0], f"{command_line(pid)} stays\n{self}"
                finally:
                    os.close(pidfd)


def most_at_once(records: list[Record]) -> int:
    """How many of these tasks ran at the same time at most, by their start and finish."""
    edges = [(record.start, 1) for record in records] + [(record.finish, -1) for record in records]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most
