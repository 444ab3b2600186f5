"""driver/engine_wait.py: how long a run without engines waits."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from disbatch.driver.engine_wait import EngineWait

Course = Callable[["Bench"], Awaitable[None]]


@dataclasses.dataclass
class Bench:
    waits: float | None
    moved: bool = False
    said: list[str] = dataclasses.field(default_factory=list)
    ended: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.over = asyncio.Event()
        script = Path.cwd() / "P_dbUtil.sh"
        settings: Any = SimpleNamespace(
            waits=self.waits,
            moved=self.moved,
            claimed=SimpleNamespace(files=SimpleNamespace(script=script)),
        )
        loop = asyncio.get_running_loop()
        self.wait = EngineWait(loop, settings, notify_user=self.said.append, give_up=self._end)

    def _end(self, why: str) -> None:
        self.ended.append(why)
        self.over.set()


def run(waits: float | None, course: Course, *, moved: bool = False) -> None:
    async def with_bench() -> None:
        await course(Bench(waits, moved))

    asyncio.run(with_bench())


def test_without_patience_the_run_ends() -> None:
    async def course(bench: Bench) -> None:
        bench.wait.begin("no engine is left")
        assert (bench.said, bench.ended, bench.wait.notice) == ([], ["no engine is left"], "")

    run(0.0, course)


def test_for_ever() -> None:
    async def course(bench: Bench) -> None:
        bench.wait.begin("no engine is left")
        bench.wait.begin("no engine is left")
        add = "./P_dbUtil.sh -s HOST:CORES adds some, as does submitting it"
        assert bench.said == [f"no engines are there; waiting for some: {add}"] and bench.ended == []
        assert bench.wait.notice == "no engines: waiting for some to be attached"
        bench.wait.end()
        assert bench.wait.notice == ""

    run(None, course)


def test_a_user_who_is_in_another_directory() -> None:
    async def course(bench: Bench) -> None:
        bench.wait.begin("no engine is left")
        assert f"waiting for some: {Path.cwd()}/P_dbUtil.sh -s HOST:CORES" in bench.said[0]

    run(None, course, moved=True)


def test_the_time_begins_anew_with_each_wait() -> None:
    async def course(bench: Bench) -> None:
        bench.wait.begin("no engine could start")
        bench.wait.end()
        bench.wait.begin("no engine is left")
        await asyncio.wait_for(bench.over.wait(), 20)
        assert bench.ended == ["no engine is left"] and len(bench.said) == 2
        assert bench.said[0].startswith("no engines are there; waiting for some for 0.01 s: ")

    run(0.01, course)
