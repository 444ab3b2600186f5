"""The counts of a run's tasks."""

from __future__ import annotations

import msgspec

from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.tally import NAMED_SLOWEST, NEWEST_FAILURES, Tally
from disbatch.model.statusline import format_line, parse_line
from disbatch.model.task import Outcome, Reason, Task


def outcome(code: int = 0, elapsed: float = 1.0) -> Outcome:
    return Outcome(1, 0, 5, code, elapsed, 0.0, elapsed, 3, b"out", 3 if code else 0, b"err" if code else b"")


def test_kinds_and_slowest_are_few_and_in_order() -> None:
    tally, entry = Tally(), EngineEntry("e", "n", 0, 1)
    for id in range(100):
        code = id % 2
        tally.count(entry, Task(id, id + 1, -1, b"c" * 5000), outcome(code, float(id % 50)))
    assert (tally.done, tally.failed, entry.done, entry.failed) == (100, 50, 100, 50)
    first = tally.newest[0][2]
    assert (first.id, first.snippet, first.last_line, len(first.command)) == (1, b"err", "err", 2000)
    assert [(kind.count, kind.id, kind.last_line) for kind in tally.kinds.most_frequent(9)] == [
        (50, 1, "err")
    ]
    slowest = tally.slowest
    assert len(slowest) == NAMED_SLOWEST
    assert [view.elapsed for view in slowest] == sorted((view.elapsed for view in slowest), reverse=True)
    assert slowest[0].elapsed == 49.0
    assert tally.busy == sum(float(id % 50) for id in range(100))


def test_cancelled_tasks_are_no_failures_of_their_node_and_take_no_place_of_others() -> None:
    tally, entry = Tally(), EngineEntry("e", "n", 0, 1)
    tally.count(entry, Task(0, 1, -1, b"c"), outcome(1, 1.0))
    cancelled = msgspec.structs.replace(outcome(-15, 1.0), reason=Reason.CANCELLED)
    for id in range(1, 2 * NEWEST_FAILURES):
        tally.count(entry, Task(id, id + 1, -1, b"c"), cancelled)
    assert (tally.failed, tally.cancelled, entry.failed) == (2 * NEWEST_FAILURES, 2 * NEWEST_FAILURES - 1, 1)
    numbers = [(number, view.reason) for number, _, view in tally.newest]
    assert numbers[:2] == [(1, ""), (2, "cancelled")]
    tally.count(entry, Task(9999, 1, -1, b"c"), outcome(1, 1.0))
    assert tally.newest[-1][2].id == 9999


def test_what_a_former_driver_recorded_with_a_reason() -> None:
    """A driver that takes the run over reads all reasons."""
    tally = Tally()
    for id, reason in enumerate(Reason):
        how = msgspec.structs.replace(outcome(-100 if reason is Reason.NOT_RUN else -15, 1.0), reason=reason)
        record = parse_line(format_line(id, 1, -1, b"c", "n", how))
        assert record is not None
        tally.count_again(Task(id, 1, -1, b"c"), record)
    assert (tally.done, tally.failed, tally.cancelled, tally.lost, tally.not_run) == (4, 4, 1, 1, 1)
    assert [view.reason for _, _, view in tally.newest] == [
        "",
        "cancelled",
        "time limit",
        "memory",
        "not run",
    ]
    assert tally.before["n"].failed == 3
