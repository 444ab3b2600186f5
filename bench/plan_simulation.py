"""What the plan costs: microseconds and memory a task, from one engine to ten thousand, without any I/O.

    python bench/plan_simulation.py [--tasks N]

Each row runs the very `Plan` with the least world that it can have: engines that run each task at once, in
batches as a real engine coalesces them. Each row is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections import deque
from itertools import count, islice

from disbatch.model.task import Outcome, Task
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import (
    Action,
    Assign,
    Event,
    Finish,
    Finished,
    Joined,
    Left,
    Read,
    Recall,
    RecordTask,
    Release,
    Returned,
    SourceEnded,
    Verdict,
)
from disbatch.plan.plan import Plan

SHAPES = ((1, 2, 1), (1, 2, 8), (1_000, 8, 1), (1_000, 8, 8), (10_000, 16, 1), (10_000, 16, 8))
"""Engines, slots of each, results in one message."""
SECONDS = 30.0
"""What the tasks claim to have taken: long ones, so that no queue hides the cost of a single dispatch."""


class Simulation:
    """A plan, engines that are one list each, and a count of what was recorded."""

    def __init__(self, engines: int, slots: int, batch: int) -> None:
        self.plan = Plan()
        self.batch = batch
        self.held: dict[str, list[int]] = {f"n{i}": [] for i in range(engines)}
        self.answers: deque[Event] = deque(Joined(name, Capacity(slots), []) for name in self.held)
        self.recorded = 0
        self.over = False

    def perform(self, actions: list[Action]) -> None:
        """Do what the plan says; every engine that got work will answer."""
        for action in actions:
            if type(action) is RecordTask:
                self.recorded += action.verdict is Verdict.COUNTS
            elif type(action) is Assign:
                held = self.held[action.engine]
                held += [attempt for attempt, _ in action.pairs]
                while len(held) >= self.batch:
                    self.answer(action.engine, self.batch)
            elif type(action) is Recall:
                held = self.held[action.engine]
                back = [attempt for attempt in action.attempts if attempt in held]
                for attempt in back:
                    held.remove(attempt)
                self.answers.append(Returned(action.engine, back))
            elif type(action) is Release:
                self.answers.append(Left(action.engine))
            elif type(action) is Finish:
                self.over = True

    def answer(self, engine: str, most: int) -> None:
        """The oldest `most` tasks of an engine are done."""
        held = self.held[engine]
        done, held[:] = held[:most], held[most:]
        self.answers.append(
            Finished(engine, [Outcome(a, 0, 9, 0, SECONDS, 1.0, 2.0, 0, b"", 0, b"") for a in done])
        )

    def run(self, tasks: int) -> None:
        """`tasks` tasks from the first to the last, read only as the plan has room."""
        numbers = count()
        source = islice((Task(i, i + 1, -1, b"true") for i in numbers), tasks)
        ended = False
        plan = self.plan
        while not self.over:
            if self.answers:
                self.perform(plan.handle(self.answers.popleft()))
            else:
                for name, held in self.held.items():
                    if held:
                        self.answer(name, len(held))
            while (room := plan.room) > 0 and not ended:
                items = list(islice(source, room))
                if items:
                    self.perform(plan.handle(Read([*items])))
                if len(items) < room:
                    ended = True
                    self.perform(plan.handle(SourceEnded()))
        if self.recorded != tasks:
            raise SystemExit(f"{self.recorded} of {tasks} tasks were recorded")


def measure(engines: int, slots: int, batch: int, tasks: int) -> None:
    """Print one row: this process's CPU time for the plan with its world, and its peak memory."""
    simulation = Simulation(engines, slots, batch)
    begun = time.process_time()
    simulation.run(tasks)
    each = (time.process_time() - begun) / tasks * 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{engines:>8,} {slots:>6} {batch:>6} {tasks:>10,} {each:>7.2f} us/task {peak:>6.0f} MB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--row", type=int, nargs=4, metavar=("ENGINES", "SLOTS", "BATCH", "TASKS"))
    options = parser.parse_args()
    if options.row:
        measure(*options.row)
        return
    print(
        f"{'engines':>8} {'slots':>6} {'batch':>6} {'tasks':>10}   plan and its small world, CPU; peak memory"
    )
    rows = [(*shape, options.tasks) for shape in SHAPES]
    rows.insert(0, (1, 2, 1, max(1, options.tasks // 10)))
    for row in rows:
        command = [sys.executable, os.path.abspath(__file__), "--row", *map(str, row)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
