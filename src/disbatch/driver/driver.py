"""Performs the plan's actions: serves the engines, feeds the plan, writes the record.

Theory of operation
-------------------
One event loop. Whatever happens (a message, lines to read, an engine lost, a signal) becomes one event for
the plan; its actions are performed at once, and then the plan is fed from the source as long as it has room.

A result is acknowledged to its engine when its line is in the status file (`Record.mark`), so an engine
forgets nothing that is not recorded. Engines that are not heard for `patience` are lost; a local engine's
death is known at once, because it is a child. If this process was stopped for a while (a suspended laptop),
the time it slept is nobody's silence: the check that comes late forgives everybody once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from disbatch.contexts.launch import Launcher
from disbatch.contexts.machine import this_machine
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import Spawned
from disbatch.driver import command as commands
from disbatch.driver.addresses import Addresses
from disbatch.driver.control import Control
from disbatch.driver.departures import Departures, some
from disbatch.driver.feed import Feed
from disbatch.driver.giveback import choose_give_back
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.inherited import Inherited
from disbatch.driver.job import preemption_left
from disbatch.driver.observer import Observer
from disbatch.driver.orders import start_per_engine, starts
from disbatch.driver.record import Record
from disbatch.driver.result import Result
from disbatch.driver.retirement import Retirement, choose_retirement
from disbatch.driver.roster import Member, Tally
from disbatch.driver.runfile import Gone, Here, RunFile, TakenOver
from disbatch.driver.scribe import Scribe
from disbatch.driver.settings import Settings
from disbatch.driver.starting import bootstrap_for, node_name
from disbatch.driver.timelimit import TimeLimit
from disbatch.model.errors import LaunchError
from disbatch.model.snapshot import Snapshot, Summary
from disbatch.model.status import STATUS_HEADER
from disbatch.model.task import Phase
from disbatch.model.way import Way
from disbatch.plan import events
from disbatch.plan.plan import Mode, Plan
from disbatch.wire.hub import Hub, Peer
from disbatch.wire.keys import RunKeys
from disbatch.wire.messages import (
    AS_TOLD,
    Beat,
    End,
    Finished,
    FromEngine,
    Goodbye,
    Hello,
    Leave,
    Pulse,
    Recall,
    Recalled,
    Trouble,
    Welcome,
)

log = logging.getLogger(__name__)

ACKNOWLEDGE_DELAY = 0.1
"""Seconds that an acknowledgement may wait for a message to ride on."""
LAST_WORDS = 0.1
"""Seconds for the last results of a local engine that died to be read: none of these runs twice then."""
CHECK_INTERVAL = 1.0
"""Seconds between two looks at who was heard; silence itself makes no event."""
LATE_CHECK = 5.0
"""A check that comes this much late means that this process did not run."""
ENDING_MARGIN = 10.0
"""Seconds beyond the grace that engines have to end their tasks before they are given up."""
ENDING_AT_LIMIT = 2.5
"""The same, where the end of the allocation is near."""
AT_ONCE = 3.0
"""The same, after a second signal."""
LIFE_SIGN = 15.0
"""Seconds between two signs of life that a later command can see: the status file's time."""
ATTEMPTS = 1 << 40
"""Attempts that one driver of a run may make: those of the next one bear higher numbers."""


