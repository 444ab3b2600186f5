"""Performs the plan's actions: serves the engines, feeds the plan, writes the record.

Theory of operation
-------------------
One event loop. Whatever happens (a message, lines to read, an engine lost, a signal) becomes one event for
the plan; its actions are performed at once, and then the plan is fed from the source as long as it has room.

A result is acknowledged to its engine when its line is in the status file (`Receipts`), so an engine forgets
nothing that is not recorded. Who is there is the crew's to know (`Crew`). When nobody is, and nobody will
come, the run waits for somebody to be attached as long as it was told to, and is then given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from disbatch.contexts import command as commands
from disbatch.contexts.machine import this_machine
from disbatch.contexts.nodes import Node, affordable
from disbatch.contexts.retire import choose_retirement
from disbatch.contexts.slurm.commands import preemption
from disbatch.contexts.spawn import Spawned
from disbatch.contexts.walltime import TimeLimit
from disbatch.driver.addresses import Addresses, Port
from disbatch.driver.attach_requests import Admission
from disbatch.driver.attachments import Contexts
from disbatch.driver.commands import Control, Farewells
from disbatch.driver.engine_orders import Orders, start_per_engine, starts
from disbatch.driver.engine_table import NAMED_KINDS, Member, Tally
from disbatch.driver.engines import Crew
from disbatch.driver.feed import Feed
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.keystore import Exchange
from disbatch.driver.result_feed import Telling
from disbatch.driver.scribe import Notes, Scribe
from disbatch.driver.settings import Listener, Observer, Settings
from disbatch.driver.shutdown import Result, Vacancy
from disbatch.driver.status_collector import Matter, Outlook
from disbatch.driver.status_feed import Watching
from disbatch.driver.status_writer import Receipts, Record
from disbatch.driver.submissions import Submissions
from disbatch.driver.takeover import Succession
from disbatch.model.errors import DisbatchError
from disbatch.model.statusline import STATUS_HEADER
from disbatch.model.text import as_argument, counted, printable, shell_word, short_list, with_retry
from disbatch.model.view import Snapshot, Summary
from disbatch.plan import events
from disbatch.plan.plan import Mode, Plan
from disbatch.rundir.journal import Counted, JournalState
from disbatch.rundir.restore import Belongings
from disbatch.sources.keystore import Desk
from disbatch.wire.client_protocol import (
    Answer,
    Finish,
    OfClients,
    OfContexts,
    OfPrograms,
    OfUsers,
    Request,
    Watch,
)
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub, Peer
from disbatch.wire.engine_protocol import (
    Beat,
    End,
    Finished,
    FromEngine,
    Goodbye,
    Leave,
    Recall,
    Recalled,
    Trouble,
)
from disbatch.wire.renamed_files import Sight

log = logging.getLogger(__name__)

ENDING_MARGIN = 10.0
"""Seconds beyond the grace that engines have to end their tasks before they are given up."""
ENDING_AT_LIMIT = 2.5
"""The same, where the end of the allocation is near."""
AT_ONCE = 3.0
"""The same, after a second signal."""
LAST_WORDS = 0.5
"""Seconds that others have to hear that the run is over."""
DAMAGED = "a part of the record was written over"
LOOK = 5.0
"""Seconds between two looks whether the run's files have their names while nothing is written; each write,
and the end, looks by itself."""
LIFE_SIGN = 15.0
"""Seconds between two signs of life that a later command can see: the status file's time."""
ATTEMPTS = 1 << 40
"""Attempts that one driver of a run may make: those of the next one bear higher numbers."""


