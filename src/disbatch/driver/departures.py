"""Release engines on request, also those that have not joined yet or are expected after a takeover."""

from __future__ import annotations

from collections.abc import Callable

from disbatch.driver.engine_table import EngineEntry
from disbatch.plan import events
from disbatch.plan.plan import Plan
from disbatch.rundir.journal import JournalLine, JournalState, Unwanted


class PendingDepartures:
    """`handle_event` gets events for the plan, `journal` lines for the journal (False: they cannot be
    written); `dismiss` cancels the launch of an engine."""

    def __init__(
        self,
        plan: Plan,
        *,
        handle_event: Callable[[events.Event], None],
        journal: Callable[[JournalLine], bool],
        dismiss: Callable[[EngineEntry], None],
    ) -> None:
        self._plan = plan
        self._handle_event = handle_event
        self._journal = journal
        self._dismiss = dismiss
        self._pending: dict[str, events.Drain | events.Stop] = {}
        """The plan's event for each of these engines when it joins."""

    def add(self, entry: EngineEntry, *, stop: bool) -> bool:
        """Release the engine when its running tasks have ended or, with `stop`, end these. False if a driver
        that takes the run over would not know of it."""
        order = Unwanted(entry.engine, stop)
        is_journalled = self._journal(order)
        if entry.engine in self._plan.engines:
            self._handle_event(_event(order))
            return is_journalled
        if stop or entry.engine not in self._pending:
            self._pending[entry.engine] = _event(order)
        if not entry.inherited:
            self._dismiss(entry)  # what runs on an engine of a former driver is not known yet
        return is_journalled

    def restore(self, state: JournalState) -> None:
        """Release the engines that a former driver was to release."""
        for engine, stop in state.unwanted.items():
            self._pending[engine] = _event(Unwanted(engine, stop))

    def __contains__(self, entry: EngineEntry) -> bool:
        """True if the engine has not joined, and is to leave when it does."""
        return entry.engine in self._pending

    def joined(self, entry: EngineEntry) -> None:
        """The engine has joined."""
        event = self._pending.pop(entry.engine, None)
        if event is not None:
            self._handle_event(event)


def _event(order: Unwanted) -> events.Drain | events.Stop:
    return events.Stop(order.engine) if order.stop else events.Drain(order.engine)
