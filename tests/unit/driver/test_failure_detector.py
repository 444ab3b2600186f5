"""Engines that are not heard: when they are given up, and what is ended before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import clock_loop
import pytest

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_launch import EngineParts
from disbatch.driver.engine_state import Ending, Left, ProcessEnded, SaidGoodbye, SaidHello
from disbatch.driver.engine_table import EngineEntry, EngineTable, Process
from disbatch.driver.failure_detector import CHECK_INTERVAL, FailureDetector
from disbatch.model.task import Way
from disbatch.wire.sockets import HEARTBEAT_TIMEOUT

PATIENCE, AFAR = 3.0, 6.0


class Bench:
    """Engines on this host and on another one, and what the detector does with them."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.did: list[str] = []
        self.heard: dict[str, Any] = {}
        self.table = EngineTable(self.loop.time, journal=lambda line: None, became=lambda entry, fate: None)
        parts = SimpleNamespace(
            loop=self.loop,
            settings=SimpleNamespace(patience=PATIENCE, patience_afar=AFAR),
            table=self.table,
            hub=self,
            hostname="head",
            notify_user=self.did.append,
        )
        self.detector = FailureDetector(
            cast(EngineParts, parts),
            end_child=lambda engine: self.did.append(f"end {engine}"),
            lose=self.lose,
            on_exit=lambda engine: self.did.append(f"{engine} ended"),
        )
        self.detector.begin()
        self.loop.call_later(CHECK_INTERVAL, self.check)

    def check(self) -> None:
        self.detector.check()
        self.loop.call_later(CHECK_INTERVAL, self.check)

    def peers(self) -> Iterator[Any]:
        return iter(self.heard.values())

    def give_up(self, engine: str) -> None:
        self.heard.pop(engine, None)

    def lose(self, engine: str, why: str) -> None:
        self.did.append(f"lose {engine}: {why}")
        self.give_up(engine)

    def join(self, engine: str, way: Way | None, *, process: Process | None = None) -> EngineEntry:
        node = None if way is None else Node("n", 1, 1, way)
        entry = EngineEntry(engine, "n", 0, 1, node, process=process or Process("far", "", 7))
        self.table.add(entry)
        self.table.change(entry, SaidHello(self.loop.time()))
        self.detector.joined(entry)
        self.heard[engine] = SimpleNamespace(name=engine, heard=self.loop.time())
        return entry

    def stand_still(self, seconds: float) -> None:
        """This process is stopped for so long."""
        assert isinstance(self.loop, clock_loop.ClockLoop)
        self.loop.stand_still(seconds)


def play(course: Callable[[Bench], Any]) -> None:
    async def with_bench() -> None:
        await course(Bench())

    clock_loop.run(with_bench())


def test_silent_engines_are_given_up_and_children_ended_first() -> None:
    async def course(bench: Bench) -> None:
        bench.join("far", Way.SSH)
        child = bench.join("child", Way.CHILD, process=Process("head", "", 8))
        await asyncio.sleep(PATIENCE + 0.5)
        assert bench.did == []
        await asyncio.sleep(1.0)
        assert bench.did == ["end child"] and isinstance(child.state, Ending)
        await asyncio.sleep(AFAR)
        assert bench.did == ["end child", "lose far: not heard for 6 s"]

    play(course)


def test_a_child_that_has_ended_is_given_up() -> None:
    async def course(bench: Bench) -> None:
        bench.table.change(bench.join("child", Way.CHILD), ProcessEnded(1))
        await asyncio.sleep(PATIENCE + 1.5)
        assert bench.did == ["lose child: not heard for 3 s"]

    play(course)


def test_an_engine_that_left_is_not_lost() -> None:
    async def course(bench: Bench) -> None:
        entry = bench.join("child", Way.CHILD)
        bench.table.change(entry, SaidGoodbye(spare=False, in_step=False))
        await asyncio.sleep(PATIENCE + 5)
        assert bench.did == ["end child"] and isinstance(entry.state, Left) and not bench.heard

    play(course)


@pytest.mark.parametrize("before", [0.0, 1.5, 2.5])
@pytest.mark.parametrize("stopped", [0.7, 1.0, 2.0, 4.0, 5.5, 20.0, 1000.0])
def test_a_pause_of_the_driver_is_nobodys_silence(stopped: float, before: float) -> None:
    """An engine is given up after the patience, as if the pause had not been, and never earlier; after a
    pause that broke its connection, it has the whole patience again."""

    async def course(bench: Bench) -> None:
        bench.join("e", Way.CHILD)
        await asyncio.sleep(before)
        bench.stand_still(stopped)
        await asyncio.sleep(PATIENCE - (before if stopped < HEARTBEAT_TIMEOUT else 0.0) - 0.1)
        assert bench.did == []
        await asyncio.sleep(2 * CHECK_INTERVAL + 0.2)
        assert bench.did == ["end e"]

    play(course)


def test_an_engine_that_is_heard_after_the_pause_is_not_counted_as_heard_later() -> None:
    async def course(bench: Bench) -> None:
        bench.join("e", Way.CHILD)
        bench.stand_still(100.0)
        bench.heard["e"].heard = bench.loop.time()
        await asyncio.sleep(0.0)
        assert bench.heard["e"].heard <= bench.loop.time()

    play(course)
