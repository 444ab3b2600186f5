"""A driver's commands beside a plan with three engines, and everything that they tell others."""

from __future__ import annotations

from typing import Any

from plan_world import outcome

from disbatch.contexts.nodes import Node
from disbatch.driver import engine_state
from disbatch.driver.commands import UserCommands
from disbatch.driver.departures import PendingDepartures
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.holds import Holds
from disbatch.driver.submissions import Submissions
from disbatch.model.task import Ending, Way
from disbatch.plan import events
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import End, Finished, Interrupt, Joined, Read
from disbatch.plan.plan import Mode, Plan
from disbatch.rundir.journal import JournalLine
from disbatch.wire.client_protocol import Request
from disbatch.wire.engine_protocol import PROTOCOL
from disbatch.wire.verbs import RunRequest


class Bench:
    """A plan with three engines of two slots: n1, n2 of this run (label `rack`), n3 that came by itself."""

    def __init__(self, *items: Any, ids: int | None = None, waits: bool = False) -> None:
        self.plan = Plan()
        self.said: list[str] = []
        self.finished_by: str | None = None
        self.told: list[events.Event] = []
        self.actions: list[events.Action] = []
        self.dismissed: list[str] = []
        self.entries: dict[str, EngineEntry] = {}
        self.noted: list[JournalLine] = []
        self.can_note = True
        self.reads = 0
        self.holds = Holds(self.handle_event, self.may_read)
        self.departures = PendingDepartures(
            self.plan, handle_event=self.handle_event, journal=self.journal, dismiss=self.dismiss
        )
        self.submissions = Submissions(ending=lambda: False, why_not="takes no tasks")
        self.control = UserCommands(
            *(self.plan, self.entries, self.holds, self.departures, self.submissions),
            source_name="Tasks",
            source_ids=lambda: self.plan.read_to if ids is None else ids,
            handle_event=self.handle_event,
            journal=self.journal,
            notify_user=self.said.append,
            ending=lambda: self.plan.mode is not Mode.RUNNING,
            finish=self.finish,
            waits=waits,
        )
        for name in ("n1", "n2", "n3"):
            self.launch(name, own=name != "n3")
            self.join(name)
        if items:
            self.handle_event(Read(list(items)))
        self.told.clear()

    def finish(self, by: str) -> None:
        self.finished_by = by
        self.handle_event(Interrupt())

    def launch(self, name: str, *, own: bool = True) -> None:
        node = Node(f"user@{name}", 2, 2, Way.SSH, 1.0, 0) if own else None
        self.entries[f"e-{name}"] = EngineEntry(
            f"e-{name}", name, len(self.entries), 2, node, label="rack" if own else ""
        )

    def join(self, name: str) -> None:
        entry = self.entries[f"e-{name}"]
        entry.state = engine_state.Joined(since=1.0)
        self.handle_event(Joined(entry.engine, Capacity(2), []))

    def handle_event(self, event: events.Event) -> None:
        self.told.append(event)
        self.actions += self.plan.handle(event)

    def may_read(self) -> None:
        self.reads += 1

    def journal(self, line: JournalLine) -> bool:
        self.noted.append(line)
        return self.can_note

    def dismiss(self, entry: EngineEntry) -> None:
        entry.state = engine_state.Cancelled()
        self.dismissed.append(entry.name)

    def asked(self, verb: RunRequest, by: str = "") -> list[str]:
        answer = self.control.request(Request(PROTOCOL, "0123456789abcdef", "0", verb, by), verb)
        assert answer.ok, answer.lines
        return answer.lines

    def refused(self, verb: RunRequest) -> str:
        before = len(self.told)
        answer = self.control.request(Request(PROTOCOL, "0123456789abcdef", "0", verb), verb)
        assert not answer.ok and len(self.told) == before and self.said == []
        (line,) = answer.lines
        return line

    def ended(self, name: str) -> None:
        """What was told to end there has ended."""
        for action in [a for a in self.actions if isinstance(a, End) and a.engine == f"e-{name}"]:
            outcomes = [outcome(attempt, -15, ending=Ending.ORDERED) for attempt in action.attempts]
            self.handle_event(Finished(action.engine, outcomes))
