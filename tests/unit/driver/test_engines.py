"""Engines join, are given up, and leave: what the plan, the journal, the user and the engine are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import clock_loop
from plan_world import task

from disbatch.contexts.context import Retirement
from disbatch.contexts.nodes import Node
from disbatch.driver.engine_launch import EngineLaunches, EngineParts
from disbatch.driver.engine_state import Failed, Joined, Left, Lost
from disbatch.driver.engine_table import EngineEntry, EngineTable
from disbatch.driver.engines import EngineManager
from disbatch.driver.failure_detector import FailureDetector
from disbatch.model.task import Way
from disbatch.plan import events
from disbatch.plan.plan import Plan
from disbatch.rundir.journal import Gone, Here, JournalLine
from disbatch.wire.client_protocol import Fate
from disbatch.wire.engine_protocol import AS_TOLD, PROTOCOL, Beat, Goodbye, Hello

POOL = SimpleNamespace(
    spare_after=None, label="", context=SimpleNamespace(scheduler="Slurm", keep=frozenset())
)
SETTINGS = SimpleNamespace(
    pool=POOL,
    jobid="7",
    task_name="T",
    heartbeat=1.0,
    patience=5.0,
    orphan_patience=60.0,
    grace=2.0,
)


class Bench:
    """An engine manager beside a real plan and table; what it tells others is written down."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.plan = Plan()
        self.did: list[str] = []
        self.said: list[str] = []
        self.lines: list[JournalLine] = []
        self.fates: list[tuple[str, Fate]] = []
        self.over = False
        self.leaving: set[str] = set()
        self.table = EngineTable(
            self.loop.time,
            journal=self.lines.append,
            became=lambda entry, became: self.fates.append((entry.engine, became)),
        )
        self.table.retirement = cast(
            Retirement,
            SimpleNamespace(
                joined=lambda node: self.did.append(f"use {node}"),
                retire=lambda node, code, spare: self.did.append(f"release {node} {code} {spare}"),
            ),
        )
        parts = SimpleNamespace(
            loop=self.loop,
            settings=SETTINGS,
            table=self.table,
            attachments=SimpleNamespace(engines=lambda name: [], grace=lambda name, grace: grace),
            hub=self,
            handle_event=self.plan.handle,
            notify_user=self.said.append,
            engines_changed=lambda: None,
            is_over=lambda: self.over,
            time_is_up=lambda: False,
            lets_go=lambda entry: entry.engine in self.leaving,
            on_joined=(lambda entry: self.did.append(f"{entry.engine} joined"),),
        )
        detector = SimpleNamespace(joined=lambda entry: None, begin=lambda: None)
        self.engines = EngineManager(
            cast(EngineParts, parts),
            self.plan,
            cast(EngineLaunches, self),
            cast(FailureDetector, detector),
        )

    # Of `Hub`:

    def welcome(self, peer: Any, message: Any, orders_seen: int) -> None:
        self.did.append(f"welcome {peer.name}")

    def refuse(self, peer: Any, reason: str) -> None:
        self.did.append(f"refuse {peer.name}: {reason}")

    def give_up(self, engine: str) -> None:
        self.did.append(f"ignore {engine}")

    def peers(self) -> Iterator[Any]:
        return iter(())

    # Of `EngineLaunches`:

    def end(self, engine: str) -> None:
        self.did.append(f"end {engine}")

    # What happens:

    def launch(self, engine: str, way: Way = Way.SSH) -> EngineEntry:
        entry = EngineEntry(engine, f"n{engine}", 0, 1, Node(f"n{engine}", 1, 1, way))
        self.table.launch(entry)
        return entry

    def peer(self, engine: str) -> Any:
        session = SimpleNamespace(seen=0, next_number=1, tell=lambda message: None)
        return SimpleNamespace(name=engine, session=session, heard=self.loop.time())

    def hello(self, engine: str) -> None:
        hello = Hello(PROTOCOL, engine, f"n{engine}", "host", 7, 1, "0", 0, 1, [])
        self.engines.hello(self.peer(engine), hello)

    def join(self, engine: str, way: Way = Way.SSH) -> EngineEntry:
        entry = self.launch(engine, way)
        self.hello(engine)
        return entry

    def goodbye(self, engine: str, reason: str = AS_TOLD) -> None:
        self.engines.goodbye(self.peer(engine), Goodbye(reason))


