"""Recover the engines of a former driver of this run: expect them, let them rejoin, or replace them.

No task starts before these engines have reported what they run, or have had the patience (seconds) for it.
Then the node of each engine that the former driver itself had launched, and that is not heard, gets a new
engine, unless it was to leave. An attached context launches its engines itself. Engines that the former
driver had given up are not waited for, but may rejoin.

If the run is ended meanwhile, its engines are waited for nevertheless, because their results are to be
recorded. Those that are not heard in time remain in the journal, and the run is left as it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_launch import EngineLaunches, EngineParts
from disbatch.driver.engine_state import (
    Cancelled,
    EngineState,
    GivenUp,
    Launching,
    Lost,
    NotHeard,
    ProcessEnded,
)
from disbatch.driver.engine_table import EngineEntry, Process
from disbatch.driver.holds import Holds, Reason
from disbatch.engine.remains import end_remains
from disbatch.model.task import Phase
from disbatch.model.text import short_list
from disbatch.plan import events
from disbatch.rundir.journal import Here, JournalState
from disbatch.wire.engine_protocol import Hello

STEP = 1.0
"""Seconds in which the patience is counted: a time in which this process was stopped is one step at most."""
LATE = 5.0
"""If this process was stopped for so many seconds, and no engine was heard, the wait starts again."""


class Engines(Protocol):
    """The engines of the run, without regard to a takeover: see `EngineManager`."""

    parts: EngineParts
    launches: EngineLaunches

    def is_running(self) -> bool:
        """The plan gives out tasks."""

    def label_of(self, context: str) -> str:
        """The label of that context's nodes."""


