"""What an event costs does not grow with the engines and tasks that it is not about: counted, not timed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from plan_world import outcome, task

from disbatch.model.task import Task
from disbatch.plan.board import Board
from disbatch.plan.claims import assign_inherited
from disbatch.plan.engines import Engine, State
from disbatch.plan.events import Assign, Drain, Finished, Joined, Lost, Read, Release
from disbatch.plan.leaving import drain, let_go
from disbatch.plan.plan import Plan


class Counting(dict[int, object]):
    """Counts how often all of it is looked at."""

    walks = 0

    def items(self):  # type: ignore[no-untyped-def]
        Counting.walks += 1
        return super().items()


def board(engines: int) -> Board:
    board = Board(max_losses=3, fail_fast=False, limits={}, first_attempt=1)
    for number in range(engines):
        engine = board.engines[f"e{number}"] = Engine(f"e{number}", 1, "")
        board.rotation.move(engine, State.ACTIVE)
    return board


def test_engines_that_rest_are_not_looked_at_after_one_was_drained() -> None:
    this = board(1000)
    drain(this, this.engines["e7"])
    assert list(this.rotation.going) == ["e7"]
    let_go(this)
    assert not this.rotation.going and len(this.rotation.resting) == 999
    assert [engine.id for engine in this.engines.values() if engine.state is State.LEAVING] == ["e7"]


def test_engines_of_a_spent_context_go() -> None:
    this = board(3)
    this.rotation.limit("", 1)
    assert not this.rotation.going
    this.rotation.count("")
    assert list(this.rotation.going) == ["e0", "e1", "e2"]


def test_claims_in_order_are_not_sorted() -> None:
    this = board(1)
    engine = this.engines["e0"]
    engine.assigned = Counting()  # type: ignore[assignment]
    for number in range(100):
        assign_inherited(this, engine, 10 + number, task(number))
    assert Counting.walks == 0
    assign_inherited(this, engine, 5, task(100))
    assert Counting.walks == 1 and list(engine.assigned) == [5, *range(10, 110)]


def test_a_draining_engine_leaves_when_it_has_nothing_and_the_others_stay() -> None:
    plan = Plan()
    for name in ("a", "b"):
        plan.handle(Joined(name, 1, []))
    given = {each.engine: each for each in plan.handle(Read([task(0), task(1)])) if isinstance(each, Assign)}
    assert set(given) == {"a", "b"}
    assert plan.handle(Drain("a")) == [] and not plan.board.rotation.going
    for name in ("b", "a"):
        ((attempt, _),) = given[name].pairs
        done = plan.handle(Finished(name, [outcome(attempt)]))
        assert [each.engine for each in done if isinstance(each, Release)] == ["a"] * (name == "a")
    assert not plan.board.rotation.going and list(plan.board.rotation.resting) == ["b"]


class Walked(deque[Task]):
    """Counts how often it is searched or gone through."""

    walks = 0

    def remove(self, value: Task) -> None:
        Walked.walks += 1
        super().remove(value)

    def __iter__(self) -> Iterator[Task]:
        Walked.walks += 1
        return super().__iter__()


def test_an_engine_that_comes_back_with_many_tasks_looks_through_the_ready_ones_once() -> None:
    plan = Plan()
    plan.handle(Joined("a", 50, []))
    (given,) = (each for each in plan.handle(Read(list(map(task, range(80))))) if isinstance(each, Assign))
    attempts = [attempt for attempt, _ in given.pairs]
    plan.handle(Lost("a"))
    backlog = plan.board.backlog
    assert len(backlog.ready) == 80 and len(backlog.again) == len(attempts) >= 50
    backlog.ready = Walked(backlog.ready)
    Walked.walks = 0
    plan.handle(Joined("a", 50, attempts))
    assert Walked.walks == 1
    assert list(plan.board.engines["a"].assigned)[: len(attempts)] == attempts and not backlog.again
