"""The engines of a killed driver of this run: expected, heard, or replaced.

No task starts before they have reported what they run, or have had time to (`patience`). Then nodes of
engines that the driver itself had launched and that are not heard get a new engine, unless they were to
leave; other engines belong to a context that lives by itself. Engines that the former driver had given up are
not waited for, but may also come back.

If the run is ended meanwhile, these engines are waited for nevertheless, since their results are to be
recorded. Those that are not heard within the ending time stay in the journal: the run is left as it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_table import Member
from disbatch.driver.holds import Holds, Reason
from disbatch.engine.remains import end_remains
from disbatch.model.task import Phase
from disbatch.model.text import short_list
from disbatch.plan import events
from disbatch.rundir.journal import Gone, Here, JournalLine, JournalState
from disbatch.wire.engine_protocol import Hello

STEP = 1.0
"""Seconds in which the patience is counted: a time in which this process was stopped is one step at most."""
LATE = 5.0
"""Seconds after which the wait for the engines begins anew: this process was stopped, and heard nobody."""


class Engines(Protocol):
    """The engines of the run, which know nothing of a takeover: see `EngineManager`."""

    loop: asyncio.AbstractEventLoop
    members: dict[str, Member]
    hostname: str
    next_rank: int
    handle_event: Callable[[events.Event], None]
    notify_user: Callable[[str], None]
    journal: Callable[[JournalLine], object]
    engines_changed: Callable[[], None]
    is_over: Callable[[], bool]

    def is_running(self) -> bool:
        """Tasks are given out."""

    def label_of(self, context: str) -> str:
        """The label of that context's nodes."""

    def start(self, rank: int, node: Node) -> str:
        """Start an engine there; its permanent id."""

    def reconnect(self, member: Member) -> None:
        """Make the engine's tunnel again, if it had one."""

    def add(self, member: Member) -> None:
        """This engine is on its way."""

    def unheard(self, member: Member) -> None:
        """It is not heard, and may still come."""

    def exited(self, engine: str, return_code: int, words: str) -> None:
        """Its process ended."""

    def dismiss(self, member: Member) -> None:
        """It need not come."""


