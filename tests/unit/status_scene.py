"""A run as its driver knows it, for tests of what the driver shows of it."""

from __future__ import annotations

from disbatch.driver.engine_state import Heartbeat, SaidHello, SentBeat
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.holds import Holds
from disbatch.driver.status_collector import StatusCollector, ViewInputs
from disbatch.driver.tally import Tally
from disbatch.model.view import EngineRow, RunView
from disbatch.plan import events
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import Joined
from disbatch.plan.plan import Plan
from disbatch.wire.client_protocol import Wants
from disbatch.wire.engine_protocol import Beat, Running

ALL = Wants(running=1000, failures=1000, log=1000)


class Scene:
    """A run as its driver knows it; `clock` is the loop's time."""

    def __init__(self, *engines: tuple[str, int], total: int | None = 100) -> None:
        self.clock = 100.0
        self.plan = Plan()
        self.entries: dict[str, EngineEntry] = {}
        self.tally = Tally()
        self.notice = ""
        self.holds = Holds(self.tell, lambda: None)
        matter = ViewInputs(
            *(0, "J", "Tasks", lambda: total),
            *(self.plan, self.entries, self.tally, self.holds),
            label_of=lambda context: context or "rack",
            heard=lambda engine: self.clock - 1.5,
            notice=lambda: self.notice,
            now=lambda: self.clock,
        )
        self.collector = StatusCollector(matter)
        for name, slots in engines:
            self.launch(name, slots)
            self.join(name)

    def launch(self, name: str, slots: int) -> None:
        self.entries[name] = EngineEntry(name, f"on-{name}", len(self.entries), slots)

    def join(self, name: str) -> None:
        entry = self.entries[name]
        entry.apply(SaidHello(self.clock), self.clock)
        self.tell(Joined(name, Capacity(entry.slots), []))

    def tell(self, event: events.Event) -> None:
        for action in self.plan.handle(event):
            if isinstance(action, events.RecordTask):
                self.tally.count(self.entries[action.engine], action.task, action.outcome)

    def attempts(self, engine: str) -> list[int]:
        return list(self.plan.engines[engine].assigned)

    def beat(self, engine: str, *elapsed: float, waiting: int = 0) -> None:
        """It tells that its first attempts run since so many seconds."""
        running = [
            Running(a, s, e) for s, (a, e) in enumerate(zip(self.attempts(engine), elapsed, strict=False))
        ]
        self.hear(engine, Beat(running, waiting, 0.75, 3 << 30, 4 << 30))

    def hear(self, engine: str, beat: Beat) -> None:
        """Its heartbeat comes."""
        self.entries[engine].apply(SentBeat(Heartbeat(self.clock, beat)), self.clock)

    def view(self, wants: Wants = ALL) -> RunView:
        self.collector.look()
        return self.collector.view(wants, 7)

    def row(self, engine: str) -> EngineRow:
        return next(row for row in self.view().engines if row.engine == engine)
