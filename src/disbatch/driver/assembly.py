"""Build the parts of a driver, and connect them."""

# ruff: noqa: PLW0108 - a lambda looks its part up when it is called
from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import zmq

from disbatch.contexts.machine import this_machine
from disbatch.contexts.spawn import Spawned
from disbatch.contexts.walltime import TimeLimit
from disbatch.driver.addresses import Addresses, Port
from disbatch.driver.attach_requests import AttachRequests
from disbatch.driver.attachments import Attachments
from disbatch.driver.commands import UserCommands
from disbatch.driver.departures import PendingDepartures
from disbatch.driver.driver import Driver
from disbatch.driver.engine_launch import EngineParts
from disbatch.driver.engine_table import EngineTable
from disbatch.driver.engines import EngineManager, engine_manager
from disbatch.driver.feed import Feed
from disbatch.driver.file_watch import FileWatch
from disbatch.driver.holds import Holds
from disbatch.driver.keystore import KeyStorePublisher
from disbatch.driver.parts import Parts
from disbatch.driver.recorder import Journal, Recorder
from disbatch.driver.result_feed import ResultFeed
from disbatch.driver.settings import Listener, Observer, Settings
from disbatch.driver.shutdown import Shutdown
from disbatch.driver.startup import new_plan
from disbatch.driver.status_collector import StatusCollector, ViewInputs
from disbatch.driver.status_feed import StatusFeed
from disbatch.driver.status_writer import Acknowledgements, StatusWriter
from disbatch.driver.submissions import Submissions
from disbatch.driver.tally import Tally
from disbatch.plan.events import Event
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub

log = logging.getLogger(__name__)

NO_SUBMISSIONS = "this run takes no other tasks: start it with --keep-open, or with -S and no task file"


@contextlib.contextmanager
def assembled(
    settings: Settings,
    feed: Feed,
    observer: Observer,
    early: Spawned | None,
    listeners: Sequence[Listener] = (),
) -> Iterator[Driver]:
    """A driver with all of its parts, on the running loop. UsageError."""
    with zmq.Context() as zmq_context:
        yield _Assembly(settings, feed, observer, early, listeners, zmq_context=zmq_context).driver


