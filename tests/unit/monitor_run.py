"""A run for the monitor to show, that changes as a test wants and does what it is asked."""

from __future__ import annotations

import asyncio
import math

import msgspec
from report_lines import BASE

from disbatch.model.errors import DisbatchError, UsageError
from disbatch.model.view import CoursePoint, EngineRow, FailureKind, FailureRow, LogRow, RunningRow, RunView
from disbatch.watch.run_state import Standing, of_driver
from disbatch.wire.client_protocol import Verb

NODES = [
    EngineRow("0-a", "node1", 0, "", "active", 16, 16, 4, 612, 0, 2.5, 1.2, 15.75, 27 << 30, 64 << 30),
    EngineRow("1-b", "node2", 1, "", "active", 16, 16, 4, 598, 3, 2.4, 0.4, 15.9, 25 << 30, 64 << 30),
    EngineRow("2-c", "node3", 2, "", "draining", 16, 7, 0, 401, 11, 1.1, 2.1, 8.02, 50 << 30, 64 << 30),
    EngineRow("3-d", "node4", 3, "", "lost", 16, 0, 0, 220, 0, None, 41.0, None, None, None),
    EngineRow("4-e", "node5", 4, "", "left", 16, 0, 0, 88, 0),
]
TASKS = [
    RunningRow(
        1919 - at, 1920 - at, f"{at % 3}-x", f"node{at % 3 + 1}", 3.2 * at, f"./simulate --seed {1919 - at}"
    )
    for at in range(39)
]
FAILURES = [
    FailureRow(
        number=number,
        id=40 * number,
        line=40 * number + 1,
        node="node3" if number % 4 else "node2",
        return_code=3 if number % 3 else -9,
        seconds=1.4 * number,
        time=BASE + 20 * number,
        snippet="no convergence after 10000 steps\n" if number % 3 else "",
        command=f"./simulate --seed {40 * number}",
        last_line="no convergence after 10000 steps" if number % 3 else "",
    )
    for number in range(1, 15)
]
LOG = [
    LogRow(1, BASE + 61, "node3: draining; 16 tasks are running there"),
    LogRow(2, BASE + 204, "node4: engine lost: not heard for 15 s; its 16 tasks run again elsewhere"),
]
COURSE = [
    CoursePoint(
        s, int(6.1 * s - 60 * math.sin(s / 20) / (1 + s / 60) - 30 * (1 - math.exp(-s / 9))), 0, 39, 48
    )
    for s in range(0, 313, 4)
]
VIEW = RunView(
    number=7,
    driver=0,
    jobid="260301101500_4711",
    name="Tasks",
    time=BASE + 312,
    started=BASE,
    seconds=312.0,
    mode="running",
    notice="",
    paused=False,
    barrier=None,
    total=4000,
    done=1919,
    failed=14,
    skipped=0,
    skipped_failed=0,
    running=39,
    waiting=72,
    lost=0,
    retried=16,
    slots=48,
    rate=6.1,
    remaining=341.0,
    engines_count=5,
    engines=NODES,
    running_tasks=TASKS,
    failures=FAILURES,
    log=LOG,
    course=COURSE,
    failure_kinds=[
        FailureKind(
            10, 3, "", "no convergence after 10000 steps", 40, 41, "node3", 2, "./simulate --seed 40"
        ),
        FailureKind(4, -9, "", "", 120, 121, "node3", 2, "./simulate --seed 120"),
    ],
    failure_kinds_count=2,
)
RUN = "Tasks_260301101500_4711"


class FakeSource:
    """Tells what a test `put`s; `asked` are the verbs that it was asked to carry out."""

    def __init__(self, *first: Standing | DisbatchError) -> None:
        self._told: asyncio.Queue[Standing | DisbatchError] = asyncio.Queue()
        self.asked: list[Verb] = []
        self.refusal = ""
        self.closed = False
        for each in first:
            self._told.put_nowait(each)

    def put(self, standing: Standing | DisbatchError) -> None:
        self._told.put_nowait(standing)

    async def next(self) -> Standing:
        standing = await self._told.get()
        if isinstance(standing, DisbatchError):
            raise standing
        return standing

    async def ask(self, verb: Verb, patience: float) -> list[str]:
        self.asked.append(verb)
        if self.refusal:
            raise UsageError(self.refusal)
        return ["node1: draining; 16 tasks are running there"]

    def close(self) -> None:
        self.closed = True


def standing(**changes: object) -> Standing:
    """As its driver tells it."""
    return of_driver(RUN, msgspec.structs.replace(VIEW, **changes))
