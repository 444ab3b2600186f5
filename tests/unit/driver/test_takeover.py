"""What a driver that took a run over waits for: each engine once, however many there are."""

from __future__ import annotations

import asyncio
from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import clock_loop
import pytest

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_launch import EngineLaunches, EngineParts
from disbatch.driver.engine_state import Joined, LaunchCancelled, SaidHello
from disbatch.driver.engine_table import EngineEntry, EngineTable
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.takeover import EngineRecovery
from disbatch.model.task import Way
from disbatch.plan import events
from disbatch.rundir.journal import Asked, Here, JournalState

ENGINES = 500


class Looked(EngineEntry):
    """Counts how often somebody asks whether one is still missing."""

    times = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "state":
            Looked.times += 1
        return super().__getattribute__(name)


class Table(EngineTable):
    """Its entries count."""

    def add(self, entry: EngineEntry) -> None:
        entry.__class__ = Looked
        super().add(entry)


class FewEngines:
    """Of the engine manager, what the recovery of engines needs."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.told: list[object] = []
        self.said: list[str] = []
        self.table = Table(self.loop.time, journal=lambda line: None, became=lambda entry, fate: None)
        self.launches = cast(EngineLaunches, self)
        self.parts = cast(
            EngineParts,
            SimpleNamespace(
                loop=self.loop,
                table=self.table,
                hostname="head",
                handle_event=self.told.append,
                notify_user=self.said.append,
                engines_changed=lambda: None,
                is_over=lambda: False,
            ),
        )

    def label_of(self, context: str) -> str:
        return context

    def is_running(self) -> bool:
        return True

    # Of `EngineLaunches`:

    def reconnect(self, entry: EngineEntry) -> None:
        """It is not far."""

    def start(self, rank: int, node: Node) -> str:
        """The engine that is on its way now."""
        self.table.add(EngineEntry(f"new {node.name}", node.name, rank, 1, node))
        return f"new {node.name}"

    def cancel(self, entry: EngineEntry) -> None:
        self.table.change(entry, LaunchCancelled())
        self.said.append(f"{entry.engine}: dismissed")


def test_each_engine_that_comes_costs_the_same_however_many_are_missing() -> None:
    async def play() -> None:
        engines = FewEngines()
        holds = Holds(lambda event: None, lambda: None)
        here = {f"e{n}": Here(f"e{n}", "node", n, 1, None) for n in range(ENGINES)}
        told = JournalState(cast(Asked, None), engines=here)
        recovery = EngineRecovery(engines, holds, 60.0, told, look_beside=lambda: None)
        assert recovery.expect()
        Looked.times = 0
        for entry in reversed(engines.table.entries.values()):
            assert Reason.TAKEOVER in holds
            entry.state = Joined(since=1.0)
            recovery.look()
        assert Reason.TAKEOVER not in holds and engines.told == [events.Heard()]
        assert engines.said[-1] == "all engines are there"
        assert Looked.times <= 3 * ENGINES

    clock_loop.run(play())


PATIENCE = 60.0
MOMENTS = ("in time", "at the last moment", "late", "never")


class Taken:
    """A recovery of engines: these, `a` and `b`, were on nodes of these names."""

    def __init__(self, *, lost: bool = False) -> None:
        self.engines = FewEngines()
        self.holds = Holds(lambda event: None, lambda: None)
        nodes = {name: Node(name, 1, 1, Way.SSH) for name in ("a", "b")}
        here = {name: Here(name, name, 0, 1, node, host=name, pid=7) for name, node in nodes.items()}
        told = (
            JournalState(cast(Asked, None), lost=here)
            if lost
            else JournalState(cast(Asked, None), engines=here)
        )
        self.nodes = list(nodes.values())
        self.last: list[str] = []
        """Those that come when the patience is over, and before anybody was started for them."""
        self.recovery = EngineRecovery(
            *(self.engines, self.holds, PATIENCE, told),
            look_beside=self.patience_is_over,
        )

    def patience_is_over(self) -> None:
        for name in self.last:
            self.engines.loop.call_soon(self.hello, name)

    def hello(self, name: str) -> None:
        """As `EngineManager.hello` does."""
        entry = self.engines.table.entries[name]
        self.engines.table.change(entry, SaidHello(self.engines.loop.time()))
        self.recovery.joined(entry)


@pytest.mark.parametrize(("a", "b"), list(product(MOMENTS, MOMENTS)))
def test_whenever_engines_come_the_wait_ends_and_the_user_is_told_how(a: str, b: str) -> None:
    def came(*moments: str) -> list[str]:
        return [name for name, moment in (("a", a), ("b", b)) if moment in moments]

    async def play() -> tuple[Taken, bool]:
        taken = Taken()
        assert taken.recovery.expect()
        for name in came("in time"):
            taken.hello(name)
        taken.last = came("at the last moment")
        await asyncio.sleep(PATIENCE + 1)
        held = Reason.TAKEOVER in taken.holds
        for name in came("late"):
            taken.hello(name)
        return taken, held

    taken, held = clock_loop.run(play())
    assert not held and taken.engines.told.count(events.Heard()) == 1
    missing = ", ".join(came("late", "never"))
    how = f"{missing}: not heard for 60 s; starting anew there" if missing else "all engines are there"
    expected = ["taking the run over: expecting the engines of a, b", how]
    for name in came("late"):
        expected.append(f"{name}: the engine of the former driver has reconnected late")
        expected.append(f"new {name}: dismissed")
    assert taken.engines.said == expected


@pytest.mark.parametrize("before", [0.5, 5, 30, PATIENCE - 2])
@pytest.mark.parametrize("stopped", [1.5, 4, 30, PATIENCE, 1000])
def test_a_time_in_which_the_driver_was_stopped_is_nobodys_silence(before: float, stopped: float) -> None:
    """They cannot come meanwhile; there is time left for them afterwards."""

    async def play() -> None:
        taken = Taken()
        assert taken.recovery.expect()
        await asyncio.sleep(before)
        loop = taken.engines.loop
        assert isinstance(loop, clock_loop.ClockLoop)
        loop.stand_still(stopped)
        await asyncio.sleep(0.5)
        for name in ("a", "b"):
            taken.hello(name)
        assert Reason.TAKEOVER not in taken.holds and taken.engines.said[-1] == "all engines are there"
        await asyncio.sleep(2 * PATIENCE)
        assert len(taken.engines.said) == 2

    clock_loop.run(play())


def test_one_that_was_given_up_and_comes_after_all_gets_its_node_back() -> None:
    """Nobody was expected, so others were started at once: two on one node would share its cores."""

    async def play() -> None:
        taken = Taken(lost=True)
        engines = taken.engines
        assert not taken.recovery.expect()
        taken.recovery.start_anew(taken.nodes)
        engines.table.change(engines.table.entries["new b"], SaidHello(0.0))
        for name in ("a", "b"):
            taken.hello(name)
        came = "the engine of the former driver has reconnected late"
        assert engines.said == [f"a: {came}", "new a: dismissed", f"b: {came}"]
        assert engines.told == [events.Heard(), events.Drain("new b")]

    clock_loop.run(play())
