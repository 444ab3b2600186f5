"""Manage the engines of a run: launch them, admit them, give them up, and let them go.

What happens to an engine is an event that changes its state (`engine_state`). `EngineTable.change` does what
follows for the journal, the attached context and the node; here are the messages to the engine and to the
user, and the events for the plan. `FailureDetector` finds the engines that are silent or have ended. Checks
need a timer, which runs only as long as engines are there.
"""

from __future__ import annotations

import asyncio
import logging
import os

from disbatch.contexts.context import Retirement
from disbatch.contexts.node_messages import BY_SIGNAL, NodeMessages
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import Spawned
from disbatch.driver.engine_launch import EngineLaunches, EngineParts
from disbatch.driver.engine_state import (
    Ending,
    GivenUp,
    Heartbeat,
    Joined,
    Launching,
    Left,
    Lost,
    ProcessEnded,
    RunOver,
    SaidGoodbye,
    SaidHello,
    SentBeat,
)
from disbatch.driver.engine_table import EngineEntry, Process
from disbatch.driver.failure_detector import CHECK_INTERVAL, FailureDetector
from disbatch.driver.idle_release import IdleReleases
from disbatch.driver.takeover import EngineRecovery
from disbatch.model.task import Way
from disbatch.model.text import short_list
from disbatch.plan import events
from disbatch.plan.capacity import Capacity
from disbatch.plan.plan import Mode, Plan
from disbatch.wire.driver_socket import Peer
from disbatch.wire.engine_protocol import AS_TOLD, Beat, Goodbye, Hello, Pulse, Welcome

log = logging.getLogger(__name__)

LAST_RESULTS = 0.1
"""Seconds after the end of an engine's process in which its last results are still read, so that none of
those tasks runs twice."""
CLEAN_UP = 1.0
"""Seconds after its Goodbye at which an engine's process and tunnel are ended, if they are still there."""


