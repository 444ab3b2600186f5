"""Carries a plan out on a run, mends what is broken after it, sees the run to its end, and looks at it."""

from __future__ import annotations

from typing import Any

from chaos_check import complaints
from chaos_deeds import Deeds
from chaos_evidence import Evidence, read_life, read_said
from chaos_lives import LEFT, PATIENCE, Lives
from chaos_plan import Plan
from chaos_world import Command, World, living

PYTHON_BEGINS = "Fatal Python error: init_import_site"
"""What Python itself prints if it is interrupted while it starts."""


class Story:
    """One plan, carried out in a world."""

    def __init__(self, plan: Plan, world: World) -> None:
        self.plan = plan
        self.world = world
        self.lives = Lives(plan, world)
        self.deeds = Deeds(world, self.lives)
        self.problems = self.lives.problems

    def tell(self) -> list[str]:
        """From the first line to the last; what was wrong."""
        world, lives = self.world, self.lives
        (world.directory / "Tasks").write_text("".join(f"{line}\n" for line in self.plan.lines))
        (world.directory / "plan").write_text("".join(f"{step}\n" for step in self.plan.steps))
        lives.begin()
        for step in self.plan.steps:
            if lives.go_on():
                self.deeds.wait_for(step)
            if not lives.go_on():
                break
            world.note(f"step: {step}")
            self.deeds.perform(step)
        self._mend()
        self._see_it_out()
        self._look()
        return self.problems

    def _mend(self) -> None:
        """What the plan has broken and not mended itself."""
        world = self.world
        world.note("mending")
        world.release()
        world.heal()
        if self.lives.go_on() and not self.lives.is_driven:
            self.lives.take_over()
        if self.deeds.paused:
            world.until(self._goes_on, PATIENCE, quiet=PATIENCE)

    def _goes_on(self) -> bool:
        """Nothing is paused any more: another driver may still be on its way."""
        self.deeds.unpause()
        return not self.deeds.paused or not self.lives.is_driven

    def _see_it_out(self) -> None:
        """Until the run is complete, resumed as often as need be, and nothing of it is left."""
        lives, world = self.lives, self.world
        while lives.go_on():
            lives.take_over()
            driver, known = lives.driver, lives.asked_for_nodes()
            assert driver is not None

            def news(driver: Command = driver, known: int = known) -> bool:
                return driver.code is not None or lives.asked_for_nodes() > known

            assert world.until(news, 2 * PATIENCE, quiet=2 * PATIENCE), "the run does not end"
        left = world.until_gone(world.processes, LEFT)
        world.note("nothing is left" if not left else "something is left")
        if left:
            self.problems.append(f"left {LEFT:g} s after the end: {'; '.join(living(left))}")

    def _look(self) -> None:
        directory = self.world.directory
        self.problems += complaints(self._evidence())
        for command in self.world.commands:
            if command.said.startswith(PYTHON_BEGINS):
                continue  # it was interrupted before there was any of our code
            if "Traceback" in command.said or "internal error" in command.said:
                self.problems.append(f"[{command.name}] said: {command.said}")
        for path in sorted([*directory.glob("*_driver.txt"), *directory.glob("*_engine.txt")]):
            text = path.read_text(errors="replace")
            if "Traceback" in text or " ERROR " in text:
                self.problems.append(f"{path.name} holds an error")
        for name in ("connect", "run"):
            if (directory / f"{self.lives.life.prefix}_{name}.json").exists():
                self.problems.append(f"the {name} file is still there")

    def _evidence(self) -> Evidence:
        directory = self.world.directory
        attempts, commands, odd = read_said((directory / "lines").read_text())
        self.problems += [f"an odd line: {line}" for line in odd]
        evidence = Evidence(
            self.plan.ids,
            self.plan.barriers,
            self.plan.first_line,
            attempts=attempts,
            commands=commands,
            killed=self.deeds.killed_tasks,
            cancelled=self.deeds.cancelled,
            orders=self.deeds.orders,
        )
        for life in self.lives.all:
            words: list[Any] = life.context
            limit = int(words[words.index("-C") + 1]) if "-C" in words else None
            lived = read_life(directory, life.prefix, self.world.kept(life.run_file), limit, life.began)
            for engine in lived.engines.values():
                if engine.process is not None:
                    engine.killed = self.deeds.killed_engines.get(engine.process)
            evidence.lives.append(lived)
        return evidence
