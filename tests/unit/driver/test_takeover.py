"""What a driver that took a run over waits for: each engine once, however many there are."""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any, cast

import clock_loop
import pytest

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_table import Member
from disbatch.driver.engines import EngineManager
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.takeover import Succession
from disbatch.model.task import Way
from disbatch.plan import events
from disbatch.rundir.journal import Asked, Here, JournalState
from disbatch.wire.engine_protocol import PROTOCOL, Hello

ENGINES = 500


class Looked(Member):
    """Counts how often somebody asks whether one is still missing."""

    times = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "launching":
            Looked.times += 1
        return super().__getattribute__(name)


class FewEngines:
    """Of the engine manager, what a succession needs while engines come."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.members: dict[str, Member] = {}
        self.told: list[object] = []
        self.handle_event = self.told.append
        self.said: list[str] = []
        self.notify_user = self.said.append

        self.hostname = "head"
        self.next_rank = 0

    def add(self, member: Member) -> None:
        member.__class__ = Looked
        self.members[member.engine] = member

    def label_of(self, context: str) -> str:
        return context

    def reconnect(self, member: Member) -> None:
        """It is not far."""

    def start(self, rank: int, node: Node) -> str:
        """The engine that is on its way now."""
        self.add(Member(f"new {node.name}", node.name, rank, 1, node))
        return f"new {node.name}"

    def journal(self, line: object) -> None:
        """Nobody reads it here."""

    def unheard(self, member: Member) -> None:
        """No context waits for it."""

    def engines_changed(self) -> None:
        """Somebody is there."""

    def dismiss(self, member: Member) -> None:
        member.launching = False
        self.said.append(f"{member.engine}: dismissed")

    def is_over(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True


def test_each_engine_that_comes_costs_the_same_however_many_are_missing() -> None:
    async def play() -> None:
        engines = FewEngines()
        holds = Holds(lambda event: None, lambda: None)
        here = {f"e{n}": Here(f"e{n}", "node", n, 1, None) for n in range(ENGINES)}
        told = JournalState(cast(Asked, None), engines=here)
        succession = Succession(cast(EngineManager, engines), holds, 60.0, told, look_beside=lambda: None)
        assert succession.expect()
        Looked.times = 0
        for member in reversed(engines.members.values()):
            assert Reason.TAKEOVER in holds
            member.launching = False
            succession.look()
        assert Reason.TAKEOVER not in holds and engines.told == [events.Heard()]
        assert engines.said[-1] == "all engines are there"
        assert Looked.times <= 3 * ENGINES

    clock_loop.run(play())


PATIENCE = 60.0
MOMENTS = ("in time", "at the last moment", "late", "never")


class Taken:
    """A succession whose engines, `a` and `b`, were on nodes of these names."""

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
        self.succession = Succession(
            *(cast(EngineManager, self.engines), self.holds, PATIENCE, told),
            look_beside=self.patience_is_over,
        )

    def patience_is_over(self) -> None:
        for name in self.last:
            self.engines.loop.call_soon(self.hello, name)

    def hello(self, name: str) -> None:
        """As `EngineManager.hello` does."""
        member = self.engines.members[name]
        member.launching = member.lost = False
        self.succession.joined(member, Hello(PROTOCOL, name, name, name, 7, 1, "0", 0, 1, []))


@pytest.mark.parametrize(("a", "b"), list(product(MOMENTS, MOMENTS)))
def test_whenever_engines_come_the_wait_ends_and_the_user_is_told_how(a: str, b: str) -> None:
    def came(*moments: str) -> list[str]:
        return [name for name, moment in (("a", a), ("b", b)) if moment in moments]

    async def play() -> tuple[Taken, bool]:
        taken = Taken()
        assert taken.succession.expect()
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
        expected += [f"{name}: an engine of the former driver came after all", f"new {name}: dismissed"]
    assert taken.engines.said == expected


@pytest.mark.parametrize("before", [0.5, 5, 30, PATIENCE - 2])
@pytest.mark.parametrize("stopped", [1.5, 4, 30, PATIENCE, 1000])
def test_a_time_in_which_the_driver_was_stopped_is_nobodys_silence(before: float, stopped: float) -> None:
    """They cannot come meanwhile; there is time left for them afterwards."""

    async def play() -> None:
        taken = Taken()
        assert taken.succession.expect()
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
        assert not taken.succession.expect()
        taken.succession.start_anew(taken.nodes)
        engines.members["new b"].launching = False
        for name in ("a", "b"):
            taken.hello(name)
        came = "an engine of the former driver came after all"
        assert engines.said == [f"a: {came}", "new a: dismissed", f"b: {came}"]
        assert engines.told == [events.Heard(), events.Drain("new b")]

    clock_loop.run(play())
