"""What those see that watch: engines, the longest running tasks, failures, what was said."""

from __future__ import annotations

import msgspec
import pytest
from plan_world import barrier, outcome, task
from status_scene import ALL, Scene

from disbatch.driver import engine_state
from disbatch.driver.holds import Reason
from disbatch.driver.tally import NEWEST_FAILURES
from disbatch.plan import events
from disbatch.plan.events import Drain, Finished, Lost, Read, SourceEnded
from disbatch.wire.client_protocol import Wants
from disbatch.wire.engine_protocol import Beat


def test_totals() -> None:
    scene = Scene(("a", 2), ("b", 1))
    scene.tell(Read([task(0), task(1), task(2), task(3), task(4), barrier(5)]))
    scene.clock = 110.0
    scene.tell(Finished("a", [outcome(scene.attempts("a")[0], 1)]))
    view = scene.view()
    assert (view.number, view.driver, view.jobid, view.name) == (7, 0, "J", "Tasks")
    assert (view.total, view.done, view.failed, view.running, view.waiting) == (100, 1, 1, 3, 1)
    assert (view.slots, view.mode, view.paused, view.seconds) == (3, "running", False, 10.0)
    assert view.barrier is not None and view.barrier.id == 5
    assert view.rate is None or view.rate > 0
    scene.holds.add(Reason.PAUSE, "paused")
    assert scene.view().paused


def at_two_a_second() -> Scene:
    """20 of 100 tasks are done, after ten seconds."""
    scene = Scene(("a", 2))
    scene.collector.note()
    scene.clock += 10
    scene.tally.done = 20
    return scene


def test_the_counts_of_this_moment_without_rows() -> None:
    scene = at_two_a_second()
    view = scene.collector.now()
    assert (view.number, view.done, view.slots, view.rate, view.engines) == (0, 20, 2, 2.0, [])
    scene.clock += 1
    scene.tally.done = 24
    scene.tally.inherited = 2
    view = scene.collector.now(ALL)
    assert (view.done, view.inherited, [row.engine for row in view.engines]) == (24, 2, ["a"])


def test_pace_and_what_remains() -> None:
    scene = at_two_a_second()
    view = scene.view()
    assert view.rate == 2 and view.remaining == 40
    assert [point.done for point in scene.view(Wants(course=True)).course] == [0, 20]
    assert scene.view(Wants()).course == []


@pytest.mark.parametrize("reason", Reason)
def test_a_run_that_is_held_up_has_no_time_left(reason: Reason) -> None:
    scene = at_two_a_second()
    assert scene.view().remaining == 40
    scene.holds.add(reason, "held up")
    assert scene.view().remaining is None
    scene.holds.remove(reason)
    assert scene.view().remaining == 40


def test_a_run_that_is_ending_has_no_time_left() -> None:
    scene = at_two_a_second()
    scene.tell(Read([task(0)]))
    scene.tell(events.Interrupt())
    assert scene.view().remaining is None


def test_nobody_knows_how_much_remains() -> None:
    scene = Scene(total=None)
    assert scene.view().remaining is None
    scene = Scene(total=3)
    scene.tally.done, scene.tally.lost, scene.tally.skipped = 1, 1, 1
    assert scene.view().remaining == 0


# ---- engines ----


def test_an_engine_and_its_node() -> None:
    scene = Scene(("a", 2))
    scene.tell(Read([task(id) for id in range(5)]))
    scene.beat("a", 5.0)
    row = scene.row("a")
    assert (row.node, row.label, row.state, row.slots, row.running) == ("on-a", "rack", "active", 2, 2)
    assert (row.heard, row.load, row.memory_used, row.memory_total) == (1.5, 0.75, 3 << 30, 4 << 30)
    scene.hear("a", Beat([], 0, 0.5))
    row = scene.row("a")
    assert (row.load, row.memory_used, row.memory_total) == (0.5, None, None)


def test_states_of_engines() -> None:
    scene = Scene(("a", 1), ("b", 1), ("c", 1))
    scene.launch("d", 1)
    scene.launch("e", 1)
    scene.entries["e"].state = engine_state.Failed()
    scene.launch("f", 1)
    scene.join("f")
    scene.tell(Read([task(id) for id in range(9)]))
    scene.tell(Lost("b"))
    scene.entries["b"].state = engine_state.Lost(before=True)
    scene.tell(Drain("c"))
    scene.tell(events.Left("f"))
    scene.entries["f"].state = engine_state.Left(spare=False, retired=True)
    states = {row.engine: row.state for row in scene.view().engines}
    assert states == {
        "a": "active",
        "b": "lost",
        "c": "draining",
        "d": "launching",
        "e": "failed",
        "f": "failed",
    } | {"f": "left"}
    assert scene.row("b").running == 0
    assert scene.row("d").heard is None
    assert scene.view().retried == 1, "what ran on b"


