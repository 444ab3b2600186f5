"""The engines' comings and goings: who is started, joins, is lost or leaves, and what becomes of their nodes.

Engines that are not heard for the patience are lost; a local engine's death is known at once, because it is a
child. One of this host that is not heard is ended first: no task starts elsewhere beside a copy that we can
end. If this process was stopped for a while (a suspended laptop), the time it slept is nobody's silence: the
check that comes late forgives everybody once. As long as no engine is there nothing is checked, and no timer
runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Sequence

import msgspec

from disbatch.contexts.context import Retirement
from disbatch.contexts.launcher import Launcher
from disbatch.contexts.node_messages import BY_SIGNAL, NodeMessages
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import Spawned
from disbatch.contexts.ssh import new_place
from disbatch.driver.addresses import Addresses
from disbatch.driver.attachments import Attachments
from disbatch.driver.engine_orders import BootstrapFactory
from disbatch.driver.engine_table import Member
from disbatch.driver.idle_release import IdleReleases
from disbatch.driver.process_watch import ProcessWatch
from disbatch.driver.settings import Settings
from disbatch.driver.takeover import Succession
from disbatch.engine.process_tree import boot_id
from disbatch.engine.remains import end_remains
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.model.text import short_list
from disbatch.plan import events
from disbatch.plan.plan import Mode, Plan
from disbatch.rundir.journal import Gone, Here, JournalLine
from disbatch.wire.client_protocol import Fate
from disbatch.wire.driver_socket import Hub, Peer
from disbatch.wire.engine_protocol import AS_TOLD, Beat, Goodbye, Hello, Pulse, Welcome

log = logging.getLogger(__name__)

LAST_WORDS = 0.1
"""Seconds for the last results of a local engine that died to be read: none of these runs twice then."""
SEE_OFF = 1.0
"""Seconds after its Goodbye at which an engine's process and tunnel are looked after."""
CHECK_INTERVAL = 1.0
"""Seconds between two looks at who was heard; silence itself makes no event."""
LATE_CHECK = 5.0
"""A check that comes this much late means that this process did not run."""
LAUNCHING = 120.0
"""Seconds that an engine of another context may take to join, from when it was announced."""


