"""What dbutil asks of a run that goes on: drain, stop, pause, cancel, finish.

Engines that users want to leave: also those that are on their way still, or expected after a takeover.

Does what `dbutil` asks of a run that goes on, and says in lines for people what it did.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from disbatch.contexts.nodes import written_out
from disbatch.driver.engine_table import Member
from disbatch.driver.holds import Holds, Reason
from disbatch.model.errors import UsageError
from disbatch.model.idset import IdSet
from disbatch.model.text import counted
from disbatch.plan import events
from disbatch.plan.engine import State
from disbatch.plan.plan import Place, Plan
from disbatch.rundir.journal import Cancelled, JournalLine, JournalState, Paused, Unwanted
from disbatch.wire.client_protocol import (
    MAX_LINE,
    MOST_LINES,
    Answer,
    Cancel,
    Drain,
    Finish,
    Pause,
    Request,
    Stop,
    Unpause,
)


class PendingDepartures:
    """`handle_event` gets events for the plan, `journal` lines for the journal; `dismiss` an engine that need
    not come any more."""

    def __init__(
        self,
        plan: Plan,
        *,
        handle_event: Callable[[events.Event], None],
        journal: Callable[[JournalLine], bool],
        dismiss: Callable[[Member], None],
    ) -> None:
        self._plan = plan
        self._handle_event = handle_event
        self._journal = journal
        self._dismiss = dismiss
        self._awaited: dict[str, events.Drain | events.Stop] = {}
        """What is told of engines when they join."""

    def add(self, member: Member, *, stop: bool) -> bool:
        """Let this engine go when what runs there has ended; or, with `stop`, end that. False if another
        driver would not know of it."""
        noted = self._journal(Unwanted(member.engine, stop))
        if member.engine in self._plan.engines:
            self._handle_event(_event(member.engine, stop))
            return noted
        if stop or member.engine not in self._awaited:
            self._awaited[member.engine] = _event(member.engine, stop)
        if not member.inherited:
            self._dismiss(member)  # of those that are expected nobody knows yet what runs there
        return noted

    def again(self, told: JournalState) -> None:
        """These were to leave when a former driver was killed."""
        self._awaited.update((engine, _event(engine, stop)) for engine, stop in told.unwanted.items())

    def __contains__(self, member: Member) -> bool:
        """It is not there, and when it comes it leaves."""
        return member.engine in self._awaited

    def joined(self, member: Member) -> None:
        """This engine came, although it need not have."""
        event = self._awaited.pop(member.engine, None)
        if event is not None:
            self._handle_event(event)


def _event(engine: str, stop: bool) -> events.Drain | events.Stop:
    return events.Stop(engine) if stop else events.Drain(engine)


log = logging.getLogger(__name__)

NAMES_SHOWN = 20
ALONE = "no other node is there: with the last one the run ends, to be resumed if anything is left"
ALONE_AND_WAITS = "no other node is there: with the last one gone the run waits for some to be attached"
WAITS = "will not run"
DONE = "done already"
PAUSED = "paused"
DEAD = "its engine is lost, and does not come back"
UNKEPT = "should the driver be killed, this is forgotten: its run file cannot be written"


class _Span(NamedTuple):
    """Ids that stand next to each other; `engine` if it runs them."""

    first: int
    last: int
    what: str
    engine: str = ""


class UserCommands:
    """`request` answers requests, at once.

    `source_ids()`: how many ids `source_name` has by now. `handle_event` gets events for the
    plan, `journal` lines for the journal (False: they cannot be kept), `notify_user` a line for the one who
    watches the run; `ending()` is true when the run comes to its end anyway, and `finish` makes it; `waits`:
    without nodes it does not.
    """

    def __init__(
        self,
        plan: Plan,
        members: Mapping[str, Member],
        holds: Holds,
        departures: PendingDepartures,
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
        self._members = members
        self._holds = holds
        self._departures = departures
        self._source_name = source_name
        self._source_ids = source_ids
        self._handle_event = handle_event
        self._journal = journal
        self._notify_user = notify_user
        self._ending = ending
        self._end_run = finish
        self._alone = ALONE_AND_WAITS if waits else ALONE
        self._kept = True
        """What was ordered will be known to a driver that takes the run over."""
        self._by = ""
        """Who asks, if not `dbutil`."""
        self._performers: dict[type, Callable[[Any], Iterable[str]]] = {
            Drain: lambda verb: self._let_go("drain", verb.names, self._drain),
            Stop: lambda verb: self._let_go("stop", verb.names, self._stop),
            Pause: self._pause,
            Unpause: self._unpause,
            Cancel: self._cancel,
            Finish: self._finish,
        }

    def request(self, request: Request) -> Answer:
        """Do it, all of it or nothing."""
        verb = request.verb
        log.info("dbutil asks: %.500s", verb)
        if self._ending():
            return Answer(request.id, True, ["the run is ending already"])
        self._kept, self._by = True, request.by
        try:
            lines = list(self._performers[type(verb)](verb))
        except UsageError as error:
            return Answer(request.id, False, [str(error)])
        if not self._kept:
            lines.insert(0, UNKEPT)
        if len(lines) > MOST_LINES:
            lines[MOST_LINES - 1 :] = [f"and {counted(len(lines) - MOST_LINES + 1, 'line')} more"]
        for line in lines:
            log.info("dbutil is told: %s", line)
        return Answer(request.id, True, [line[:MAX_LINE] for line in lines])

    def again(self, told: JournalState) -> None:
        """This was ordered when a former driver was there."""
        words = []
        if told.paused:
            self._holds.add(Reason.PAUSE, PAUSED)
            words.append(PAUSED)
        if told.cancelled:
            self._handle_event(events.Cancel(list(told.cancelled)))
            words.append(f"tasks cancelled ({_ranges(told.cancelled)})")
        if told.closed:
            words.append("no more tasks are taken")
        self._departures.again(told)
        there = {**told.lost, **told.engines}
        leaving = dict.fromkeys(there[engine].name for engine in told.unwanted if engine in there)
        if leaving:
            words.append(f"leaving: {_some(leaving)}")
        if words:
            self._notify_user(f"as dbutil was told before: {'; '.join(words)}")

    def _asker(self, verb: str) -> str:
        return f"{self._by}: {verb}" if self._by else f"dbutil {verb}"

    # ---- nodes ----

    def _let_go(self, verb: str, names: list[str], one: Callable[[Member, bool], str]) -> list[str]:
        names = self._written_out(verb, names)
        members = self._named(names)
        self._notify_user(f"{self._asker(verb)} {_some(self._name_for_people(name) for name in names)}")
        going = {member.engine for member in members}
        alone = not any(
            self._stays(member) for member in self._members.values() if member.engine not in going
        )
        lines = [one(member, alone) for member in members]
        return [*lines, self._alone] if alone else lines

    def _written_out(self, verb: str, names: list[str]) -> list[str]:
        """The names, with those of each range that is no name itself. UsageError."""
        known = {name for member in self._members.values() for name in self._names(member)}
        lists = ([name] if name in known or "[" not in name else written_out(name, verb) for name in names)
        return list(dict.fromkeys(chain.from_iterable(lists)))

    def _named(self, names: list[str]) -> list[Member]:
        """The engines of these nodes and labels, each once; of those with one name, those that are there. An
        engine's own name, which programs know, stands for it alone."""
        known: dict[str, list[Member]] = {}
        for member in self._members.values():
            for name in self._names(member):
                known.setdefault(name, []).append(member)
        known |= {name: [self._members[name]] for name in names if name in self._members}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                f"no node or label {', '.join(unknown[:NAMES_SHOWN])}; "
                + (f"there are: {_some(known)}" if known else "there are none yet")
            )
        chosen: dict[str, Member] = {}
        for name in names:
            there = [member for member in known[name] if self._is_there(member)]
            chosen.update((member.engine, member) for member in there or known[name][-1:])
        return list(chosen.values())

    def _name_for_people(self, name: str) -> str:
        return self._members[name].shown if name in self._members else name

    def _names(self, member: Member) -> list[str]:
        """As the run calls it, as the user did, and its label."""
        given = "" if member.node is None else member.node.name
        return [name for name in dict.fromkeys((member.name, given, member.label)) if name]

    def _is_there(self, member: Member) -> bool:
        return member.launching or (member.engine in self._plan.engines and not _is_dead(member))

    def _stays(self, member: Member) -> bool:
        """It is there, or will be, and nobody wants it to leave."""
        engine = self._plan.engines.get(member.engine)
        if engine is None:
            return member.launching and member not in self._departures
        return engine.state in (State.STARTING, State.ACTIVE) and not engine.draining

    def _drain(self, member: Member, alone: bool) -> str:
        name, engine = member.shown, self._plan.engines.get(member.engine)
        if engine is None:
            return self._not_there(member, stop=False)
        if engine.state in (State.STOPPING, State.LEAVING):
            return f"{name}: is leaving already"
        if engine.draining:
            return f"{name}: is draining already"
        if _is_dead(member):
            return f"{name}: {DEAD}"
        running = len(engine.running)
        lost = engine.state is State.LOST
        self._see_off(member, stop=False)
        if lost:
            return f"{name}: is not heard; if it comes back, it finishes what runs there"
        if not running:
            return f"{name}: nothing is running there; it leaves"
        return f"{name}: draining; {counted(running, 'task')} {'is' if running == 1 else 'are'} running there"

    def _stop(self, member: Member, alone: bool) -> str:
        name, engine = member.shown, self._plan.engines.get(member.engine)
        if engine is None:
            return self._not_there(member, stop=True)
        if engine.stopped or (engine.state in (State.STOPPING, State.LEAVING) and not engine.per_engine):
            return f"{name}: is leaving already"
        if _is_dead(member):
            return f"{name}: {DEAD}"
        running = len(engine.running)
        lost = engine.state is State.LOST
        self._see_off(member, stop=True)
        if lost:
            return f"{name}: is not heard; if it comes back, it ends what runs there"
        if not running:
            return f"{name}: nothing is running there; it leaves"
        again = "" if alone else f", which {'runs' if running == 1 else 'run'} again elsewhere"
        return f"{name}: ending {counted(running, 'task')}{again}"

    def _not_there(self, member: Member, *, stop: bool) -> str:
        if member.inherited and (member.launching or member.lost):
            self._see_off(member, stop=stop)
            return f"{member.shown}: is not heard yet; if it comes, it leaves"
        if not member.launching:
            return f"{member.shown}: has left already" if member.came else f"{member.shown}: did not join"
        self._see_off(member, stop=stop)
        return f"{member.shown}: has not joined yet, and need not"

    def _see_off(self, member: Member, *, stop: bool) -> None:
        self._kept &= self._departures.add(member, stop=stop)

    # ---- tasks ----

    def _cancel(self, verb: Cancel) -> list[str]:
        wanted = IdSet(verb.ranges)
        self._check(wanted)
        spans = list(self._spans(wanted))
        self._notify_user(f"{self._asker('cancel')} {_ranges(wanted)}")
        self._kept &= self._journal(Cancelled(list(wanted)))
        self._handle_event(events.Cancel(list(wanted)))
        return [self._span_words(span) for span in spans]

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

    def _spans(self, wanted: IdSet) -> Iterator[_Span]:
        """What becomes of all these; what waits and what is done in as few parts as possible."""
        span = None
        for part in self._parts(wanted):
            if span is None:
                span = part
            elif part.what == span.what and span.last + 1 == part.first and not (span.engine or part.engine):
                span = span._replace(last=part.last)
            else:
                yield span
                span = part
        if span is not None:
            yield span

    def _parts(self, wanted: IdSet) -> Iterator[_Span]:
        found = self._plan.find(wanted)
        ids = sorted(found)
        for first, last in wanted:
            at = first
            for id in ids[bisect_left(ids, first) : bisect_right(ids, last)]:
                yield from self._elsewhere(at, id - 1)
                yield self._placed(id, found[id])
                at = id + 1
            yield from self._elsewhere(at, last)

    def _elsewhere(self, first: int, last: int) -> Iterator[_Span]:
        """Ids of which the plan has nothing: what was read is done."""
        read_to = self._plan.read_to
        if first <= min(last, read_to - 1):
            yield _Span(first, min(last, read_to - 1), DONE)
        if max(first, read_to) <= last:
            yield _Span(max(first, read_to), last, WAITS)

    def _placed(self, id: int, place: Place) -> _Span:
        if place.barrier:
            return _Span(id, id, "a barrier, which stays")
        if not place.engine:
            return _Span(id, id, WAITS)
        already = id in self._plan.cancelled
        return _Span(id, id, "is being ended already" if already else "is being ended", place.engine)

    def _span_words(self, span: _Span) -> str:
        first, last, what, engine = span
        if engine:
            return f"task {first}: {what} on {self._members[engine].shown}"
        if first == last:
            return f"task {first}: {what if what == WAITS else f'is {what}'}"
        return f"tasks {first}-{last}: {what if what == WAITS else f'are {what}'}"

    # ---- the whole run ----

    def _pause(self, verb: Pause) -> Iterator[str]:
        if Reason.PAUSE in self._holds:
            yield "the run is paused already"
            return
        self._kept &= self._journal(Paused(True))
        self._holds.add(Reason.PAUSE, PAUSED)
        self._notify_user(f"paused by {self._by or 'dbutil'}: no more tasks start until `dbutil resume`")
        yield f"paused: no more tasks start; {counted(self._running(), 'task')} running"

    def _unpause(self, verb: Unpause) -> Iterator[str]:
        if Reason.PAUSE not in self._holds:
            yield "the run is not paused"
        else:
            self._kept &= self._journal(Paused(False))
            self._holds.remove(Reason.PAUSE)
            self._notify_user(f"resumed by {self._by or 'dbutil'}")
            yield "resumed: tasks start again"
        if self._holds.words:
            yield f"but: {self._holds.words}"

    def _running(self) -> int:
        slots = sum(engine.slots for engine in self._plan.engines.values())
        return min(self._plan.live, slots)

    def _finish(self, verb: Finish) -> Iterator[str]:
        running = self._running()
        self._end_run(self._by)
        yield f"ending the run, to be resumed; {counted(running, 'task')} running"


def _is_dead(member: Member) -> bool:
    """It was given up, and does not come back."""
    return member.lost and not member.may_run_on


def _ranges(ids: IdSet) -> str:
    return _some([str(first) if first == last else f"{first}-{last}" for first, last in ids])


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - NAMES_SHOWN
    return ", ".join(listed[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
