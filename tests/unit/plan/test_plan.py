"""Histories of the plan, one decision each: what it is told, and all that it answers."""

from __future__ import annotations

import pytest
from plan_world import barrier, outcome, task

from disbatch.model.idset import IdSet
from disbatch.model.task import Ending, PerEngine, Phase
from disbatch.plan.backlog import LOOKAHEAD, READ_MOST
from disbatch.plan.capacity import Capacity
from disbatch.plan.events import (
    Action,
    Assign,
    AssignPerEngine,
    Cancel,
    Completed,
    Conclusion,
    Drain,
    End,
    Event,
    Finish,
    Finished,
    Hold,
    Interrupt,
    Joined,
    Left,
    Lost,
    Past,
    Read,
    Recall,
    RecordBarrier,
    RecordCancelled,
    RecordLost,
    RecordPerEngine,
    RecordSkipped,
    RecordTask,
    Release,
    Resume,
    Returned,
    SourceDry,
    SourceEnded,
    Stop,
    Verdict,
)
from disbatch.plan.plan import Place, Plan

History = list[tuple[Event, list[Action]]]

START = PerEngine(0, 1, Phase.START, b"up")
STOP = PerEngine(0, 2, Phase.STOP, b"down")


def tasks(*numbers: int) -> Read:
    return Read([task(number) for number in numbers])


def join(engine: str, slots: int = 1, *holding: int, context: str = "") -> Joined:
    return Joined(engine, Capacity(slots), list(holding), context)


def assign(engine: str, *pairs: tuple[int, int]) -> Assign:
    return Assign(engine, [(attempt, task(number)) for attempt, number in pairs])


def done(engine: str, *attempts: int, code: int = 0, elapsed: float = 5.0) -> Finished:
    return Finished(engine, [outcome(attempt, code, elapsed=elapsed) for attempt in attempts])


def ended(engine: str, attempt: int, *, pid: int = 77) -> Finished:
    return Finished(engine, [outcome(attempt, -15, ending=Ending.ORDERED, pid=pid)])


def unstarted(engine: str, attempt: int) -> Finished:
    return Finished(engine, [outcome(attempt, -1, ending=Ending.UNSTARTED, pid=0)])


def counts(engine: str, attempt: int, number: int, *, code: int = 0, elapsed: float = 5.0) -> RecordTask:
    return RecordTask(engine, task(number), outcome(attempt, code, elapsed=elapsed), Verdict.COUNTS)


def superseded(engine: str, attempt: int, number: int) -> RecordTask:
    return RecordTask(engine, task(number), outcome(attempt), Verdict.SUPERSEDED)


def stopped(engine: str, attempt: int, number: int) -> RecordTask:
    return RecordTask(engine, task(number), outcome(attempt, -15, ending=Ending.ORDERED), Verdict.ENDED)


def cancelled(engine: str, attempt: int, number: int) -> RecordTask:
    return RecordTask(engine, task(number), outcome(attempt, -15, ending=Ending.ORDERED), Verdict.CANCELLED)


def bye(*engines: str, conclusion: Conclusion = Conclusion.COMPLETE) -> History:
    """These leave; with the last the run is over."""
    return [(Left(e), [Finish(conclusion)] if e == engines[-1] else []) for e in engines]


def play(history: History, plan: Plan | None = None) -> Plan:
    """Tell the plan each event; it must answer exactly the actions beside it."""
    plan = plan or Plan()
    for number, (event, expected) in enumerate(history):
        assert plan.handle(event) == expected, f"step {number}: {event}"
    return plan


def queueing(slots: int, most: int) -> History:
    """One engine `a` that has run task 0 in a moment and now has tasks 1.. in its slots and its queue."""
    numbers = range(1, most + 1)
    return [
        (join("a", slots), []),
        (tasks(0), [assign("a", (1, 0))]),
        (done("a", 1, elapsed=0.05), [counts("a", 1, 0, elapsed=0.05)]),
        (tasks(*numbers), [assign("a", *((n + 1, n) for n in numbers))]),
    ]


