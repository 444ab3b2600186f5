"""Tells engines which of their results are safe: a message is acknowledged when all that it told is in the
status file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from disbatch.driver.record import Record
from disbatch.plan.plan import Mode, Plan
from disbatch.wire.hub import Hub, Peer
from disbatch.wire.messages import Pulse

DELAY = 0.1
"""Seconds that an acknowledgement may wait for a message to ride on."""


class Receipts:
    """`lose(engine, why)` is called for an engine whose results cannot be recorded any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plan: Plan,
        record: Record,
        hub: Hub,
        lose: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._record = record
        self._hub = hub
        self._lose = lose
        self._owed: dict[str, Peer] = {}
        self._withheld: dict[str, tuple[Peer, int]] = {}
        """Messages of engines that are not acknowledged yet, as the plan keeps some of their results."""

    def mark(self, peer: Peer, number: int) -> None:
        """Acknowledge this message when all that it told is in the status file."""
        if self._plan.keeps(peer.name):
            self._withheld[peer.name] = (peer, number)
            if not self._plan.reads:
                self.look_at_withheld()
        else:
            self._record.mark(lambda: self._recorded(peer, number))

    def look_at_withheld(self) -> None:
        """The plan may have met some of the tasks whose results it kept."""
        if not self._withheld:
            return
        for name, (peer, number) in list(self._withheld.items()):
            if not self._plan.keeps(name):
                del self._withheld[name]
                self.mark(peer, number)
            elif not self._plan.reads:
                # Their tasks will not be read any more: the engine writes the results down itself.
                del self._withheld[name]
                self._hub.refuse(peer, "the run ends, and some of its results cannot be recorded")
                self._loop.call_soon(self._lose, name, "its last results are in a file beside its log")

    def _recorded(self, peer: Peer, number: int) -> None:
        """Everything up to this message of the engine is in the status file: let it know, soon. Mostly that
        rides on the next tasks; an engine that leaves waits for it."""
        if peer.session.acknowledge(number):
            if not self._owed:
                self._loop.call_later(DELAY, self.send)
            self._owed[peer.name] = peer
            if self._plan.mode is Mode.CLOSING or peer.name not in self._plan.engines:
                self._loop.call_soon(self.send)

    def send(self) -> None:
        """Tell now what no other message has told."""
        owed, self._owed = self._owed, {}
        for peer in owed.values():
            if peer.session.owes:
                peer.session.tell(Pulse())
