"""The drivers of a run under test: the first one, those that take it over, and those that resume it."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos_plan import ORPHAN_PATIENCE, Plan
from chaos_world import DBUTIL, DISBATCH, Command, World, living

MOST_LIVES = 15
PATIENCE = 60.0
"""Seconds for what must come, on a slow machine."""
LEFT = ORPHAN_PATIENCE + 60.0
"""Seconds after a run's end until nothing of it may be left: engines that were cut off have waited for their
driver, their keepers have ended what they left, and attached contexts have given the driver up."""


@dataclass
class Life:
    """From `disbatch` to its end, with all drivers it had: what its files begin with, when it began, and the
    context that it has itself."""

    prefix: str
    began: float
    context: list[str]

    @property
    def run_file(self) -> str:
        """What it is called."""
        return f"{self.prefix}_run.json"


@dataclass
class Lives:
    """All lives of a plan. `driver`: the one that drives, or drove last; None after it was killed."""

    plan: Plan
    world: World
    all: list[Life] = field(default_factory=list)
    driver: Command | None = None
    problems: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    vacancies: int = 0
    """How often the driver has asked for nodes, as far as somebody heeded it."""

    @property
    def life(self) -> Life:
        """The last one."""
        return self.all[-1]

    @property
    def is_driven(self) -> bool:
        """Somebody drives."""
        return self.driver is not None and self.driver.code is None

    def begin(self) -> None:
        """The first life, or one that resumes what the one before has recorded."""
        known = len(self.all)
        self._begin(["-r", f"{self.life.prefix}_status.txt"] if self.all else [])
        assert self.driver is not None
        if len(self.all) == known:
            # Only the engines' own last words are believed; those that were killed, or never came, had none.
            assert "may still run tasks" in self.driver.said, f"cannot resume: {self.driver.said}"
            self._begin(["--force-resume", "-r", f"{self.life.prefix}_status.txt"])

    def _begin(self, former: Sequence[str]) -> None:
        number, directory = len(self.all), self.world.directory
        assert number < MOST_LIVES, "the run does not come to its end"
        prefix, context = f"P{number}", self.plan.contexts[number]
        life = Life(prefix, time.time(), context)
        self.world.keep(life.run_file)
        argv = [DISBATCH, *context, *self.plan.options, "-p", prefix, *former, "Tasks"]
        self.driver = driver = self.world.start(*argv)
        connect = directory / f"{prefix}_connect.json"
        came = self.world.until(lambda: connect.exists() or driver.code is not None, PATIENCE, quiet=PATIENCE)
        assert came, f"{prefix} does not begin"
        if self.world.kept(life.run_file):
            self.all.append(life)
        self.vacancies = 0

    def go_on(self) -> bool:
        """False if all is done. A run that ended early, though nobody killed its driver, is resumed."""
        while self.driver is not None and self.driver.code is not None:
            code = self.driver.code
            self.world.note(f"the driver [{self.driver.name}] ended with {code}")
            if code == 0:
                return False
            if code == -signal.SIGKILL:
                self.driver = None
                return True
            # `dbutil finish` takes a run over, too, and may be faster than a takeover that has just begun.
            said = self.driver.said
            late = code == 2 and ("a driver has this run" in said or "this run was ended" in said)
            assert code == 3 or late, f"disbatch ended with {code}: {said}"
            self._until_nothing_runs()
            self.begin()
        self._fill_vacancy()
        return True

    def asked_for_nodes(self) -> int:
        """How often the driver did."""
        return 0 if self.driver is None else self.driver.said.count("waiting for some")

    def _fill_vacancy(self) -> None:
        if self.asked_for_nodes() > self.vacancies:
            self.vacancies = self.asked_for_nodes()
            self.attach(["-s", "nodeB:3" if self.world.hosts else "localhost:3", *self.plan.tunnel])

    def _until_nothing_runs(self) -> None:
        """The next life must not begin beside what the last one left: people are told so."""
        world = self.world
        world.release()
        left = world.until_gone(
            lambda: [p for p in world.processes() if p.is_engine or p.task is not None], LEFT
        )
        if left:
            self.problems.append(f"after {LEFT:g} s there are still: {'; '.join(living(left))}")

    # ---- what users do ----

    def attach(self, words: Sequence[str], host: str | None = None) -> None:
        """Nodes for the run, by a command on the head or on that host."""
        argv = [DBUTIL, "attach", "--run", self.life.prefix, *words]
        if host is None:
            self.world.start(*argv)
        else:
            self.world.start_on(host, *argv)
        if "--label" in words:
            self.labels.add(words[words.index("--label") + 1])

    def ask(self, *words: str) -> int:
        """`dbutil WORDS`; its exit status."""
        timeout = ["--timeout", "1"] if self.world.halted else []
        code, said = self.world.ask(words[0], "--run", self.life.prefix, *timeout, *words[1:])
        if code not in (0, 2, 3) or (code and said.count("\n") != 1):
            self.problems.append(f"dbutil {' '.join(words)} ended with {code}: {said}")
        return code

    def kill_driver(self) -> None:
        """And wait for its end."""
        if self.driver is not None and self.is_driven:
            self.driver.process.kill()
            self.driver.process.wait()
            self.world.keep_files()
            self.world.note(f"killed the driver [{self.driver.name}]")

    def take_over(self) -> None:
        """If nobody drives. A driver that was killed while it ended the run has removed its files, which
        another driver would need to take it over: such a run is resumed."""
        if self.is_driven:
            return
        if not (self.world.directory / f"{self.life.prefix}_connect.json").exists():
            self.resume()
            return
        self.driver = self.world.start(DISBATCH, "--takeover", self.life.prefix)
        self.vacancies = 0

    def resume(self) -> None:
        """-r instead, if nobody drives; it is refused while tasks may run."""
        if self.is_driven:
            return
        if self.world.tasks():
            early = self._ended(self.world.start(*self._resumed_with_nothing("early")))
            if self.world.tasks() and early.code != 2:
                self.problems.append(f"a run was resumed while its tasks were running: {early.said}")
        self._until_nothing_runs()
        self.begin()

    def second_driver(self, option: str) -> None:
        """Nobody may take the run of a driver that lives, nor resume it."""
        if not self.is_driven:
            return
        argv = [DISBATCH, "--takeover", self.life.prefix]
        second = self._ended(
            self.world.start(*(argv if option == "--takeover" else self._resumed_with_nothing("second")))
        )
        if self.is_driven and (second.code != 2 or second.said.count("\n") != 1):
            self.problems.append(f"a second driver was not refused in one line: {second.said}")

    def _resumed_with_nothing(self, name: str) -> list[str]:
        """Resumes the run, but without nodes: if nobody refuses it, nothing runs."""
        status = f"{self.life.prefix}_status.txt"
        return [DISBATCH, "-S", "--wait-for-engines", "0", "-p", name, "-r", status, "Tasks"]

    def _ended(self, command: Command) -> Command:
        ended = self.world.until(lambda: command.code is not None, PATIENCE, quiet=PATIENCE)
        assert ended, f"[{command.name}] does not end"
        self.world.note(f"[{command.name}] exit {command.code}: {command.said.strip()}")
        return command