def play(course: Callable[[Bench], Awaitable[None]]) -> None:
    async def with_bench() -> None:
        bench = Bench()
        await course(bench)
        bench.engines.stop_watching()

    clock_loop.run(with_bench())


def test_an_engine_joins() -> None:
    async def course(bench: Bench) -> None:
        entry = bench.join("a")
        assert isinstance(entry.state, Joined) and entry.process == ("host", "", 7, 0)
        assert bench.did == ["welcome a", "use na", "a joined"] and bench.said == []
        launched, joined = bench.lines
        assert isinstance(launched, Here) and launched.pid == 0
        assert isinstance(joined, Here) and (joined.host, joined.pid) == ("host", 7)
        assert bench.plan.present == 1 and bench.engines.ever_joined and not bench.engines.expected
        bench.hello("a")
        assert bench.did[3:] == ["welcome a"] and len(bench.lines) == 2, "only its connection broke"
        bench.engines.beat(bench.peer("a"), Beat([], 0, 0.5))
        assert entry.beat is not None and entry.beat.message.load == 0.5

    play(course)


def test_when_the_run_is_over_engines_are_refused() -> None:
    async def course(bench: Bench) -> None:
        bench.over = True
        bench.join("a")
        assert bench.did == ["refuse a: the run is over"] and bench.engines.expected

    play(course)


def test_an_engine_whose_process_ends_is_lost_after_its_last_results() -> None:
    async def course(bench: Bench) -> None:
        entry = bench.join("a", Way.CHILD)
        bench.plan.handle(events.Read([task(0)]))
        bench.join("b")
        bench.engines.exited("a", 9, "its engine was killed")
        assert isinstance(entry.state, Joined), "its results may still be on their way"
        await asyncio.sleep(1.0)
        assert entry.state == Lost(before=True, exit_code=9)
        assert bench.said == ["na: engine lost: its engine was killed; its task runs again elsewhere"]
        assert bench.did[-3:] == ["ignore a", "release na 9 False", "end a"]
        assert bench.lines[-1] == Gone("a", lost=True) and bench.fates[-1] == ("a", Fate.LOST)
        assert bench.plan.present == 1

    play(course)


def test_a_lost_engine_is_heard_again() -> None:
    async def course(bench: Bench) -> None:
        entry = bench.join("a")
        bench.engines.lose("a", "not heard for 5 s")
        bench.engines.lose("a", "not heard for 5 s")
        assert bench.said == ["na: engine lost: not heard for 5 s"] and entry.may_run_on
        bench.leaving.add("a")
        bench.hello("a")
        assert bench.said[1:] == ["na: the engine is heard again and leaves"]
        assert isinstance(entry.state, Joined) and not entry.may_run_on
        assert bench.did.count("use na") == 2 and bench.plan.present == 1

    play(course)


def test_an_engine_leaves() -> None:
    async def course(bench: Bench) -> None:
        spare, ended = bench.join("a"), bench.join("b")
        bench.goodbye("a")
        bench.goodbye("b", "ended by SIGTERM")
        assert spare.state == Left(spare=True, retired=True)
        assert ended.state == Left(spare=False, retired=True)
        assert bench.fates[-2:] == [("a", Fate.SPARE), ("b", Fate.LEFT)]
        assert bench.lines[-2:] == [Gone("a"), Gone("b")] and bench.plan.present == 0
        assert bench.engines.ended_by_scheduler
        await asyncio.sleep(2.0)
        assert bench.did[-2:] == ["end a", "end b"]
        assert bench.said == [
            "nb: Slurm ended the engine (SIGTERM: cancelled, preempted, or out of time)",
        ]
        bench.hello("a")
        assert bench.did[-1] == "welcome a" and isinstance(spare.state, Left) and bench.plan.present == 0

    play(course)


def test_a_step_whose_node_is_to_leave_the_job_ends_first() -> None:
    async def course(bench: Bench) -> None:
        bench.join("a", Way.STEP)
        bench.goodbye("a")
        assert not [each for each in bench.did if each.startswith("release")]
        bench.engines.exited("a", 0, "its step ended")
        assert bench.did[-1] == "release na 0 True" and bench.said == []

    play(course)


def test_a_process_that_ends_before_its_engine_joined() -> None:
    async def course(bench: Bench) -> None:
        entry = bench.launch("a")
        bench.engines.exited("a", 1, "srun: error")
        assert entry.state == Failed(exit_code=1) and bench.said == ["na: srun: error"]
        assert bench.lines[-1] == Gone("a") and not bench.engines.expected

    play(course)