class Driver:
    """One run, on the running loop. `run` carries it out and tells how it went; `interrupt` ends it early."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        observer: Observer,
        early: Spawned | None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._settings = s = settings
        self._feed = feed
        self._observer = observer
        self._listeners = listeners
        self._early = early
        self._over: asyncio.Future[None] = loop.create_future()
        self._hostname = this_machine().hostname
        self._plan = _plan(s)
        self._tally = Tally()
        self._members: dict[str, Member] = {}
        self._started, self._wall_started = loop.time(), time.time()
        self._notice = ""
        self._signals = 0
        self._signal = 0
        self._ended_early = False
        self._incomplete = ""
        self._pumping = False
        self._preemption: asyncio.Task[None] | None = None
        self._notes = Notes()
        self._yielded = False
        self._record_is_damaged = False
        self._belongings = Belongings(
            loop, s.claimed.files, say=self._say, note=self._notes.add, script=s.script
        )
        self._begun = False
        self._early_requests: list[Request] | None = []
        """What others ask while the run waits for its key store; None: it has begun."""
        self._holds = Holds(self._tell, self._pump)
        self._contexts = Contexts(loop, self._answer, s.number)
        self._time_limit = TimeLimit(
            s.context,
            s.grace,
            say=self._say,
            tell=self._tell,
            engines=lambda: [member.engine for member in self._crew.of_context("")],
            launches_end=self._expect_nobody,
            end_is_near=lambda grace: self._give_up_after(grace + ENDING_AT_LIMIT),
        )
        self._crew = Crew(
            *(loop, s, self._plan, self._members, self._contexts),
            hostname=self._hostname,
            tell=self._tell,
            say=self._say,
            note=self._notes.add,
            look=self._look_for_engines,
            is_over=self._over.done,
            time_is_up=lambda: bool(self._time_limit.words),
            lets_go=lambda member: self._time_limit.lets_go(member.context) or member in self._farewells,
        )
        self._vacancy = Vacancy(loop, s, say=self._say, end=self._end_incomplete)
        self._farewells = Farewells(
            self._plan, tell=self._tell, note=self._notes.add, dismiss=self._crew.dismiss
        )
        self._admission = Admission(
            *(s, self._crew, self._contexts, self._farewells),
            ending=self._is_ending,
            open_port=self._open_port,
        )
        self._submissions = Submissions(
            note=self._notes.add,
            ending=self._is_ending,
            why_not="this run takes no other tasks: start it with --keep-open, or with -S and no task file",
        )
        self._control = Control(
            *(self._plan, self._members, self._holds, self._farewells),
            source_name="the run" if feed.takes_more else s.source_name,
            source_ids=lambda: feed.known_ids(self._plan),
            tell=self._tell,
            note=self._notes.add,
            say=self._say,
            ending=self._is_ending,
            finish=self._finish_early,
            waits=s.waits != 0,
        )
        self._crew.when_joined(lambda member: self._time_limit.joined(member.engine, member.context))
        self._crew.when_joined(self._farewells.joined)
        self._outlook = Outlook(self._matter())
        self._watching = Watching(loop, self._outlook, self._answer, s.number)
        self._performers: dict[type, Callable[[Any], None]] = {
            events.Assign: self._assign,
            events.AssignPerEngine: lambda a: self._post(a.engine, start_per_engine(a)),
            events.Recall: lambda a: self._post(a.engine, Recall(a.attempts)),
            events.End: lambda a: self._post(a.engine, End(a.attempts, a.at_once)),
            events.Release: lambda a: self._post(a.engine, Leave()),
            events.Finish: self._finish,
        }

    def _matter(self) -> Matter:
        """What those see that watch."""
        s = self._settings
        return Matter(
            *(s.number, s.jobid, s.task_name, lambda: self._feed.total),
            *(self._plan, self._members, self._tally, self._holds),
            label_of=self._crew.label_of,
            heard=self._heard,
            notice=lambda: self._words_of_notice,
            now=self._loop.time,
        )

    def _heard(self, engine: str) -> float | None:
        peer = self._hub.peer(engine)
        return None if peer is None else peer.heard

    # ---- the course of a run ----

    async def run(self, ready: Callable[[], None] = lambda: None) -> tuple[int, Summary]:
        """Carry the run out; returns the exit code and the summary. `ready` is called when it has begun, and
        takes requests."""
        loop, s = self._loop, self._settings
        self._open_record()
        keys = RunKeys.generate() if s.takeover is None else s.takeover.connect.keys
        loop.set_exception_handler(self._failed)
        with zmq.Context() as context, contextlib.ExitStack() as stack:
            self._hub = Hub(
                *(loop, context, keys),
                hello=self._crew.hello,
                receive=self._receive,
                bad=self._bad,
                request=self._request,
            )
            self._receipts = Receipts(loop, self._plan, self._record, self._hub, self._crew.lose)
            addresses = self._addresses = Addresses(s, self._hub, lambda to: Port(to, self._say))
            stack.callback(self._withdraw, addresses)
            self._nodes = self._affordable_nodes()
            orders = Orders(
                *(s.context, s.directory, s.environment, s.claimed.files, keys, s.orphan_patience),
                output=s.output,
            )
            self._crew.serve(self._hub, addresses, orders)
            try:
                # A run to be taken over stays as it was until we can begin; a new one can be ended meanwhile.
                if s.takeover is None:
                    self._appear(addresses, keys)
                if await self._reach_store():
                    if s.takeover is not None:
                        self._appear(addresses, keys)
                    self._begin(addresses, self._exchange.open(addresses.public))
                ready()
                await self._over
            finally:
                unwritten = await self._close()
        result = self._result()
        if self._leaves_engines:
            names = short_list(self._crew.not_heard or self._crew.out_of_reach)
            prefix = shell_word(as_argument(str(self._settings.claimed.files.prefix)))
            words = f"the run is left as it was: `dbutil finish --run {prefix}` tries again"
            self._say(f"{names}: not heard; {words}")
        elif not result.complete:
            self._crew.warn_of_the_lost()
        return result.exit_code, self._summary(result, unwritten)

    def _open_port(self) -> list[str]:
        return self._addresses.for_others()

    def _affordable_nodes(self) -> list[Node]:
        """Those on which we have the descriptors to keep engines. UsageError if that is none."""
        context = self._settings.context
        if not context.nodes:
            return []
        nodes, words = affordable(context.nodes, tunnel=context.tunnel, connected=True)
        if words:
            self._say(words)
        return nodes

    def _open_record(self) -> None:
        s = self._settings
        self._record = Record(
            *(self._loop, s.claimed.status_descriptor, s.claimed.recorded),
            trouble=self._disk_trouble,
            recovered=self._disk_recovered,
            path=s.claimed.files.status,
            is_taken_over=self._is_taken_over,
            taken_over=self._yield,
            note=self._note_status,
            renamed=self._status_renamed,
        )
        self._exchange = Exchange(
            *(self._loop, s, self._holds),
            mark=self._record.mark,
            snapshot=self.snapshot,
            say=self._say,
            answer=self._answer,
        )
        self._telling = Telling(
            *(self._loop, s.claimed.status_descriptor),
            answer=self._answer,
            size=lambda: self._record.size,
            safely=self._record.mark,
        )
        scribe = Scribe(
            self._record.add,
            self._tally,
            self._members,
            say=self._say,
            source_name=self._feed.source_of,
            hostname=self._hostname,
            barriers_read=self._feed.barriers_read,
            asides=set() if s.takeover is None else s.takeover.asides,
            ended=self._told_of_ends(),
            failed=[listener.failed for listener in self._listeners],
            keyed=self._exchange.keyed,
        )
        self._performers |= scribe.performers
        if s.status_header and not s.claimed.recorded:
            self._record.add(STATUS_HEADER)
        self._life = self._loop.call_later(LIFE_SIGN, self._live)
        self._looking = self._loop.call_later(LOOK, self._look)

    def _is_taken_over(self) -> bool:
        """Another driver has the run; or had, and has ended it: then the run file is gone. Asked by the
        record's thread. OSError if that cannot be said now."""
        return self._notes.is_taken_over() or (self._notes.are_gone and self._record.is_continued())

    def _note_status(self, path: Path) -> None:
        """The status file is about to get this name. Called by the record's thread. OSError."""

        async def note() -> None:
            self._belongings.note_status(path)

        asyncio.run_coroutine_threadsafe(note(), self._loop).result()

    def _status_renamed(self, sight: Sight, path: Path) -> None:
        if sight is Sight.OVERWRITTEN:
            self._record_is_damaged = True
        else:
            self._telling.follow(self._settings.claimed.status_descriptor)
        self._belongings.status_renamed(sight, path)

    def _told_of_ends(self) -> list[Callable[[int, bytes], None]]:
        """Who is told of each task that is done, and of each barrier."""
        told: list[Callable[[int, bytes], None]] = [listener.ended for listener in self._listeners]
        if self._feed.takes_more:
            told.append(self._telling.ended)
        if self._feed.expects_program:
            told.append(self._exchange.ended)
        return told

    def _live(self) -> None:
        self._record.touch()
        self._outlook.note()
        self._life = self._loop.call_later(LIFE_SIGN, self._live)

    def _look(self) -> None:
        self._record.look(self._belongings.look)
        self._looking = self._loop.call_later(LOOK, self._look)

    def _appear(self, addresses: Addresses, keys: RunKeys) -> None:
        """From now on others find us, and our successors what they need. UsageError.

        A driver that takes a run over begins in the same turn of the loop: an engine that was heard before we
        know what the former driver left would be taken for a stranger, and its tasks would be ended.
        """
        addresses.listen()
        self._notes.begin(self._settings)
        addresses.publish(keys, self._wall_started)
        files = self._settings.claimed.files
        self._belongings.keep(files.run, self._notes.write_again)
        self._belongings.keep(files.connect, lambda: addresses.publish(keys, self._wall_started))
        self._belongings.keep(files.script, lambda: self._settings.script(self._belongings.files))
        for path, make in self._settings.makers.items():
            self._belongings.keep(path, make)

    @property
    def _is_left(self) -> bool:
        """We were to take the run over, and did not come to it: it is not ours to end."""
        return self._settings.takeover is not None and not self._begun

    def _withdraw(self, addresses: Addresses) -> None:
        if not self._yielded and not self._is_left:
            if self._leaves_engines:
                return
            resumable = not self._result().complete
            addresses.withdraw(self._say, keep_run=resumable and bool(self._crew.out_of_reach))

    @property
    def _leaves_engines(self) -> bool:
        """We were to end a run that we took over, and not all of its engines were heard: the next one may."""
        takeover = self._settings.takeover
        if takeover is None or not self._ended_early:
            return False
        return bool(self._crew.not_heard or (takeover.finish and self._crew.out_of_reach))

    def _yield(self) -> None:
        """Another driver has the run, but not our engines."""
        self._yielded = True
        self._say("another driver has taken this run over; leaving it alone")
        self._end_incomplete("taken over by another driver")

    async def _reach_store(self) -> bool:
        """The key store may be far away; False if the user does not wait for it. UsageError."""
        reaching = self._loop.create_task(self._exchange.reach())
        either: list[asyncio.Future[Any]] = [reaching, self._over]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not reaching.done():
            reaching.cancel()
            return False
        reaching.result()
        return not self._over.done()

    def _begin(self, addresses: Addresses, desk: Desk) -> None:
        self._begun, s = True, self._settings
        retirement = choose_retirement(s.context, self._hostname, addresses.folder, self._say)
        self._incomplete = self._time_limit.too_late
        self._feed.start(self._loop, self._pump, desk)
        if self._feed.submissions is not None:
            self._submissions.begin(self._feed.submissions, self._telling)
        self._belongings.keep(self._exchange.info.path, self._exchange.info.write_again)
        self._keep_submitted()
        succession = None
        if s.takeover is not None:
            succession = Succession(
                *(
                    self._crew,
                    self._holds,
                    s.patience_with(s.takeover.told),
                    s.takeover.told,
                    s.takeover.ended,
                ),
                look_beside=self._look_beside,
            )
            self._restore(s.takeover.told)
        finish = s.takeover is not None and s.takeover.finish
        nodes = [] if self._incomplete or finish else self._nodes
        for listener in self._listeners:
            listener.start(self.snapshot)
        self._crew.launch(nodes, self._early, retirement, succession)
        if finish:
            self._finish_early()
        self._pump()
        self._outlook.note()
        self._observer.start(self.snapshot)
        self._time_limit.start()
        early, self._early_requests = self._early_requests or [], None
        for request in early:
            answer = self._request(request)
            if answer is not None:
                self._answer(request, answer)
        self._look_for_engines()

    def _keep_submitted(self) -> None:
        file = self._feed.submitted_file
        if file is not None:
            file.renamed = self._belongings.submitted_renamed
            file.note = self._belongings.note_submitted
            self._belongings.keep(file.path, file.see_to_name)

    def _restore(self, told: JournalState) -> None:
        """What our predecessors were told, and the engines cannot tell."""
        here = told.engines.keys() | told.lost.keys()
        for name, asked in told.attached.items():
            self._admission.again(name, asked, here)
        if told.closed:
            self._submissions.close_soon()
        self._control.again(told)

    def _look_beside(self) -> None:
        """Engines that did not come may have ended, and left results."""
        assert self._settings.takeover is not None
        told = self._settings.takeover.told
        try:
            counting = self._feed.look_beside(told)
        except DisbatchError as error:
            self._say(str(error))
            return
        for context, ids in counting.items():
            self._notes.add(Counted(context, list(ids)))
        for context, limit in _limits(self._settings).items():
            self._tell(events.Limit(context, limit))

    async def _close(self) -> bytes:
        patience = 1.0 if self._signals > 1 else 5.0
        self._life.cancel()
        self._looking.cancel()
        self._belongings.close()
        self._time_limit.close()
        self._vacancy.ends()
        if self._preemption is not None:
            self._preemption.cancel()
        self._crew.stop_watching()
        self._feed.close()
        await self._feed.end()
        if self._is_left:
            return await self._leave()
        with contextlib.suppress(OSError):  # or the record waits until that can be said
            self._yielded = self._yielded or self._notes.is_taken_over()
        if not self._yielded:
            await self._crew.retire_all()
        if self._ended_early:
            self._record.abandon()  # whoever ends the run does not wait for room on the disk
        await self._record.settle()
        await self._exchange.settle(patience)
        # First tell what is recorded, so that nobody writes it again; then send those home that are still
        # there (given up, or kept waiting by one that was cut off), while there are tunnels.
        self._receipts.send()
        self._hub.turn_away_all("another driver has the run" if self._yielded else "the run is over")
        self._contexts.close()
        words = self._farewell()
        self._watching.close(words)
        await self._telling.close(words)
        await self._crew.close(patience)
        if self._feed.expects_stranger and not (self._signals or self._ended_early or self._yielded):
            await self._exchange.linger()
        await self._exchange.close()
        await self._hub.until_left(LAST_WORDS)
        self._hub.close(linger=LAST_WORDS)
        await self._addresses.port.close()
        self._telling.shut()
        self._observer.stop()
        unwritten = await self._record.close()
        self._notes.close()
        return unwritten

    async def _leave(self) -> bytes:
        """The run stays as it was: its engines wait for another driver."""
        self._hub.close()
        await self._addresses.port.close()
        self._telling.shut()
        self._observer.stop()
        unwritten = await self._record.close()
        self._notes.close()
        return unwritten

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised what it should not have: what the plan knows may be wrong, so the run ends."""
        error = context.get("exception")
        log.error("%s", context.get("message"), exc_info=error)
        if isinstance(error, Exception) and not self._over.done():
            self._over.set_exception(error)

    # ---- ending early ----

    def _is_ending(self) -> bool:
        """It comes to its end anyway."""
        return self._over.done() or self._plan.mode not in (Mode.RUNNING, Mode.WINDING_DOWN)

    def note(self, number: int) -> None:
        """SIGUSR1 or SIGUSR2 came, which would end a process that does not expect it."""
        self._say(f"{signal.Signals(number).name}: the run goes on; SIGTERM ends it")

    def take_no_more(self) -> None:
        """Whoever could hand in tasks is gone: the run ends when all are done."""
        self._submissions.close_soon()

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
        self._exchange.hurry()
        self._say(f"{name}: {self._notice}" + ("; once more to end at once" if first else ""))
        self._end_run(at_once=not first)
        if not first:
            self._record.abandon()
            self._crew.abandon_retirement()

    def _finish_early(self, by: str = "") -> None:
        """The user ends the run through `by` (`dbutil` unless named), to be resumed."""
        by = printable(by)
        self._incomplete = f"ended by {by or 'dbutil finish'}"
        self._notice = "ending the running tasks"
        self._say(f"{by or 'dbutil finish'}: {self._notice}")
        self._end_run(at_once=False)

    def _end_run(self, *, at_once: bool) -> None:
        self._ended_early = True
        self._tell(events.Interrupt(at_once))
        takeover = self._settings.takeover
        if takeover is not None and not takeover.readable:
            self._tell(events.SourceEnded(broken=True))
        self._crew.expect_the_living()
        self._give_up_after(AT_ONCE if at_once else self._settings.grace + ENDING_MARGIN)

    def _give_up_after(self, seconds: float) -> None:
        self._loop.call_later(seconds, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        """Engines that did not answer in time after a signal, or at the end of the time, are given up."""
        self._crew.give_up("did not end its tasks in time")
        if self._plan.is_behind and self._feed.goes_on and self._signals < 2:
            return  # the results of all engines are here, and are recorded as their tasks are read
        if not self._over.done():
            self._incomplete = self._incomplete or self._time_limit.words
            self._over.set_result(None)

    # ---- what comes from others ----

    def _request(self, request: Request) -> Answer | None:
        if self._early_requests is not None and _is_about_the_run(request):
            self._early_requests.append(request)
            return None
        if isinstance(request.verb, OfContexts):
            return self._admission.request(request)
        if isinstance(request.verb, OfClients):
            return self._submissions.request(request)
        if isinstance(request.verb, OfPrograms):
            return self._exchange.request(request)
        if isinstance(request.verb, Watch):
            return self._watching.request(request, request.verb)
        return self._control.request(request)

    def _answer(self, request: Request, answer: Answer) -> None:
        self._hub.answer(request, answer)

    def _receive(self, peer: Peer, number: int, message: FromEngine) -> None:
        name = peer.name
        if type(message) is Finished:
            self._tell(events.Finished(name, message.outcomes))
        elif type(message) is Beat:
            self._crew.beat(peer, message)
            self._watching.stir()
            return
        elif type(message) is Recalled:
            self._tell(events.Returned(name, message.attempts))
        elif type(message) is Trouble:
            self._say(f"{self._members[name].shown}: {message.text}")
        elif type(message) is Goodbye:
            self._crew.goodbye(peer, message)
        if number:
            self._receipts.mark(peer, number)

    # ---- when nobody is there ----

    def _expect_nobody(self) -> None:
        self._crew.expect_nobody()

    def _look_for_engines(self) -> None:
        """If no engine is there and none will come, the run cannot be completed, unless some are attached."""
        if self._over.done() or self._plan.mode is Mode.OVER or self._preemption is not None:
            return
        if self._ended_early and self._plan.is_behind:
            return  # it comes to its end when that is read
        if self._plan.present or self._crew.expected:
            self._vacancy.ends()
            return
        if self._incomplete or self._time_limit.words:
            self._end_incomplete(self._incomplete or self._time_limit.words)
            return
        limit = self._settings.context.task_limit
        if limit is not None and not len(self._contexts) and self._plan.has_reached_limit(""):
            words = f"ended after {counted(limit, 'task')}, as -C asks"
        else:
            words = "no engine is left" if self._crew.ever_joined else "no engine could start"
            if not self._members:
                words = "no engines were attached"
        self._crew.node_messages.flush()
        self._vacancy.begins(words)

    def _end_incomplete(self, words: str) -> None:
        self._incomplete = words
        if self._over.done():
            return
        if self._crew.slurm_signalled and not self._signals:
            self._preemption = self._loop.create_task(self._see_preemption_out())
        else:
            self._over.set_result(None)

    async def _see_preemption_out(self) -> None:
        """Slurm ends the steps of a job that it preempts a grace before the batch script. If that ended by
        itself meanwhile the job would count as failed, and not be started again, where it should be."""
        allocation = self._settings.context.allocation
        found = None if allocation is None else await preemption(allocation.job, commands.run)
        if found and not self._over.done():
            self._say(found.words)
            if found.again is not False:
                await asyncio.wait([self._over], timeout=found.left)
        if not self._over.done():
            self._over.set_result(None)

    # ---- the plan's actions ----

    def _tell(self, event: events.Event) -> None:
        self._perform(self._plan.handle(event))
        self._pump()
        self._receipts.look_at_withheld()

    def _perform(self, actions: list[events.Action]) -> None:
        if self._plan.limits:
            self._notes.count(actions, self._members, self._plan.limits)
        performers = self._performers
        for action in actions:
            performers[type(action)](action)
        self._watching.stir()

    def _pump(self) -> None:
        """Feed the plan. Not re-entered: what its actions cause is fed by the call that is going on."""
        if self._pumping or self._over.done() or self._holds.stop_reading:
            return
        self._pumping = True
        try:
            for event in self._feed.events(self._plan):
                if type(event) is events.SourceEnded:
                    self._say_what_is_wrong(event)
                self._perform(self._plan.handle(event))
        finally:
            self._pumping = False

    def _say_what_is_wrong(self, end: events.SourceEnded) -> None:
        if end.broken:
            self._say(self._feed.broken(self._plan))
            return
        for warning in self._feed.missing(self._plan):
            self._say(warning)

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
        text = printable(text)
        log.warning("%s", text)
        self._observer.say(text)
        self._outlook.say(text)
        self._watching.stir()

    def _bad(self, text: str) -> None:
        log.warning("dropped: %s", text)

    def _disk_trouble(self, error: OSError) -> None:
        path = self._belongings.files.status
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
            total=self._feed.total,
            done=tally.done,
            failed=tally.failed,
            cancelled=tally.cancelled,
            skipped=tally.skipped,
            skipped_failed=tally.skipped_failed,
            inherited=tally.inherited,
            running=min(self._plan.live, sum(member.slots for member in present)),
            slots=sum(member.slots for member in present),
            engines=[
                m.view(states.get(m.engine, "launching" if m.launching else "gone"))
                for m in self._members.values()
            ],
            notice=self._words_of_notice,
        )

    @property
    def _words_of_notice(self) -> str:
        """What people should know now."""
        return self._notice or self._holds.words or self._vacancy.words

    def _resume_hint(self, *, retry: bool) -> str:
        submissions = self._feed.submissions
        handed_in = submissions is not None and not submissions.is_unused
        s = self._settings
        hint = s.resume_hint_with_submitted if handed_in else s.resume_hint
        command = hint(self._belongings.files)
        return with_retry(command) if retry else command

    def _farewell(self) -> str:
        """How the run ended, for programs."""
        result = self._result()
        if result.complete:
            return result.words
        failed = self._over.done() and not self._over.cancelled() and self._over.exception() is not None
        words = "the driver failed" if failed else result.words
        return f"{words}; resume with: {self._resume_hint(retry=result.needs_retry)}"

    def _result(self) -> Result:
        return Result(
            conclusion=self._plan.conclusion,
            over=self._plan.mode is Mode.OVER,
            incomplete=self._incomplete or (DAMAGED if self._record_is_damaged else ""),
            signal=self._signal,
            broken=self._feed.error,
            tally=self._tally,
            mind_failures=self._settings.exit_code,
        )

    def failed_summary(self) -> Summary:
        """How the run stands after `run` raised."""
        self._incomplete = "the driver failed"
        return self._summary(self._result(), b"")

    def _summary(self, result: Result, unwritten: bytes) -> Summary:
        tally, now = self._tally, self._loop.time()
        for task, record in self._feed.not_counted(self._plan):
            tally.count_again(task, record)
        slot_time = sum(member.slot_time(now) for member in self._members.values())
        came = [member.view("gone") for member in self._members.values() if member.came]
        only_failures = result.complete and not self._yielded and tally.failed + tally.skipped_failed
        return Summary(
            snapshot=msgspec.structs.replace(self.snapshot(), engines=came),
            conclusion=printable(result.words),
            ended=tally.ended,
            lost=tally.lost,
            not_run=tally.not_run,
            utilisation=min(1.0, tally.busy / slot_time) if slot_time else None,
            kinds=tally.kinds.most_frequent(NAMED_KINDS),
            kinds_count=tally.kinds.count,
            slowest=tally.slowest,
            status_file=str(self._belongings.files.status),
            retry=self._resume_hint(retry=True) if only_failures else "",
            resume="" if result.complete or self._yielded else self._resume_hint(retry=result.needs_retry),
            inherited=None if self._settings.takeover is None else tally.inherited,
            unwritten=unwritten,
            elsewhere=self._yielded,
            goes_on=self._leaves_engines,
        )


def _is_about_the_run(request: Request) -> bool:
    """It has to wait until the run has begun. But a run that waits for its key store can be ended."""
    return isinstance(request.verb, OfContexts | OfClients | OfUsers) and not isinstance(request.verb, Finish)


def _plan(settings: Settings) -> Plan:
    """The decisions of this run, from their beginning."""
    return Plan(
        max_losses=settings.max_losses,
        fail_fast=settings.fail_fast,
        limits=_limits(settings),
        first_attempt=max(1, settings.number * ATTEMPTS),
    )


def _limits(settings: Settings) -> dict[str, int]:
    """How many more tasks the contexts may complete, of those that are known and have a limit."""
    takeover, limit = settings.takeover, settings.context.task_limit
    limits = {} if limit is None else {"": limit}
    if takeover is None:
        return limits
    told = takeover.told
    limits |= {name: asked.limit for name, asked in told.attached.items() if asked.limit is not None}
    counted = {name: told.counted[name].count for name in limits if name in told.counted}
    return {name: max(0, limit - counted.get(name, 0)) for name, limit in limits.items()}