def test_one_engine_runs_all_and_leaves() -> None:
    play(
        [
            (join("a", 2), []),
            (tasks(0, 1, 2), [assign("a", (1, 0), (2, 1))]),
            (SourceEnded(), []),
            (done("a", 1), [counts("a", 1, 0), assign("a", (3, 2))]),
            (done("a", 3, code=1), [counts("a", 3, 2, code=1)]),
            (done("a", 2), [counts("a", 2, 1), Release("a")]),
            *bye("a"),
        ]
    )


def test_tasks_are_dealt_in_turn() -> None:
    play(
        [
            (join("a", 2), []),
            (join("b", 2), []),
            (tasks(0, 1, 2, 3), [assign("a", (1, 0), (3, 2)), assign("b", (2, 1), (4, 3))]),
            (SourceEnded(), []),
            (done("b", 2, 4), [counts("b", 2, 1), counts("b", 4, 3)]),
            (done("a", 1, 3), [counts("a", 1, 0), counts("a", 3, 2), Release("b"), Release("a")]),
            *bye("b", "a"),
        ],
    )


def test_an_empty_source_needs_no_engine() -> None:
    play([(SourceEnded(), [Finish(Conclusion.COMPLETE)])])


def test_engines_that_find_nothing_leave() -> None:
    play([(join("a"), []), (SourceEnded(), [Release("a")]), *bye("a")])


def test_an_engine_that_comes_when_all_is_done_is_sent_away() -> None:
    play(
        [
            (join("a"), []),
            (SourceEnded(), [Release("a")]),
            (join("b"), [Release("b")]),
            (Left("b"), []),
            *bye("a"),
            (join("c"), []),
        ]
    )


def test_nothing_starts_across_a_barrier() -> None:
    behind = Read([task(0), task(1), barrier(2), task(3), barrier(4)])
    play(
        [
            (join("a", 3), []),
            (behind, [assign("a", (1, 0), (2, 1))]),
            (SourceEnded(), []),
            (done("a", 2, code=7), [counts("a", 2, 1, code=7)]),
            (
                done("a", 1),
                [counts("a", 1, 0), RecordBarrier(barrier(2), 1, task(1)), assign("a", (3, 3))],
            ),
            (done("a", 3), [counts("a", 3, 3), RecordBarrier(barrier(4), 0, None), Release("a")]),
            *bye("a"),
        ]
    )


def test_a_barrier_stops_the_reading() -> None:
    plan = play([(join("a", 3), []), (Read([task(0), barrier(1)]), [assign("a", (1, 0))])])
    assert plan.room == 0
    play([(done("a", 1), [counts("a", 1, 0), RecordBarrier(barrier(1), 0, None)])], plan)
    assert plan.room == 3 + LOOKAHEAD


@pytest.mark.parametrize("code", [0, 1])
def test_a_check_ends_the_run_if_a_task_failed(code: int) -> None:
    check = barrier(1, check=True)
    after: list[Action] = [assign("a", (2, 2))] if code == 0 else [Release("a")]
    failed = (code, task(0) if code else None)
    history: History = [
        (join("a"), []),
        (Read([task(0), check, task(2)]), [assign("a", (1, 0))]),
        (done("a", 1, code=code), [counts("a", 1, 0, code=code), RecordBarrier(check, *failed), *after]),
    ]
    play(history + (bye("a", conclusion=Conclusion.CHECK_FAILED) if code else []))


def test_what_a_former_run_completed_is_only_recorded() -> None:
    former = [Completed(task(0), False, "line"), Completed(task(1), True, "line")]
    check = barrier(2, check=True)
    play(
        [
            (join("a"), []),
            (
                Read([*former, check]),
                [*(RecordSkipped(c) for c in former), RecordBarrier(check, 1, task(1)), Release("a")],
            ),
            *bye("a", conclusion=Conclusion.CHECK_FAILED),
        ]
    )


