"""Does what the steps of a plan say, to whoever is there at that moment."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TypeVar

from chaos_evidence import Order, Place
from chaos_lives import LEFT, Lives
from chaos_plan import Deed, Step, Until
from chaos_world import Process, World

UNTIL_LOST = 8.0
"""Seconds in which an engine that is not heard is given up."""

CALM = (Deed.ATTACH, Deed.ATTACH_FROM_NODE, Deed.CANCEL, Deed.SECOND_DRIVER, Deed.DRAIN)
"""These do not keep anybody from hearing orders."""

Thing = TypeVar("Thing")


@dataclass
class Deeds:
    """`killed_engines`: when; `cancelled`: ids of tasks that somebody wanted to be."""

    world: World
    lives: Lives
    killed_engines: dict[Place, float] = field(default_factory=dict)
    killed_tasks: set[Place] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    paused: bool = False
    orders: list[Order] = field(default_factory=list)
    _calm: Order | None = None
    """The run is paused, and nothing has happened to it since."""

    def wait_for(self, step: Step) -> None:
        """Until the step is due, or the driver has ended, or nothing happens."""
        world, driver = self.world, self.lives.driver
        if (step.deed is Deed.RELEASE and not world.halted) or (step.deed is Deed.HEAL and not world.cut_off):
            return

        def over() -> bool:
            return driver is not None and driver.code is not None

        def given_up() -> int:
            return (
                0
                if driver is None
                else driver.said.count("engine lost:") + driver.said.count("not heard for")
            )

        if step.until is Until.STARTS:
            world.until_starts(step.count, over)
        elif step.until is Until.GONE:
            world.until_gone(world.engines, LEFT)
        elif driver is not None and all(one.pid != driver.process.pid for one in world.halted):
            known = given_up()
            world.until(lambda: over() or given_up() > known, UNTIL_LOST, quiet=UNTIL_LOST)

    def perform(self, step: Step) -> None:
        """One step; nothing if nobody is there whom it could befall."""
        world, lives = self.world, self.lives
        if step.deed not in CALM:
            self._calm_is_over()
        deeds: dict[Deed, Callable[[Step], object]] = {
            Deed.KILL_DRIVER: lambda step: lives.kill_driver(),
            Deed.HALT_DRIVER: lambda step: self._halt(self._driver(), step),
            Deed.KILL_ENGINE: self._kill_engine,
            Deed.HALT_ENGINE: lambda step: self._halt(world.engines(), step),
            Deed.TERMINATE_ENGINE: lambda step: self._signal(world.engines(), step, signal.SIGTERM),
            Deed.KILL_KEEPER: lambda step: self._signal(self._keepers(), step, signal.SIGKILL),
            Deed.HALT_KEEPER: lambda step: self._halt(self._keepers(), step),
            Deed.KILL_TASK: self._kill_task,
            Deed.HALT_TASK: lambda step: self._halt(world.tasks(), step),
            Deed.KILL_ATTACH: lambda step: self._signal(self._attaches(), step, signal.SIGKILL),
            Deed.HALT_ATTACH: lambda step: self._halt(self._attaches(), step),
            Deed.INTERRUPT_ATTACH: lambda step: self._signal(self._attaches(), step, signal.SIGINT),
            Deed.KILL_NODE: self._kill_node,
            Deed.RELEASE: lambda step: world.release(1),
            Deed.CUT: self._cut,
            Deed.HEAL: lambda step: world.heal(1),
            Deed.RESET: self._reset,
            Deed.ATTACH: lambda step: lives.attach(step.words),
            Deed.ATTACH_FROM_NODE: lambda step: lives.attach(step.words[1:], step.words[0]),
            Deed.DRAIN: lambda step: self._let_go("drain", step),
            Deed.STOP: lambda step: self._let_go("stop", step),
            Deed.PAUSE: lambda step: self._pause(),
            Deed.UNPAUSE: lambda step: self.unpause(),
            Deed.CANCEL: self._cancel,
            Deed.FINISH: lambda step: lives.ask("finish"),
            Deed.SECOND_DRIVER: lambda step: lives.second_driver(step.words[0]),
            Deed.TAKE_OVER: lambda step: lives.take_over(),
            Deed.RESUME: lambda step: lives.resume(),
        }
        deeds[step.deed](step)

    # ---- to processes ----

    def _choose(self, things: Sequence[Thing], step: Step) -> Thing | None:
        if not things:
            self.world.note("nobody is there")
            return None
        return things[int(step.pick * len(things))]

    def _driver(self) -> list[Process]:
        """The driver. A takeover that has not said that it begins has no run yet: another one may have it."""
        driver = self.lives.driver
        if driver is None or (
            "--takeover" in driver.process.args and "taking the run over" not in driver.said
        ):
            return []
        return [process for process in self.world.processes() if process.pid == driver.process.pid]

    def _keepers(self) -> list[Process]:
        return [process for process in self.world.processes() if process.is_keeper]

    def _attaches(self) -> list[Process]:
        return [p for p in self.world.processes() if p.is_attach and "nsenter" not in p.command]

    def _signal(self, them: list[Process], step: Step, number: signal.Signals) -> Process | None:
        one = self._choose(them, step)
        return one if one is not None and self.world.kill(one, number) else None

    def _halt(self, them: list[Process], step: Step) -> None:
        one = self._choose(them, step)
        if one is not None:
            self.world.halt(one)

    def _kill_engine(self, step: Step) -> Process | None:
        keepers = {keeper.pid: keeper for keeper in self._keepers()}
        engine = self._signal(self.world.engines(), step, signal.SIGKILL)
        if engine is not None and engine.parent in keepers:  # the number by which its driver knows it
            self.killed_engines[keepers[engine.parent].place] = time.time()
        return engine

    def _kill_node(self, step: Step) -> None:
        there = self.world.processes()
        engine = self._kill_engine(step)
        if engine is None:
            return
        names = {process.engine for process in there if process.parent == engine.pid and process.engine}
        for process in there:
            if process.pid == engine.parent or process.parent == engine.pid or process.engine in names:
                self.world.kill(process, signal.SIGKILL)

    def _kill_task(self, step: Step) -> None:
        task = self._signal(self.world.tasks(), step, signal.SIGKILL)
        if task is not None:
            self.killed_tasks.add(task.place)

    def _cut(self, step: Step) -> None:
        host = self._choose([host for host in self.world.hosts if host not in self.world.cut_off], step)
        if host is not None:
            self.world.cut(host)

    def _reset(self, step: Step) -> None:
        host = self._choose(self.world.hosts, step)
        if host is not None:
            self.world.reset(host)

    # ---- by dbutil ----

    def _let_go(self, verb: str, step: Step) -> None:
        # Here all nodes have one name; without these, nothing is left.
        names = [*self.world.hosts, *sorted(self.lives.labels)] or [self.world.here]
        self.lives.ask(verb, names[int(step.pick * len(names))])

    @property
    def _is_calm(self) -> bool:
        """Whatever is ordered gets to everybody."""
        return self.lives.is_driven and not self.world.halted and not self.world.cut_off

    def _pause(self) -> None:
        code = self.lives.ask("pause")
        self.paused |= code != 2
        if code == 0 and self._is_calm:
            self._calm = Order(len(self.lives.all) - 1, time.time(), inf, None)

    def _calm_is_over(self) -> None:
        calm, self._calm = self._calm, None
        if calm is not None:
            self.orders.append(calm._replace(until=time.time()))

    def unpause(self) -> None:
        """Whether or not it is paused."""
        self._calm_is_over()
        if self.lives.ask("resume") == 0:
            self.paused = False

    def _cancel(self, step: Step) -> None:
        code = self.lives.ask("cancel", *step.words)
        if code == 2:
            return
        first, last = map(int, step.words[0].split("-"))
        self.cancelled.update(range(first, last + 1))  # 3: it may have heard of it
        if code == 0 and self._is_calm:
            self.orders.append(Order(len(self.lives.all) - 1, time.time(), inf, range(first, last + 1)))
