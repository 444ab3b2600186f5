"""The driver's loop: an event for the plan, the actions that follow from it, more tasks for the plan.

Theory of operation
-------------------
There is one event loop. Whatever happens (a message, tasks to read, an engine lost, a signal) becomes one
event for the plan. The plan's actions are performed at once; then it is fed from the source as long as it has
room.

A result is acknowledged to its engine when its line is in the status file (`Acknowledgements`), so an engine
forgets nothing that is not recorded. `EngineManager` knows which engines are there, `Startup` begins a run,
and `Shutdown` ends it.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from typing import Any

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_orders import start_per_engine, starts
from disbatch.driver.parts import Parts
from disbatch.driver.shutdown import Shutdown
from disbatch.driver.startup import Startup
from disbatch.model.statusline import STATUS_HEADER
from disbatch.model.text import printable
from disbatch.model.view import Summary
from disbatch.plan import events
from disbatch.sources.keystore import SourceAccess
from disbatch.wire.client_protocol import Answer, OfClients, OfContexts, Request, Verb, Watch
from disbatch.wire.driver_socket import Peer
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
from disbatch.wire.verbs import Finish, RunRequest

log = logging.getLogger(__name__)


class Driver:
    """Drives one run on the running loop. `run` carries it out; `interrupt` ends it early."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._plan = parts.plan
        self._feed = parts.feed
        self.startup = Startup(
            parts, handle_event=self.handle_event, feed_plan=self.feed_plan, notify_user=self.notify_user
        )
        self.shutdown = Shutdown(parts, handle_event=self.handle_event, notify_user=self.notify_user)
        self._is_feeding = False
        self._early_requests: list[Request] | None = []
        """Requests that came before the run began, while it waits for its key store; None: it has begun."""
        self._performers: dict[type, Callable[[Any], None]] = {
            events.Assign: self._assign,
            events.AssignPerEngine: lambda a: self._post(a.engine, start_per_engine(a)),
            events.Recall: lambda a: self._post(a.engine, Recall(a.attempts)),
            events.End: lambda a: self._post(a.engine, End(a.attempts, a.at_once)),
            events.Release: lambda a: self._post(a.engine, Leave()),
            events.Finish: self._finish,
            **parts.recorder.performers,
        }

    # ---- the course of a run ----

    async def run(self, ready: Callable[[], None] = lambda: None) -> tuple[int, Summary]:
        """Carry the run out; returns the exit code and the summary. `ready` is called when the run has begun
        and accepts requests. UsageError."""
        p, s = self._parts, self._parts.settings
        p.loop.set_exception_handler(self.shutdown.failed)
        if s.status_header and not s.claimed.recorded:
            p.record.add(STATUS_HEADER)
        p.files.start()
        takes_over = s.takeover is not None
        begun = not takes_over
        try:
            nodes = self.startup.affordable_nodes()
            # A run that is taken over stays as it was until this driver can begin. A new one can be ended
            # while it waits for its key store, so others must find it.
            if not takes_over:
                p.files.create()
            if await self.startup.reach_store():
                if takes_over:
                    p.files.create()
                access = p.keystore.open(p.addresses.public)
                begun = True
                self._begin(nodes, access)
            ready()
            await p.over
        finally:
            unwritten = await (self.shutdown.close() if begun else self.shutdown.leave())
        return self.shutdown.conclude(unwritten)

    def _begin(self, nodes: list[Node], access: SourceAccess) -> None:
        p, takeover = self._parts, self._parts.settings.takeover
        self.startup.begin(nodes, access)
        if p.submissions.was_closed:
            p.user_commands.close()
        if takeover is not None and takeover.finish:
            self.shutdown.finish()
        self.feed_plan()
        p.collector.note()
        p.observer.start(p.collector.now)
        p.time_limit.start()
        early, self._early_requests = self._early_requests or [], None
        for request in early:
            answer = self.request(request)
            if answer is not None:
                p.hub.answer(request, answer)
        self.shutdown.look_for_engines()

    # ---- signals, requests, messages ----

    def interrupt(self, number: int) -> None:
        """End the run, because of SIGINT, SIGTERM or SIGHUP."""
        self.shutdown.interrupt(number)

    def ignore_signal(self, number: int) -> None:
        """Continue after SIGUSR1 or SIGUSR2, which would end a process that does not handle it."""
        self.notify_user(f"{signal.Signals(number).name}: the run goes on; SIGTERM ends it")

    def take_no_more(self) -> None:
        """The program that could submit tasks is gone: the run ends when all are done."""
        self._parts.user_commands.close()

    def failed_summary(self) -> Summary:
        """The summary of the run after `run` raised an error."""
        return self.shutdown.failed_summary()

    def request(self, request: Request) -> Answer | None:
        """Answer a client's request; None: the answer comes later."""
        p, verb = self._parts, request.verb
        if self._early_requests is not None and _needs_begun_run(verb):
            self._early_requests.append(request)
            return None
        if isinstance(verb, RunRequest):
            return p.user_commands.request(request, verb)
        if isinstance(verb, OfContexts):
            return p.attach_requests.request(request)
        if isinstance(verb, OfClients):
            return p.submissions.request(request, verb)
        if isinstance(verb, Watch):
            return p.status_feed.request(request, verb)
        return p.keystore.request(request)

    def receive(self, peer: Peer, number: int, message: FromEngine) -> None:
        """Handle a message of an engine. `number`: its sequence number; 0: it is not acknowledged."""
        p, name = self._parts, peer.name
        if type(message) is Finished:
            self.handle_event(events.Finished(name, message.outcomes))
        elif type(message) is Beat:
            p.engines.beat(peer, message)
            p.status_feed.mark_changed()
            return
        elif type(message) is Recalled:
            self.handle_event(events.Returned(name, message.attempts))
        elif type(message) is Trouble:
            self.notify_user(f"{p.engine_table.entries[name].shown}: {message.text}")
        elif type(message) is Goodbye:
            p.engines.goodbye(peer, message)
        if number:
            p.acknowledgements.mark(peer, number)

    # ---- events and actions ----

    def handle_event(self, event: events.Event) -> None:
        """Let the plan decide what follows from the event, and do that."""
        self._perform(self._plan.handle(event))
        self.feed_plan()
        self._parts.acknowledgements.look_at_withheld()

    def _perform(self, actions: list[events.Action]) -> None:
        performers = self._performers
        for action in actions:
            performers[type(action)](action)
        self._parts.status_feed.mark_changed()

    def feed_plan(self) -> None:
        """Read as many tasks as the plan has room for. A call while another one is active does nothing, since
        the active one reads what is needed."""
        if self._is_feeding or self._parts.over.done() or self._parts.holds.stop_reading:
            return
        self._is_feeding = True
        try:
            for event in self._feed.events(self._plan):
                if type(event) is events.SourceEnded:
                    self._report_end_of_source(event)
                self._perform(self._plan.handle(event))
        finally:
            self._is_feeding = False

    def _report_end_of_source(self, end: events.SourceEnded) -> None:
        if end.broken:
            self.notify_user(self._feed.broken(self._plan))
            return
        for warning in self._feed.missing(self._plan):
            self.notify_user(warning)

    def _assign(self, action: events.Assign) -> None:
        for message in starts(action):
            self._post(action.engine, message)

    def _post(self, engine: str, message: Any) -> None:
        self._parts.hub.post(engine, message)

    def _finish(self, action: events.Finish) -> None:
        if not self._parts.over.done():
            self._parts.over.set_result(None)

    # ---- messages ----

    def notify_user(self, text: str) -> None:
        """Show this line to the user, and on all displays of the run."""
        # Parts of it come from other hosts, and it may go to a terminal.
        text = printable(text)
        log.warning("%s", text)
        self._parts.observer.say(text)
        self._parts.collector.log(text)
        self._parts.status_feed.mark_changed()


def _needs_begun_run(verb: Verb) -> bool:
    """True if the run must have begun; one that waits for its key store can be ended."""
    return isinstance(verb, RunRequest | OfContexts | OfClients) and not isinstance(verb, Finish)