def test_a_queue_is_called_back_for_an_idle_slot() -> None:
    play(
        [
            *queueing(1, 4),
            (SourceEnded(), []),
            (join("b", 1), [Recall("a", [5])]),
            (Returned("a", [5]), [assign("b", (6, 4))]),
            (done("b", 6), [counts("b", 6, 4), Recall("a", [4])]),
            (
                done("a", 2, 3, elapsed=0.05),
                [counts("a", 2, 1, elapsed=0.05), counts("a", 3, 2, elapsed=0.05)],
            ),
            (Returned("a", []), []),
            (done("a", 4), [counts("a", 4, 3), Release("b"), Release("a")]),
            *bye("a", "b"),
        ]
    )


@pytest.mark.parametrize("event", [SourceDry(), Read([barrier(4)])])
def test_a_queue_is_called_back_when_nothing_can_be_read(event: Event) -> None:
    play([*queueing(1, 3), (join("b", 2), []), (event, [Recall("a", [4])])])


def test_a_queue_stays_while_the_source_flows() -> None:
    play([*queueing(1, 3), (join("b", 1), []), (tasks(4), [assign("b", (5, 4))])])


def test_a_lost_engine_s_tasks_run_elsewhere_first() -> None:
    play(
        [
            (join("a", 2), []),
            (tasks(0, 1, 2), [assign("a", (1, 0), (2, 1))]),
            (Lost("a"), []),
            (Lost("a"), []),
            (join("b", 2), [assign("b", (3, 0), (4, 1))]),
            (SourceEnded(), []),
            (done("b", 3, 4), [counts("b", 3, 0), counts("b", 4, 1), assign("b", (5, 2))]),
            (done("b", 5), [counts("b", 5, 2), Release("b")]),
            *bye("b"),
        ]
    )


def test_only_running_tasks_count_as_lost() -> None:
    play(
        [*queueing(1, 2), (Lost("a"), [RecordLost("a", task(1))]), (join("b"), [assign("b", (4, 2))])],
        Plan(max_losses=0),
    )


def test_a_task_is_given_up_after_too_many_losses() -> None:
    play(
        [
            (SourceDry(), []),
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (SourceEnded(), []),
            (Lost("a"), []),
            (join("b"), [assign("b", (2, 0))]),
            (join("c"), []),
            (Lost("b"), [RecordLost("b", task(0)), Release("c")]),
            *bye("c"),
        ],
        Plan(max_losses=1),
    )


def test_how_many_would_run_again_if_an_engine_were_lost() -> None:
    """Not those that were lost too often, nor cancelled; but those that only wait there."""
    plan = Plan(max_losses=0)
    play([*queueing(1, 3)], plan)
    assert (plan.reruns_if_lost("a"), plan.reruns_if_lost("nobody")) == (2, 0)
    plan.handle(Cancel([(3, 3)]))
    assert plan.reruns_if_lost("a") == 1


def test_what_cannot_be_started_is_tried_again_then_counts() -> None:
    refused = RecordTask("a", task(0), unstarted("a", 2).outcomes[0], Verdict.COUNTS)
    play(
        [
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (SourceEnded(), []),
            (unstarted("a", 1), [assign("a", (2, 0))]),
            (unstarted("a", 2), [refused, Release("a")]),
            *bye("a"),
        ],
        Plan(max_losses=1),
    )


LOST_AND_FOUND: History = [(join("a"), []), (tasks(0), [assign("a", (1, 0))]), (Lost("a"), [])]


def test_a_found_engine_keeps_what_nobody_else_was_given() -> None:
    play([*LOST_AND_FOUND, (join("a", 1, 1), []), (done("a", 1), [counts("a", 1, 0)]), (done("a", 1), [])])


