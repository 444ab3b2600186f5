"""What a driver does and says when dbutil asks: a plan, what it was told before, requests and answers."""

from __future__ import annotations

from typing import Any

import pytest
from command_bench import Bench
from plan_world import barrier, outcome, task

from disbatch.driver import engine_state
from disbatch.driver.commands import ALONE, ALONE_AND_WAITS, NOT_JOURNALLED
from disbatch.driver.engine_table import EngineEntry
from disbatch.driver.holds import Reason
from disbatch.plan import events
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import Finished, Hold, Interrupt, Joined, Lost, Resume
from disbatch.rundir.journal import Asked, Cancelled, Here, JournalLine, JournalState, Paused, Unwanted
from disbatch.wire.client_protocol import MOST_LINES
from disbatch.wire.verbs import Cancel, Drain, Finish, Pause, RunRequest, Stop, Unpause


def six() -> Bench:
    """Two tasks run on each of the nodes."""
    return Bench(*(task(number) for number in range(6)))


def test_drain() -> None:
    bench = six()
    assert bench.asked(Drain(["n2"])) == ["n2 (rack): draining; 2 tasks are running there"]
    assert bench.told == [events.Drain("e-n2")] and bench.said == ["dbutil drain n2"]
    assert bench.asked(Drain(["n2", "n2"])) == ["n2 (rack): is draining already"]
    assert bench.asked(Drain(["n1", "user@n1"])) == ["n1 (rack): draining; 2 tasks are running there"]
    assert bench.asked(Drain(["n3"])) == ["n3: draining; 2 tasks are running there", ALONE]


def test_stop() -> None:
    bench = six()
    assert bench.asked(Stop(["rack"])) == [
        "n1 (rack): ending 2 tasks, which run again elsewhere",
        "n2 (rack): ending 2 tasks, which run again elsewhere",
    ]
    assert bench.told == [events.Stop("e-n1"), events.Stop("e-n2")]
    assert bench.asked(Stop(["n1"])) == ["n1 (rack): is leaving already"]
    assert bench.asked(Drain(["n1"])) == ["n1 (rack): is draining already"]
    assert bench.asked(Stop(["n3"])) == ["n3: ending 2 tasks", ALONE]


def test_what_is_idle_leaves_at_once() -> None:
    bench = Bench()
    assert bench.asked(Drain(["n1"])) == ["n1 (rack): nothing is running there; it leaves"]
    assert bench.asked(Drain(["n1"])) == ["n1 (rack): is leaving already"]
    assert bench.asked(Stop(["n2"])) == ["n2 (rack): nothing is running there; it leaves"]
    assert bench.asked(Stop(["n2"])) == ["n2 (rack): is leaving already"]


def test_ranges_of_nodes() -> None:
    bench = six()
    assert len(bench.asked(Drain(["n[1-2]"]))) == 2
    assert bench.told == [events.Drain("e-n1"), events.Drain("e-n2")]
    assert bench.said == ["dbutil drain n1, n2"]
    lines = bench.asked(Stop(["user@n[1,2],n3", "n[3]"]))
    assert [line.split(":")[0].split()[0] for line in lines] == ["n1", "n2", "n3", "no"]


def test_ranges_of_other_nodes() -> None:
    assert six().refused(Stop(["n[2-5]"])).startswith("no node or label n4, n5; there are: n1")
    assert six().refused(Stop(["n[01-02]"])).startswith("no node or label n01, n02; there are: n1")
    assert six().refused(Drain(["n[2-1]"])) == "drain n[2-1]: [2-1]: write numbers and ranges, e.g. [1-3,7]"
    assert six().refused(Drain(["n[1-99999]"])) == "drain n[1-99999]: more than 10000 hosts"
    bench = six()
    bench.entries["e-n3"].label = "n[1-2]"
    assert bench.asked(Drain(["n[1-2]"])) == ["n3 (n[1-2]): draining; 2 tasks are running there"]


def test_a_drain_can_become_a_stop() -> None:
    bench = six()
    bench.asked(Drain(["n1"]))
    assert bench.asked(Stop(["n1"])) == ["n1 (rack): ending 2 tasks, which run again elsewhere"]


def test_nodes_that_are_not_there() -> None:
    """One that is lost, one that left, one whose launch failed, and one that is on its way."""
    bench = six()
    bench.handle_event(Lost("e-n1"))
    assert bench.asked(Drain(["n1"])) == [
        "n1 (rack): is not heard; if it comes back, it finishes what runs there"
    ]
    assert bench.asked(Stop(["n1"])) == ["n1 (rack): is not heard; if it comes back, it ends what runs there"]
    bench.asked(Stop(["n2"]))
    bench.ended("n2")
    bench.handle_event(events.Left("e-n2"))
    assert bench.asked(Stop(["n2", "n3"])) == [
        "n2 (rack): has left already",
        "n3: ending 2 tasks",
        ALONE,
    ]
    for name in ("n4", "n5"):
        bench.launch(name)
    bench.entries["e-n4"].state = engine_state.Failed()
    assert bench.asked(Stop(["n4"])) == ["n4 (rack): did not join"]
    assert bench.asked(Stop(["n5"])) == ["n5 (rack): has not joined yet, and need not", ALONE]
    assert bench.dismissed == ["n5"]
    bench.join("n5")
    bench.departures.joined(bench.entries["e-n5"])
    assert bench.told[-1] == events.Stop("e-n5")


