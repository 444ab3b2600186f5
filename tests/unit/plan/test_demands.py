"""Demands and capacities: what fits, and tasks of several classes on one plan."""

from __future__ import annotations

from itertools import count
from typing import Any

import hypothesis
from hypothesis import strategies as st
from plan_world import check_consistency, outcome

from disbatch.model.task import CORE, NO_DEMAND, Demand, Task
from disbatch.plan.backlog import LOOKAHEAD, PASSED_MOST, READ_MOST
from disbatch.plan.capacity import Capacity
from disbatch.plan.engine import State
from disbatch.plan.events import (
    Action,
    Assign,
    Finished,
    Joined,
    Lost,
    Read,
    Recall,
    Returned,
    SourceDry,
    SourceEnded,
)
from disbatch.plan.plan import Plan

WIDE = Demand(2 * CORE)
HALF = Demand(CORE // 2)
URGENT = Demand(priority=1)
GPU = Demand(CORE, (("gpus", CORE),))


def task(id: int, demand: Demand = NO_DEMAND) -> Task:
    return Task(id, id + 1, -1, b":", demand)


def given(actions: list[Action]) -> dict[str, list[int]]:
    """Ids of the tasks that each engine got."""
    return {each.engine: [t.id for _, t in each.pairs] for each in actions if isinstance(each, Assign)}


def test_a_capacity_counts_cores_and_other_resources() -> None:
    capacity = Capacity(2, resources={"gpus": CORE, "memory": 100})
    assert capacity.fits(NO_DEMAND) and capacity.fits(WIDE) and capacity.fits(GPU)
    assert not capacity.holds(Demand(3 * CORE)) and not capacity.holds(Demand(resources=(("license", 1),)))
    capacity.take(GPU)
    assert capacity.fits(NO_DEMAND) and not capacity.fits(WIDE)
    assert capacity.holds(WIDE) and capacity.holds(GPU) and not capacity.fits(GPU)
    assert capacity.times(HALF) == 2 and capacity.times(Demand(0, (("memory", 40),))) == 2
    assert capacity.times(GPU) == 0
    capacity.give(GPU)
    assert capacity.fits(GPU) and capacity.times(WIDE) == 1


def test_a_capacity_may_be_exceeded() -> None:
    capacity = Capacity(1, resources={"memory": 10})
    big = Demand(2 * CORE, (("license", 1), ("memory", 30)))
    capacity.take(big)
    assert capacity.times(NO_DEMAND) == 0 and not capacity.fits(Demand(0, (("memory", 1),)))
    capacity.give(big)
    assert capacity.fits(NO_DEMAND) and capacity.fits(Demand(CORE, (("memory", 10),)))


def test_a_slot_may_have_several_cores() -> None:
    capacity = Capacity(2, slot=4 * CORE)
    assert capacity.times(NO_DEMAND) == 2 and capacity.times(WIDE) == 4
    capacity.take(NO_DEMAND)
    assert capacity.times(WIDE) == 2


def test_a_task_that_fits_nowhere_keeps_no_other_waiting() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    assert given(plan.handle(Read([task(0, GPU), task(1), task(2, GPU), task(3)]))) == {"a": [1, 3]}
    assert plan.waiting == 2


def test_tasks_of_all_classes_start_in_the_order_of_the_file() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    plan.handle(Joined("b", Capacity(2), []))
    tasks = [task(0, HALF), task(1), task(2, HALF), task(3, WIDE), task(4), task(5, HALF)]
    pairs = [pair for each in plan.handle(Read(tasks)) if isinstance(each, Assign) for pair in each.pairs]
    assert [task.id for _, task in sorted(pairs)] == [0, 1, 2, 4, 5]
    (wide,) = plan.board.backlog.ready
    assert wide.id == 3
    running = plan.engines["b"].running
    assert given(plan.handle(Finished("b", [outcome(attempt) for attempt in running]))) == {"b": [3]}


def test_tasks_of_a_higher_priority_come_first() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    assert given(plan.handle(Read([task(0), task(1), task(2, URGENT)]))) == {"a": [2, 0]}


def test_what_does_not_fit_does_not_keep_the_rest_of_the_file_unread() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    plan.handle(Read([task(id, GPU) for id in range(500)]))
    assert plan.room == 2 + LOOKAHEAD
    plan.handle(Read([task(id, GPU) for id in range(500, PASSED_MOST)]))
    assert plan.room == 0, "not without a bound"
    plan.handle(Joined("b", Capacity(READ_MOST), []))
    assert plan.room == 0


def test_queued_tasks_are_called_back_only_for_what_they_fit_into() -> None:
    """Engine a has short tasks and a queue; b has room for narrow ones only."""
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    (first,) = (each for each in plan.handle(Read([task(0)])) if isinstance(each, Assign))
    plan.handle(Finished("a", [outcome(first.pairs[0][0], elapsed=0.05)]))
    plan.handle(Read([task(1, WIDE), task(2), task(3, WIDE)]))
    a = plan.engines["a"]
    assert [t.id for t in a.running.values()] == [1] and [t.id for t in a.queued.values()] == [2, 3]
    plan.handle(SourceEnded())
    assert not [each for each in plan.handle(Joined("b", Capacity(1), [])) if isinstance(each, Recall)]
    (back,) = (each for each in plan.handle(Joined("c", Capacity(2), [])) if isinstance(each, Recall))
    assert back.attempts == list(a.queued)[1:]
    assert given(plan.handle(Returned("a", back.attempts))) == {"c": [3]}


def test_an_engine_starts_nothing_past_the_first_task_of_its_queue() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(2), []))
    (first,) = (each for each in plan.handle(Read([task(0)])) if isinstance(each, Assign))
    plan.handle(Finished("a", [outcome(first.pairs[0][0], elapsed=0.05)]))
    plan.handle(Read([task(1), task(2, WIDE)]))
    plan.handle(Read([task(3)]))
    a = plan.engines["a"]
    assert [t.id for t in a.running.values()] == [1] and [t.id for t in a.queued.values()] == [2, 3]
    plan.handle(Finished("a", [outcome(next(iter(a.running)), elapsed=0.05)]))
    assert [t.id for t in a.running.values()] == [2] and [t.id for t in a.queued.values()] == [3]