class EngineManager:
    """`members` has all engines, by their name for good. `handle_event` gets events for the plan,
    `notify_user` lines for the user, `journal` lines for the journal; `engines_changed` is called when one
    came or left. `is_over()`: nothing matters any more; `lets_go`: an engine that comes shall leave. Each of
    `on_joined` is called with every engine that joins. `bootstraps` has what engines are told. `launch` comes
    before anything else."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        plan: Plan,
        members: dict[str, Member],
        attachments: Attachments,
        *,
        hub: Hub,
        addresses: Addresses,
        bootstraps: BootstrapFactory,
        hostname: str,
        handle_event: Callable[[events.Event], None],
        notify_user: Callable[[str], None],
        journal: Callable[[JournalLine], object],
        engines_changed: Callable[[], None],
        is_over: Callable[[], bool],
        time_is_up: Callable[[], bool],
        lets_go: Callable[[Member], bool],
        on_joined: Sequence[Callable[[Member], None]],
    ) -> None:
        self.loop = loop
        self.members = members
        self.hostname = hostname
        self.handle_event = handle_event
        self.notify_user = notify_user
        self.journal = journal
        self.engines_changed = engines_changed
        self.is_over = is_over
        self._settings = settings
        self._plan = plan
        self._attachments = attachments
        self._time_is_up = time_is_up
        self._lets_go = lets_go
        self.ever_joined = False
        self.next_rank = 0
        self.node_messages = NodeMessages(loop, notify_user)
        self.ended_by_scheduler = False
        """The scheduler ended an engine of the driver's own context."""
        self._succession: Succession | None = None
        self._retirement: Retirement | None = None
        self.idle_releases = IdleReleases(members, attachments.engines)
        self._timer: asyncio.TimerHandle | None = None
        self._checked = 0.0
        self._watched = ProcessWatch(loop, self._exited_here)
        self._endings: set[asyncio.Task[None]] = set()
        self._on_joined = on_joined
        pool = settings.pool
        self.idle_releases.add("", pool.spare_after, pool.keep)
        self._hub, self._addresses, self._bootstraps = hub, addresses, bootstraps
        self._launcher = Launcher(
            loop,
            pool.context,
            on_started=self._launched,
            on_failed=self._launch_failed,
            on_exit=self.exited,
            on_trouble=notify_user,
            ssh=pool.ssh,
            tunnel_to=addresses.socket if pool.tunnel else None,
        )

    def launch(
        self,
        nodes: list[Node],
        early: Spawned | None,
        retirement: Retirement | None,
        succession: Succession | None,
    ) -> None:
        """Start engines on these nodes, or expect those that are there. `early`: a local one that was started
        before we were ready."""
        self._retirement, self._succession = retirement, succession
        if early is not None:
            self._launcher.adopt(early)
        if succession is None:
            for node in nodes:
                self.start(self.next_rank, node)
        elif not succession.expect():
            succession.start_anew(nodes)

    def is_running(self) -> bool:
        """The plan gives tasks out."""
        return self._plan.mode is Mode.RUNNING

    def label_of(self, context: str) -> str:
        """The label of that context's nodes."""
        return self._attachments.label(context) if context else self._settings.pool.label

    # ---- they come ----

    def start(self, rank: int, node: Node) -> str:
        """Start an engine there; its name for good."""
        name = self._settings.pool.name_of(node, self.hostname)
        engine = f"{rank}-{secrets.token_hex(8)}"
        pool = self._settings.pool
        place = new_place() if pool.tunnel and node.way is Way.SSH else ""
        self.add(Member(engine, name, rank, node.slots, node, label=pool.label, tunnel=place))
        here = Here(engine, name, rank, node.slots, node, tunnel=place)
        if node.local:
            here = msgspec.structs.replace(here, host=self.hostname, boot=boot_id())
        self.journal(here)
        addresses = self._addresses.for_node(node)
        bootstrap = self._bootstraps.bootstrap(node, name=name, engine=engine, addresses=addresses)
        self._launcher.start(node, bootstrap, place)
        return engine

    def reconnect(self, member: Member) -> None:
        """A tunnel led from this engine to a former driver."""
        if member.node is not None and member.tunnel:
            self._launcher.reconnect(member.engine, member.node, member.tunnel)

    def add(self, member: Member) -> None:
        """This engine is on its way."""
        self.members[member.engine] = member
        self.next_rank = max(self.next_rank, member.rank + 1)

    def expect(self, member: Member) -> None:
        """Another context starts this engine."""
        self.add(member)
        self.journal(
            Here(member.engine, member.name, member.rank, member.slots, None, context=member.context)
        )
        self.loop.call_later(LAUNCHING, self._missed, member.engine)
        self.engines_changed()

    def _launched(self, engine: str) -> None:
        log.info("%s: engine started", self.members[engine].name)
        self.loop.call_later(self._settings.patience * 2, self._missed, engine)

    def _missed(self, engine: str) -> None:
        member = self.members[engine]
        if not member.launching or self.is_over():
            return
        if not member.context:
            path = self._settings.claimed.files.engine_log(member.name)
            problem = f"its engine started but did not join; see {path}"
            self._launch_failed(engine, LaunchError(member.name, problem))
        elif self._attachments.is_heard(member.context):
            self.loop.call_later(LAUNCHING, self._missed, engine)  # it tells if that fails
        else:
            self.failed(engine, f"{member.shown}: did not join, and who attached it is not heard any more")

    def _launch_failed(self, engine: str, error: LaunchError) -> None:
        self.failed(engine, f"{self.members[engine].shown}: {error.problem}")

    def failed(self, engine: str, words: str) -> None:
        """It will not come, and why."""
        member = self.members[engine]
        member.launching = False
        self.journal(Gone(engine))
        self._attachments.became(member, Fate.LEFT)
        if self.is_over() or self._plan.mode is Mode.OVER:
            log.info("%s", words)  # it was sent away, or not waited for
            return
        self.notify_user(words)
        self._fewer()

    def unheard(self, member: Member) -> None:
        """It was there when the former driver was, and may still come."""
        self._attachments.became(member, Fate.LOST)

    def _fewer(self) -> None:
        """Somebody is not there, or will not come."""
        if self._succession is not None:
            self._succession.look()
        self.engines_changed()

    def hello(self, peer: Peer, hello: Hello) -> None:
        """An engine greets, for the first time or again."""
        if self._plan.mode is Mode.OVER or self.is_over():
            self._hub.refuse(peer, "the run is over")
            return
        s = self._settings
        member = self.members.get(peer.name)
        if self._succession is not None and not self._plan.reads and (member is None or not member.came):
            # The tasks that it has from a former driver are not read any more: it writes down their results.
            self._hub.refuse(peer, "the run ends")
            return
        if member is None:
            inherited = self._succession is not None
            member = Member(peer.name, hello.node, self.next_rank, hello.slots, inherited=inherited)
            self.add(member)
        welcome = Welcome(
            rank=member.rank,
            jobid=s.jobid,
            task_name=os.fsencode(s.task_name),
            heartbeat=s.heartbeat,
            patience=s.patience,
            orphan_patience=s.orphan_patience,
            grace=self._attachments.grace(member.context, s.grace),
            results_seen=peer.session.seen,
            next_order=peer.session.next_number,
            pid=os.getpid(),
        )
        self._hub.welcome(peer, welcome, hello.orders_seen)
        if member.joined is None and not member.left:
            self._join(member, hello)

    def _join(self, member: Member, hello: Hello) -> None:
        leaving = self._lets_go(member)
        if member.came or (member.inherited and member.lost):
            self.notify_user(
                f"{member.shown}: the engine is heard again and {'leaves' if leaving else 'goes on'}"
            )
        log.info("%s: engine joined (rank %d, %d slots)", member.name, member.rank, hello.slots)
        self.ever_joined = True
        member.joined, member.launching, member.slots = self.loop.time(), False, hello.slots
        member.lost = member.retired = False
        member.ended_for = ""
        self._note_process(member, hello)
        if self._retirement is not None and not member.context:
            self._retirement.joined(member.name)
        place = (member.name, member.rank, hello.slots, member.node, hello.host, hello.pid, member.context)
        self.journal(Here(member.engine, *place, member.tunnel, hello.boot, hello.started))
        self._attachments.became(member, Fate.JOINED)
        self._watch()
        holding = [claim.attempt for claim in hello.holding]
        past = self._succession.past(hello) if self._succession is not None and member.inherited else None
        self.handle_event(events.Joined(member.engine, hello.slots, holding, member.context, past, leaving))
        if self._succession is not None:
            self._succession.joined(member, hello)
        for call in self._on_joined:
            call(member)
        self.engines_changed()

    def beat(self, peer: Peer, message: Beat) -> None:
        """It is there."""
        member = self.members[peer.name]
        member.beat, member.beat_at = message, self.loop.time()
        peer.session.tell(Pulse())

    # ---- they go ----

    def exited(self, engine: str, return_code: int, words: str) -> None:
        """The process of an engine, or the command that started its step, ended."""
        member = self.members[engine]
        never_came, member.launching, member.return_code = member.launching, False, return_code
        member.exited = True
        if member.left:
            self._retire(member)
        if member.joined is not None:
            # What it sent before it died may still be on its way through ZeroMQ's thread.
            self.loop.call_later(LAST_WORDS, self.lose, engine, member.ended_for or words)
        elif never_came and not self.is_over():
            self.journal(Gone(engine))
            self._attachments.became(member, Fate.LEFT)
            self.notify_user(f"{member.shown}: {words}")
        elif return_code:
            log.warning("%s: %s", member.name, words)
        self._fewer()

    def _exited_here(self, engine: str) -> None:
        """An engine of this host ended that is no child of ours; what it left is ended first."""
        words = "its engine ended"
        if self.members[engine].left:
            self.exited(engine, 0, words)
        else:
            self._end_remains(engine, lambda: self.exited(engine, 0, words))

    def goodbye(self, peer: Peer, message: Goodbye) -> None:
        """It leaves in order."""
        member = self.members[peer.name]
        log.info("%s: engine left (%s)", member.name, message.reason)
        if message.reason != AS_TOLD and self.is_running():
            scheduler = self._scheduler_of(member)
            own = bool(scheduler) and not member.context
            self.ended_by_scheduler |= own and message.reason.startswith(BY_SIGNAL)
            self.node_messages.left(member.shown, message.reason, scheduler=scheduler)
        member.left = True
        member.spare = message.reason == AS_TOLD and self.is_running() and not self._time_is_up()
        self._gone(member)
        self._attachments.became(member, Fate.SPARE if member.spare else Fate.LEFT)
        self.handle_event(events.Left(peer.name))
        self.loop.call_later(SEE_OFF, self._launcher.end, peer.name)
        self.engines_changed()

    def _scheduler_of(self, member: Member) -> str:
        """Whose job has its node, in words for the user; "": nobody's."""
        if member.context:
            return "the scheduler" if self._attachments.is_scheduled(member.context) else ""
        return self._settings.pool.context.scheduler

    def lose(self, engine: str, why: str) -> None:
        """It is given up."""
        member = self.members[engine]
        peer = self._hub.peer(engine)
        if peer is not None and peer.joined:
            self._hub.give_up(peer)
        if member.joined is None:
            return
        self._gone(member, lost=True)
        member.lost = True
        self._attachments.became(member, Fate.LOST)
        if self._plan.mode is not Mode.OVER and not self.is_over():
            self.notify_user(f"{member.shown}: engine lost: {why}{self._what_becomes_of_its_tasks(engine)}")
        self.handle_event(events.Lost(engine))
        if member.local:
            self._launcher.end(engine)
        self.engines_changed()

    def _gone(self, member: Member, *, lost: bool = False) -> None:
        member.leave(self.loop.time())
        self.journal(Gone(member.engine, lost))
        step = member.node is not None and member.node.way is Way.STEP and not member.inherited
        if not (step and member.spare and not member.exited):
            self._retire(member)

    def _retire(self, member: Member) -> None:
        """Its node is no longer needed. A step that is to leave the job first ends."""
        if self._retirement is not None and not member.context and not member.retired:
            member.retired = True
            self._retirement.retire(member.name, member.return_code, spare=member.spare)

    def expect_nobody(self) -> None:
        """Engines that are on their way would come too late."""
        for member in self.members.values():
            if member.launching and not member.context:
                self.dismiss(member)
        self.engines_changed()

    def expect_the_living(self) -> None:
        """The run is ended: engines of a former driver that are known to have ended are not waited for."""
        if self._succession is not None:
            self._succession.expect_the_living()

    def dismiss(self, member: Member) -> None:
        """It need not come."""
        member.launching = False
        self._launcher.end(member.engine)
        self.journal(Gone(member.engine, lost=True))
        self._attachments.became(member, Fate.LEFT)
        self._fewer()

    def give_up(self, why: str) -> None:
        """Do not wait any longer for engines that were told to end what they have, or are expected."""
        for peer in list(self._hub.peers()):
            engine = self._plan.engines.get(peer.name)
            if engine is not None and (engine.holds_tasks() or engine.per_engine):
                self.lose(peer.name, why)
        if self._succession is not None:
            self._succession.give_up()

    @property
    def not_heard(self) -> list[str]:
        """Nodes whose engines, of a former driver, did not come before the run was ended."""
        there = {} if self._succession is None else self._succession.unheard
        return sorted({member.name for member in there.values() if not member.exited})

    @property
    def expected(self) -> bool:
        """An engine is on its way."""
        replaces = self._succession is not None and self._succession.replaces
        return replaces or any(member.launching for member in self.members.values())

    def of_context(self, context: str) -> list[Member]:
        """The engines of that context that are there, or were lost."""
        there = (self.members[engine] for engine in self._plan.engines)
        return [member for member in there if member.context == context]

    def _what_becomes_of_its_tasks(self, engine: str) -> str:
        """The end of the line that says that this engine is lost."""
        tasks = self._plan.reruns_if_lost(engine)
        others = self._plan.present > 1 or self.expected
        if not tasks or not others or not self.is_running():
            return ""
        return f"; its {tasks} tasks run again elsewhere" if tasks > 1 else "; its task runs again elsewhere"

    @property
    def out_of_reach(self) -> list[str]:
        """Nodes on which tasks may run that nobody can end."""
        return sorted({member.shown for member in self.members.values() if member.may_run_on})

    def warn_of_the_lost(self) -> None:
        """Who resumes at once would run a task beside itself."""
        names = self.out_of_reach
        if names:
            limit = f"{self._settings.orphan_patience:g} s"
            self.notify_user(
                f"{short_list(names)}: tasks may still run there, for at most {limit}; resume after that"
            )

    # ---- who is heard ----

    def _watch(self) -> None:
        if self._timer is None:
            self._checked = self.loop.time()
            self._timer = self.loop.call_later(CHECK_INTERVAL, self._check)

    def _check(self) -> None:
        """Who was not heard for too long is lost, and who was spare for long enough is let go."""
        now = self.loop.time()
        late = now - self._checked > CHECK_INTERVAL + LATE_CHECK
        self._checked, self._timer = now, None
        for peer in list(self._hub.peers()):
            if late:
                peer.heard = now
            elif now - peer.heard > self._settings.patience:
                member = self.members[peer.name]
                patience = self._settings.patience if self._sees(member) else self._settings.patience_afar
                if now - peer.heard > patience:
                    self._unheard(member, f"not heard for {patience:g} s")
        if self.idle_releases:
            for engine in self.idle_releases.due(self._plan.spare, now):
                self.handle_event(events.Drain(engine))
        if self._plan.present:
            self._timer = self.loop.call_later(CHECK_INTERVAL, self._check)

    def _sees(self, member: Member) -> bool:
        """Its process is on this host, and we learn when it has ended."""
        return (member.local and not member.inherited) or member.engine in self._watched

    def _note_process(self, member: Member, hello: Hello) -> None:
        if hello.host == self.hostname and not (member.local and not member.inherited):
            member.pid, member.started = hello.pid, hello.started
            if member.local:
                self._watched.watch(member.engine, member.pid, member.started)

    def _unheard(self, member: Member, why: str) -> None:
        """It is lost; but one of this host is ended before its tasks may start elsewhere."""
        if member.ended_for:
            return
        member.ended_for = why
        if member.local and not member.inherited and not member.exited:
            self._launcher.end(member.engine)
        elif member.pid and self._watched.watch(member.engine, member.pid, member.started):
            self._watched.end(member.engine)
        elif member.pid:
            self._end_remains(member.engine, lambda: self.lose(member.engine, why))
        else:
            self.lose(member.engine, why)

    def _end_remains(self, engine: str, ended: Callable[[], None]) -> None:
        """End what it has left on this host, or is there of it."""

        async def end() -> None:
            await end_remains(self.loop, [engine], self.notify_user)
            ended()

        task = self.loop.create_task(end())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # ---- the end ----

    def stop_watching(self) -> None:
        """Nobody's silence matters any more."""
        if self._timer is not None:
            self._timer.cancel()
        self.node_messages.flush()

    async def retire_all(self) -> None:
        """All nodes are no longer needed."""
        if self._retirement is not None:
            for member in self.members.values():
                if not member.context and (member.joined is not None or member.left):
                    self._gone(member)
                    self._retire(member)
            await self._retirement.finish()

    def abandon_retirement(self) -> None:
        """The user is tired of waiting."""
        if self._retirement is not None:
            self._retirement.abandon()

    async def close(self, patience: float) -> None:
        """See everybody off: those that we have started have so many seconds to leave by themselves."""
        if self._succession is not None:
            await self._succession.close()
        await self._watched.close(patience)
        if self._endings:
            await asyncio.wait(self._endings)
        lost = {member.engine for member in self.members.values() if member.lost}
        await self._launcher.close(patience=patience, lost=lost)
