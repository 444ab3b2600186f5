"""A run under test and all of its processes: what is there, what it said, and when something happens."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from changes import Changes
from chaos_evidence import Place
from command import environment
from processes import TOKEN, command_line

DISBATCH = str(Path(sys.executable).with_name("disbatch"))
DBUTIL = str(Path(sys.executable).with_name("dbutil"))
NOTHING_HAPPENS = 1.0
"""Seconds without any change in the run's directory, after which nobody waits for one."""


@dataclass(frozen=True)
class Process:
    """A living process of the run. `place`: as its own host numbers it. `engine`: whose task it is, by the
    engine's name; `task`: its id."""

    pid: int
    parent: int
    place: Place
    command: str
    engine: str
    task: int | None

    @property
    def is_engine(self) -> bool:
        python = (
            "python" in Path(self.command.split(" ", 1)[0]).name
        )  # not ssh, nor a shell, with that command
        return python and re.search(r"disbatch\.engine(?!\.keeper)", self.command) is not None

    @property
    def is_keeper(self) -> bool:
        return "disbatch.engine.keeper" in self.command

    @property
    def is_attach(self) -> bool:
        return "dbutil" in self.command and " attach " in self.command and not self.engine


class Command:
    """disbatch or dbutil in the background; what it says goes to a file in the run's directory."""

    def __init__(self, world: World, argv: list[str], name: str) -> None:
        self.err = world.directory / f"stderr.{name}"
        self.name = name
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                argv,
                cwd=world.directory,
                env=world.environment,
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
            )
        self.pidfd = os.pidfd_open(self.process.pid)

    @property
    def code(self) -> int | None:
        """The exit status, once there is one."""
        return self.process.poll()

    @property
    def said(self) -> str:
        return self.err.read_text(errors="replace")


