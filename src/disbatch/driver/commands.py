"""Carry out the verbs that change a run (`model.verbs`), and report in lines for people what was done.

A request is checked first. What a driver that takes the run over must know becomes an order: a line of the
journal, which is written before the order is applied, and applied again by that driver.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from disbatch.contexts.nodes import written_out
from disbatch.driver.cancel_report import report_cancelled
from disbatch.driver.departures import PendingDepartures
from disbatch.driver.engine_state import Launching, Lost
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.holds import Holds, Reason
from disbatch.driver.submissions import Submissions
from disbatch.model.errors import UsageError
from disbatch.model.idset import IdSet
from disbatch.model.text import counted
from disbatch.plan import events
from disbatch.plan.engine import State
from disbatch.plan.plan import Plan
from disbatch.rundir.journal import Cancelled, Closed, JournalLine, JournalState, Paused, RunOrder
from disbatch.wire.client_protocol import MAX_LINE, MOST_LINES, Answer, Request
from disbatch.wire.verbs import Cancel, Close, Drain, Finish, Pause, RunRequest, Stop, Unpause

log = logging.getLogger(__name__)

NAMES_SHOWN = 20
ALONE = "no other node is there: with the last one the run ends, to be resumed if anything is left"
ALONE_AND_WAITS = "no other node is there: with the last one gone the run waits for some to be attached"
PAUSED = "paused"
DEAD = "its engine is lost, and does not come back"
NOT_JOURNALLED = "should the driver be killed, this is forgotten: its run file cannot be written"


class UserCommands:
    """`request` answers requests, `close` closes the run without one, `restore` applies orders again.

    `source_ids()`: the number of ids that `source_name` has so far. `handle_event` gets events for the plan,
    `journal` lines for the journal (False: they cannot be written), `notify_user` a line for whoever watches
    the run. `ending()`: the run is ending anyway. `finish` ends it, for the client of that name. `waits`: it
    does not end when the last node has left.
    """

    def __init__(
        self,
        plan: Plan,
        entries: Mapping[str, EngineEntry],
        holds: Holds,
        departures: PendingDepartures,
        submissions: Submissions,
        *,
        source_name: str,
        source_ids: Callable[[], int],
        handle_event: Callable[[events.Event], None],
        journal: Callable[[JournalLine], bool],
        notify_user: Callable[[str], None],
        ending: Callable[[], bool],
        finish: Callable[[str], None],
        waits: bool = False,
    ) -> None:
        self._plan = plan
        self._entries = entries
        self._holds = holds
        self._departures = departures
        self._submissions = submissions
        self._source_name = source_name
        self._source_ids = source_ids
        self._handle_event = handle_event
        self._journal = journal
        self._notify_user = notify_user
        self._ending = ending
        self._end_run = finish
        self._alone = ALONE_AND_WAITS if waits else ALONE
        self._is_journalled = True
        """A driver that takes the run over will know the orders of this request."""
        self._by = ""
        """The client that requests it; "": `dbutil`."""
        self._performers: dict[type[RunRequest], Callable[[Any], Iterable[str]]] = {
            Drain: self._release_nodes,
            Stop: self._release_nodes,
            Pause: self._pause,
            Unpause: self._unpause,
            Cancel: self._cancel,
            Close: self._close,
            Finish: self._finish,
        }
        self._effects: dict[type[RunOrder], Callable[[Any], str]] = {
            Paused: self._set_paused,
            Cancelled: self._cancel_tasks,
            Closed: self._close_source,
        }

    def request(self, request: Request, verb: RunRequest) -> Answer:
        """Carry the request out, completely or not at all."""
        log.info("dbutil asks: %.500s", verb)
        if self._ending() and not isinstance(verb, Close):
            return Answer(request.id, True, ["the run is ending already"])
        self._is_journalled, self._by = True, request.by
        try:
            lines = list(self._performers[type(verb)](verb))
        except UsageError as error:
            return Answer(request.id, False, [str(error)])
        if not self._is_journalled:
            lines.insert(0, NOT_JOURNALLED)
        if len(lines) > MOST_LINES:
            lines[MOST_LINES - 1 :] = [f"and {counted(len(lines) - MOST_LINES + 1, 'line')} more"]
        for line in lines:
            log.info("dbutil is told: %s", line)
        return Answer(request.id, True, [line[:MAX_LINE] for line in lines])

    def _give(self, order: RunOrder) -> None:
        """Journal the order, then apply it."""
        self._is_journalled &= self._journal(order)
        self._effects[type(order)](order)

    def restore(self, state: JournalState) -> None:
        """Apply the orders that were given to a former driver."""
        words = [self._effects[type(order)](order) for order in state.run_orders()]
        self._departures.restore(state)
        known = {**state.lost, **state.engines}
        leaving = dict.fromkeys(known[engine].name for engine in state.unwanted if engine in known)
        if leaving:
            words.append(f"leaving: {_listed(leaving)}")
        if words:
            self._notify_user(f"still in effect from before the takeover: {'; '.join(words)}")

    def _asker(self, verb: str) -> str:
        return f"{self._by}: {verb}" if self._by else f"dbutil {verb}"

    # ---- nodes ----

    def _release_nodes(self, request: Drain | Stop) -> list[str]:
        verb = request.verb.name
        names = self._written_out(verb, request.names)
        chosen = self._named(names)
        self._notify_user(f"{self._asker(verb)} {_listed(self._name_for_people(name) for name in names)}")
        going = {entry.engine for entry in chosen}
        alone = not any(self._stays(entry) for entry in self._entries.values() if entry.engine not in going)
        stop = isinstance(request, Stop)
        lines = [self._release_node(entry, stop=stop, alone=alone) for entry in chosen]
        return [*lines, self._alone] if alone else lines

    def _written_out(self, verb: str, names: list[str]) -> list[str]:
        """The names, with ranges expanded unless a node or label has that name. UsageError."""
        known = {name for entry in self._entries.values() for name in self._names(entry)}
        lists = ([name] if name in known or "[" not in name else written_out(name, verb) for name in names)
        return list(dict.fromkeys(chain.from_iterable(lists)))

    def _named(self, names: list[str]) -> list[EngineEntry]:
        """The engines with these names, each once: of several with one name, those that are present.
        UsageError.

        An engine has the names of `_names`, and its id, which programs know."""
        known: dict[str, list[EngineEntry]] = {}
        for entry in self._entries.values():
            for name in self._names(entry):
                known.setdefault(name, []).append(entry)
        known |= {name: [self._entries[name]] for name in names if name in self._entries}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                f"no node or label {', '.join(unknown[:NAMES_SHOWN])}; "
                + (f"there are: {_listed(known)}" if known else "there are none yet")
            )
        chosen: dict[str, EngineEntry] = {}
        for name in names:
            there = [entry for entry in known[name] if self._is_there(entry)]
            chosen.update((entry.engine, entry) for entry in there or known[name][-1:])
        return list(chosen.values())

    def _name_for_people(self, name: str) -> str:
        return self._entries[name].shown if name in self._entries else name

    def _names(self, entry: EngineEntry) -> list[str]:
        """The name of its node in the run, the one that the user gave, and its label."""
        given = "" if entry.node is None else entry.node.name
        return [name for name in dict.fromkeys((entry.name, given, entry.label)) if name]

    def _is_there(self, entry: EngineEntry) -> bool:
        if isinstance(entry.state, Launching):
            return True
        return entry.engine in self._plan.engines and not _is_dead(entry)

    def _stays(self, entry: EngineEntry) -> bool:
        """True if it is present, or will be, and is not to leave."""
        engine = self._plan.engines.get(entry.engine)
        if engine is None:
            return isinstance(entry.state, Launching) and entry not in self._departures
        return engine.state in (State.STARTING, State.ACTIVE) and not engine.draining

    def _release_node(self, entry: EngineEntry, *, stop: bool, alone: bool) -> str:
        name, engine = entry.shown, self._plan.engines.get(entry.engine)
        if engine is None:
            return self._not_there(entry, stop=stop)
        is_leaving = engine.state in (State.STOPPING, State.LEAVING)
        if (engine.stopped or (is_leaving and not engine.per_engine)) if stop else is_leaving:
            return f"{name}: is leaving already"
        if engine.draining and not stop:
            return f"{name}: is draining already"
        if _is_dead(entry):
            return f"{name}: {DEAD}"
        running, is_lost = len(engine.running), engine.state is State.LOST
        self._release(entry, stop=stop)
        if is_lost:
            return (
                f"{name}: is not heard; if it comes back, it {'ends' if stop else 'finishes'} what runs there"
            )
        if not running:
            return f"{name}: nothing is running there; it leaves"
        tasks = counted(running, "task")
        if not stop:
            return f"{name}: draining; {tasks} {'is' if running == 1 else 'are'} running there"
        again = "" if alone else f", which {'runs' if running == 1 else 'run'} again elsewhere"
        return f"{name}: ending {tasks}{again}"

    def _not_there(self, entry: EngineEntry, *, stop: bool) -> str:
        if entry.inherited and isinstance(entry.state, Launching | Lost):
            self._release(entry, stop=stop)
            return f"{entry.shown}: is not heard yet; if it comes, it leaves"
        if not isinstance(entry.state, Launching):
            joined = entry.state.has_joined
            return f"{entry.shown}: has left already" if joined else f"{entry.shown}: did not join"
        self._release(entry, stop=stop)
        return f"{entry.shown}: has not joined yet, and need not"

    def _release(self, entry: EngineEntry, *, stop: bool) -> None:
        self._is_journalled &= self._departures.add(entry, stop=stop)

    # ---- tasks ----

    def _cancel(self, verb: Cancel) -> list[str]:
        wanted = IdSet(verb.ranges)
        self._check(wanted)
        lines = list(report_cancelled(self._plan, self._entries, wanted))
        self._notify_user(f"{self._asker('cancel')} {_ranges(wanted)}")
        self._give(Cancelled(list(wanted)))
        return lines

    def _cancel_tasks(self, order: Cancelled) -> str:
        self._handle_event(events.Cancel(order.ranges))
        return f"tasks cancelled ({_ranges(order.ranges)})"

    def _check(self, wanted: IdSet) -> None:
        count = self._source_ids()
        beyond = [last for _, last in wanted if last >= count]
        if beyond:
            have = "there are no tasks"
            if count:
                have = f"{self._source_name} has " + (
                    "the id 0" if count == 1 else f"the ids 0 to {count - 1}"
                )
            raise UsageError(f"no task has the id {beyond[0]}: {have}")

    # ---- the whole run ----

    def _pause(self, verb: Pause) -> Iterator[str]:
        if Reason.PAUSE in self._holds:
            yield "the run is paused already"
            return
        self._give(Paused(True))
        self._notify_user(f"paused by {self._by or 'dbutil'}: no more tasks start until `dbutil resume`")
        yield f"paused: no more tasks start; {counted(self._running(), 'task')} running"

    def _unpause(self, verb: Unpause) -> Iterator[str]:
        if Reason.PAUSE not in self._holds:
            yield "the run is not paused"
        else:
            self._give(Paused(False))
            self._notify_user(f"resumed by {self._by or 'dbutil'}")
            yield "resumed: tasks start again"
        if self._holds.words:
            yield f"but: {self._holds.words}"

    def _set_paused(self, order: Paused) -> str:
        if order.on:
            self._holds.add(Reason.PAUSE, PAUSED)
        else:
            self._holds.remove(Reason.PAUSE)
        return PAUSED

    def _close(self, verb: Close) -> Iterator[str]:
        if not self._submissions.has_source:
            raise UsageError(self._submissions.why_not)
        if self._submissions.is_closed:
            yield "the run takes no more tasks already"
        else:
            self._give(Closed())
            yield "no more tasks are taken; the run ends when all are done"

    def _close_source(self, order: Closed) -> str:
        self._submissions.close()
        return "no more tasks are taken"

    def close(self) -> None:
        """The program that could submit tasks is gone."""
        if not self._submissions.has_source:
            self._submissions.close()
        elif not self._submissions.is_closed:
            self._give(Closed())

    def _running(self) -> int:
        slots = sum(engine.slots for engine in self._plan.engines.values())
        return min(self._plan.live, slots)

    def _finish(self, verb: Finish) -> Iterator[str]:
        running = self._running()
        self._end_run(self._by)
        yield f"ending the run, to be resumed; {counted(running, 'task')} running"


def _is_dead(entry: EngineEntry) -> bool:
    """True if it was given up and cannot come back."""
    return isinstance(entry.state, Lost) and not entry.may_run_on


def _ranges(ids: Iterable[tuple[int, int]]) -> str:
    return _listed([str(first) if first == last else f"{first}-{last}" for first, last in ids])


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