class Driver:
    """One run. `run` carries it out and tells how it went; `interrupt` ends it early."""

    def __init__(self, settings: Settings, feed: Feed, observer: Observer, early: Spawned | None) -> None:
        self._settings = s = settings
        self._feed = feed
        self._observer = observer
        self._early = early
        before = 0 if s.takeover is None else s.takeover.done
        self._plan = Plan(
            max_losses=s.max_losses,
            fail_fast=s.fail_fast,
            limits=None if s.task_limit is None else {"": max(0, s.task_limit - before)},
            first_attempt=1 if s.takeover is None else s.takeover.generation * ATTEMPTS,
        )
        self._tally = Tally()
        self._members: dict[str, Member] = {}
        self._notice = ""
        self._joined = False
        self._timer: asyncio.TimerHandle | None = None
        self._launcher: Launcher | None = None
        self._retirement: Retirement | None = None
        self._give_back = choose_give_back(s, lambda engine: self._members[engine].name)
        self._time_limit = TimeLimit(
            s,
            say=self._say,
            tell=self._tell,
            engines=lambda: self._plan.engines,
            launches_end=self._expect_nobody,
            end_is_near=lambda grace: self._give_up_after(grace + ENDING_AT_LIMIT),
        )
        self._holds = Holds(self._tell)
        self._control = Control(
            self._plan,
            self._members,
            self._holds,
            label=s.label,
            source_name=s.source_name,
            source_ids=feed.ids,
            tell=self._tell,
            dismiss=self._do_not_expect,
            say=self._say,
            ending=lambda: self._over.done() or self._plan.mode not in (Mode.RUNNING, Mode.WINDING_DOWN),
            finish=self._finish_early,
        )
        self._signals = 0
        self._preemption: asyncio.Task[None] | None = None
        self._signal = 0
        self._ended_early = False
        self._incomplete = ""
        self._pumping = False
        self._to_acknowledge: dict[str, Peer] = {}
        self._withheld: dict[str, tuple[Peer, int]] = {}
        """Messages of engines that are not acknowledged yet, as the plan keeps some of their results."""
        self._replaced: dict[str, str] = {}
        """Engines of the former driver that did not come in time, and those that took their place."""
        self._touched = 0.0
        self._hostname = this_machine().hostname
        self._performers: dict[type, Callable[[Any], None]] = {
            events.Assign: self._assign,
            events.AssignPerEngine: lambda a: self._post(a.engine, start_per_engine(a)),
            events.Recall: lambda a: self._post(a.engine, Recall(a.attempts)),
            events.End: lambda a: self._post(a.engine, End(a.attempts, a.at_once)),
            events.Release: lambda a: self._post(a.engine, Leave()),
            events.Finish: self._finish,
        }

    # ---- the course of a run ----

    async def run(self) -> tuple[int, Summary]:
        """Carry the run out; returns the exit code and the summary."""
        self._loop = loop = asyncio.get_running_loop()
        self._started = self._checked = loop.time()
        self._wall_started = time.time()
        self._over: asyncio.Future[None] = loop.create_future()
        s = self._settings
        self._departures = Departures(loop, self._say, by_slurm=self._settings.allocation is not None)
        self._record = Record(
            *(loop, s.claimed.status_descriptor, s.claimed.recorded),
            trouble=self._disk_trouble, recovered=self._disk_recovered
        )
        scribe = Scribe(
            self._record.add,
            self._tally,
            self._members,
            say=self._say,
            source_name=s.source_name,
            hostname=self._hostname,
            barriers_read=self._feed.barriers_read,
        )
        self._performers |= scribe.performers
        if s.status_header and not s.claimed.recorded:
            self._record.add(STATUS_HEADER)
        keys = RunKeys.generate() if s.takeover is None else s.takeover.connect.keys
        self._inherited = Inherited(loop, lambda engine: self._exited(engine, 0, "its engine ended"))
        loop.set_exception_handler(self._failed)
        with zmq.Context() as context, contextlib.ExitStack() as stack:
            self._run_file: RunFile | None = None
            self._hub = Hub(
                *(loop, context, keys),
                hello=self._hello,
                receive=self._receive,
                bad=self._bad,
                request=self._control.request,
            )
            addresses = Addresses(s, self._hub)
            stack.callback(addresses.withdraw)
            try:
                addresses.listen()
                self._begin_run_file()
                addresses.publish(keys, self._wall_started)
                self._retirement = choose_retirement(s, self._hostname, addresses.folder, self._say)
                self._incomplete = self._time_limit.too_late
                self._feed.start(loop, self._pump)
                self._launch(keys, addresses, [] if self._incomplete else s.nodes)
                self._pump()
                self._check()
                self._observer.start(self.snapshot)
                self._time_limit.start()
                self._look_for_engines()
                await self._over
            finally:
                unwritten = await self._close()
        result = self._result()
        if not result.complete:
            self._warn_of_the_lost()
        return result.exit_code, self._summary(result, unwritten)

    async def _close(self) -> bytes:
        if self._timer is not None:
            self._timer.cancel()
        self._time_limit.close()
        if self._preemption is not None:
            self._preemption.cancel()
        self._departures.tell()
        self._feed.close()
        if self._retirement is not None:
            for member in self._members.values():
                if member.joined is not None or member.left:
                    self._gone(member)
                    self._retire(member)
            await self._retirement.finish()
        if self._ended_early:
            self._record.abandon()  # whoever ends the run does not wait for room on the disk
        unwritten = await self._record.close()
        # First tell what is recorded, so that nobody writes it again; then send those home that are still
        # there (given up, or kept waiting by one that was cut off), while there are tunnels.
        self._acknowledge()
        self._hub.turn_away_all("the run is over")
        await self._inherited.close(patience=1.0 if self._signals > 1 else 5.0)
        if self._launcher is not None:
            lost = {member.engine for member in self._members.values() if member.lost}
            await self._launcher.close(patience=1.0 if self._signals > 1 else 5.0, lost=lost)
        self._hub.close(linger=0.5)
        self._observer.stop()
        if self._run_file is not None:
            self._run_file.close()
            self._run_file = None
        return unwritten

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised what it should not have: what the plan knows may be wrong, so the run ends."""
        error = context.get("exception")
        log.error("%s", context.get("message"), exc_info=error)
        if isinstance(error, Exception) and not self._over.done():
            self._over.set_exception(error)

    def _launch(self, keys: RunKeys, addresses: Addresses, nodes: list[Node]) -> None:
        s = self._settings
        self._launcher = launcher = Launcher(
            self._loop,
            on_started=self._launched,
            on_failed=self._launch_failed,
            on_exit=self._exited,
            on_trouble=self._say,
            ssh=s.ssh,
            srun=s.srun,
            tunnel_to=addresses.socket if s.tunnel else None,
        )
        if self._early is not None:
            launcher.adopt(self._early)
        self._keys, self._addresses = keys, addresses
        if s.takeover is not None and s.takeover.engines:
            self._expect_the_inherited(s.takeover.engines)
            return
        for rank, node in enumerate(nodes):
            self._start(rank, node)

    def _start(self, rank: int, node: Node) -> str:
        """Start an engine there; its name for good."""
        s, launcher = self._settings, self._launcher
        assert launcher is not None
        name = node_name(s, node, self._hostname)
        engine = f"{rank}-{secrets.token_hex(8)}"
        self._members[engine] = Member(engine, name, rank, node.slots, node)
        self._note(Here(engine, name, rank, node.slots, node))
        addresses = self._addresses.for_node(node)
        bootstrap = bootstrap_for(s, node, self._keys, name=name, engine=engine, addresses=addresses)
        launcher.start(node, bootstrap)
        return engine

    # ---- taking a run over ----

    def _begin_run_file(self) -> None:
        s = self._settings
        if s.asked is None:
            return
        if s.takeover is None:
            self._run_file = RunFile.create(s.claimed.files.run, s.asked)
        else:
            self._run_file = RunFile.go_on(s.claimed.files.run, TakenOver(self._hostname, os.getpid()))

    def _note(self, line: Here | Gone) -> None:
        if self._run_file is not None:
            self._run_file.add([line])

    def _expect_the_inherited(self, engines: list[Here]) -> None:
        """Nothing starts before they have told what they run, or had time to."""
        for here in engines:
            self._members[here.engine] = Member(
                here.engine, here.name, here.rank, here.slots, here.node, inherited=True
            )
        names = some(sorted({here.name for here in engines}))
        self._say(f"taking the run over: expecting the engines of {names}")
        self._holds.add(Reason.TAKEOVER, "waiting for the engines")
        self._loop.call_later(self._settings.patience, self._wait_no_longer)

    def _look_for_the_inherited(self) -> None:
        if Reason.TAKEOVER in self._holds and not any(
            member.launching and member.inherited for member in self._members.values()
        ):
            self._say("all engines are there")
            self._holds.remove(Reason.TAKEOVER)

    def _wait_no_longer(self) -> None:
        """Engines that did not come in time get a successor on their node."""
        if Reason.TAKEOVER not in self._holds or self._over.done():
            return
        missing = [m for m in self._members.values() if m.launching and m.inherited]
        running = self._plan.mode is Mode.RUNNING
        for member in missing:
            member.launching = False
            self._note(Gone(member.engine))
            if running and member.node is not None:
                self._replaced[member.engine] = self._start(member.rank, member.node)
        names = some(sorted({member.name for member in missing}))
        self._say(f"{names}: not heard for {self._settings.patience:g} s; starting anew there")
        self._holds.remove(Reason.TAKEOVER)
        self._look_for_engines()

    def _past(self, hello: Hello) -> events.Past | None:
        if self._settings.takeover is None:
            return None
        commands: dict[tuple[Phase, int], int | None] = dict.fromkeys(hello.ran)
        commands |= {(c.phase, c.task_id): c.attempt for c in hello.holding if c.phase is not None}
        tasks = {c.attempt: c.task_id for c in hello.holding if c.phase is None}
        return events.Past(tasks, commands, hello.leaving)

    def _inherited_joined(self, member: Member, hello: Hello) -> None:
        if member.local and hello.host == self._hostname:
            self._inherited.watch(member.engine, hello.pid)
        successor = self._replaced.pop(member.engine, "")
        if successor:  # two would share the node's cores
            self._say(f"{member.name}: an engine of the former driver came after all")
            if self._members[successor].launching:
                self._do_not_expect(self._members[successor])
            else:
                self._tell(events.Drain(successor))
        self._look_for_the_inherited()

    def _mark(self, peer: Peer, number: int) -> None:
        """Acknowledge this message when all that it told is in the status file."""
        if self._plan.keeps(peer.name):
            self._withheld[peer.name] = (peer, number)
        else:
            self._record.mark(lambda: self._recorded(peer, number))

    def _mark_the_withheld(self) -> None:
        for name, (peer, number) in list(self._withheld.items()):
            if not self._plan.keeps(name):
                del self._withheld[name]
                self._record.mark(lambda peer=peer, number=number: self._recorded(peer, number))  # type: ignore[misc]
            elif self._plan.mode is not Mode.RUNNING:
                # Their tasks will not be read any more: the engine writes the results down itself.
                del self._withheld[name]
                self._hub.refuse(peer, "the run ends, and some of its results cannot be recorded")
                self._loop.call_soon(self._lose, name, "its last results are in a file beside its log")

    def note(self, number: int) -> None:
        """SIGUSR1 or SIGUSR2 came, which would end a process that does not expect it."""
        self._say(f"{signal.Signals(number).name}: the run goes on; SIGTERM ends it")

    def interrupt(self, number: int) -> None:
        """SIGINT, SIGTERM or SIGHUP came: the first ends the run in order, the second at once; but not a
        second SIGHUP, as the kernel and the shell each send one when a terminal is closed."""
        if self._signals and number == signal.SIGHUP:
            return
        name = signal.Signals(number).name
        self._signals += 1
        first = self._signals == 1
        self._signal = self._signal or number
        self._notice = "ending the running tasks" if first else "ending everything at once"
        self._say(f"{name}: {self._notice}" + ("; once more to end at once" if first else ""))
        self._end_run(at_once=not first)
        if not first:
            self._record.abandon()
            if self._retirement is not None:
                self._retirement.abandon()

    def _finish_early(self) -> None:
        """The user ends the run, but not as one who is tired of it."""
        self._incomplete = "ended by dbutil finish"
        self._notice = "ending the running tasks"
        self._say(f"dbutil finish: {self._notice}")
        self._end_run(at_once=False)

    def _end_run(self, *, at_once: bool) -> None:
        self._ended_early = True
        self._tell(events.Interrupt(at_once))
        self._give_up_after(AT_ONCE if at_once else self._settings.grace + ENDING_MARGIN)

    def _give_up_after(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """Engines that did not answer in time after a signal, or at the end of the time, are given up."""
        for peer in list(self._hub.peers()):
            engine = self._plan.engines.get(peer.name)
            if engine is not None and (engine.assigned or engine.per_engine):
                self._lose(peer.name, "did not end its tasks in time")
        if not self._over.done():
            self._incomplete = self._incomplete or self._time_limit.words
            self._over.set_result(None)

    # ---- engines ----

    def _launched(self, engine: str) -> None:
        log.info("%s: engine started", self._members[engine].name)
        self._loop.call_later(self._settings.patience * 2, self._missed, engine)

    def _missed(self, engine: str) -> None:
        member = self._members[engine]
        if member.launching and not self._over.done():
            path = self._settings.claimed.files.engine_log(member.name)
            problem = f"its engine started but did not join; see {path}"
            self._launch_failed(engine, LaunchError(member.name, problem))

    def _launch_failed(self, engine: str, error: LaunchError) -> None:
        self._members[engine].launching = False
        self._note(Gone(engine))
        if self._over.done() or self._plan.mode is Mode.OVER:
            log.info("%s", error)  # it was sent away, or not waited for
            return
        self._say(str(error))
        self._look_for_engines()

    def _exited(self, engine: str, return_code: int, words: str) -> None:
        """The process of an engine, or the srun around it, ended."""
        member = self._members[engine]
        never_came, member.launching, member.return_code = member.launching, False, return_code
        member.exited = True
        if member.left:
            self._retire(member)
        if member.joined is not None:
            # What it sent before it died may still be on its way through ZeroMQ's thread.
            self._loop.call_later(LAST_WORDS, self._lose, engine, words)
        elif never_came and not self._over.done():
            self._say(f"{member.name}: {words}")
        elif return_code:
            log.warning("%s: %s", member.name, words)
        self._look_for_engines()

    def _hello(self, peer: Peer, hello: Hello) -> None:
        if self._plan.mode is Mode.OVER or self._over.done():
            self._hub.refuse(peer, "the run is over")
            return
        s = self._settings
        member = self._members.get(peer.name)
        if member is None:
            member = Member(peer.name, hello.node, len(self._members), hello.slots)
            self._members[peer.name] = member
        welcome = Welcome(
            rank=member.rank,
            jobid=s.jobid,
            task_name=os.fsencode(s.task_name),
            heartbeat=s.heartbeat,
            patience=s.patience,
            orphan_patience=s.orphan_patience,
            grace=s.grace,
            results_seen=peer.session.seen,
            next_order=peer.session.next_number,
        )
        self._hub.welcome(peer, welcome, hello.orders_seen)
        if member.joined is None and not member.left:
            self._joined = True
            if member.came:
                self._say(f"{member.name}: the engine is heard again and goes on")
            log.info("%s: engine joined (rank %d, %d slots)", member.name, member.rank, hello.slots)
            member.joined, member.launching, member.slots = self._loop.time(), False, hello.slots
            member.lost = member.retired = False
            if self._retirement is not None:
                self._retirement.joined(member.name)
            place = (member.name, member.rank, hello.slots, member.node, hello.host, hello.pid)
            self._note(Here(peer.name, *place))
            holding = [claim.attempt for claim in hello.holding]
            self._tell(events.Joined(peer.name, hello.slots, holding, past=self._past(hello)))
            if self._settings.takeover is not None:
                self._inherited_joined(member, hello)
            self._time_limit.joined(peer.name)
            self._control.joined(peer.name)

    def _receive(self, peer: Peer, number: int, message: FromEngine) -> None:
        name = peer.name
        if type(message) is Finished:
            self._tell(events.Finished(name, message.outcomes))
        elif type(message) is Beat:
            member = self._members[name]
            member.running, member.waiting, member.load = len(message.running), message.waiting, message.load
            peer.session.tell(Pulse())
            return
        elif type(message) is Recalled:
            self._tell(events.Returned(name, message.attempts))
        elif type(message) is Trouble:
            self._say(f"{self._members[name].name}: {message.text}")
        elif type(message) is Goodbye:
            self._goodbye(peer, message)
        if number:
            self._mark(peer, number)

    def _recorded(self, peer: Peer, number: int) -> None:
        """Everything up to this message of the engine is in the status file: let it know, soon. Mostly that
        rides on the next tasks; an engine that leaves waits for it."""
        if peer.session.acknowledge(number):
            if not self._to_acknowledge:
                self._loop.call_later(ACKNOWLEDGE_DELAY, self._acknowledge)
            self._to_acknowledge[peer.name] = peer
            if self._plan.mode is Mode.CLOSING or peer.name not in self._plan.engines:
                self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        peers, self._to_acknowledge = self._to_acknowledge, {}
        for peer in peers.values():
            if peer.session.owes:
                peer.session.tell(Pulse())

    def _goodbye(self, peer: Peer, message: Goodbye) -> None:
        member = self._members[peer.name]
        log.info("%s: engine left (%s)", member.name, message.reason)
        running = self._plan.mode is Mode.RUNNING
        if message.reason != AS_TOLD and running:
            self._departures.note(member.name, message.reason)
        member.left = True
        member.spare = message.reason == AS_TOLD and running and not self._time_limit.words
        self._gone(member)
        self._tell(events.Left(peer.name))
        self._loop.call_later(1.0, self._see_off, peer.name)
        self._look_for_engines()

    def _gone(self, member: Member) -> None:
        member.leave(self._loop.time())
        member.running = member.waiting = 0
        self._note(Gone(member.engine))
        step = member.node is not None and member.node.way is Way.STEP and not member.inherited
        if not (step and member.spare and not member.exited):
            self._retire(member)

    def _retire(self, member: Member) -> None:
        """Its node is no longer needed. A step that is to leave the job first ends."""
        if self._retirement is not None and not member.retired:
            member.retired = True
            self._retirement.retire(member.name, member.return_code, spare=member.spare)

    def _lose(self, engine: str, why: str) -> None:
        member = self._members[engine]
        peer = self._hub.peer(engine)
        if peer is not None and peer.joined:
            self._hub.give_up(peer)
        if member.joined is None:
            return
        self._gone(member)
        member.lost = True
        if self._plan.mode is not Mode.OVER and not self._over.done():
            self._say(f"{member.name}: engine lost: {why}{self._what_becomes_of_its_tasks(engine)}")
        self._tell(events.Lost(engine))
        if member.local:
            self._see_off(engine)
        self._look_for_engines()

    def _see_off(self, engine: str) -> None:
        """Its process and its tunnel are not needed any more."""
        if self._launcher is not None:
            self._launcher.end(engine)

    def _warn_of_the_lost(self) -> None:
        """Who resumes at once would run a task beside itself."""
        names = sorted({member.name for member in self._members.values() if member.may_run_on})
        if names:
            limit = f"{self._settings.orphan_patience:g} s"
            self._say(f"{some(names)}: tasks may still run there, for at most {limit}; resume after that")

    def _what_becomes_of_its_tasks(self, engine: str) -> str:
        """The end of the line that says that this engine is lost."""
        known = self._plan.engines.get(engine)
        tasks = len(known.assigned) if known is not None else 0
        others = self._plan.present > 1 or self._expected
        if not tasks or not others or self._plan.mode is not Mode.RUNNING:
            return ""
        return f"; its {tasks} tasks run again elsewhere" if tasks > 1 else "; its task runs again elsewhere"

    @property
    def _expected(self) -> bool:
        """An engine is on its way."""
        return any(member.launching for member in self._members.values())

    def _check(self) -> None:
        """Who was not heard for too long is lost, and who was spare for long enough is let go."""
        now, patience = self._loop.time(), self._settings.patience
        late = now - self._checked > CHECK_INTERVAL + LATE_CHECK
        self._checked = now
        for peer in list(self._hub.peers()):
            if late:
                peer.heard = now
            elif now - peer.heard > patience:
                self._lose(peer.name, f"not heard for {patience:g} s")
        if now - self._touched > LIFE_SIGN:
            self._touched = now
            self._record.touch()
        if self._give_back is not None:
            for engine in self._give_back.due(self._plan.spare, now):
                self._tell(events.Drain(engine))
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check)

    def _expect_nobody(self) -> None:
        """Engines that are on their way would come too late."""
        for member in self._members.values():
            if member.launching:
                self._do_not_expect(member)
        self._look_for_engines()

    def _do_not_expect(self, member: Member) -> None:
        member.launching = False
        self._see_off(member.engine)
        self._look_for_engines()

    def _look_for_engines(self) -> None:
        """If no engine is there and none will come, the run cannot be completed."""
        if self._over.done() or self._plan.mode is Mode.OVER or self._preemption is not None:
            return
        if self._plan.present or self._expected:
            return
        limit = self._settings.task_limit
        if self._incomplete or self._time_limit.words:
            self._incomplete = self._incomplete or self._time_limit.words
        elif limit is not None and self._done_under_limit >= limit:
            self._incomplete = f"ended after {limit} tasks, as -C asks"
        else:
            self._incomplete = "no engine is left" if self._joined else "no engine could start"
        if self._departures.slurm_signalled and not self._signals:
            self._preemption = self._loop.create_task(self._see_preemption_out())
        else:
            self._over.set_result(None)

    async def _see_preemption_out(self) -> None:
        """Slurm ends the steps of a job that it preempts a grace before the batch script. If that ended by
        itself meanwhile the job would count as failed, and not be started again."""
        allocation = self._settings.allocation
        left = 0.0 if allocation is None else await preemption_left(allocation.job, commands.run)
        if left and not self._over.done():
            self._say("Slurm preempts this job, to start it again later: waiting for that")
            await asyncio.wait([self._over], timeout=left)
        if not self._over.done():
            self._over.set_result(None)

    @property
    def _done_under_limit(self) -> int:
        """What the run has done, -C's way, whether its line was read again or not."""
        takeover = self._settings.takeover
        return self._tally.done - self._tally.inherited + (0 if takeover is None else takeover.done)

    # ---- the plan's actions ----

    def _tell(self, event: events.Event) -> None:
        self._perform(self._plan.handle(event))
        self._pump()
        if self._withheld:
            self._mark_the_withheld()

    def _perform(self, actions: list[events.Action]) -> None:
        performers = self._performers
        for action in actions:
            performers[type(action)](action)

    def _pump(self) -> None:
        """Feed the plan. Not re-entered: what its actions cause is fed by the call that is going on."""
        if self._pumping or self._over.done():
            return
        self._pumping = True
        try:
            for event in self._feed.events(self._plan):
                if type(event) is events.SourceEnded and event.broken:
                    self._say(f"{self._feed.error}; no new task starts, running ones finish")
                self._perform(self._plan.handle(event))
        finally:
            self._pumping = False

    def _post(self, engine: str, message: Any) -> None:
        peer = self._hub.peer(engine)
        if peer is not None and peer.joined:
            self._hub.post(peer, message)

    def _assign(self, action: events.Assign) -> None:
        for message in starts(action):
            self._post(action.engine, message)

    def _finish(self, action: events.Finish) -> None:
        if not self._over.done():
            self._over.set_result(None)

    # ---- what people hear ----

    def _say(self, text: str) -> None:
        # Some of it comes from other hosts, and goes to a terminal.
        text = "".join(c if c.isprintable() else "?" for c in text)
        log.warning("%s", text)
        self._observer.say(text)

    def _bad(self, text: str) -> None:
        log.warning("dropped: %s", text)

    def _disk_trouble(self, error: OSError) -> None:
        path = self._settings.claimed.files.status
        words = f"{path}: {error.strerror}; no task starts until it can be written"
        self._say(words)
        self._holds.add(Reason.DISK, words)

    def _disk_recovered(self) -> None:
        self._say("the status file can be written again; going on")
        self._holds.remove(Reason.DISK)

    def snapshot(self) -> Snapshot:
        """The run as it stands."""
        tally, now = self._tally, self._loop.time()
        states = {name: engine.state.name.lower() for name, engine in self._plan.engines.items()}
        present = [m for m in self._members.values() if m.joined is not None]
        return Snapshot(
            seconds=now - self._started,
            total=self._settings.total,
            done=tally.done,
            failed=tally.failed,
            skipped=tally.skipped,
            skipped_failed=tally.skipped_failed,
            running=min(self._plan.live, sum(member.slots for member in present)),
            slots=sum(member.slots for member in present),
            engines=[m.view(states.get(m.engine, "gone")) for m in self._members.values()],
            notice=self._notice or self._holds.words,
        )

    def _result(self) -> Result:
        return Result(
            conclusion=self._plan.conclusion,
            over=self._plan.mode is Mode.OVER,
            incomplete=self._incomplete,
            signal=self._signal,
            unreadable=self._feed.error is not None,
            tally=self._tally,
            mind_failures=self._settings.exit_code,
        )

    def _summary(self, result: Result, unwritten: bytes) -> Summary:
        tally, now = self._tally, self._loop.time()
        slot_time = sum(member.slot_time(now) for member in self._members.values())
        came = [member.view("gone") for member in self._members.values() if member.came]
        return Summary(
            snapshot=msgspec.structs.replace(self.snapshot(), engines=came),
            conclusion=result.words,
            ended=tally.ended,
            lost=tally.lost,
            utilisation=min(1.0, tally.busy / slot_time) if slot_time else None,
            failures=tally.failures,
            slowest=tally.slowest,
            status_file=str(self._settings.claimed.files.status),
            resume="" if result.complete else self._settings.resume_hint + result.resume_options,
            unwritten=unwritten,
        )
