"""What an event costs does not grow with the engines and tasks that it is not about: counted, not timed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plan_world import outcome, task

from disbatch.model.task import CORE, Demand, Task
from disbatch.plan.attempts import finish_attempts, on_returned
from disbatch.plan.backlog import Source
from disbatch.plan.capacity import Capacity
from disbatch.plan.classes import ClassIndex, Ready
from disbatch.plan.departure import drain, let_go, rebalance
from disbatch.plan.dispatch import settle
from disbatch.plan.engine import Engine, State
from disbatch.plan.events import Assign, Drain, Finished, Joined, Lost, Read, Recall, Release, Returned
from disbatch.plan.plan import Plan
from disbatch.plan.state import Board, Mode
from disbatch.plan.takeover import assign_inherited


class Counting(dict[int, object]):
    """Counts how often all of it is looked at."""

    walks = 0

    def items(self):  # type: ignore[no-untyped-def]
        Counting.walks += 1
        return super().items()


class Looked(Engine):
    """Counts how often somebody asks what an engine has room for."""

    times = 0

    @property
    def capacity(self) -> Capacity:  # type: ignore[override]
        Looked.times += 1
        return self.own

    @capacity.setter
    def capacity(self, capacity: Capacity) -> None:
        self.own = capacity


def board(engines: int, limits: dict[str, int] | None = None) -> Board:
    board = Board(max_losses=3, fail_fast=False, limits=limits or {}, first_attempt=1)
    for number in range(engines):
        engine = board.engines[f"e{number}"] = Looked(f"e{number}", Capacity(1), "")
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


def looks(engines: int, tasks: int) -> int:
    """How often engines are looked at while a limit of `tasks` is used up and these come back, twice."""
    this = board(engines, {"": tasks})
    this.mode = Mode.RUNNING
    Looked.times = 0
    for _ in range(2):
        for number in range(tasks + 1):
            this.backlog.ready.append(task(number))
        settle(this)
        assert this.live == tasks and this.backlog.ready.count == 1 and not this.rotation.may_take("")
        assert not this.rotation.idle.open and not this.rotation.room
        this.backlog.ready.clear()
        for engine in [engine for engine in this.engines.values() if engine.assigned]:
            on_returned(this, Returned(engine.id, list(engine.assigned)))
        this.backlog.ready.clear()
        assert len(list(this.rotation.idle)) == engines
    return Looked.times


def test_a_limit_that_is_used_up_costs_the_same_however_many_engines_it_is_about() -> None:
    assert looks(10, 3) == looks(1000, 3)


def test_queues_are_called_back_for_no_more_idle_slots_than_needed() -> None:
    this = board(1000)
    full = this.engines["e0"]
    full.depth = 3
    for number in range(4):
        full.inherit(number, task(number))
    this.rotation.touch(full)
    this.backlog.source = Source.ENDED
    Looked.times = 0
    rebalance(this)
    assert [action.attempts for action in this.actions if isinstance(action, Recall)] == [[2, 3]]
    assert Looked.times <= 20


def test_engines_take_turns_whatever_contexts_they_are_of() -> None:
    """Each has one turn a round, but those of a context that may take no more are passed over."""
    plan = Plan(limits={"limited": 3})
    for name, context in (("a", ""), ("b", "limited"), ("c", ""), ("d", "limited")):
        plan.handle(Joined(name, Capacity(3), [], context))

    def given(*ids: int) -> dict[str, list[int]]:
        actions = plan.handle(Read([task(id) for id in ids]))
        return {a.engine: [task.id for _, task in a.pairs] for a in actions if isinstance(a, Assign)}

    assert given(0, 1, 2) == {"a": [0], "c": [1], "b": [2]}
    assert given(3, 4) == {"d": [3], "a": [4]}
    assert given(5, 6, 7, 8) == {"c": [5, 8], "b": [6], "a": [7]}
    assert given(9) == {} and plan.waiting == 1, "b and d have slots, but no more tasks"
    (attempt,) = plan.engines["d"].assigned
    (back,) = (each for each in plan.handle(Returned("d", [attempt])) if isinstance(each, Assign))
    assert back.engine == "d" and plan.waiting == 1, "one more for them: the one that came back"


def test_claims_in_order_are_not_sorted() -> None:
    this = board(1)
    engine = this.engines["e0"]
    engine.queued = Counting()  # type: ignore[assignment]
    for number in range(100):
        assign_inherited(this, engine, 10 + number, task(number))
    assert Counting.walks == 0
    assign_inherited(this, engine, 5, task(100))
    assert Counting.walks == 1 and list(engine.queued) == [5, *range(10, 110)]


def test_a_draining_engine_leaves_when_it_has_nothing_and_the_others_stay() -> None:
    plan = Plan()
    for name in ("a", "b"):
        plan.handle(Joined(name, Capacity(1), []))
    given = {each.engine: each for each in plan.handle(Read([task(0), task(1)])) if isinstance(each, Assign)}
    assert set(given) == {"a", "b"}
    assert plan.handle(Drain("a")) == [] and not plan.board.rotation.going
    for name in ("b", "a"):
        ((attempt, _),) = given[name].pairs
        done = plan.handle(Finished(name, [outcome(attempt)]))
        assert [each.engine for each in done if isinstance(each, Release)] == ["a"] * (name == "a")
    assert not plan.board.rotation.going and list(plan.board.rotation.resting) == ["b"]


class Walked(Ready):
    """Counts how often it is searched or gone through."""

    walks = 0

    def remove(self, task: Task) -> None:
        Walked.walks += 1
        super().remove(task)

    def __iter__(self) -> Iterator[Task]:
        Walked.walks += 1
        return super().__iter__()


def test_an_engine_that_comes_back_with_many_tasks_looks_through_the_ready_ones_once() -> None:
    plan = Plan()
    plan.handle(Joined("a", Capacity(50), []))
    (given,) = (each for each in plan.handle(Read(list(map(task, range(80))))) if isinstance(each, Assign))
    attempts = [attempt for attempt, _ in given.pairs]
    plan.handle(Lost("a"))
    backlog = plan.board.backlog
    assert backlog.ready.count == 80 and len(backlog.again) == len(attempts) >= 50
    ready, backlog.ready = backlog.ready, Walked()
    for each in ready:
        backlog.ready.append(each)
    Walked.walks = 0
    plan.handle(Joined("a", Capacity(50), attempts))
    assert Walked.walks == 1
    assert list(plan.board.engines["a"].assigned)[: len(attempts)] == attempts and not backlog.again


class Searched(ClassIndex):
    """Counts the nodes that are looked at."""

    looks = 0

    def __init__(self) -> None:
        super().__init__()
        self._least: list[tuple[int, ...]] = Counted(self._least)


class Counted(list[tuple[int, ...]]):
    def __getitem__(self, at):  # type: ignore[no-untyped-def]
        Searched.looks += 1
        return super().__getitem__(at)


def events(engines: int, classes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How often engines and classes are looked at, for each task, while one engine of many finishes tasks of
    many classes and gets others; before these in the file are tasks that fit nowhere."""
    monkeypatch.setattr("disbatch.plan.classes.ClassIndex", Searched)
    this = board(engines)
    this.mode = Mode.RUNNING
    large = [Task(id, id + 1, -1, b":", Demand(2 * CORE, seconds=id)) for id in range(classes)]
    small = [Demand(CORE, seconds=number) for number in range(classes)]
    tasks = [
        Task(classes + id, classes + id + 1, -1, b":", small[id % classes])
        for id in range(2 * engines + 4 * classes)
    ]
    for each in (*large, *tasks):
        this.backlog.ready.append(each)
    settle(this)
    assert this.live == engines
    Looked.times = Searched.looks = 0
    for _ in range(2 * classes):
        (attempt,) = this.engines["e1"].running
        assert not finish_attempts(this, this.engines["e1"], [outcome(attempt)])
        settle(this)
        assert this.live == engines
    return Looked.times // (2 * classes), Searched.looks // (2 * classes)


