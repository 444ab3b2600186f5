"""The engines of a run: where each comes from, its state, and what follows from each change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from disbatch.contexts.context import Retirement
from disbatch.contexts.nodes import Node
from disbatch.driver.engine_state import (
    Cancelled,
    EngineEvent,
    EngineState,
    Failed,
    Heartbeat,
    Joined,
    Launching,
    Left,
    Lost,
    Missing,
    after,
    fate,
    releases_node,
)
from disbatch.model.text import with_label
from disbatch.rundir.journal import Gone, Here, JournalLine
from disbatch.wire.client_protocol import Fate


class Process(NamedTuple):
    """Where an engine runs: the host, its boot id, the pid of the engine's keeper, and the keeper's start
    time, which distinguishes it from a later process with that pid. Empty as far as it is not known."""

    host: str = ""
    boot: str = ""
    pid: int = 0
    started: int = 0


@dataclass
class EngineEntry:
    """One engine: where it comes from, its state, and the counts of its tasks.

    `node` is where this driver, or a former one, launched it; None if an attached context did, or if it came
    by itself. `context`: the attached context to which it belongs; "": the driver's own. `inherited`: a
    former driver of the run launched it. `tunnel`: where its tunnel ends on its host, if it has one.
    """

    engine: str
    name: str
    rank: int
    slots: int
    node: Node | None = None
    context: str = ""
    label: str = ""
    inherited: bool = False
    tunnel: str = ""
    process: Process = Process()  # noqa: RUF009 - frozen
    state: EngineState = Launching()  # noqa: RUF009 - frozen
    done: int = 0
    failed: int = 0
    _slot_seconds: float = 0.0
    """Of the times before it joined last."""

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return with_label(self.name, self.label)

    @property
    def local(self) -> bool:
        """It is a child of the driver, or of the former driver that launched it."""
        return self.node is not None and self.node.local

    @property
    def is_child(self) -> bool:
        """It is a child of this driver, which therefore learns when it ends."""
        return self.local and not self.inherited

    @property
    def may_run_on(self) -> bool:
        """It was given up, and its tasks may run on as far as anybody knows."""
        return isinstance(self.state, Lost) and not self.is_child and self.state.exit_code is None

    @property
    def beat(self) -> Heartbeat | None:
        """Its latest heartbeat since it joined last."""
        return self.state.beat if isinstance(self.state, Joined) else None

    def apply(self, event: EngineEvent, now: float) -> None:
        """Change the state; `now` is the loop's time. Use `EngineTable.change`, which does what follows."""
        old, self.state = self.state, after(self.state, event)
        if isinstance(old, Joined) and not isinstance(self.state, Joined):
            self._slot_seconds += self.slots * (now - old.since)

    def slot_time(self, now: float) -> float:
        """The slot time that it has offered so far, in seconds."""
        state = self.state
        return self._slot_seconds + (self.slots * (now - state.since) if isinstance(state, Joined) else 0.0)

    def journal_line(self) -> Here | Gone | None:
        """What the journal says of an engine in this state."""
        match self.state:
            case Missing():
                return None
            case Lost() | Cancelled():
                return Gone(self.engine, lost=True)
            case Left() | Failed():
                return Gone(self.engine)
        place = (self.engine, self.name, self.rank, self.slots, self.node)
        host, boot, pid, started = self.process
        return Here(*place, host, pid, self.context, self.tunnel, boot, started)


class EngineTable:
    """`entries` has every engine of the run, by its permanent id; none is ever removed. `journal` gets the
    lines of the journal; `became` tells an attached context what happened to its engine."""

    def __init__(
        self,
        now: Callable[[], float],
        *,
        journal: Callable[[JournalLine], object],
        became: Callable[[EngineEntry, Fate], None],
    ) -> None:
        self.entries: dict[str, EngineEntry] = {}
        self.next_rank = 0
        self.retirement: Retirement | None = None
        """What happens to nodes of the driver's own context that are no longer needed."""
        self._now = now
        self._journal = journal
        self._became = became

    def add(self, entry: EngineEntry) -> None:
        """A former driver had this engine, or it came by itself."""
        self.entries[entry.engine] = entry
        self.next_rank = max(self.next_rank, entry.rank + 1)

    def launch(self, entry: EngineEntry) -> None:
        """This engine is going to be launched."""
        self.add(entry)
        self._record(entry)

    def change(self, entry: EngineEntry, event: EngineEvent) -> None:
        """Change the engine's state, and do what follows: record it in the journal, release or reclaim the
        node, and tell the attached context."""
        old = entry.state
        entry.apply(event, self._now())
        new = entry.state
        is_new = type(new) is not type(old) and not (isinstance(old, Joined) and isinstance(new, Joined))
        if is_new:
            self._record(entry)
        if self.retirement is not None and not entry.context:
            if releases_node(old, new):
                spare = isinstance(new, Left) and new.spare
                self.retirement.retire(entry.name, new.exit_code or 0, spare=spare)
            elif is_new and isinstance(new, Joined):
                self.retirement.joined(entry.name)
        if is_new:
            self._became(entry, fate(new))

    def _record(self, entry: EngineEntry) -> None:
        line = entry.journal_line()
        if line is not None:
            self._journal(line)

    @property
    def joined(self) -> list[EngineEntry]:
        """The engines that offer their slots now."""
        return [entry for entry in self.entries.values() if isinstance(entry.state, Joined)]

    @property
    def expects_some(self) -> bool:
        """An engine is being launched, or expected."""
        return any(isinstance(entry.state, Launching) for entry in self.entries.values())

    @property
    def launching(self) -> list[EngineEntry]:
        """The engines that are being launched, or expected."""
        return [entry for entry in self.entries.values() if isinstance(entry.state, Launching)]

    @property
    def out_of_reach(self) -> list[str]:
        """Nodes of engines that were given up, where tasks may still run out of our reach."""
        return sorted({entry.shown for entry in self.entries.values() if entry.may_run_on})

    @property
    def not_heard(self) -> list[str]:
        """Nodes whose engines, of a former driver, were not heard before the run was ended."""
        states = ((entry.name, entry.state) for entry in self.entries.values())
        return sorted({name for name, s in states if isinstance(s, Missing) and s.exit_code is None})