def test_a_found_engine_ends_what_somebody_else_was_given() -> None:
    play(
        [
            *LOST_AND_FOUND,
            (join("b"), [assign("b", (2, 0))]),
            (join("a", 1, 1), [End("a", [1])]),
            (ended("a", 1), []),
            (tasks(1), [assign("a", (3, 1))]),
            (done("b", 2), [counts("b", 2, 0)]),
        ]
    )


def test_the_slot_of_a_task_that_is_being_ended_is_not_free() -> None:
    play(
        [
            *LOST_AND_FOUND,
            (join("b"), [assign("b", (2, 0))]),
            (join("a", 1, 1), [End("a", [1])]),
            (tasks(1), []),
            (ended("a", 1), [assign("a", (3, 1))]),
        ]
    )


def test_a_late_result_is_superseded_if_the_task_was_given_to_another() -> None:
    play(
        [
            *LOST_AND_FOUND,
            (join("b"), [assign("b", (2, 0))]),
            (join("a", 1, 1), [End("a", [1])]),
            (done("a", 1), [superseded("a", 1, 0)]),
            (done("b", 2), [counts("b", 2, 0)]),
        ]
    )


def test_a_late_result_counts_if_the_task_waits_again() -> None:
    plan = play([*LOST_AND_FOUND, (done("a", 1), [counts("a", 1, 0)])])
    play([(join("b"), []), (SourceEnded(), [Release("b")]), *bye("b")], plan)


def test_a_late_result_counts_after_an_interrupt_too() -> None:
    play(
        [
            *LOST_AND_FOUND,
            (join("b", 1), [assign("b", (2, 0))]),
            (Lost("b"), []),
            (join("c"), [assign("c", (3, 0))]),
            (Interrupt(), [End("c", [3])]),
            (ended("c", 3), [stopped("c", 3, 0), Release("c")]),
            (join("a", 1, 1), [End("a", [1])]),
            (done("a", 1), [counts("a", 1, 0), Release("a")]),
            (Left("a"), []),
            *bye("c", conclusion=Conclusion.INTERRUPTED),
        ]
    )


def test_a_short_break_decides_nothing() -> None:
    play([(join("a"), []), (tasks(0), [assign("a", (1, 0))]), (join("a", 1, 1), [])])


def test_a_goodbye_gives_back_what_it_had() -> None:
    play(
        [
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (Left("a"), []),
            (join("b"), [assign("b", (2, 0))]),
        ],
        Plan(max_losses=0),
    )


def test_an_engine_that_its_node_stops_gets_nothing_more() -> None:
    play(
        [
            (join("a", 2), []),
            (tasks(0, 1), [assign("a", (1, 0), (2, 1))]),
            (ended("a", 1), [stopped("a", 1, 0)]),
            (ended("a", 2), [stopped("a", 2, 1), Release("a")]),
            (Left("a"), []),
            (join("b", 2), [assign("b", (3, 1), (4, 0))]),
        ]
    )


def test_a_drained_engine_finishes_what_runs() -> None:
    play(
        [
            *queueing(1, 3),
            (Drain("a"), [Recall("a", [3, 4])]),
            (Drain("a"), []),
            (join("b"), []),
            (Returned("a", [3, 4]), [assign("b", (5, 2))]),
            (done("a", 2), [counts("a", 2, 1), Release("a")]),
            (Left("a"), []),
        ]
    )


def test_a_drain_during_a_recall_calls_back_the_rest() -> None:
    play(
        [
            *queueing(1, 5),
            (SourceEnded(), []),
            (join("b"), [Recall("a", [6])]),
            (Drain("a"), []),
            (Returned("a", [6]), [Recall("a", [3, 4, 5]), assign("b", (7, 5))]),
        ]
    )


def test_a_drained_engine_that_is_lost_and_found_stays_drained() -> None:
    play(
        [
            (join("a"), []),
            (Drain("a"), [Release("a")]),
            (Lost("a"), []),
            (join("a"), [Release("a")]),
            (tasks(0), []),
            (Left("a"), []),
            (join("b"), [assign("b", (1, 0))]),
        ]
    )


