"""Engines that do not join: in time, at all, or because they need not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import clock_loop

from disbatch.contexts.hosts import Hosts
from disbatch.contexts.nodes import Node
from disbatch.contexts.ssh import SshOptions
from disbatch.driver.engine_launch import LAUNCHING, EngineLaunches, EngineParts
from disbatch.driver.engine_state import Cancelled, Failed, Launching, SaidHello
from disbatch.driver.engine_table import EngineEntry, EngineTable
from disbatch.model.task import Way
from disbatch.rundir.journal import Gone, JournalLine
from disbatch.wire.connect import RunKeys

POOL = SimpleNamespace(context=Hosts(), ssh=SshOptions(), tunnel=False, label="")
SETTINGS = SimpleNamespace(
    pool=POOL,
    patience=5.0,
    directory=b"/",
    environment={},
    orphan_patience=600.0,
    output=None,
    claimed=SimpleNamespace(files=SimpleNamespace(engine_log=lambda name: Path(f"P_{name}.log"))),
)


class Bench:
    """Launches of which nothing is started here."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.said: list[str] = []
        self.lines: list[JournalLine] = []
        self.heard, self.over, self.changes = True, False, 0
        self.table = EngineTable(self.loop.time, journal=self.lines.append, became=lambda entry, fate: None)
        parts = SimpleNamespace(
            loop=self.loop,
            settings=SETTINGS,
            table=self.table,
            attachments=SimpleNamespace(is_heard=lambda context: self.heard),
            addresses=SimpleNamespace(socket=""),
            keys=RunKeys.generate(),
            notify_user=self.said.append,
            engines_changed=lambda: None,
            is_over=lambda: self.over,
        )
        self.launches = EngineLaunches(
            cast(EngineParts, parts), on_exit=lambda engine, code, words: None, not_coming=self.change
        )

    def change(self) -> None:
        self.changes += 1

    def own(self, engine: str) -> EngineEntry:
        entry = EngineEntry(engine, f"n{engine}", 0, 1, Node(f"n{engine}", 1, 1, Way.SSH))
        self.table.launch(entry)
        return entry


def play(course: Callable[[Bench], Awaitable[None]]) -> None:
    async def with_bench() -> None:
        await course(Bench())

    clock_loop.run(with_bench())


def test_an_attached_context_that_is_heard_reports_failures_itself() -> None:
    async def course(bench: Bench) -> None:
        entry = EngineEntry("a", "na", 0, 1, context="c1", label="rack")
        bench.launches.expect(entry)
        await asyncio.sleep(3 * LAUNCHING)
        assert isinstance(entry.state, Launching) and bench.said == []
        bench.heard = False
        await asyncio.sleep(LAUNCHING)
        assert bench.said == ["na (rack): did not join, and who attached it is not heard any more"]
        assert isinstance(entry.state, Failed) and bench.lines[-1] == Gone("a") and bench.changes == 1

    play(course)


def test_a_launch_that_fails() -> None:
    async def course(bench: Bench) -> None:
        first, second = bench.own("a"), bench.own("b")
        bench.launches.failed("a", "na: no route to host")
        bench.over = True
        bench.launches.failed("b", "nb: its launch was ended")
        assert isinstance(first.state, Failed) and isinstance(second.state, Failed)
        assert bench.said == ["na: no route to host"] and bench.lines[-2:] == [Gone("a"), Gone("b")]

    play(course)


def test_a_failure_that_is_reported_after_the_engine_joined_does_not_remove_it() -> None:
    """ssh may fail when the engine runs already: a takeover must find it."""

    async def course(bench: Bench) -> None:
        entry = bench.own("a")
        bench.table.change(entry, SaidHello(1.0))
        joined, lines = entry.state, list(bench.lines)
        bench.launches.failed("a", "na: ssh: connection reset")
        assert entry.state == joined and bench.lines == lines

    play(course)


def test_launches_that_are_cancelled() -> None:
    async def course(bench: Bench) -> None:
        own, joined = bench.own("a"), bench.own("b")
        attached = EngineEntry("c", "nc", 2, 1, context="c1")
        bench.table.launch(attached)
        bench.table.change(joined, SaidHello(1.0))
        bench.launches.cancel_all()
        assert isinstance(own.state, Cancelled) and bench.lines[-1] == Gone("a", lost=True)
        assert isinstance(attached.state, Launching) and bench.table.joined == [joined]
        assert bench.changes == 1 and bench.said == []
        await asyncio.sleep(0.1)

    play(course)
