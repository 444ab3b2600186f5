"""Launch the engines of a run, and notice those that do not join."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence

import msgspec

from disbatch.contexts.launcher import Launcher
from disbatch.contexts.nodes import Node
from disbatch.contexts.spawn import Spawned
from disbatch.contexts.ssh import new_place
from disbatch.driver.addresses import Addresses
from disbatch.driver.attachments import Attachments
from disbatch.driver.engine_orders import BootstrapFactory
from disbatch.driver.engine_state import LaunchCancelled, LaunchFailed, Launching, Lost
from disbatch.driver.engine_table import EngineEntry, EngineTable, Process
from disbatch.driver.settings import Settings
from disbatch.engine.process_tree import boot_id
from disbatch.model.errors import LaunchError
from disbatch.model.task import Way
from disbatch.plan import events
from disbatch.rundir.journal import JournalLine
from disbatch.wire.connect import RunKeys
from disbatch.wire.driver_socket import Hub

log = logging.getLogger(__name__)

LAUNCHING = 120.0
"""Seconds that an engine of an attached context may take to join, from when it was announced."""


class EngineParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the parts of the engine management share, and what they call in the rest of the driver.

    `keys` are those of the run; `hostname` is this host. `handle_event`
    gets events for the plan, `notify_user` lines for the user, `journal` lines for the journal.
    `engines_changed` is called when an engine came, left, or will not come. `is_over()`: the run is over.
    `time_is_up()`: the allocation ends. `lets_go(entry)`: an engine that joins is to leave. Each of
    `on_joined` is called with every engine that joins.
    """

    loop: asyncio.AbstractEventLoop
    settings: Settings
    table: EngineTable
    attachments: Attachments
    hub: Hub
    addresses: Addresses
    keys: RunKeys
    hostname: str
    handle_event: Callable[[events.Event], None]
    notify_user: Callable[[str], None]
    journal: Callable[[JournalLine], object]
    engines_changed: Callable[[], None]
    is_over: Callable[[], bool]
    time_is_up: Callable[[], bool]
    lets_go: Callable[[EngineEntry], bool]
    on_joined: Sequence[Callable[[EngineEntry], None]]


class EngineLaunches:
    """`on_exit(engine, return_code, words)` is called when the process of an engine, or the command that
    started its step, has ended; `not_coming` when an engine will not join."""

    def __init__(
        self, parts: EngineParts, on_exit: Callable[[str, int, str], None], not_coming: Callable[[], None]
    ) -> None:
        self._parts = parts
        self._table = parts.table
        self._not_coming = not_coming
        s = parts.settings
        pool = s.pool
        self._bootstraps = BootstrapFactory(
            *(pool, s.directory, s.environment, s.claimed.files, parts.keys, s.orphan_patience),
            output=s.output,
        )
        self._launcher = Launcher(
            parts.loop,
            pool.context,
            on_started=self._started,
            on_failed=self._failed,
            on_exit=on_exit,
            on_trouble=parts.notify_user,
            ssh=pool.ssh,
            tunnel_to=parts.addresses.socket if pool.tunnel else None,
        )

    def adopt(self, early: Spawned) -> None:
        """A local engine was started before the driver was complete: the first local node gets it."""
        self._launcher.adopt(early)

    def start(self, rank: int, node: Node) -> str:
        """Launch an engine on the node; returns its permanent id."""
        pool = self._parts.settings.pool
        name = pool.context.name_of(node, self._parts.hostname)
        engine = f"{rank}-{secrets.token_hex(8)}"
        place = new_place() if pool.tunnel and node.way is Way.SSH else ""
        process = Process(self._parts.hostname, boot_id()) if node.local else Process()
        self._table.launch(
            EngineEntry(
                *(engine, name, rank, node.slots, node), label=pool.label, tunnel=place, process=process
            )
        )
        addresses = self._parts.addresses.for_node(node)
        bootstrap = self._bootstraps.bootstrap(node, name=name, engine=engine, addresses=addresses)
        self._launcher.start(node, bootstrap, place)
        return engine

    def reconnect(self, entry: EngineEntry) -> None:
        """Make the tunnel again that led from this engine to a former driver, if there was one."""
        if entry.node is not None and entry.tunnel:
            self._launcher.reconnect(entry.engine, entry.node, entry.tunnel)

    def expect(self, entry: EngineEntry) -> None:
        """An attached context launches this engine."""
        self._table.launch(entry)
        self._parts.loop.call_later(LAUNCHING, self._check_joined, entry.engine)
        self._parts.engines_changed()

    def _started(self, engine: str) -> None:
        log.info("%s: engine started", self._table.entries[engine].name)
        self._parts.loop.call_later(self._parts.settings.patience * 2, self._check_joined, engine)

    def _check_joined(self, engine: str) -> None:
        entry = self._table.entries[engine]
        if not isinstance(entry.state, Launching) or self._parts.is_over():
            return
        if not entry.context:
            path = self._parts.settings.claimed.files.engine_log(entry.name)
            self.failed(engine, f"{entry.shown}: its engine started but did not join; see {path}")
        elif self._parts.attachments.is_heard(entry.context):
            self._parts.loop.call_later(LAUNCHING, self._check_joined, engine)  # it reports a failed launch
        else:
            self.failed(engine, f"{entry.shown}: did not join, and who attached it is not heard any more")

    def _failed(self, engine: str, error: LaunchError) -> None:
        self.failed(engine, f"{self._table.entries[engine].shown}: {error.problem}")

    def failed(self, engine: str, words: str) -> None:
        """The engine will not join; `words` say why."""
        self._table.change(self._table.entries[engine], LaunchFailed())
        if self._parts.is_over():
            log.info("%s", words)  # its launch was ended, or is not waited for
            return
        self._parts.notify_user(words)
        self._not_coming()

    def cancel(self, entry: EngineEntry) -> None:
        """End the launch of this engine, which need not join."""
        self._launcher.end(entry.engine)
        self._table.change(entry, LaunchCancelled())
        self._not_coming()

    def cancel_all(self) -> None:
        """End the launches of the driver's own context: these engines would join too late."""
        for entry in self._table.launching:
            if not entry.context:
                self.cancel(entry)
        self._parts.engines_changed()

    def end(self, engine: str) -> None:
        """End what was launched here for this engine, which is given up or said Goodbye: its process if it is
        local, its step if that does not end soon, and its tunnel."""
        self._launcher.end(engine)

    async def close(self, patience: float) -> None:
        """End everything that was launched here; the engines have so many seconds to leave by themselves."""
        entries = self._table.entries.values()
        lost = {entry.engine for entry in entries if isinstance(entry.state, Lost)}
        await self._launcher.close(patience=patience, lost=lost)