class EngineManager:
    """`launches` launches engines, `detector` finds those that failed. `launch` comes before anything
    else."""

    def __init__(
        self, parts: EngineParts, plan: Plan, launches: EngineLaunches, detector: FailureDetector
    ) -> None:
        self.parts = parts
        self.table = parts.table
        self.launches = launches
        self._plan = plan
        self._detector = detector
        self.node_messages = NodeMessages(parts.loop, parts.notify_user)
        self.ended_by_scheduler = False
        """The scheduler ended an engine of the driver's own context."""
        pool = parts.settings.pool
        self.idle_releases = IdleReleases(parts.table.entries, parts.attachments.engines)
        self.idle_releases.add("", pool.spare_after, pool.context.keep)
        self._recovery: EngineRecovery | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ---- state ----

    def is_running(self) -> bool:
        """The plan gives out tasks."""
        return self._plan.mode is Mode.RUNNING

    @property
    def expected(self) -> bool:
        """An engine may still join."""
        return (self._recovery is not None and self._recovery.replaces) or self.table.expects_some

    @property
    def ever_joined(self) -> bool:
        """An engine has joined this driver."""
        return any(entry.state.has_joined for entry in self.table.entries.values())

    def of_context(self, context: str) -> list[EngineEntry]:
        """The engines of that context that are there, or were lost."""
        there = (self.table.entries[engine] for engine in self._plan.engines)
        return [entry for entry in there if entry.context == context]

    def label_of(self, context: str) -> str:
        """The label of that context's nodes."""
        return self.parts.attachments.label(context) if context else self.parts.settings.pool.label

    # ---- launching ----

    def launch(
        self,
        nodes: list[Node],
        early: Spawned | None,
        retirement: Retirement | None,
        recovery: EngineRecovery | None,
    ) -> None:
        """Launch engines on these nodes, or expect those of a former driver. `early`: a local engine that was
        started before the driver was complete."""
        self.table.retirement, self._recovery = retirement, recovery
        if early is not None:
            self.launches.adopt(early)
        if recovery is None:
            for node in nodes:
                self.launches.start(self.table.next_rank, node)
        elif not recovery.expect():
            recovery.start_anew(nodes)

    def fewer(self) -> None:
        """An engine is gone, or will not join."""
        if self._recovery is not None:
            self._recovery.look()
        self.parts.engines_changed()

    # ---- they join ----

    def hello(self, peer: Peer, hello: Hello) -> None:
        """An engine says Hello, for the first time or again."""
        if self.parts.is_over():
            self.parts.hub.refuse(peer, "the run is over")
            return
        entry = self.table.entries.get(peer.name)
        is_new = entry is None or not entry.state.has_joined
        if self._recovery is not None and not self._plan.reads and is_new:
            # The tasks that it has from a former driver are not read any more: it records their results.
            self.parts.hub.refuse(peer, "the run ends")
            return
        if entry is None:
            place = (hello.node, self.table.next_rank, hello.slots)
            entry = EngineEntry(peer.name, *place, inherited=self._recovery is not None)
            self.table.add(entry)
        self.parts.hub.welcome(peer, self._welcome(peer, entry), hello.orders_seen)
        if not isinstance(entry.state, Joined | Left):
            self._join(entry, hello)

    def _welcome(self, peer: Peer, entry: EngineEntry) -> Welcome:
        s = self.parts.settings
        return Welcome(
            rank=entry.rank,
            jobid=s.jobid,
            task_name=os.fsencode(s.task_name),
            heartbeat=s.heartbeat,
            patience=s.patience,
            orphan_patience=s.orphan_patience,
            grace=self.parts.attachments.grace(entry.context, s.grace),
            results_seen=peer.session.seen,
            next_order=peer.session.next_number,
            pid=os.getpid(),
        )

    def _join(self, entry: EngineEntry, hello: Hello) -> None:
        leaving = self.parts.lets_go(entry)
        if isinstance(entry.state, Lost):
            then = "leaves" if leaving else "goes on"
            self.parts.notify_user(f"{entry.shown}: the engine is heard again and {then}")
        log.info("%s: engine joined (rank %d, %d slots)", entry.name, entry.rank, hello.slots)
        entry.slots = hello.slots
        entry.process = Process(hello.host, hello.boot, hello.pid, hello.started)
        self.table.change(entry, SaidHello(self.parts.loop.time()))
        self._detector.joined(entry)
        self._begin_checks()
        holding = [claim.attempt for claim in hello.holding]
        past = self._recovery.past(hello) if self._recovery is not None and entry.inherited else None
        self.parts.handle_event(
            events.Joined(entry.engine, Capacity(hello.slots), holding, entry.context, past, leaving)
        )
        if self._recovery is not None:
            self._recovery.joined(entry)
        for call in self.parts.on_joined:
            call(entry)
        self.parts.engines_changed()

    def beat(self, peer: Peer, message: Beat) -> None:
        """An engine sent a heartbeat."""
        entry = self.table.entries[peer.name]
        self.table.change(entry, SentBeat(Heartbeat(self.parts.loop.time(), message)))
        peer.session.tell(Pulse())

    # ---- they go ----

    def exited(self, engine: str, return_code: int, words: str) -> None:
        """The process of an engine, or the command that started its step, ended; `words` say how."""
        entry = self.table.entries[engine]
        before = entry.state
        self.table.change(entry, ProcessEnded(return_code))
        if isinstance(before, Joined):
            # What the engine sent before it ended may still be on its way through ZeroMQ's thread.
            why = before.reason if isinstance(before, Ending) else words
            self.parts.loop.call_later(LAST_RESULTS, self.lose, engine, why)
        elif isinstance(before, Launching) and not self.parts.is_over():
            self.parts.notify_user(f"{entry.shown}: {words}")
        elif return_code:
            log.warning("%s: %s", entry.name, words)
        self.fewer()

    def goodbye(self, peer: Peer, message: Goodbye) -> None:
        """An engine leaves in order."""
        entry = self.table.entries[peer.name]
        log.info("%s: engine left (%s)", entry.name, message.reason)
        told = message.reason == AS_TOLD
        if not told and self.is_running():
            scheduler = self._scheduler_of(entry)
            own = bool(scheduler) and not entry.context
            self.ended_by_scheduler |= own and message.reason.startswith(BY_SIGNAL)
            self.node_messages.left(entry.shown, message.reason, scheduler=scheduler)
        spare = told and self.is_running() and not self.parts.time_is_up()
        in_step = entry.node is not None and entry.node.way is Way.STEP and not entry.inherited
        self.table.change(entry, SaidGoodbye(spare, in_step))
        self.parts.handle_event(events.Left(peer.name))
        self.parts.loop.call_later(CLEAN_UP, self.launches.end, peer.name)
        self.parts.engines_changed()

    def _scheduler_of(self, entry: EngineEntry) -> str:
        """The scheduler whose job has the engine's node, in words for the user; "": none."""
        if entry.context:
            return "the scheduler" if self.parts.attachments.is_scheduled(entry.context) else ""
        return self.parts.settings.pool.context.scheduler

    def lose(self, engine: str, why: str) -> None:
        """Give the engine up."""
        entry = self.table.entries[engine]
        self.parts.hub.give_up(engine)
        if not isinstance(entry.state, Joined):
            return
        self.table.change(entry, GivenUp())
        if not self.parts.is_over():
            again = self._what_becomes_of_its_tasks(engine)
            self.parts.notify_user(f"{entry.shown}: engine lost: {why}{again}")
        self.parts.handle_event(events.Lost(engine))
        if entry.local:
            self.launches.end(engine)
        self.parts.engines_changed()

    def _what_becomes_of_its_tasks(self, engine: str) -> str:
        """The end of the message that the engine is lost."""
        tasks = self._plan.reruns_if_lost(engine)
        others = self._plan.present > 1 or self.expected
        if not tasks or not others or not self.is_running():
            return ""
        return f"; its {tasks} tasks run again elsewhere" if tasks > 1 else "; its task runs again elsewhere"

    def give_up(self, why: str) -> None:
        """Give up the engines that were told to end their tasks and have not, and those that are expected of
        a former driver."""
        for peer in list(self.parts.hub.peers()):
            engine = self._plan.engines.get(peer.name)
            if engine is not None and (engine.holds_tasks() or engine.per_engine):
                self.lose(peer.name, why)
        if self._recovery is not None:
            self._recovery.give_up()

    # ---- checks ----

    def _begin_checks(self) -> None:
        if self._timer is None:
            self._detector.begin()
            self._timer = self.parts.loop.call_later(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        """Give up silent engines, and release those that were spare for long enough."""
        self._timer = None
        self._detector.check()
        if self.idle_releases:
            for engine in self.idle_releases.due(self._plan.spare, self.parts.loop.time()):
                self.parts.handle_event(events.Drain(engine))
        if self._plan.present:
            self._timer = self.parts.loop.call_later(CHECK_INTERVAL, self._check)

    # ---- the end ----

    def expect_the_living(self) -> None:
        """The run is being ended: do not wait for engines of a former driver that are known to have ended."""
        if self._recovery is not None:
            self._recovery.expect_the_living()

    def warn_of_the_lost(self) -> None:
        """Tell the user that tasks of lost engines may still run: a resumed run could run them twice."""
        names = self.table.out_of_reach
        if names:
            limit = f"{self.parts.settings.orphan_patience:g} s"
            self.parts.notify_user(
                f"{short_list(names)}: tasks may still run there, for at most {limit}; resume after that"
            )

    def stop_watching(self) -> None:
        """Silence does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
        self.node_messages.flush()

    async def retire_all(self) -> None:
        """Release all nodes of the driver's own context."""
        retirement = self.table.retirement
        if retirement is not None:
            for entry in self.table.entries.values():
                if not entry.context:
                    self.table.change(entry, RunOver())
            await retirement.finish()

    def abandon_retirement(self) -> None:
        """Do not wait for nodes to be released."""
        if self.table.retirement is not None:
            self.table.retirement.abandon()

    async def close(self, patience: float) -> None:
        """End what the engines have on this host and their launches; those that were launched here have so
        many seconds to leave by themselves."""
        if self._recovery is not None:
            await self._recovery.close()
        await self._detector.close(patience)
        await self.launches.close(patience)


def engine_manager(parts: EngineParts, plan: Plan) -> EngineManager:
    """An engine manager with its launches and its failure detector."""
    launches = EngineLaunches(
        parts,
        on_exit=lambda engine, code, words: manager.exited(engine, code, words),  # noqa: PLW0108 - it is made below
        not_coming=lambda: manager.fewer(),  # noqa: PLW0108 - it is made below
    )
    detector = FailureDetector(
        parts,
        end_child=launches.end,
        lose=lambda engine, why: manager.lose(engine, why),  # noqa: PLW0108 - it is made below
        on_exit=lambda engine: manager.exited(engine, 0, "its engine ended"),
    )
    manager = EngineManager(parts, plan, launches, detector)
    return manager