class Succession:
    """What `engines` has from a former driver, as that `told`; of these engines some are known to have
    `ended`. `look_beside` is called before engines are given up that may have ended, for what these have
    left."""

    def __init__(
        self,
        engines: Engines,
        holds: Holds,
        patience: float,
        told: JournalState,
        ended: frozenset[str] = frozenset(),
        *,
        look_beside: Callable[[], None],
    ) -> None:
        self._engines = engines
        self._holds = holds
        self._patience = patience
        self._told = told
        self._ended = ended
        self._ending: asyncio.Task[object] | None = None
        self.replaces = False
        """What engines that did not come have left is being ended, before others are started instead."""
        self._look_beside = look_beside
        self._expected: deque[Member] = deque()
        """Those that may still be missing, so that each of them is looked at once, however many join."""
        self._replaced: dict[str, str] = {}
        """Engines that did not come in time, and those that took their place."""
        self.unheard: dict[str, Member] = {}
        """Engines that did not come before the run was ended, and may be there."""
        if told.engines:
            holds.add(Reason.TAKEOVER, "waiting for the engines")

    def expect(self) -> bool:
        """Wait for those that were there or on their way; False if there are none."""
        engines, told = self._engines, self._told
        for here in told.lost.values():
            self._add(here, lost=True)
        for here in told.engines.values():
            self._add(here, lost=False)
        missing = self._missing
        if not missing:
            self._all_heard()
            return False
        engines.notify_user(f"taking the run over: expecting the engines of {_names(missing)}")
        self._wait(self._patience)
        return True

    def _wait(self, left: float) -> None:
        """Wait so many seconds, of those in which this process runs, for engines that are missing."""
        loop, step = self._engines.loop, min(left, STEP)
        loop.call_later(step, self._waited, left - step, loop.time() + step)

    def _waited(self, left: float, due: float) -> None:
        if Reason.TAKEOVER not in self._holds or self._engines.is_over():
            return
        if self._engines.loop.time() - due > LATE:
            self._wait(self._patience)
        elif left > 0:
            self._wait(left)
        else:
            self._wait_no_longer()

    def _add(self, here: Here, *, lost: bool) -> None:
        needless = here.engine in self._told.unwanted and not here.pid  # it never was there
        member = Member(
            *(here.engine, here.name, here.rank, here.slots, here.node, here.context),
            label=self._engines.label_of(here.context),
            launching=not (lost or needless),
            lost=lost and here.pid > 0,
            inherited=True,
            tunnel=here.tunnel,
        )
        self._engines.add(member)
        self._expected.append(member)
        self._engines.reconnect(member)

    def start_anew(self, nodes: Iterable[Node]) -> None:
        """No engine is expected: start one on each of these nodes, but not where a user let one go. It takes
        the place of one that was given up there, and may come after all."""
        engines, lost = self._engines, list(self._told.lost.values())
        for node in nodes:
            if node.name in self._told.avoid:
                continue
            successor = engines.start(engines.next_rank, node)
            former = next((here for here in lost if here.name == node.name and not here.context), None)
            if former is not None:
                lost.remove(former)
                self._replaced[former.engine] = successor

    def look(self) -> None:
        """Somebody came or left: are all there?"""
        if Reason.TAKEOVER in self._holds and self._all_there and not self.replaces:
            self._engines.notify_user("all engines are there")
            self._all_heard()

    def _all_heard(self) -> None:
        """Nobody is expected any more."""
        self._engines.handle_event(events.Heard())
        self._holds.remove(Reason.TAKEOVER)

    @property
    def _all_there(self) -> bool:
        while self._expected and not self._expected[0].launching:
            self._expected.popleft()
        return not self._expected

    @property
    def _missing(self) -> list[Member]:
        return [m for m in self._engines.members.values() if m.launching and m.inherited]

    def _wait_no_longer(self) -> None:
        engines, missing = self._engines, self._missing
        if not engines.is_running():
            self.give_up()
            return
        self._look_beside()
        self.replaces = True
        self._ending = engines.loop.create_task(self._replace(missing))

    async def _replace(self, missing: list[Member]) -> None:
        """Start others for them, but not beside a copy of a task that can be found on this host. An engine
        that is ended here may greet before it leaves: it is replaced, too."""
        engines = self._engines
        ended = await end_remains(
            engines.loop, [m.engine for m in missing if self._was_here(m)], engines.notify_user
        )
        self.replaces = False
        missing = [member for member in missing if member.launching or member.engine in ended]
        if Reason.TAKEOVER not in self._holds or engines.is_over():
            return
        if not missing:
            self.look()  # they came at the last moment
            return
        for member in missing:
            if member.launching:
                self._miss(member)
                engines.journal(Gone(member.engine, lost=True))
            if self._may_replace(member) and member.node is not None:
                self._replaced[member.engine] = engines.start(member.rank, member.node)
        engines.notify_user(f"{_names(missing)}: not heard for {self._patience:g} s{self._anew(missing)}")
        self._all_heard()
        engines.engines_changed()

    def _was_here(self, member: Member) -> bool:
        """It ran on this host, as far as is known."""
        return self._told.engines[member.engine].host in ("", self._engines.hostname)

    def _miss(self, member: Member) -> None:
        """It did not come in time."""
        member.launching = False
        member.lost = True
        self._engines.unheard(member)

    def expect_the_living(self) -> None:
        """The run is ended: those that have ended are not waited for."""
        for member in self._missing:
            if member.engine in self._ended:
                member.launching, member.exited = False, True
                self._engines.journal(Gone(member.engine))
        if self._ended and self._ending is None:
            self._ending = self._engines.loop.create_task(
                end_remains(self._engines.loop, self._ended, self._engines.notify_user)
            )
        if Reason.TAKEOVER in self._holds and self._all_there:
            self._all_heard()

    def give_up(self) -> None:
        """The run is ended, and they had their time to come."""
        if Reason.TAKEOVER not in self._holds:
            return
        for member in self._missing:
            self._miss(member)
            self.unheard[member.engine] = member
        self._all_heard()

    def _anew(self, missing: list[Member]) -> str:
        """Where engines were started instead: what the former driver had on its own host is on ours now."""
        successors = [self._replaced[each.engine] for each in missing if each.engine in self._replaced]
        names = {self._engines.members[engine].name for engine in successors}
        if not names:
            return ""
        known = names <= {member.name for member in missing}
        return "; starting anew " + ("there" if known else f"on {short_list(sorted(names))}")

    def _may_replace(self, member: Member) -> bool:
        wanted = member.node is not None and member.node.name not in self._told.avoid
        return wanted and not member.context and self._engines.is_running()

    def past(self, hello: Hello) -> events.Past:
        """What this engine has from the former driver."""
        commands: dict[tuple[Phase, int], int | None] = dict.fromkeys(hello.ran)
        commands |= {(c.phase, c.task_id): c.attempt for c in hello.holding if c.phase is not None}
        tasks = {c.attempt: c.task_id for c in hello.holding if c.phase is None}
        return events.Past(tasks, commands, hello.leaving)

    def joined(self, member: Member, hello: Hello) -> None:
        """One of them is there, maybe late."""
        engines = self._engines
        self.unheard.pop(member.engine, None)
        successor = self._replaced.pop(member.engine, "")
        if successor:  # two would share the node's cores
            engines.notify_user(f"{member.shown}: an engine of the former driver came after all")
            if engines.members[successor].launching:
                engines.dismiss(engines.members[successor])
            else:
                engines.handle_event(events.Drain(successor))
        self.look()

    async def close(self) -> None:
        """Wait until what those that did not come have left has ended."""
        if self._ending is not None:
            await self._ending


def _names(engines: Iterable[Here | Member]) -> str:
    return short_list(sorted({engine.name for engine in engines}))