class World:
    """Where a plan takes place: a directory, this machine, and the hosts of `lab`, if there are any."""

    def __init__(self, directory: Path, lab: Any | None) -> None:
        self.directory = directory
        self.lab = lab
        self.token = uuid.uuid4().hex
        temporary = directory / "t"
        temporary.mkdir()
        base = environment({TOKEN: self.token, "TMPDIR": str(temporary)})
        base.pop("HOSTNAME", None)  # a shell would keep it instead of asking
        self.environment = base if lab is None else {**base, "PATH": lab.env["PATH"]}
        self.commands: list[Command] = []
        self.history: list[str] = []
        self._begun = time.monotonic()
        self._kept: dict[str, Path] = {}
        self._generations: set[tuple[str, int]] = set()
        self.here = os.uname().nodename
        spaces = {} if lab is None else {lab.space(host): host for host in lab.hosts}
        self._spaces = {os.readlink("/proc/self/ns/pid"): self.here, **spaces}
        self.halted: list[Process] = []
        """In the order in which they were."""
        self.cut_off: list[str] = []
        self._lines = directory / "lines"
        self._lines.touch()
        self._read = self._starts = 0

    def note(self, text: str) -> None:
        """What was done, and what came of it."""
        self.history.append(f"{time.monotonic() - self._begun:7.2f} {text}")
        (self.directory / "history").write_text("\n".join(self.history) + "\n")

    # ---- commands ----

    def start(self, *argv: str) -> Command:
        """On the head, if there is one."""
        whole = list(argv) if self.lab is None else self.lab.head(list(argv))
        return self._start(whole, " ".join([Path(argv[0]).name, *argv[1:]]))

    def start_on(self, host: str, *argv: str) -> Command:
        """Among the processes of that host."""
        assert self.lab is not None
        init = (self.lab.directory / "run" / f"{host}.init").read_text().strip()
        enter = ["nsenter", "-t", init, "-p", "-m", "-u", "-n", f"--wd={self.directory}", *argv]
        return self._start(enter, f"on {host}: {' '.join([Path(argv[0]).name, *argv[1:]])}")

    def _start(self, argv: list[str], words: str) -> Command:
        command = Command(self, argv, f"{len(self.commands)}")
        self.commands.append(command)
        self.note(f"started [{command.name}] {words}")
        return command

    def ask(self, *words: str) -> tuple[int, str]:
        """What `dbutil WORDS` comes to: exit status, and what it said."""
        command = self.start(DBUTIL, *words)
        assert self.until(lambda: command.code is not None, 30, quiet=30), f"dbutil {words} does not end"
        assert command.code is not None
        said = command.said
        self.note(f"[{command.name}] exit {command.code}: {said.strip()}")
        return command.code, said

    # ---- what happens ----

    def keep(self, name: str) -> None:
        """Keep each file that will ever have that name: as kept.NAME.1, ..."""
        self._kept[name] = self.directory / name
        self.keep_files()

    def kept(self, name: str) -> list[Path]:
        """The files that had that name, oldest first."""
        paths = self.directory.glob(f"kept.{name}.*")
        return sorted(paths, key=lambda path: int(path.suffix[1:]))

    def keep_files(self) -> None:
        """Those that are there now: also done whenever anything is waited for."""
        for name, path in self._kept.items():
            try:
                generation = (name, path.stat().st_ino)
                if generation not in self._generations:
                    os.link(path, self.directory / f"kept.{name}.{len(self._generations)}")
                    self._generations.add(generation)
            except FileNotFoundError:
                continue

    def until(
        self,
        condition: Callable[[], Any],
        seconds: float,
        *,
        quiet: float = NOTHING_HAPPENS,
        also: tuple[int, ...] = (),
    ) -> bool:
        """Wait until it is so: looked at whenever a file of the run has changed, a command has ended, or one
        of the descriptors `also` is readable. False if it is not after `seconds`, or if nothing happens for
        `quiet` seconds."""
        deadline = time.monotonic() + seconds
        ends = tuple(command.pidfd for command in self.commands if command.code is None)
        with Changes(self.directory, also=ends + also) as changes:
            while True:
                self.keep_files()
                if condition():
                    return True
                now = time.monotonic()
                if now >= deadline or not changes.wait(min(deadline, now + quiet)):
                    return bool(condition())
                if any(command.pidfd in ends and command.code is not None for command in self.commands):
                    # It would be news for ever.
                    return self.until(condition, deadline - now, quiet=quiet, also=also)

    def starts(self) -> int:
        """How often a task has started."""
        with self._lines.open("rb") as lines:
            lines.seek(self._read)
            new = lines.read()
        self._read += len(new)
        self._starts += new.count(b"S ")
        return self._starts

    def until_starts(self, count: int, stopped: Callable[[], bool]) -> None:
        """Until so many more tasks have started, or nothing starts any more."""
        wanted = self.starts() + count
        while self.starts() < wanted and not stopped():
            known = self.starts()
            if not self.until(lambda: self.starts() > known or stopped(), NOTHING_HAPPENS):  # noqa: B023
                return

    # ---- processes ----

    def processes(self) -> list[Process]:
        """Of the run, on all hosts, but for its commands' wrappers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    process = self._process(entry)
                except OSError:
                    continue
                if process is not None:
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def _process(self, entry: Path) -> Process | None:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        if state in "ZX":
            return None
        variables = (entry / "environ").read_bytes().split(b"\0")
        command = command_line(int(entry.name))
        marked = f"{TOKEN}={self.token}".encode() in variables
        if not marked:
            here = os.readlink(entry / "cwd") == str(self.directory)
            if not (here and "disbatch.engine" in command):
                return None
        named = dict(v.split(b"=", 1) for v in variables if v.startswith(b"DISBATCH_"))
        numbers = re.search(r"^NSpid:\s(.*)$", (entry / "status").read_text(), re.MULTILINE)
        assert numbers is not None
        node = self._spaces.get(os.readlink(entry / "ns/pid"), "?")
        task = named.get(b"DISBATCH_TASKID")
        return Process(
            pid=int(entry.name),
            parent=int(parent),
            place=Place(node, int(numbers[1].split()[-1])),
            command=command,
            engine=named.get(b"DISBATCH_ENGINE", b"").decode(),
            task=None if task is None else int(task),
        )

    def engines(self) -> list[Process]:
        """Those whose tasks a keeper would end: the tasks of one without a keeper are nobody's if it dies."""
        there = self.processes()
        keepers = {process.pid for process in there if process.is_keeper}
        return [process for process in there if process.is_engine and process.parent in keepers]

    def tasks(self) -> list[Process]:
        """The shells of tasks."""
        there = self.processes()
        engines = {process.pid for process in there if process.is_engine}
        return [p for p in there if p.task is not None and p.parent in engines and "bash" in p.command]

    def until_gone(self, find: Callable[[], list[Process]], seconds: float) -> list[Process]:
        """Wait until it finds no process any more; those that are there after so many seconds."""
        deadline = time.monotonic() + seconds
        while left := find():
            for process in left:
                if not self._until_ended(process.pid, deadline):
                    return find()
        return []

    def _until_ended(self, pid: int, deadline: float) -> bool:
        """False at the deadline."""
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            seconds = max(0.0, deadline - time.monotonic())
            ended = lambda: bool(select.select([pidfd], [], [], 0)[0])  # noqa: E731
            return self.until(ended, seconds, quiet=seconds, also=(pidfd,))
        finally:
            os.close(pidfd)

    # ---- what is done to them ----

    def kill(self, one: Process, number: signal.Signals) -> bool:
        """False if it is not there any more."""
        try:
            os.kill(one.pid, number)
        except ProcessLookupError:
            return False
        self.note(f"{number.name} to {one.pid} {one.place} {one.command[:60]}")
        return True

    def halt(self, one: Process) -> None:
        """SIGSTOP, until it is released."""
        if self.kill(one, signal.SIGSTOP):
            self.halted.append(one)

    def release(self, count: int | None = None) -> None:
        """SIGCONT for so many that were halted first, or for all."""
        for one in self.halted[:count]:
            self.halted.remove(one)
            self.kill(one, signal.SIGCONT)
            if one.is_attach:  # nsenter halts itself when the command does that it has started
                for wrapper in [each for each in self.processes() if "nsenter" in each.command]:
                    self.kill(wrapper, signal.SIGCONT)

    @property
    def hosts(self) -> list[str]:
        """The lab's, if there is one."""
        return [] if self.lab is None else list(self.lab.hosts)

    def cut(self, host: str) -> None:
        """Take a host off the network, until it is healed."""
        assert self.lab is not None
        self.lab.cut(host)
        self.cut_off.append(host)
        self.note(f"cut {host}")

    def heal(self, count: int | None = None) -> None:
        """Bring so many hosts back that were cut first, or all."""
        for host in self.cut_off[:count]:
            assert self.lab is not None
            self.lab.heal(host)
            self.cut_off.remove(host)
            self.note(f"healed {host}")

    def reset(self, host: str) -> None:
        """Break all connections to a host."""
        assert self.lab is not None
        self.lab.reset_connections(host)
        self.note(f"reset the connections to {host}")

    def close(self) -> None:
        """Leave nothing behind, whatever came of it."""
        self.heal()
        for _ in range(5):
            for process in self.processes():
                self.kill(process, signal.SIGKILL)
        for command in self.commands:
            command.process.kill()
            command.process.wait()
            os.close(command.pidfd)


def living(processes: list[Process]) -> Iterator[str]:
    """A line for each, for people."""
    for process in processes:
        yield f"{process.pid} on {process.place.node}: {process.command[:150]}"