def test_an_engine_is_not_forgotten_because_another_one_took_a_task_of_higher_priority() -> None:
    """Both were passed over, and a has room for one of the two new tasks only."""
    plan = Plan()
    plan.handle(Joined("a", Capacity(1, resources={"licences": 1}), []))
    plan.handle(Joined("b", Capacity(1), []))
    assert given(plan.handle(Read([task(0, Demand(9 * CORE))]))) == {}
    licensed = Demand(CORE, (("licences", 1),), priority=1)
    assert given(plan.handle(Read([task(1, Demand(CORE)), task(2, licensed)]))) == {"a": [2], "b": [1]}


NEEDS = st.builds(
    lambda cores, memory, licences, priority: Demand(
        cores,
        tuple((n, a) for n, a in (("licences", licences), ("memory", memory)) if a),
        priority=priority,
    ),
    st.none() | st.integers(1, 3).map(lambda cores: cores * CORE),
    st.integers(0, 3),
    st.integers(0, 1),
    st.integers(0, 1),
)
STEPS = st.one_of(
    st.tuples(st.just("join"), st.integers(1, 3), st.integers(0, 4), st.integers(0, 1)),
    st.tuples(st.just("read"), st.lists(NEEDS, min_size=1, max_size=6)),
    st.tuples(st.just("finish"), st.integers(0, 9), st.floats(0.01, 3)),
    st.tuples(st.just("lose"), st.integers(0, 9)),
    st.tuples(st.just("dry")),
)


@hypothesis.given(st.lists(STEPS, max_size=40))
def test_no_task_waits_for_capacity_that_is_free(steps: list[tuple[Any, ...]]) -> None:
    plan, ids = Plan(), count()
    for step in steps:
        engines = list(plan.engines.values())
        if step[0] == "join":
            capacity = Capacity(step[1], resources={"memory": step[2], "licences": step[3]})
            plan.handle(Joined(f"e{len(engines)}", capacity, []))
        elif step[0] == "read":
            plan.handle(Read([task(next(ids), demand) for demand in step[1]]))
        elif step[0] == "dry":
            plan.handle(SourceDry())
        elif engines:
            engine = engines[step[1] % len(engines)]
            if step[0] == "lose":
                plan.handle(Lost(engine.id))
            elif engine.running:
                plan.handle(Finished(engine.id, [outcome(next(iter(engine.running)), elapsed=step[2])]))
        check_consistency(plan)
        for engine in plan.engines.values():
            if engine.state is State.ACTIVE and not engine.queued:
                assert not any(map(engine.capacity.fits, plan.board.backlog.ready.classes))