def spare_after(history: History) -> list[str]:
    return play(history).spare


def test_idle_engines_are_spare_at_the_end() -> None:
    plan = play(
        [
            (join("a"), []),
            (join("b"), []),
            (tasks(0, 1), [assign("a", (1, 0)), assign("b", (2, 1))]),
            (done("a", 1), [counts("a", 1, 0)]),
        ]
    )
    assert plan.spare == [], "more tasks may come"
    play([(SourceEnded(), [])], plan)
    assert plan.spare == ["a"]
    play([(Drain("a"), [Release("a")])], plan)
    assert plan.spare == []
    play([(Left("a"), []), (done("b", 2), [counts("b", 2, 1), Release("b")]), *bye("b")], plan)


def test_a_spare_engine_finds_work_when_another_is_lost() -> None:
    plan = play(
        [
            (join("a"), []),
            (join("b"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (SourceEnded(), []),
        ]
    )
    assert plan.spare == ["b"]
    play([(Lost("a"), [assign("b", (2, 0))])], plan)
    assert plan.spare == []


TAIL: History = [
    (join("a"), []),
    (join("b"), []),
    (Read([task(0), task(1), barrier(2), task(3)]), [assign("a", (1, 0)), assign("b", (2, 1))]),
    (SourceEnded(), []),
    (done("a", 1), [counts("a", 1, 0)]),
]


def test_none_is_spare_before_a_barrier_or_while_the_run_is_held() -> None:
    assert spare_after(TAIL) == []
    over = (done("b", 2), [counts("b", 2, 1), RecordBarrier(barrier(2), 0, None), assign("a", (3, 3))])
    assert spare_after([*TAIL, over]) == ["b"]
    assert spare_after([*TAIL, over, (Hold(), [])]) == []
    assert spare_after([*TAIL, over, (Interrupt(), [End("a", [3])])]) == []


def test_none_is_spare_while_something_waits_in_a_queue() -> None:
    history: History = [*queueing(1, 3), (SourceEnded(), []), (join("b", 3), [Recall("a", [4])])]
    assert spare_after(history) == []
    history += [(Returned("a", [4]), [assign("b", (5, 3)), Recall("a", [3])])]
    history += [(Returned("a", [3]), [assign("b", (6, 2))]), (join("c"), [])]
    assert spare_after(history) == ["c"]


def test_a_stopped_engine_ends_what_runs_and_others_run_it() -> None:
    """However often: being stopped is no loss."""
    plan = Plan(max_losses=0)
    history: History = [
        (Read([STOP]), []),
        (join("a", 2), []),
        (tasks(0, 1), [assign("a", (1, 0), (2, 1))]),
        (Stop("a"), [End("a", [1, 2])]),
        (Stop("a", at_once=False), [End("a", [1, 2])]),
        (join("b", 2), []),
        (done("a", 1), [counts("a", 1, 0)]),
        (
            ended("a", 2),
            [stopped("a", 2, 1), assign("b", (3, 1)), AssignPerEngine("a", 4, STOP)],
        ),
        (done("a", 4), [RecordPerEngine("a", STOP, outcome(4)), Release("a")]),
        (Left("a"), []),
        (Stop("b"), [End("b", [3])]),
        (join("c"), []),
        (
            ended("b", 3),
            [stopped("b", 3, 1), assign("c", (5, 1)), AssignPerEngine("b", 6, STOP)],
        ),
    ]
    play(history, plan)


def test_a_stop_at_once_runs_no_stop_commands() -> None:
    play(
        [
            (Read([STOP]), []),
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (Stop("a"), [End("a", [1])]),
            (Stop("a", at_once=True), [End("a", [1], True)]),
            (ended("a", 1), [stopped("a", 1, 0), Release("a")]),
            (Left("a"), []),
        ]
    )


def test_a_stop_ends_a_start_command_and_leaves_a_stop_command_alone() -> None:
    play(
        [
            (Read([START, STOP]), []),
            (join("a"), [AssignPerEngine("a", 1, START)]),
            (Stop("a"), [End("a", [1])]),
            (
                ended("a", 1),
                [
                    RecordPerEngine("a", START, outcome(1, -15, ending=Ending.ORDERED)),
                    AssignPerEngine("a", 2, STOP),
                ],
            ),
            (Stop("a"), []),
            (Stop("a", at_once=True), [End("a", [2], True)]),
        ]
    )


def test_a_stopped_engine_that_is_lost_and_found_ends_what_it_still_has() -> None:
    play(
        [
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (Lost("a"), []),
            (Stop("a"), []),
            (join("a", 1, 1), [End("a", [1])]),
            (ended("a", 1), [Release("a")]),
            (join("b"), [assign("b", (2, 0))]),
        ]
    )


def test_a_failure_ends_a_run_that_fails_fast() -> None:
    play(
        [
            (join("a", 2), []),
            (tasks(0, 1, 2), [assign("a", (1, 0), (2, 1))]),
            (done("a", 1, code=1), [counts("a", 1, 0, code=1), End("a", [2])]),
            (ended("a", 2), [stopped("a", 2, 1), Release("a")]),
            *bye("a", conclusion=Conclusion.FAILED_FAST),
        ],
        Plan(fail_fast=True),
    )


def test_an_interrupt_ends_what_runs_and_a_second_one_at_once() -> None:
    plan = play(
        [
            (Read([STOP]), []),
            (join("a", 2), []),
            (tasks(0, 1, 2), [assign("a", (1, 0), (2, 1))]),
            (Interrupt(), [End("a", [1, 2])]),
            (done("a", 1), [counts("a", 1, 0)]),
            (Interrupt(at_once=True), [End("a", [2], True)]),
            (ended("a", 2), [stopped("a", 2, 1), Release("a")]),
            *bye("a", conclusion=Conclusion.INTERRUPTED),
        ]
    )
    assert plan.room == 0


def test_what_never_started_leaves_no_line_when_it_is_ended() -> None:
    play(
        [
            *queueing(1, 2),
            (Interrupt(), [End("a", [2, 3])]),
            (ended("a", 3, pid=0), []),
            (ended("a", 2), [stopped("a", 2, 1), Release("a")]),
            *bye("a", conclusion=Conclusion.INTERRUPTED),
        ]
    )


def test_nothing_starts_while_the_run_is_held() -> None:
    play(
        [
            *queueing(1, 2),
            (Hold(), [Recall("a", [3])]),
            (Returned("a", [3]), []),
            (done("a", 2), [counts("a", 2, 1)]),
            (join("b"), []),
            (Resume(), [assign("a", (4, 2))]),
        ]
    )


def test_a_broken_source_lets_the_running_tasks_finish() -> None:
    play(
        [
            *queueing(1, 2),
            (SourceEnded(broken=True), [Recall("a", [3])]),
            (Returned("a", [3]), []),
            (done("a", 2), [counts("a", 2, 1), Release("a")]),
            *bye("a", conclusion=Conclusion.SOURCE_BROKEN),
        ]
    )


def test_per_engine_commands_stand_before_and_after_the_tasks() -> None:
    up, down = outcome(1), outcome(3)
    play(
        [
            (Read([START, STOP, task(0)]), []),
            (join("a"), [AssignPerEngine("a", 1, START)]),
            (Finished("a", [up]), [RecordPerEngine("a", START, up), assign("a", (2, 0))]),
            (SourceEnded(), []),
            (done("a", 2), [counts("a", 2, 0), AssignPerEngine("a", 3, STOP)]),
            (Finished("a", [down]), [RecordPerEngine("a", STOP, down), Release("a")]),
            *bye("a"),
        ]
    )


def test_start_commands_reach_engines_that_are_there_or_were_lost() -> None:
    play(
        [
            (join("a"), []),
            (join("b"), []),
            (Lost("b"), []),
            (Read([START, task(0)]), [AssignPerEngine("a", 1, START)]),
            (join("b"), [AssignPerEngine("b", 3, START)]),
            (done("b", 3), [RecordPerEngine("b", START, outcome(3)), assign("b", (4, 0))]),
        ]
    )


def test_a_context_completes_exactly_its_limit() -> None:
    play(
        [
            (join("a", 2, context="small"), []),
            (tasks(0, 1, 2, 3), [assign("a", (1, 0), (2, 1))]),
            (ended("a", 2, pid=0), []),
            (join("b", 3, context="small"), [assign("b", (3, 1), (4, 2))]),
            (done("a", 1), [counts("a", 1, 0), Release("a")]),
            (done("b", 3, 4), [counts("b", 3, 1), counts("b", 4, 2), Release("b")]),
            (join("c", context="small"), [Release("c")]),
            (join("d", context="large"), [assign("d", (5, 3))]),
        ],
        Plan(limits={"small": 3}),
    )


def test_returned_tasks_are_not_counted_against_a_limit() -> None:
    plan = Plan(limits={"": 5})
    play(queueing(1, 4), plan)
    play([(Hold(), [Recall("a", [3, 4, 5])]), (Returned("a", [3, 4, 5]), [])], plan)
    play([(done("a", 2), [counts("a", 2, 1)]), (Resume(), [assign("a", (6, 2))])], plan)
    assert plan.live == 1


def test_the_plan_reads_only_a_little_ahead() -> None:
    plan = Plan()
    assert plan.room == LOOKAHEAD
    plan.handle(join("a", 100_000))
    assert plan.room == READ_MOST
    plan.handle(Read([task(number) for number in range(READ_MOST)]))
    assert (plan.live, plan.waiting, plan.room) == (READ_MOST, 0, READ_MOST)


def test_strangers_and_repeats_are_passed_over() -> None:
    strangers: list[Event] = [done("x", 1), Returned("x", [1]), Lost("x"), Left("x"), Drain("x")]
    plan = play([(event, []) for event in strangers])
    play([(join("a"), []), (Returned("a", [9]), []), (done("a", 9), [])], plan)


# ---- cancelling ----


def test_cancelled_wherever_they_are() -> None:
    """Running, ready behind it, unread behind a barrier, not read at all, and done before."""
    plan = play(
        [
            (join("a", 2), []),
            (Read([task(0), task(1), task(2), barrier(3), task(4)]), [assign("a", (1, 0), (2, 1))]),
            (done("a", 2), [counts("a", 2, 1), assign("a", (3, 2))]),
        ]
    )
    everything = IdSet([(0, 9)])
    assert plan.find(everything) == {0: Place("a"), 2: Place("a"), 3: Place("", True), 4: Place("")}
    assert plan.read_to == 5
    play(
        [
            (Cancel([(1, 2), (4, 6)]), [End("a", [3])]),
            (Cancel([(2, 2)]), []),
            (done("a", 1), [counts("a", 1, 0)]),
            (
                ended("a", 3),
                [cancelled("a", 3, 2), RecordBarrier(barrier(3), 1, task(2)), RecordCancelled(task(4))],
            ),
            (tasks(5, 6, 7), [RecordCancelled(task(5)), RecordCancelled(task(6)), assign("a", (4, 7))]),
            (done("a", 4), [counts("a", 4, 7)]),
            (SourceEnded(), [Release("a")]),
            *bye("a"),
        ],
        plan,
    )


def test_cancelled_in_a_queue_and_while_it_waits() -> None:
    play(
        [
            *queueing(1, 3),
            (tasks(*range(4, 20)), [assign("a", *((n + 1, n) for n in range(4, 8)))]),
            (Cancel([(3, 3), (19, 30)]), [End("a", [4]), RecordCancelled(task(19))]),
            (ended("a", 4, pid=0), [RecordCancelled(task(3)), assign("a", (9, 8))]),
        ]
    )


def test_cancelled_but_done_first() -> None:
    play(
        [
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (SourceEnded(), []),
            (Cancel([(0, 0)]), [End("a", [1])]),
            (done("a", 1), [counts("a", 1, 0), Release("a")]),
        ]
    )


def test_cancelled_and_its_engine_is_lost() -> None:
    """That is no loss of it."""
    play(
        [
            (join("a"), []),
            (tasks(0), [assign("a", (1, 0))]),
            (SourceEnded(), []),
            (Cancel([(0, 0)]), [End("a", [1])]),
            (Lost("a"), [RecordCancelled(task(0)), Finish(Conclusion.COMPLETE)]),
        ],
        Plan(max_losses=0),
    )


def test_what_comes_late_of_a_cancelled_task_is_superseded() -> None:
    play(
        [
            (join("a"), []),
            (join("b"), []),
            (tasks(0, 1), [assign("a", (1, 0)), assign("b", (2, 1))]),
            (Lost("a"), []),
            (Cancel([(0, 0)]), [RecordCancelled(task(0))]),
            (done("a", 1), [superseded("a", 1, 0)]),
            (join("a", 1, 1), [End("a", [1])]),
        ]
    )


def test_cancelling_is_no_failure_that_ends_a_run_but_one_that_a_check_sees() -> None:
    check = barrier(2, check=True)
    play(
        [
            (join("a"), []),
            (Read([task(0), task(1), check, task(3)]), [assign("a", (1, 0))]),
            (Cancel([(0, 1)]), [End("a", [1]), RecordCancelled(task(1))]),
            (ended("a", 1), [cancelled("a", 1, 0), RecordBarrier(check, 2, task(1)), Release("a")]),
            *bye("a", conclusion=Conclusion.CHECK_FAILED),
        ],
        Plan(fail_fast=True),
    )


def test_cancelling_does_not_drain_the_engine_and_costs_no_limit() -> None:
    play(
        [
            (join("a", 1, context="c"), []),
            (tasks(0, 1, 2), [assign("a", (1, 0))]),
            (Cancel([(0, 0)]), [End("a", [1])]),
            (ended("a", 1), [cancelled("a", 1, 0), assign("a", (2, 1))]),
            (done("a", 2), [counts("a", 2, 1), Release("a")]),
        ],
        Plan(limits={"c": 1}),
    )


def test_cancelled_on_an_engine_that_stops_or_gives_back() -> None:
    play(
        [
            *queueing(1, 3),
            (Cancel([(1, 1)]), [End("a", [2])]),
            (Drain("a"), [Recall("a", [3, 4])]),
            (Cancel([(3, 3)]), [End("a", [4])]),
            (Returned("a", [3, 4]), [RecordCancelled(task(3))]),
            (Stop("a"), [End("a", [2])]),
            (ended("a", 2), [cancelled("a", 2, 1), Release("a")]),
        ]
    )


def test_engine_that_comes_only_to_leave() -> None:
    plan = Plan()
    start = PerEngine(0, 1, Phase.START, b":")
    plan.handle(Read([start, task(0)]))
    assert plan.handle(Joined("e", Capacity(2), [], leaving=True)) == [Release("e")]
    assert plan.handle(Left("e")) == []
    past = Past({7: 0}, {(Phase.START, 0): None})
    plan = Plan(first_attempt=100)
    plan.handle(Hold())
    assert plan.handle(Joined("e", Capacity(2), [7], past=past, leaving=True)) == []
    plan.handle(Resume())
    assert plan.handle(Read([start, task(0), task(1)])) == []
    assert plan.handle(Finished("e", [outcome(7)])) == [
        RecordTask("e", task(0), outcome(7), Verdict.COUNTS),
        Release("e"),
    ]