class _Assembly:
    """Builds each part when it is needed first. Of two parts that call each other, one gets the other as a
    callable, which looks that part up when it is called."""

    def __init__(
        self,
        settings: Settings,
        feed: Feed,
        observer: Observer,
        early: Spawned | None,
        listeners: Sequence[Listener],
        *,
        zmq_context: zmq.Context[zmq.Socket[bytes]],
    ) -> None:
        takeover = settings.takeover
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._settings = settings
        self._feed = feed
        self._observer = observer
        self._early = early
        self._listeners = listeners
        self._zmq_context = zmq_context
        self._hostname = this_machine().hostname
        self._keys = RunKeys.generate() if takeover is None else takeover.connect.keys
        self._plan = new_plan(settings)
        self._tally = Tally()
        self._journal = Journal()
        self._engine_table = EngineTable(
            self._loop.time,
            journal=self._journal.add,
            became=lambda entry, fate: self._attachments.became(entry, fate),
        )
        self._holds = Holds(self._handle_event, lambda: self.driver.feed_plan())

    @cached_property
    def driver(self) -> Driver:
        return Driver(self._parts)

    @property
    def _shutdown(self) -> Shutdown:
        return self.driver.shutdown

    def _handle_event(self, event: Event) -> None:
        self.driver.handle_event(event)

    def _notify_user(self, text: str) -> None:
        self.driver.notify_user(text)

    def _is_ending(self) -> bool:
        return self._shutdown.is_ending

    @cached_property
    def _parts(self) -> Parts:
        return Parts(
            loop=self._loop,
            over=self._over,
            settings=self._settings,
            observer=self._observer,
            listeners=self._listeners,
            early=self._early,
            hostname=self._hostname,
            plan=self._plan,
            feed=self._feed,
            holds=self._holds,
            time_limit=self._time_limit,
            hub=self._hub,
            addresses=self._addresses,
            engines=self._engines,
            engine_table=self._engine_table,
            record=self._record,
            acknowledgements=Acknowledgements(
                self._loop, self._plan, self._record, self._hub, self._engines.lose
            ),
            recorder=self._recorder,
            tally=self._tally,
            journal=self._journal,
            files=self._files,
            attachments=self._attachments,
            attach_requests=self._attach_requests,
            submissions=self._submissions,
            user_commands=self._user_commands,
            keystore=self._keystore,
            result_feed=self._result_feed,
            collector=self._collector,
            status_feed=self._status_feed,
        )

    # ---- engines ----

    @cached_property
    def _hub(self) -> Hub:
        return Hub(
            *(self._loop, self._zmq_context, self._keys),
            hello=lambda peer, hello: self._engines.hello(peer, hello),
            receive=lambda peer, number, message: self.driver.receive(peer, number, message),
            bad=lambda text: log.warning("dropped: %s", text),
            request=lambda request: self.driver.request(request),
        )

    @cached_property
    def _addresses(self) -> Addresses:
        return Addresses(self._settings, self._hub, lambda to: Port(to, self._notify_user))

    @cached_property
    def _engine_parts(self) -> EngineParts:
        return EngineParts(
            loop=self._loop,
            settings=self._settings,
            table=self._engine_table,
            attachments=self._attachments,
            hub=self._hub,
            addresses=self._addresses,
            keys=self._keys,
            hostname=self._hostname,
            handle_event=self._handle_event,
            notify_user=self._notify_user,
            journal=self._journal.add,
            engines_changed=lambda: self._shutdown.look_for_engines(),
            is_over=lambda: self._over.done() or self._plan.is_over,
            time_is_up=lambda: bool(self._time_limit.words),
            lets_go=lambda entry: self._time_limit.lets_go(entry.context) or entry in self._departures,
            on_joined=(
                lambda entry: self._time_limit.joined(entry.engine, entry.context),
                lambda entry: self._departures.joined(entry),
            ),
        )

    @cached_property
    def _engines(self) -> EngineManager:
        return engine_manager(self._engine_parts, self._plan)

    @cached_property
    def _time_limit(self) -> TimeLimit:
        return TimeLimit(
            self._settings.pool,
            self._settings.grace,
            notify_user=self._notify_user,
            handle_event=self._handle_event,
            engines=lambda: [entry.engine for entry in self._engines.of_context("")],
            launches_end=lambda: self._engines.launches.cancel_all(),
            end_is_near=lambda grace: self._shutdown.end_of_allocation_is_near(grace),
        )

    @cached_property
    def _departures(self) -> PendingDepartures:
        return PendingDepartures(
            self._plan,
            handle_event=self._handle_event,
            journal=self._journal.add,
            dismiss=lambda entry: self._engines.launches.cancel(entry),
        )

    # ---- the record ----

    @cached_property
    def _record(self) -> StatusWriter:
        claimed = self._settings.claimed
        return StatusWriter(
            *(self._loop, claimed.status_descriptor, claimed.recorded),
            trouble=lambda error: self._files.trouble(error),
            recovered=lambda: self._files.recovered(),
            path=claimed.files.status,
            is_taken_over=lambda: self._files.is_taken_over(),
            taken_over=lambda: self._shutdown.taken_over(),
            note=lambda path: self._files.note_status(path),
            renamed=lambda sight, path: self._files.status_renamed(sight, path),
        )

    @cached_property
    def _files(self) -> FileWatch:
        return FileWatch(
            *(self._loop, self._settings, self._keys, time.time()),
            journal=self._journal,
            addresses=self._addresses,
            holds=self._holds,
            record=self._record,
            result_feed=self._result_feed,
            collector=self._collector,
            notify_user=self._notify_user,
        )

    @cached_property
    def _recorder(self) -> Recorder:
        feed, takeover = self._feed, self._settings.takeover
        return Recorder(
            self._record.add,
            self._tally,
            self._engine_table.entries,
            notify_user=self._notify_user,
            source_name=feed.source_of,
            hostname=self._hostname,
            barriers_read=feed.barriers_read,
            asides=set() if takeover is None else takeover.asides,
            ended=self._listeners_to_ends(),
            failed=[listener.failed for listener in self._listeners],
            keyed=self._keystore.put_barrier,
        )

    def _listeners_to_ends(self) -> list[Callable[[int, bytes], None]]:
        """The callables to call with each task that is done, and with each barrier."""
        listeners: list[Callable[[int, bytes], None]] = [listener.ended for listener in self._listeners]
        if self._feed.takes_more:
            listeners.append(self._result_feed.ended)
        if self._feed.expects_program:
            listeners.append(self._keystore.ended)
        return listeners

    # ---- clients ----

    @cached_property
    def _attachments(self) -> Attachments:
        return Attachments(self._loop, self._hub.answer, self._settings.number)

    @cached_property
    def _attach_requests(self) -> AttachRequests:
        return AttachRequests(
            *(self._settings, self._engines, self._attachments, self._departures),
            ending=self._is_ending,
            open_port=self._addresses.for_others,
        )

    @cached_property
    def _submissions(self) -> Submissions:
        return Submissions(ending=self._is_ending, why_not=NO_SUBMISSIONS)

    @cached_property
    def _user_commands(self) -> UserCommands:
        s, feed = self._settings, self._feed
        return UserCommands(
            *(self._plan, self._engine_table.entries, self._holds, self._departures, self._submissions),
            source_name="the run" if feed.takes_more else s.source_name,
            source_ids=lambda: feed.known_ids(self._plan),
            handle_event=self._handle_event,
            journal=self._journal.add,
            notify_user=self._notify_user,
            ending=self._is_ending,
            finish=lambda by: self._shutdown.finish(by),
            waits=s.waits != 0,
        )

    @cached_property
    def _keystore(self) -> KeyStorePublisher:
        return KeyStorePublisher(
            *(self._loop, self._settings, self._holds),
            mark=self._record.mark,
            view=self._collector.now,
            notify_user=self._notify_user,
            answer=self._hub.answer,
        )

    @cached_property
    def _result_feed(self) -> ResultFeed:
        return ResultFeed(
            *(self._loop, self._settings.claimed.status_descriptor),
            answer=self._hub.answer,
            size=lambda: self._record.size,
            safely=self._record.mark,
        )

    @cached_property
    def _collector(self) -> StatusCollector:
        s, feed = self._settings, self._feed
        return StatusCollector(
            ViewInputs(
                *(s.number, s.jobid, s.task_name, lambda: feed.total),
                *(self._plan, self._engine_table.entries, self._tally, self._holds),
                label_of=self._engines.label_of,
                heard=self._last_heard,
                notice=self._notice,
                now=self._loop.time,
            )
        )

    def _last_heard(self, engine: str) -> float | None:
        peer = self._hub.peer(engine)
        return None if peer is None else peer.heard

    def _notice(self) -> str:
        return self._shutdown.notice or self._holds.words or self._shutdown.notice_of_wait

    @cached_property
    def _status_feed(self) -> StatusFeed:
        return StatusFeed(self._loop, self._collector, self._hub.answer, self._settings.number)