def test_an_event_costs_the_same_with_many_engines_and_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = {events(*numbers, monkeypatch)[0] for numbers in ((10, 3), (1000, 3), (100, 300))}
    assert len(looks) == 1
    few, many = events(100, 30, monkeypatch)[1], events(100, 300, monkeypatch)[1]
    assert many <= few + 40, "a few more levels of a tree"


def test_what_fits_no_engine_is_looked_for_once() -> None:
    """Nor is one that needs as much or more, until an engine with more room is there."""
    this = board(1000)
    this.mode = Mode.RUNNING
    looks = []
    for number in range(1, 6):
        this.backlog.ready.append(Task(number, number, -1, b":", Demand(number * 2 * CORE)))
        Looked.times = 0
        settle(this)
        looks.append(Looked.times)
    assert sum(looks[:2]) <= 2000 and not any(looks[2:]) and not this.live
    engine = this.engines["large"] = Looked("large", Capacity(4), "")
    this.rotation.move(engine, State.ACTIVE)
    Looked.times = 0
    settle(this)
    assert [each.id for each in engine.running.values()] == [1] and Looked.times < 20
    this.backlog.ready.append(Task(7, 7, -1, b":", Demand(CORE // 2)))
    settle(this)
    assert this.live == 2


def test_the_end_of_a_source_costs_the_same_with_many_idle_engines_that_are_too_small() -> None:
    """Tasks wait in a queue, and what is idle has no room for them."""

    def looks(engines: int) -> int:
        this = board(engines)
        full = this.engines["full"] = Looked("full", Capacity(2), "")
        full.depth = 9
        this.rotation.move(full, State.ACTIVE)
        for number in range(6):
            full.inherit(number, Task(number, number, -1, b":", Demand(2 * CORE, seconds=number)))
            this.live += 1
        this.rotation.touch(full)
        this.backlog.source = Source.ENDED
        settle(this)
        Looked.times = 0
        for attempt in (0, 1, 2):
            assert not finish_attempts(this, full, [outcome(attempt)])
            settle(this)
        assert len(full.assigned) == 3 and not [each for each in this.actions if isinstance(each, Recall)]
        return Looked.times

    assert looks(10) == looks(1000)
