"""Answer the requests of attached contexts: admit them, report on their engines, and release them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from disbatch.contexts.nodes import room_for_connections
from disbatch.driver.attachments import Attachments
from disbatch.driver.departures import PendingDepartures
from disbatch.driver.engine_state import Launching, Lost
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.engines import EngineManager
from disbatch.driver.settings import Settings
from disbatch.model.errors import UsageError
from disbatch.model.text import counted, short_list
from disbatch.plan import events
from disbatch.rundir.journal import AttachedContext
from disbatch.wire.client_protocol import Answer, Attach, Attached, Detach, Ended, Event, Fate, Heed, Request
from disbatch.wire.descriptors import limit
from disbatch.wire.driver_socket import ENGINE_NAME

log = logging.getLogger(__name__)


class AttachRequests:
    """`request` answers a request, or returns None: the answer comes later. `ending()`: the run is ending
    anyway. `open_port()` returns the driver's addresses for engines on other hosts (UsageError)."""

    def __init__(
        self,
        settings: Settings,
        engines: EngineManager,
        attachments: Attachments,
        departures: PendingDepartures,
        *,
        ending: Callable[[], bool],
        open_port: Callable[[], list[str]],
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._attachments = attachments
        self._departures = departures
        self._ending = ending
        self._open_port = open_port
        self._performers: dict[type, Callable[[Request, Any], Answer | None]] = {
            Attach: self._attach,
            Heed: attachments.heed,
            Ended: self._ended,
            Detach: self._detach,
        }

    def request(self, request: Request) -> Answer | None:
        """Carry the request out."""
        return self._performers[type(request.verb)](request, request.verb)

    def restore(self, name: str, asked: Attach, here: Collection[str]) -> None:
        """Restore a context that was attached to the run of a former driver; its engines that are not in
        `here` have left."""
        attachment = self._attachments.add(asked, name)
        gone = [node.engine for node in asked.nodes if node.engine not in here]
        attachment.events += [Event(engine, Fate.LEFT) for engine in gone]
        self._engines.idle_releases.add(name, asked.spare_after, frozenset(asked.keep))

    def _attach(self, request: Request, verb: Attach) -> Answer:
        if self._ending():
            return Answer(request.id, False, ["the run is ending already"])
        known = self._attachments.find(verb)
        try:
            if known is None:
                self._look_for_room(len(verb.nodes))
            addresses = self._open_port() if verb.far else []
        except UsageError as error:
            return Answer(request.id, False, [str(error)])
        if known is None:
            names = [node.engine for node in verb.nodes]
            if len(set(names)) < len(names) or not all(map(ENGINE_NAME.match, names)):
                return Answer(request.id, False, ["invalid or repeated engine ids"])
            if not self._engines.table.entries.keys().isdisjoint(names):
                return Answer(request.id, False, ["the run has engines of these names already"])
            known = self._attachments.add(verb).name
            self._admit(known, verb)
        s = self._settings
        value = Attached(
            context=known,
            directory=s.directory,
            prefix=bytes(s.claimed.files.prefix),
            environment=s.environment,
            grace=s.grace,
            patience=s.patience,
            orphan_patience=s.orphan_patience,
            known=bytes(s.claimed.files.elsewhere.prefix),
            addresses=addresses,
        )
        return Answer(request.id, True, [], value)

    def _look_for_room(self, nodes: int) -> None:
        """UsageError if there are too few file descriptors for so many more connections."""
        table = self._engines.table
        expected = len(table.launching)
        room = room_for_connections(expected, len(table.joined) + expected)
        if nodes > room:
            cause = f"the driver may open only {limit():,} files (ulimit -Hn)"
            raise UsageError(f"{cause}: it has room for {room:,} more nodes, and {nodes:,} are too many")

    def _admit(self, context: str, verb: Attach) -> None:
        engines = self._engines
        log.info("%s: attached by process %d on %s: %s", context, verb.pid, verb.host, verb.nodes)
        engines.parts.journal(AttachedContext(context, verb))
        if verb.limit is not None:
            engines.parts.handle_event(events.Limit(context, verb.limit))
        engines.idle_releases.add(context, verb.spare_after, frozenset(verb.keep))
        slots = sum(node.slots for node in verb.nodes)
        what = counted(slots, "slot") + (f", label {verb.label}" if verb.label else "")
        engines.parts.notify_user(
            f"attached from {verb.host}: {short_list([node.node for node in verb.nodes])} ({what})"
        )
        for node in verb.nodes:
            engines.launches.expect(
                EngineEntry(
                    node.engine,
                    node.node,
                    engines.table.next_rank,
                    node.slots,
                    None,
                    context,
                    label=verb.label,
                )
            )

    def _entry(self, context: str, engine: str) -> EngineEntry | None:
        entry = self._engines.table.entries.get(engine)
        return None if entry is None or not context or entry.context != context else entry

    def _ended(self, request: Request, verb: Ended) -> Answer:
        entry = self._entry(verb.context, verb.engine)
        if entry is None:
            return Answer(request.id, False, ["this run does not know that engine"])
        if verb.came:
            self._engines.exited(entry.engine, verb.return_code, verb.words)
        elif isinstance(entry.state, Launching):
            self._engines.launches.failed(entry.engine, verb.words)
        return Answer(request.id, True, [])

    def _detach(self, request: Request, verb: Detach) -> Answer:
        attachment = self._attachments.get(verb.context)
        if attachment is None:
            return Answer(request.id, False, ["this run does not know that context"])
        engines = self._engines
        launching = [
            entry
            for entry in map(engines.table.entries.get, self._attachments.engines(verb.context))
            if entry is not None and isinstance(entry.state, Launching)
        ]
        staying = engines.of_context(verb.context)
        heard = sorted(entry.name for entry in staying if not isinstance(entry.state, Lost))
        if heard:
            how = "its tasks finish" if verb.kindly else "its tasks run again elsewhere"
            engines.parts.notify_user(f"{short_list(heard)}: {verb.why}; {how}")
        for entry in (*launching, *staying):
            self._departures.add(entry, stop=not verb.kindly)
        return Answer(request.id, True, [])