def test_of_very_many_engines_those_that_are_there_come_first() -> None:
    scene = Scene(*((f"e{n}", 1) for n in range(4)))
    for name in ("e0", "e1"):
        scene.tell(events.Left(name))
        scene.entries[name].state = engine_state.Left(spare=False, retired=True)
    view = scene.view(Wants(engines=3))
    assert view.engines_count == 4
    assert [row.engine for row in view.engines] == ["e2", "e3", "e1"]


# ---- running tasks ----


def test_the_longest_of_all_engines() -> None:
    scene = Scene(("a", 2), ("b", 2), ("c", 2))
    scene.tell(Read([task(id) for id in range(6)]))
    scene.beat("a", 50.0, 10.0)
    scene.beat("b", 40.0)
    scene.clock += 3
    running = scene.view().running_tasks
    assert [row.seconds for row in running[:3]] == [53.0, 43.0, 13.0]
    assert [row.engine for row in running[:3]] == ["a", "b", "a"]
    assert [row.seconds for row in running[3:]] == [None] * 3, (
        "b's other one, and c's, from which nothing came"
    )
    assert {row.id for row in running} == set(range(6))
    assert [row.seconds for row in scene.view(Wants(running=2)).running_tasks] == [53.0, 43.0]
    assert scene.view(Wants()).running_tasks == []


def test_what_has_ended_since_is_left_out() -> None:
    scene = Scene(("a", 2))
    scene.tell(Read([task(0), task(1)]))
    scene.tell(SourceEnded())
    scene.beat("a", 9.0, 8.0)
    scene.tell(Finished("a", [outcome(scene.attempts("a")[0])]))
    assert [row.id for row in scene.view().running_tasks] == [1]


def test_what_waits_on_an_engine_does_not_run() -> None:
    scene = Scene(("a", 1))
    scene.plan.engines["a"].depth = 3
    scene.tell(Read([task(id) for id in range(6)]))
    assert [row.id for row in scene.view().running_tasks] == [0]
    scene.tell(Lost("a"))
    assert scene.view().running_tasks == []


# ---- failures, log ----


def test_where_a_task_runs_and_failed_bears_the_label_of_its_context() -> None:
    scene = Scene(("a", 1), ("b", 1))
    for name in ("a", "b"):
        scene.entries[name].name, scene.entries[name].label = "vm", f"of-{name}"
    scene.tell(Read([task(0), task(1), task(2)]))
    scene.tell(Finished("a", [outcome(scene.attempts("a")[0], 3)]))
    view = scene.view(msgspec.structs.replace(ALL, kinds=5))
    assert [row.place for row in view.failures] == ["vm (of-a)"]
    assert [(kind.count, kind.node) for kind in view.failure_kinds] == [(1, "vm (of-a)")]
    assert sorted(row.place for row in view.running_tasks) == ["vm (of-a)", "vm (of-b)"]
    assert [each.place for each in scene.tally.slowest] == ["vm (of-a)"]


def test_failures_behind_those_that_are_known() -> None:
    scene = Scene(("a", 1))
    for id in range(NEWEST_FAILURES + 5):
        scene.tally.count(scene.entries["a"], task(id), outcome(id, 3))
    rows = scene.view().failures
    assert [row.number for row in rows] == list(range(6, NEWEST_FAILURES + 6))
    assert rows[0].id == 5 and rows[0].return_code == 3 and rows[0].node == "on-a"
    rows = scene.view(Wants(failures=3, failures_known=NEWEST_FAILURES + 4)).failures
    assert [row.number for row in rows] == [NEWEST_FAILURES + 5]
    assert [row.number for row in scene.view(Wants(failures=2)).failures] == [1004, 1005]


def test_what_was_said() -> None:
    scene = Scene()
    scene.collector.log("one")
    scene.collector.log("two")
    assert [(row.number, row.text) for row in scene.view().log] == [(1, "one"), (2, "two")]
    assert [row.text for row in scene.view(Wants(log=9, log_known=1)).log] == ["two"]
    assert scene.view(Wants()).log == []


def test_bytes_that_are_no_text_can_be_sent() -> None:
    scene = Scene(("a", 1))
    scene.entries["a"].name = "\udcff\u00e9"
    scene.notice = "Tasks\udcff: full"
    view = scene.view()
    assert (view.engines[0].node, view.notice) == ("\\xff\u00e9", "Tasks\\xff: full")
    msgspec.msgpack.encode(view)


def test_which_of_the_tasks_run_now() -> None:
    scene = Scene(("a", 2), ("b", 1))
    scene.tell(Read([task(id) for id in range(6)]))
    running = scene.collector.running_of([(0, 9)])
    assert len(running) == 3 and set(running) < set(range(6))
    assert scene.collector.running_of([(running[1], running[1])]) == [running[1]]
    on_b = [task.id for task in scene.plan.engines["b"].assigned.values()][:1]
    scene.tell(Lost("b"))
    assert set(scene.collector.running_of([(0, 9)])) == set(running) - set(on_b)
    assert scene.collector.running_of([(50, 60)]) == []
