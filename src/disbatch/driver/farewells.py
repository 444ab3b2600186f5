"""Engines that users want to leave: also those that are on their way still, or expected after a takeover."""

from __future__ import annotations

from collections.abc import Callable

from disbatch.driver.roster import Member
from disbatch.driver.told import Line, Told, Unwanted
from disbatch.plan import events
from disbatch.plan.plan import Plan


class Farewells:
    """`tell` gets events for the plan, `note` lines for the run file; `dismiss` an engine that need not come
    any more."""

    def __init__(
        self,
        plan: Plan,
        *,
        tell: Callable[[events.Event], None],
        note: Callable[[Line], bool],
        dismiss: Callable[[Member], None],
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._note = note
        self._dismiss = dismiss
        self._awaited: dict[str, events.Drain | events.Stop] = {}
        """What is told of engines when they join."""

    def add(self, member: Member, *, stop: bool) -> bool:
        """Let this engine go when what runs there has ended; or, with `stop`, end that. False if another
        driver would not know of it."""
        noted = self._note(Unwanted(member.engine, stop))
        if member.engine in self._plan.engines:
            self._tell(_event(member.engine, stop))
            return noted
        if stop or member.engine not in self._awaited:
            self._awaited[member.engine] = _event(member.engine, stop)
        if not member.inherited:
            self._dismiss(member)  # of those that are expected nobody knows yet what runs there
        return noted

    def again(self, told: Told) -> None:
        """These were to leave when a former driver was killed."""
        self._awaited.update((engine, _event(engine, stop)) for engine, stop in told.unwanted.items())

    def __contains__(self, member: Member) -> bool:
        """It is not there, and when it comes it leaves."""
        return member.engine in self._awaited

    def joined(self, member: Member) -> None:
        """This engine came, although it need not have."""
        event = self._awaited.pop(member.engine, None)
        if event is not None:
            self._tell(event)


def _event(engine: str, stop: bool) -> events.Drain | events.Stop:
    return events.Stop(engine) if stop else events.Drain(engine)