class EngineRecovery:
    """Recovers the engines that the journal `told` of; those in `ended` are known to have ended. Before
    engines are given up, `look_beside` reads the results that they may have left."""

    def __init__(
        self,
        engines: Engines,
        holds: Holds,
        patience: float,
        told: JournalState,
        *,
        ended: frozenset[str] = frozenset(),
        look_beside: Callable[[], None],
    ) -> None:
        self._parts = engines.parts
        self._loop = engines.parts.loop
        self._table = engines.parts.table
        self._engines = engines
        self._holds = holds
        self._patience = patience
        self._told = told
        self._ended = ended
        self._ending: asyncio.Task[object] | None = None
        self.replaces = False
        """Engines that did not come are about to be replaced, when what they left on this host has ended."""
        self._look_beside = look_beside
        self._expected: deque[EngineEntry] = deque()
        """Those that may still be missing, so that each of them is looked at once, however many join."""
        self._replaced: dict[str, str] = {}
        """The engines that replaced others, by the id of the one that was replaced."""
        if told.engines:
            holds.add(Reason.TAKEOVER, "waiting for the engines")

    # ---- they are expected ----

    def expect(self) -> bool:
        """Wait for the engines that were there, or being launched; False if there are none."""
        told = self._told
        for here in told.lost.values():
            self._add(here, Lost(before=False) if here.pid else Cancelled())
        for here in told.engines.values():
            never_joined = here.engine in told.unwanted and not here.pid
            self._add(here, Cancelled() if never_joined else Launching())
        missing = self._missing
        if not missing:
            self._all_heard()
            return False
        self._parts.notify_user(f"taking the run over: expecting the engines of {_names(missing)}")
        self._wait(self._patience)
        return True

    def _add(self, here: Here, state: EngineState) -> None:
        entry = EngineEntry(
            *(here.engine, here.name, here.rank, here.slots, here.node, here.context),
            label=self._engines.label_of(here.context),
            inherited=True,
            tunnel=here.tunnel,
            process=Process(here.host, here.boot, here.pid, here.started),
            state=state,
        )
        self._table.add(entry)
        self._expected.append(entry)
        self._engines.launches.reconnect(entry)

    def _wait(self, left: float) -> None:
        """Wait for missing engines, for so many of the seconds in which this process runs."""
        step = min(left, STEP)
        self._loop.call_later(step, self._waited, left - step, self._loop.time() + step)

    def _waited(self, left: float, due: float) -> None:
        if Reason.TAKEOVER not in self._holds or self._parts.is_over():
            return
        if self._loop.time() - due > LATE:
            self._wait(self._patience)
        elif left > 0:
            self._wait(left)
        else:
            self._wait_no_longer()

    def start_anew(self, nodes: Iterable[Node]) -> None:
        """No engine is expected: launch one on each of these nodes, but not where a user released one. It
        replaces the engine that was given up there, which may still rejoin."""
        launches, lost = self._engines.launches, list(self._told.lost.values())
        for node in nodes:
            if node.name in self._told.avoid:
                continue
            successor = launches.start(self._table.next_rank, node)
            former = next((here for here in lost if here.name == node.name and not here.context), None)
            if former is not None:
                lost.remove(former)
                self._replaced[former.engine] = successor

    # ---- they are there ----

    def past(self, hello: Hello) -> events.Past:
        """What this engine has from the former driver."""
        commands: dict[tuple[Phase, int], int | None] = dict.fromkeys(hello.ran)
        commands |= {(c.phase, c.task_id): c.attempt for c in hello.holding if c.phase is not None}
        tasks = {c.attempt: c.task_id for c in hello.holding if c.phase is None}
        return events.Past(tasks, commands, hello.leaving, hello.recorded)

    def joined(self, entry: EngineEntry) -> None:
        """An engine joined, maybe late: then the one that replaced it leaves, since both would share the
        node's cores."""
        replacement = self._replaced.pop(entry.engine, "")
        if replacement:
            self._parts.notify_user(f"{entry.shown}: the engine of the former driver has reconnected late")
            successor = self._table.entries[replacement]
            if isinstance(successor.state, Launching):
                self._engines.launches.cancel(successor)
            else:
                self._parts.handle_event(events.Drain(replacement))
        self.look()

    def look(self) -> None:
        """An engine came or left: end the wait if none is missing."""
        if Reason.TAKEOVER in self._holds and self._all_there and not self.replaces:
            self._parts.notify_user("all engines are there")
            self._all_heard()

    def _all_heard(self) -> None:
        """No engine is expected any more."""
        self._parts.handle_event(events.Heard())
        self._holds.remove(Reason.TAKEOVER)

    @property
    def _all_there(self) -> bool:
        while self._expected and not isinstance(self._expected[0].state, Launching):
            self._expected.popleft()
        return not self._expected

    @property
    def _missing(self) -> list[EngineEntry]:
        return [entry for entry in self._table.launching if entry.inherited]

    # ---- they are missing ----

    def _wait_no_longer(self) -> None:
        if not self._engines.is_running():
            self.give_up()
            return
        self._look_beside()
        self.replaces = True
        self._ending = self._loop.create_task(self._replace(self._missing))

    async def _replace(self, missing: list[EngineEntry]) -> None:
        """Launch other engines for them, after what they left on this host has ended, so that no task runs
        twice at once. An engine that is ended here may say Hello before it leaves: it is replaced, too."""
        here = [entry.engine for entry in missing if entry.process.host in ("", self._parts.hostname)]
        ended = await end_remains(self._loop, here, self._parts.notify_user)
        self.replaces = False
        missing = [entry for entry in missing if isinstance(entry.state, Launching) or entry.engine in ended]
        if Reason.TAKEOVER not in self._holds or self._parts.is_over():
            return
        if not missing:
            self.look()  # they came at the last moment
            return
        for entry in missing:
            if isinstance(entry.state, Launching):
                self._table.change(entry, GivenUp())
            if self._may_replace(entry) and entry.node is not None:
                self._replaced[entry.engine] = self._engines.launches.start(entry.rank, entry.node)
        words = f"{_names(missing)}: not heard for {self._patience:g} s{self._anew(missing)}"
        self._parts.notify_user(words)
        self._all_heard()
        self._parts.engines_changed()

    def _may_replace(self, entry: EngineEntry) -> bool:
        wanted = entry.node is not None and entry.node.name not in self._told.avoid
        return wanted and not entry.context and self._engines.is_running()

    def _anew(self, missing: list[EngineEntry]) -> str:
        """Words for the nodes of replacement engines; one of the former driver's host is on this host."""
        successors = [self._replaced[each.engine] for each in missing if each.engine in self._replaced]
        names = {self._table.entries[engine].name for engine in successors}
        if not names:
            return ""
        known = names <= {entry.name for entry in missing}
        return "; starting anew " + ("there" if known else f"on {short_list(sorted(names))}")

    # ---- the run is ended ----

    def expect_the_living(self) -> None:
        """Do not wait for the engines that have ended."""
        for entry in self._missing:
            if entry.engine in self._ended:
                self._table.change(entry, ProcessEnded(0))
        if self._ended and self._ending is None:
            self._ending = self._loop.create_task(
                end_remains(self._loop, self._ended, self._parts.notify_user)
            )
        if Reason.TAKEOVER in self._holds and self._all_there:
            self._all_heard()

    def give_up(self) -> None:
        """The engines had their time to rejoin."""
        if Reason.TAKEOVER not in self._holds:
            return
        for entry in self._missing:
            self._table.change(entry, NotHeard())
        self._all_heard()

    async def close(self) -> None:
        """Wait until what missing engines left on this host has ended."""
        if self._ending is not None:
            await self._ending


def _names(engines: Iterable[EngineEntry]) -> str:
    return short_list(sorted({engine.name for engine in engines}))
