"""What a run does at the end of its allocation, as a history of a clock, a plan and what is launched."""

from __future__ import annotations

import asyncio

from disbatch.contexts.pool import Pool
from disbatch.contexts.slurm.context import SlurmJob
from disbatch.contexts.slurm.job import Allocation
from disbatch.contexts.walltime import TIME_IS_UP, TimeLimit
from disbatch.plan.events import Drain, Stop


def pool(end: float | None, margin: float | None = None) -> Pool:
    job = SlurmJob(Allocation("7", [], "", frozenset(), end, None, None))
    return Pool(context=job, time_limit_margin=margin)


class Run:
    """What a time limit says and does, in order; engines a and b are there."""

    def __init__(self, end: float | None, margin: float | None = None) -> None:
        self.log: list[object] = []
        self.limit = TimeLimit(
            pool(end, margin),
            5.0,
            notify_user=lambda text: self.log.append("say"),
            handle_event=self.log.append,
            engines=lambda: ["a", "b"],
            launches_end=lambda: self.log.append("no launches"),
            end_is_near=self.log.append,
        )

    def to_the_end(self) -> list[object]:
        now = [0.0]

        async def sleep(seconds: float) -> None:
            now[0] += seconds

        async def ask(timeout: float) -> None:
            return None

        limit = self.limit
        limit._clock, limit._sleep, limit._ask = lambda: now[0], sleep, ask
        asyncio.run(limit.watch())
        return self.log


def test_what_runs_is_ended_and_nobody_is_waited_for() -> None:
    run = Run(1000.0)
    assert run.limit.words == ""
    end = ["no launches", 5.0, Stop("a"), Stop("b"), "no launches"]
    assert run.to_the_end() == ["say", Drain("a"), Drain("b"), *end]
    assert run.limit.words == TIME_IS_UP


def test_an_engine_that_comes_late_is_told_the_same() -> None:
    run = Run(1000.0)
    run.limit.joined("c", "")
    assert run.log == []
    run.to_the_end()
    del run.log[:]
    run.limit.joined("c", "")
    assert run.log == [Stop("c")]


def test_without_an_end_nothing_happens() -> None:
    run = Run(None)

    async def course() -> None:
        run.limit.start()
        run.limit.close()

    asyncio.run(course())
    assert (run.limit.too_late, run.limit.words, run.log) == ("", "", [])


def test_too_late() -> None:
    assert Run(1000.0).limit.too_late == TIME_IS_UP
