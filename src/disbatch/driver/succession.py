"""The engines that a killed driver of this run left to us: expected, heard, or replaced.

Nothing starts before they have told what they run, or had time to (`patience`). Then those that the driver
itself had started get a successor on their node; others belong to a context that lives by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from disbatch.driver.departures import some
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.inherited import Inherited
from disbatch.driver.roster import Member
from disbatch.driver.runfile import Gone, Here
from disbatch.model.task import Phase
from disbatch.plan import events
from disbatch.wire.messages import Hello

if TYPE_CHECKING:
    from disbatch.driver.crew import Crew


class Succession:
    """What `crew` has from a former driver."""

    def __init__(self, crew: Crew, holds: Holds, patience: float) -> None:
        self._crew = crew
        self._holds = holds
        self._patience = patience
        self._replaced: dict[str, str] = {}
        """Engines that did not come in time, and those that took their place."""
        self._watched = Inherited(crew.loop, lambda engine: crew.exited(engine, 0, "its engine ended"))

    def expect(self, engines: list[Here]) -> None:
        """Wait for these."""
        crew = self._crew
        for here in engines:
            crew.add(
                Member(
                    *(here.engine, here.name, here.rank, here.slots, here.node, here.context),
                    label=crew.label_of(here.context),
                    inherited=True,
                )
            )
        crew.say(f"taking the run over: expecting the engines of {_names(engines)}")
        self._holds.add(Reason.TAKEOVER, "waiting for the engines")
        crew.loop.call_later(self._patience, self._wait_no_longer)

    def look(self) -> None:
        """Somebody came or left: are all there?"""
        if Reason.TAKEOVER in self._holds and not self._missing:
            self._crew.say("all engines are there")
            self._holds.remove(Reason.TAKEOVER)

    @property
    def _missing(self) -> list[Member]:
        return [m for m in self._crew.members.values() if m.launching and m.inherited]

    def _wait_no_longer(self) -> None:
        crew, missing = self._crew, self._missing
        if Reason.TAKEOVER not in self._holds or crew.is_over():
            return
        for member in missing:
            member.launching = False
            crew.note(Gone(member.engine))
            crew.unheard(member)
            if crew.is_running() and member.node is not None and not member.context:
                self._replaced[member.engine] = crew.start(member.rank, member.node)
        again = any(member.engine in self._replaced for member in missing)
        anew = "; starting anew there" if again else ""
        crew.say(f"{_names(missing)}: not heard for {self._patience:g} s{anew}")
        self._holds.remove(Reason.TAKEOVER)
        crew.look()

    def past(self, hello: Hello) -> events.Past:
        """What this engine has from the former driver."""
        commands: dict[tuple[Phase, int], int | None] = dict.fromkeys(hello.ran)
        commands |= {(c.phase, c.task_id): c.attempt for c in hello.holding if c.phase is not None}
        tasks = {c.attempt: c.task_id for c in hello.holding if c.phase is None}
        return events.Past(tasks, commands, hello.leaving)

    def joined(self, member: Member, hello: Hello) -> None:
        """One of them is there, maybe late."""
        crew = self._crew
        if member.local and hello.host == crew.hostname:
            self._watched.watch(member.engine, hello.pid)
        successor = self._replaced.pop(member.engine, "")
        if successor:  # two would share the node's cores
            crew.say(f"{member.name}: an engine of the former driver came after all")
            if crew.members[successor].launching:
                crew.dismiss(crew.members[successor])
            else:
                crew.tell(events.Drain(successor))
        self.look()

    async def close(self, patience: float) -> None:
        """Wait until those of this machine have ended, at most so many seconds."""
        await self._watched.close(patience)


def _names(engines: list[Here] | list[Member]) -> str:
    return some(sorted({engine.name for engine in engines}))