def test_engines_on_their_way_keep_a_run_going() -> None:
    bench = six()
    bench.launch("n4")
    assert ALONE not in bench.asked(Stop(["n1", "n2", "n3"]))


def test_the_engine_that_is_there_of_two_with_one_name() -> None:
    bench = six()
    bench.asked(Stop(["n2"]))
    bench.ended("n2")
    bench.handle_event(events.Left("e-n2"))
    bench.entries["again"] = EngineEntry("again", "n2", 9, 2, None, state=engine_state.Joined(since=2.0))
    bench.handle_event(Joined("again", Capacity(2), []))
    assert bench.asked(Drain(["n2"])) == ["n2: draining; 2 tasks are running there"]
    assert bench.told[-1] == events.Drain("again")


@pytest.mark.parametrize("verb", [Drain(["n1", "nX", "nY"]), Stop(["n1", "nX", "nY"])])
def test_unknown_names(verb: RunRequest) -> None:
    known = "n1, user@n1, rack, n2, user@n2, n3"
    assert six().refused(verb) == f"no node or label nX, nY; there are: {known}"


def test_no_names_are_known() -> None:
    bench = Bench()
    bench.entries.clear()
    assert bench.refused(Drain(["n1"])) == "no node or label n1; there are none yet"


@pytest.mark.parametrize("verb", [Drain(["n1"]), Stop(["n1"])])
def test_an_engine_that_died(verb: RunRequest) -> None:
    """Its process has ended: it cannot come back."""
    bench = six()
    bench.handle_event(Lost("e-n1"))
    bench.entries["e-n1"].state = engine_state.Lost(before=True, exit_code=0)
    bench.told.clear()
    assert bench.asked(verb) == ["n1 (rack): its engine is lost, and does not come back"]
    assert bench.told == []
    bench.entries["e-n2"].name = "n1"
    (words,) = bench.asked(verb)
    assert "2 tasks" in words


def test_cancel_all_sorts_of_tasks() -> None:
    items = [*(task(number) for number in range(8)), barrier(8), task(9)]
    bench = Bench(*items, ids=20)
    bench.handle_event(Finished("e-n1", [outcome(1)]))  # task 0; task 6 starts
    assert bench.asked(Cancel([(9, 15), (1, 1), (0, 0), (6, 8)])) == [
        "task 0: is done already",
        "task 1: is being ended on n2 (rack)",
        "task 6: is being ended on n1 (rack)",
        "task 7: will not run",
        "task 8: is a barrier, which stays",
        "tasks 9-15: will not run",
    ]
    assert bench.told[-1] == events.Cancel([(0, 1), (6, 15)])
    assert bench.said == ["dbutil cancel 0-1, 6-15"]
    assert bench.asked(Cancel([(0, 1), (6, 7)])) == [
        "task 0: is done already",
        "task 1: is being ended already on n2 (rack)",
        "task 6: is being ended already on n1 (rack)",
        "task 7: is done already",
    ]


def test_cancel_what_is_not_in_the_file() -> None:
    assert (
        Bench(task(0), ids=3).refused(Cancel([(0, 1), (2, 3)]))
        == "no task has the id 3: Tasks has the ids 0 to 2"
    )
    assert Bench(ids=0).refused(Cancel([(0, 0)])) == "no task has the id 0: there are no tasks"
    bench = Bench(task(0))
    assert bench.refused(Cancel([(0, 3)])) == "no task has the id 3: Tasks has the id 0"
    assert bench.told == [], "what comes later runs"


def test_who_asked_is_told() -> None:
    """A button and a Python program are not `dbutil`."""
    bench = Bench(*(task(number) for number in range(9)))
    bench.asked(Pause(), "the web page")
    bench.asked(Unpause(), "the web page")
    bench.asked(Drain(["n1"]), "the web page")
    bench.asked(Cancel([(3, 4)]), "the Python program")
    bench.asked(Cancel([(5, 5)]))
    assert bench.said == [
        "paused by the web page: no more tasks start until `dbutil resume`",
        "resumed by the web page",
        "the web page: drain n1",
        "the Python program: cancel 3-4",
        "dbutil cancel 5",
    ]
    bench.asked(Finish(), "the Python program")
    assert bench.finished_by == "the Python program"


def test_an_answer_has_an_end() -> None:
    bench = Bench(ids=10**9)
    lines = bench.asked(Cancel([(2 * number, 2 * number) for number in range(3000)]))
    assert len(lines) == MOST_LINES and lines[-1] == "and 2,001 lines more"


