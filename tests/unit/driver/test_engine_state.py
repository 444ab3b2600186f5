"""The life of an engine: each transition, and what holds in every history."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_state import (
    Cancelled,
    Ending,
    EngineEvent,
    EngineState,
    Failed,
    FellSilent,
    GivenUp,
    Heartbeat,
    Joined,
    LaunchCancelled,
    LaunchFailed,
    Launching,
    Left,
    Lost,
    Missing,
    NotHeard,
    ProcessEnded,
    RunOver,
    SaidGoodbye,
    SaidHello,
    SentBeat,
    after,
    fate,
    releases_node,
)
from disbatch.driver.engine_table import EngineEntry, EngineTable, Process
from disbatch.model.task import Way
from disbatch.rundir.journal import Asked, Gone, Here, JournalLine, JournalState
from disbatch.wire.client_protocol import Fate
from disbatch.wire.engine_protocol import Beat

BEAT = Heartbeat(3.0, Beat([], 0, 0.5))
HELLO = SaidHello(2.0)
SPARE = SaidGoodbye(spare=True, in_step=False)
SPARE_STEP = SaidGoodbye(spare=True, in_step=True)
BY_ITSELF = SaidGoodbye(spare=False, in_step=True)


def run(events: Iterable[EngineEvent], state: EngineState | None = None) -> EngineState:
    state = Launching() if state is None else state
    for event in events:
        state = after(state, event)
    return state


@pytest.mark.parametrize(
    ("history", "state"),
    [
        ([], Launching()),
        ([HELLO], Joined(since=2.0)),
        ([HELLO, SentBeat(BEAT)], Joined(since=2.0, beat=BEAT)),
        ([SentBeat(BEAT)], Launching()),
        ([LaunchFailed()], Failed()),
        ([LaunchFailed(), HELLO], Joined(since=2.0)),
        ([HELLO, LaunchFailed()], Joined(since=2.0)),
        ([ProcessEnded(1)], Failed(exit_code=1)),
        ([LaunchCancelled()], Cancelled()),
        ([LaunchCancelled(), ProcessEnded(1)], Cancelled(exit_code=1)),
        ([LaunchCancelled(), HELLO], Joined(since=2.0)),
        ([HELLO, LaunchCancelled()], Joined(since=2.0)),
        ([GivenUp()], Lost(before=False)),
        ([NotHeard()], Missing()),
        ([NotHeard(), HELLO], Joined(since=2.0)),
        ([HELLO, GivenUp()], Lost(before=True)),
        ([HELLO, GivenUp(), ProcessEnded(9)], Lost(before=True, exit_code=9)),
        ([HELLO, ProcessEnded(9), GivenUp()], Lost(before=True, exit_code=9)),
        ([HELLO, GivenUp(), SentBeat(BEAT)], Lost(before=True)),
        ([HELLO, SentBeat(BEAT), GivenUp(), SaidHello(5.0)], Joined(since=5.0)),
        ([HELLO, SaidHello(5.0)], Joined(since=2.0)),
        ([HELLO, FellSilent("why")], Ending(since=2.0, reason="why")),
        ([HELLO, FellSilent("why"), FellSilent("again")], Ending(since=2.0, reason="why")),
        ([HELLO, FellSilent("why"), SentBeat(BEAT)], Ending(since=2.0, reason="why", beat=BEAT)),
        ([HELLO, FellSilent("why"), SaidHello(5.0)], Ending(since=2.0, reason="why")),
        ([HELLO, FellSilent("why"), ProcessEnded(9), GivenUp()], Lost(before=True, exit_code=9)),
        ([HELLO, FellSilent("why"), SPARE], Left(spare=True, retired=True)),
        ([HELLO, SPARE], Left(spare=True, retired=True)),
        ([HELLO, SPARE, FellSilent("why")], Left(spare=True, retired=True)),
        ([HELLO, SPARE, HELLO], Left(spare=True, retired=True)),
        ([HELLO, SPARE, GivenUp()], Left(spare=True, retired=True)),
        ([HELLO, BY_ITSELF], Left(spare=False, retired=True)),
        ([HELLO, SPARE_STEP], Left(spare=True, retired=False)),
        ([HELLO, SPARE_STEP, ProcessEnded(0)], Left(spare=True, retired=True, exit_code=0)),
        ([HELLO, ProcessEnded(0), SPARE_STEP], Left(spare=True, retired=True, exit_code=0)),
        ([HELLO, SPARE_STEP, RunOver()], Left(spare=True, retired=True)),
        ([HELLO, RunOver()], Left(spare=False, retired=True)),
        ([RunOver()], Launching()),
        ([HELLO, GivenUp(), RunOver()], Lost(before=True)),
    ],
)
def test_histories(history: list[EngineEvent], state: EngineState) -> None:
    assert run(history) == state


HAPPENED: st.SearchStrategy[EngineEvent] = st.one_of(
    st.builds(SaidHello, st.floats(0, 100)),
    st.just(SentBeat(BEAT)),
    st.builds(FellSilent, st.sampled_from(["silent", "mute"])),
    st.builds(SaidGoodbye, st.booleans(), st.booleans()),
    st.builds(ProcessEnded, st.integers(0, 3)),
    st.sampled_from([GivenUp(), NotHeard(), LaunchFailed(), LaunchCancelled(), RunOver()]),
)
HISTORIES = st.lists(HAPPENED, max_size=12)
AT_FIRST = st.sampled_from([Launching(), Cancelled(), Lost(before=False)])
"""How an engine of a former driver may begin; others are launching."""


@given(AT_FIRST, HISTORIES)
def test_what_holds_in_every_history(state: EngineState, history: list[EngineEvent]) -> None:
    joined, exit_code = False, None
    for event in history:
        old, state = state, after(state, event)
        joined |= isinstance(state, Joined)
        if isinstance(event, ProcessEnded):
            exit_code = event.return_code
        assert state.has_joined == joined
        assert state.exit_code == exit_code, "no event but this one changes it"
        assert after(state, event) == state or isinstance(event, GivenUp | SaidHello), "twice is once"
        assert not (isinstance(old, Left) and not isinstance(state, Left)), "who left takes no more tasks"
        if isinstance(event, SaidHello):
            assert isinstance(state, Joined | Left), "who is heard is there, however late"


class Nodes:
    """A retirement that checks that each node is released once, and reclaimed if its engine rejoins."""

    def __init__(self) -> None:
        self.released = False

    def joined(self, node: str) -> None:
        self.released = False

    def retire(self, node: str, return_code: int, *, spare: bool) -> None:
        assert not self.released
        self.released = True

    async def finish(self) -> None:
        """Nothing is going on."""

    def abandon(self) -> None:
        """Nothing is going on."""


@given(AT_FIRST, HISTORIES)
def test_journal_attached_context_and_node_follow_the_state(
    state: EngineState, history: list[EngineEvent]
) -> None:
    """The journal adds up to what a next driver has to know; the context heard of the state that it is in;
    the node is released when nothing of the engine is there, and never twice."""
    lines: list[JournalLine] = []
    fates: list[Fate] = []
    table = EngineTable(lambda: 7.0, journal=lines.append, became=lambda entry, became: fates.append(became))
    table.retirement = nodes = Nodes()
    node = Node("n", 1, 1, Way.STEP)
    entry = EngineEntry("e", "n", 0, 1, node, process=Process("host", "boot", 7, 1), state=state)
    table.add(entry)
    told = JournalState(asked=Asked("", [], b"", "", "", b"", None, None, 0.0, []))
    first = Here("e", "n", 0, 1, node, "host", 7, "", "", "boot", 1)
    told.learn(first)
    if not isinstance(state, Launching):
        told.learn(Gone("e", lost=True))
    for event in history:
        old = entry.state
        table.change(entry, event)
        if isinstance(entry.state, Joined) and not isinstance(old, Joined):
            assert fates[-1] is Fate.JOINED
    for line in lines:
        told.learn(line)
    new = entry.state
    assert ("e" in told.engines) == isinstance(new, Launching | Joined | Missing)
    assert ("e" in told.lost) == (isinstance(new, Lost | Cancelled) and not isinstance(new, Missing))
    assert not fates or fates[-1] is fate(new)
    if isinstance(new, Left):
        assert nodes.released == new.retired
    else:
        assert nodes.released == (isinstance(new, Lost) and new.before)


def test_a_node_is_released_once() -> None:
    left = Left(spare=True, retired=True)
    assert releases_node(Joined(since=1.0), left) and not releases_node(left, left)
    assert releases_node(Left(spare=True, retired=False), left)
    assert not releases_node(Launching(), Lost(before=False)), "nothing was there"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (Joined(since=1.0), Fate.JOINED),
        (Lost(before=True), Fate.LOST),
        (Missing(), Fate.LOST),
        (Left(spare=True, retired=True), Fate.SPARE),
        (Left(spare=False, retired=True), Fate.LEFT),
        (Failed(), Fate.LEFT),
        (Cancelled(), Fate.LEFT),
    ],
)
def test_what_an_attached_context_is_told(state: EngineState, told: Fate) -> None:
    assert fate(state) is told
