"""What a driver that took a run over waits for: each engine once, however many there are."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import clock_loop

from disbatch.driver.crew import Crew
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.roster import Member
from disbatch.driver.succession import Succession
from disbatch.driver.told import Asked, Here, Told
from disbatch.plan import events

ENGINES = 500


class Looked(Member):
    """Counts how often somebody asks whether one is still missing."""

    times = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "launching":
            Looked.times += 1
        return super().__getattribute__(name)


class FewHands:
    """Of a crew, what a succession needs while engines come."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.members: dict[str, Member] = {}
        self.told: list[object] = []
        self.tell = self.told.append
        self.said: list[str] = []
        self.say = self.said.append

    def add(self, member: Member) -> None:
        member.__class__ = Looked
        self.members[member.engine] = member

    def label_of(self, context: str) -> str:
        return context

    def reconnect(self, member: Member) -> None:
        """It is not far."""


def test_each_engine_that_comes_costs_the_same_however_many_are_missing() -> None:
    async def play() -> None:
        crew = FewHands()
        holds = Holds(lambda event: None, lambda: None)
        here = {f"e{n}": Here(f"e{n}", "node", n, 1, None) for n in range(ENGINES)}
        told = Told(cast(Asked, None), engines=here)
        succession = Succession(cast(Crew, crew), holds, 60.0, told, look_beside=lambda: None)
        assert succession.expect()
        Looked.times = 0
        for member in reversed(crew.members.values()):
            assert Reason.TAKEOVER in holds
            member.launching = False
            succession.look()
        assert Reason.TAKEOVER not in holds and crew.told == [events.Heard()]
        assert crew.said[-1] == "all engines are there"
        assert Looked.times <= 3 * ENGINES

    clock_loop.run(play())