def test_pause_and_a_full_disk_are_two_reasons() -> None:
    bench = six()
    assert bench.asked(Unpause()) == ["the run is not paused"]
    assert bench.asked(Pause()) == ["paused: no more tasks start; 6 tasks running"]
    assert bench.asked(Pause()) == ["the run is paused already"]
    assert not bench.holds.stop_reading
    bench.holds.add(Reason.DISK, "the disk is full")
    assert bench.holds.words == "paused, the disk is full" and bench.holds.stop_reading and not bench.reads
    assert bench.asked(Unpause()) == ["resumed: tasks start again", "but: the disk is full"]
    bench.asked(Pause())
    bench.holds.remove(Reason.DISK)
    bench.holds.remove(Reason.DISK)
    assert bench.told == [Hold()] and bench.plan.held and bench.holds.words == "paused"
    assert bench.reads == 1 and not bench.holds.stop_reading
    assert bench.asked(Unpause()) == ["resumed: tasks start again"]
    assert bench.told == [Hold(), Resume()]


def test_finish_and_what_is_asked_after() -> None:
    bench = six()
    assert bench.asked(Finish()) == ["ending the run, to be resumed; 6 tasks running"]
    assert bench.told == [Interrupt()]
    for verb in (Finish(), Pause(), Stop(["nobody"]), Cancel([(0, 0)])):
        assert bench.asked(verb) == ["the run is ending already"]
    assert bench.told == [Interrupt()]


def test_a_run_that_waits_without_nodes() -> None:
    bench = Bench(waits=True)
    assert bench.asked(Drain(["rack", "n3"]))[-1] == ALONE_AND_WAITS


# ---- over a takeover ----


def told(*orders: JournalLine, **known: Any) -> JournalState:
    state = JournalState(Asked("0", [], b"/", "7", "Tasks", b"/log", 3, 4, 600.0, []), **known)
    for order in orders:
        state.learn(order)
    return state


def test_orders_are_noted_before_they_are_answered() -> None:
    bench = six()
    bench.launch("n4")
    bench.asked(Pause())
    bench.asked(Cancel([(3, 4)]))
    bench.asked(Drain(["n2", "n4"]))
    bench.asked(Stop(["n2"]))
    bench.asked(Unpause())
    assert bench.noted == [
        Paused(True),
        Cancelled([(3, 4)]),
        Unwanted("e-n2", stop=False),
        Unwanted("e-n4", stop=False),
        Unwanted("e-n2", stop=True),
        Paused(False),
    ]
    assert bench.asked(Unpause()) == ["the run is not paused"]
    assert len(bench.noted) == 6


def test_orders_that_cannot_be_noted_say_so() -> None:
    bench = six()
    bench.can_note = False
    assert bench.asked(Pause()) == [NOT_JOURNALLED, "paused: no more tasks start; 6 tasks running"]
    assert bench.asked(Drain(["n2"])) == [NOT_JOURNALLED, "n2 (rack): draining; 2 tasks are running there"]
    assert bench.asked(Drain(["n2"])) == ["n2 (rack): is draining already"]


def test_orders_of_a_former_driver() -> None:
    bench = six()
    bench.launch("n4")
    bench.entries["e-n4"].inherited = True
    here = Here("e-n4", "n4", 3, 2, None, pid=4)
    bench.control.restore(
        told(
            *(Paused(True), Cancelled([(3, 4)]), Cancelled([(9, 9)])),
            engines={"e-n4": here},
            unwanted={"e-n4": True},
        )
    )
    assert bench.said == [
        "still in effect from before the takeover: tasks cancelled (3-4, 9); paused; leaving: n4",
    ]
    assert Reason.PAUSE in bench.holds and bench.noted == []
    assert bench.told == [events.Cancel([(3, 4), (9, 9)]), Hold()]
    bench.join("n4")
    bench.departures.joined(bench.entries["e-n4"])
    assert bench.told[-1] == events.Stop("e-n4")


def test_an_engine_that_is_expected_from_a_former_driver_is_not_given_up() -> None:
    """It may run tasks, which must not start elsewhere."""
    bench = six()
    bench.launch("n4")
    bench.entries["e-n4"].inherited = True
    assert bench.asked(Drain(["n4"])) == ["n4 (rack): is not heard yet; if it comes, it leaves"]
    assert bench.dismissed == [] and isinstance(bench.entries["e-n4"].state, engine_state.Launching)
    bench.asked(Stop(["n4"]))
    bench.asked(Drain(["n4"]))
    bench.join("n4")
    bench.departures.joined(bench.entries["e-n4"])
    assert bench.told[-1] == events.Stop("e-n4")


def test_an_engine_by_its_own_name() -> None:
    """Two may be on one node."""
    bench = Bench(*(task(id) for id in range(8)))
    bench.entries["e-n2"].name = "n1"
    assert bench.asked(Drain(["e-n2"])) == ["n1 (rack): draining; 2 tasks are running there"]
    assert bench.said == ["dbutil drain n1 (rack)"]
    assert [name for name, engine in bench.plan.engines.items() if engine.draining] == ["e-n2"]
