"""An engine of the table: its slot time, where it runs, and whether its tasks may run on."""

from __future__ import annotations

from disbatch.contexts.nodes import Node
from disbatch.driver.engine_state import FellSilent, GivenUp, Lost, ProcessEnded, SaidHello
from disbatch.driver.engine_table import EngineEntry
from disbatch.model.task import Way


def test_slot_time_of_an_engine_that_comes_and_goes() -> None:
    entry = EngineEntry("e", "n", 0, 4)
    assert entry.slot_time(100.0) == 0
    entry.apply(SaidHello(10.0), 10.0)
    assert entry.slot_time(15.0) == 20.0
    entry.apply(FellSilent("not heard"), 19.0)
    entry.apply(GivenUp(), 20.0)
    entry.apply(GivenUp(), 30.0)
    assert entry.slot_time(99.0) == 40.0
    entry.apply(SaidHello(100.0), 100.0)
    assert entry.slot_time(101.0) == 44.0


def test_local_engines() -> None:
    assert not EngineEntry("e", "n", 0, 1).local
    assert EngineEntry("e", "n", 0, 1, Node("localhost", 1, 1, Way.CHILD)).local
    assert not EngineEntry("e", "n", 0, 1, Node("far", 1, 1, Way.SSH)).local


def test_whose_tasks_may_run_on_after_the_run() -> None:
    entry = EngineEntry("e", "n", 0, 1, Node("n", 1, 1, Way.STEP))
    assert not entry.may_run_on
    lost = Lost(before=True)
    entry.state = lost
    assert entry.may_run_on, "its srun knows no more than we do"
    entry.apply(ProcessEnded(0), 1.0)
    assert not entry.may_run_on
    assert not EngineEntry("e", "n", 0, 1, Node("localhost", 1, 1, Way.CHILD), state=lost).may_run_on
    assert EngineEntry("e", "n", 0, 1, Node("far", 1, 1, Way.SSH), state=lost).may_run_on
    assert EngineEntry("e", "n", 0, 1, state=lost).may_run_on
